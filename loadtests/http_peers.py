"""The proxies that are compared at HTTP: their configs, and the origin behind them.

All do the same: HTTP/1.1 on both sides, connections to the origin kept (256 a worker), the request
written with X-Forwarded-For, -Proto and -Host, X-Real-IP, Forwarded and an X-Request-ID of their
own, answers counted; in one work a line of an access log for each request. TLS as in tls_peers.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from loadtests.peers import (
    MAX_CONNECTIONS,
    Subject,
    nginx_main,
    start_haproxy,
    start_nginx,
    start_proxyctl,
)
from loadtests.processes import LoadTestError, Started, Workspace, wait_listening
from loadtests.tls_peers import SERVER_NAME
from loadtests.tool_output import MIB
from loadtests.works import EVERYTHING, FEW, MANY, SOURCE
from tests.helpers.certificates import Authority

ROUTES: Final = "http_routes_10000"
ALL_ROUTES: Final = "http_routes_all"
LOGGED: Final = "http_logged"
BODIES: Final = {"64k": MIB // 16, "1m": MIB}  # files of the origin, and the ends of works' names
ROUTE_COUNTS: Final = {MANY: 10_000, FEW: 10}
WORKERS: Final = 2
KEPT_UPSTREAM: Final = 256  # a worker
START_S: Final = 60.0  # with 10,000 routes


class HttpOrigin(Struct, frozen=True, kw_only=True):
    """What stands behind all proxies. ``both``: certificate and key of the proxies, one file."""

    both: Path
    authority: Path
    port: int


def is_secure(work: str) -> bool:
    """Whether the clients of a work speak TLS."""
    return work.startswith("https_")


def start_origin(space: Workspace) -> HttpOrigin:
    """Make the certificate and start an nginx of one worker."""
    directory = space.directory / "http-certs"
    directory.mkdir()
    authority = Authority(directory)
    files = space.directory / "http-files"
    files.mkdir()
    for name, size in BODIES.items():
        (files / name).write_bytes(bytes(size))
    port = space.port()
    config = origin_config(space.directory, port, files)
    start_nginx(space, "http-origin", config, port)
    both = authority.leaf(SERVER_NAME).both
    return HttpOrigin(both=both, authority=authority.cert, port=port)


def _nginx_http(directory: Path, name: str, workers: int) -> str:
    user = "user root;\n" if os.geteuid() == 0 else ""  # the directory is nobody else's
    paths = "".join(
        f"    {kind}_temp_path {directory}/{name}-{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return (
        f"{user}{nginx_main(directory, name, workers)}http {{\n{paths}"
        f"    default_type text/plain;\n    sendfile on;\n"
        f"    keepalive_requests 1000000000;\n    keepalive_timeout 1h;\n"
    )


def origin_config(directory: Path, port: int, files: Path) -> str:
    """Small answers to every path but those of the two files."""
    return (
        f"{_nginx_http(directory, 'http-origin', 1)}    access_log off;\n"
        f"    server {{ listen 127.0.0.1:{port}; root {files};"
        f" location = /64k {{ }} location = /1m {{ }}"
        f' location / {{ return 200 "ok\\n"; }} }}\n}}\n'
    )


def haproxy_config(work: str, port: int, origin: HttpOrigin) -> str:
    """HAProxy, http mode, 2 threads. Its log goes to its standard output, as lines."""
    scheme = "https" if is_secure(work) else "http"
    bind = f" ssl crt {origin.both} alpn http/1.1" if is_secure(work) else ""
    lines = ["global", f"    nbthread {WORKERS}", f"    maxconn {MAX_CONNECTIONS}"]
    if work == LOGGED:
        lines += ["    log stdout format raw local0"]
    lines += ["defaults", "    mode http", "    timeout connect 10s", "    timeout client 1h"]
    lines += ["    timeout server 1h", "    timeout http-keep-alive 1h", "    http-reuse always"]
    if work == LOGGED:
        lines += ["    log global", "    option httplog"]
    lines += [
        f"listen {work}",
        f"    bind 127.0.0.1:{port}{bind}",
        "    unique-id-format %{+X}o%ci%cp%fi%fp%Ts%rt%pid",
        "    http-request set-header X-Forwarded-For %[src]",
        f"    http-request set-header X-Forwarded-Proto {scheme}",
        "    http-request set-header X-Forwarded-Host %[req.hdr(host)]",
        "    http-request set-header X-Real-IP %[src]",
        '    http-request set-header Forwarded "for=%[src];host=\\"%[req.hdr(host)]\\"'
        f';proto={scheme}"',
        "    http-request set-header X-Request-ID %[unique-id]",
        f"    server target 127.0.0.1:{origin.port} pool-max-conn {KEPT_UPSTREAM * WORKERS}",
    ]
    return "\n".join(lines) + "\n"


def nginx_config(directory: Path, name: str, work: str, port: int, origin: HttpOrigin) -> str:
    """nginx, 2 workers, a listener for each."""
    listen = f"listen 127.0.0.1:{port} reuseport;"
    if is_secure(work):
        listen = (
            f"listen 127.0.0.1:{port} ssl reuseport; ssl_certificate {origin.both};"
            f" ssl_certificate_key {origin.both}; ssl_protocols TLSv1.2 TLSv1.3;"
        )
    log = f"{directory}/{name}.access buffer=64k flush=1s" if work == LOGGED else "off"
    fields = {
        "Host": "$http_host",
        "Connection": '""',
        "X-Forwarded-For": "$remote_addr",
        "X-Forwarded-Proto": "$scheme",
        "X-Forwarded-Host": "$host",
        "X-Real-IP": "$remote_addr",
        "Forwarded": '"for=$remote_addr;host=\\"$http_host\\";proto=$scheme"',
        "X-Request-ID": "$request_id",
    }
    set_fields = "".join(f" proxy_set_header {one} {value};" for one, value in fields.items())
    log_format = "" if log == "off" else " combined"
    path, _, more = log.partition(" ")
    return (
        f"{_nginx_http(directory, name, WORKERS)}"
        f"    access_log {path}{log_format} {more};\n"
        f"    upstream target {{ server 127.0.0.1:{origin.port}; keepalive {KEPT_UPSTREAM};"
        f" keepalive_requests 1000000000; keepalive_timeout 1h; }}\n"
        f"    server {{ {listen} location / {{ proxy_pass http://target;"
        f" proxy_http_version 1.1; proxy_max_temp_file_size 0;{set_fields} }} }}\n}}\n"
    )


def proxyctl_config(directory: Path, name: str, work: str, port: int, origin: HttpOrigin) -> str:
    """proxyctl, JSON. Everything that it may leave out is left at its default."""
    action: dict[str, Any] = {"type": "forward", "targets": [f"127.0.0.1:{origin.port}"]}
    if is_secure(work):
        action["tls"] = {"mode": "terminate", "certificates": [{"cert": str(origin.both)}]}
    match: dict[str, Any] = {"ports": [port], "protocol": "http"}
    routes = [{"name": work, "match": match, "action": action}]
    if work in (ROUTES, ALL_ROUTES):
        routes = [
            {
                "name": f"r{number:05}",
                "match": {"ports": [port], "paths": [f"/r{number:05}/*"]},
                "action": action,
            }
            for number in range(ROUTE_COUNTS[name])
        ]
    config: dict[str, Any] = {"version": 1, "listen": ["127.0.0.1"], "admin": None}
    if work == LOGGED:
        config["log"] = {"access": {"file": str(directory / f"{name}-{work}.access")}}
    return json.dumps({**config, "routes": routes}, indent=1)


@contextmanager
def running_http(
    space: Workspace, name: str, work: str, port: int, origin: HttpOrigin, nth: int = 0
) -> Iterator[Subject]:
    """A proxy that does one work, started anew and stopped at the end.

    ``nth`` of several at one time keeps their files apart.
    """
    subject = Subject(name=name, ports={work: port})
    try:
        label = f"{name}-{work}-{nth}"
        subject.started.append(_start(space, name, work, port, origin, label))
        yield subject
    finally:
        for part in subject.started:
            space.stop(part)
        (space.directory / f"{name}-{work}.access").unlink(missing_ok=True)


def _start(
    space: Workspace, name: str, work: str, port: int, origin: HttpOrigin, label: str
) -> Started:
    if name == "haproxy":
        return start_haproxy(space, label, haproxy_config(work, port, origin), port)
    if name == "nginx":
        config = nginx_config(space.directory, label, work, port, origin)
        return start_nginx(space, label, config, port)
    if name in (EVERYTHING, SOURCE, FEW, MANY):
        text = proxyctl_config(space.directory, name, work, port, origin)
        path = space.write(f"{label}.json", text)
        env = {"PROXYCTL_PURE": "1"} if name == SOURCE else {}
        started = start_proxyctl(space, label, path, WORKERS, START_S, env)
        wait_listening(started, port)
        return started
    raise LoadTestError(f"no proxy called {name} does {work}")
