"""The configs of a load run, one for each reload."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from msgspec import Struct

from loadtests.load_certificates import Certificates

BROKEN_EVERY: Final = 5  # the last of so many reloads finds a broken file


class Ports(Struct, frozen=True, kw_only=True):
    """Where the clients connect, the targets behind, and two ports of routes that come and go.

    ``directory`` has the certificates.
    """

    directory: str
    echo: int
    from_v1: int
    from_v2: int
    echo_target: int
    witness: int
    witness_plain: int
    tls: int
    tls_target: int
    http: int
    https: int
    http_target: int
    side: tuple[int, int]


def config(ports: Ports, number: int) -> str:
    """The config of reload ``number``. The main routes never change.

    The side routes come, change and go; their ports with them. The last of every BROKEN_EVERY
    files has an unknown key.
    """
    trust = {"trusted": ["127.0.0.0/8"], "header_timeout": "1s"}
    routes = [
        _route("echo", ports.echo, ports.echo_target),
        _route("from_v1", ports.from_v1, ports.witness, send_proxy="v2"),
        _route("from_v2", ports.from_v2, ports.witness, send_proxy="v1"),
        *_tls_routes(ports),
        _route("web", ports.http, ports.http_target, paths=["/echo"]),
    ]
    side_web = _route("side web", ports.http, ports.http_target, paths=["/*"])
    first, second = ports.side
    sides = [
        [],
        [side_web, _route("side", first, ports.echo_target)],
        [_route("side", first, ports.witness_plain)],
        [_route("side", second, ports.echo_target), _route("other", first, ports.echo_target)],
    ]
    routes += sides[number % len(sides)]
    if is_broken(number):
        routes[-1]["acton"] = routes[-1].pop("action")
    document = {
        "version": 1,
        "listen": ["127.0.0.1"],
        "admin": None,
        "listeners": [{"ports": [ports.from_v1, ports.from_v2], "proxy_protocol": trust}],
        "routes": routes,
    }
    text: str = yaml.safe_dump(document, sort_keys=False)
    return text


def is_broken(number: int) -> bool:
    """Whether the file of reload ``number`` (from 1; 0 is the start) must be refused."""
    return number % BROKEN_EVERY == BROKEN_EVERY - 1


def _tls_routes(ports: Ports) -> list[dict[str, Any]]:
    """One port, and by server name every way to treat TLS; and one for requests over TLS."""
    files = Certificates.names(Path(ports.directory))
    ended = {"mode": "terminate", "certificates": [{"cert": files["site"]}]}
    ca = files["authority"]
    encrypted: dict[str, Any] = {
        "tls": {**ended, "mode": "terminate-and-reencrypt"},
        "upstream_tls": {"ca": ca, "server_name": "pass.test"},
    }
    by_client = {**ended, "client_auth": {"mode": "required", "ca": ca}}
    routes = [
        _route("pass", ports.tls, ports.tls_target),
        _route("term", ports.tls, ports.echo_target, tls=ended),
        _route("encr", ports.tls, ports.tls_target, **encrypted),
        _route("auth", ports.tls, ports.echo_target, tls=by_client),
    ]
    for route in routes:
        route["match"]["domains"] = [f"{route['name']}.test"]
    web = _route("web over TLS", ports.https, ports.http_target, paths=["/echo"], tls=ended)
    return [*routes, web]


def _route(
    name: str, port: int, target: int, *, paths: Sequence[str] = (), **action: object
) -> dict[str, Any]:
    return {
        "name": name,
        "match": {"ports": [port], "paths": [*paths]} if paths else {"ports": [port]},
        "action": {"type": "forward", "targets": [f"127.0.0.1:{target}"], **action},
    }
