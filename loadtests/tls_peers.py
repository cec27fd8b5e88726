"""The proxies that are compared at TLS: their configs, and the origins behind them.

TLS 1.2 and 1.3 everywhere, one P-256 certificate for all, tickets on, the ciphers and curves that
each has by itself; of OpenSSL's own defaults these come out the same.
"""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from loadtests.peers import (
    MAX_CONNECTIONS,
    STREAM_MODULE,
    Subject,
    nginx_main,
    start_haproxy,
    start_nginx,
    start_proxyctl,
)
from loadtests.processes import LoadTestError, Started, Workspace, wait_listening
from loadtests.tool_output import MIB
from loadtests.works import EVERYTHING, FEW, MANY
from tests.helpers.certificates import Authority

SNI: Final = "sni_connections"
NAMES: Final = "names_10000"
REENCRYPT: Final = "tls_reencrypt"
SERVER_NAME: Final = "tls.test"
ORIGIN_NAME: Final = "origin.test"
BODY: Final = "body"  # path of the origin's file
BODY_BYTES: Final = MIB
DOMAINS: Final = {MANY: 10_000, FEW: 10}  # of the others: as FEW
START_S: Final = 60.0  # with 10,000 routes


class Origins(Struct, frozen=True, kw_only=True):
    """What stands behind all proxies. ``both``: certificate and key of the proxies, one file."""

    both: Path
    authority: Path
    plain: int  # HTTP, small answers and the body
    encrypted: int  # the same over TLS
    hello: int  # reads a ClientHello and answers in HTTP

    def target(self, work: str) -> int:
        """The port behind a work."""
        if work in (SNI, NAMES):
            return self.hello
        return self.encrypted if work == REENCRYPT else self.plain


def domain(number: int) -> str:
    """The domain of this number, as long as every other."""
    return f"d{number:05}.names.test"


def domains(name: str) -> list[str]:
    """Those that a proxy's config has."""
    return [domain(number) for number in range(DOMAINS.get(name, DOMAINS[FEW]))]


def client_context(origins: Origins) -> ssl.SSLContext:
    """A client of TLS 1.3 that trusts the authority of this run."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(origins.authority)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def start_origins(space: Workspace) -> Origins:
    """Make the certificates and start an nginx of one worker with all three origins."""
    authority = Authority(space.directory)
    origins = Origins(
        both=authority.leaf(SERVER_NAME).both,
        authority=authority.cert,
        plain=space.port(),
        encrypted=space.port(),
        hello=space.port(),
    )
    files = space.directory / "files"
    files.mkdir()
    (files / BODY).write_bytes(bytes(BODY_BYTES))
    leaf = authority.leaf(ORIGIN_NAME).both
    config = origin_config(space.directory, origins, leaf, files)
    start_nginx(space, "tls-origin", config, origins.plain)
    return origins


def origin_config(directory: Path, origins: Origins, leaf: Path, files: Path) -> str:
    """Small answers and a file, in the clear and over TLS; and the answer to a ClientHello.

    The last one takes the whole ClientHello off the socket, as ssl_preread does, and answers with
    what wrk can count. So no handshake of client and origin hides what routing by SNI costs.
    """
    user = "user root;\n" if os.geteuid() == 0 else ""  # the directory is nobody else's
    paths = "".join(
        f"    {kind}_temp_path {directory}/tls-{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    locations = f'location = / {{ return 200 "ok\\n"; }} location / {{ root {files}; }}'
    answer = "HTTP/1.1 200 OK\\r\\nContent-Length: 3\\r\\nConnection: close\\r\\n\\r\\nok\\n"
    return (
        f"{user}{_stream_module()}{nginx_main(directory, 'tls-origin', 1)}"
        f"http {{\n{paths}    access_log off;\n    default_type text/plain;\n    sendfile on;\n"
        f"    keepalive_requests 1000000000;\n    keepalive_timeout 1h;\n"
        f"    server {{ listen 127.0.0.1:{origins.plain}; {locations} }}\n"
        f"    server {{ listen 127.0.0.1:{origins.encrypted} ssl; {_certificate(leaf)}"
        f" {locations} }}\n}}\n"
        f"stream {{\n    server {{ listen 127.0.0.1:{origins.hello}; ssl_preread on;"
        f' return "{answer}"; }}\n}}\n'
    )


def _stream_module() -> str:
    return f"load_module {STREAM_MODULE};\n" if STREAM_MODULE.exists() else ""


def _certificate(both: Path) -> str:
    return f"ssl_certificate {both}; ssl_certificate_key {both}; ssl_protocols TLSv1.2 TLSv1.3;"


def haproxy_config(work: str, port: int, origins: Origins) -> str:
    """HAProxy, tcp mode, 2 threads."""
    server = f"    server target 127.0.0.1:{origins.target(work)}"
    lines = ["global", "    nbthread 2", f"    maxconn {MAX_CONNECTIONS}"]
    lines += ["defaults", "    mode tcp", "    timeout connect 10s"]
    lines += ["    timeout client 1h", "    timeout server 1h"]
    if work == SNI:
        lines += [
            f"frontend {work}",
            f"    bind 127.0.0.1:{port}",
            "    tcp-request inspect-delay 5s",
            "    tcp-request content accept if { req.ssl_hello_type 1 }",
            "    tcp-request content reject",
            f"    use_backend target if {{ req.ssl_sni -i {' '.join(domains(FEW))} }}",
            "backend target",
            server,
        ]
        return "\n".join(lines) + "\n"
    if work == REENCRYPT:
        server += f" ssl verify required ca-file {origins.authority}"
        server += f" sni str({ORIGIN_NAME}) verifyhost {ORIGIN_NAME}"
    lines += [f"listen {work}", f"    bind 127.0.0.1:{port} ssl crt {origins.both}", server]
    return "\n".join(lines) + "\n"


def nginx_config(directory: Path, name: str, work: str, port: int, origins: Origins) -> str:
    """nginx stream, 2 workers, a listener for each."""
    head = f"{_stream_module()}{nginx_main(directory, name, 2)}stream {{\n"
    target = f"127.0.0.1:{origins.target(work)}"
    more = _certificate(origins.both)
    listen = f"listen 127.0.0.1:{port} ssl reuseport;"
    if work == SNI:
        names = "".join(f"        {one} target;\n" for one in domains(FEW))
        head += f"    map $ssl_preread_server_name $chosen {{\n{names}    }}\n"
        head += f"    upstream target {{ server {target}; }}\n"
        listen, more, target = f"listen 127.0.0.1:{port} reuseport;", "ssl_preread on;", "$chosen"
    if work == REENCRYPT:
        more += " proxy_ssl on; proxy_ssl_verify on; proxy_ssl_protocols TLSv1.2 TLSv1.3;"
        more += f" proxy_ssl_trusted_certificate {origins.authority};"
        more += f" proxy_ssl_name {ORIGIN_NAME}; proxy_ssl_server_name on;"
    server = f"server {{ {listen} {more} proxy_pass {target}; proxy_timeout 1h; }}"
    return f"{head}    {server}\n}}\n"


def proxyctl_config(name: str, work: str, port: int, origins: Origins) -> str:
    """proxyctl, JSON. Everything that it may leave out is left at its default.

    With domains there is one route for each of them.
    """
    action: dict[str, Any] = {"type": "forward", "targets": [f"127.0.0.1:{origins.target(work)}"]}
    routes: list[dict[str, Any]] = [{"name": work, "match": {"ports": [port]}, "action": action}]
    if work in (SNI, NAMES):
        routes = [
            {"name": one, "match": {"ports": [port], "domains": [one]}, "action": action}
            for one in domains(name)
        ]
    else:
        action["tls"] = {"mode": "terminate", "certificates": [{"cert": str(origins.both)}]}
    if work == REENCRYPT:
        action["tls"]["mode"] = "terminate-and-reencrypt"
        action["upstream_tls"] = {"ca": str(origins.authority), "server_name": ORIGIN_NAME}
    return json.dumps(
        {"version": 1, "listen": ["127.0.0.1"], "admin": None, "routes": routes}, indent=1
    )


@contextmanager
def running_tls(
    space: Workspace, name: str, work: str, port: int, origins: Origins, nth: int = 0
) -> Iterator[Subject]:
    """A proxy that does one work, started anew and stopped at the end.

    ``nth`` of several at one time keeps their files apart.
    """
    subject = Subject(name=name, ports={work: port})
    try:
        label = f"{name}-{work}-{nth}"
        subject.started.append(_start(space, name, work, port, origins, label))
        yield subject
    finally:
        for part in subject.started:
            space.stop(part)


def _start(
    space: Workspace, name: str, work: str, port: int, origins: Origins, label: str
) -> Started:
    if name == "haproxy":
        return start_haproxy(space, label, haproxy_config(work, port, origins), port)
    if name == "nginx":
        config = nginx_config(space.directory, label, work, port, origins)
        return start_nginx(space, label, config, port)
    if name in (EVERYTHING, FEW, MANY):
        path = space.write(f"{label}.json", proxyctl_config(name, work, port, origins))
        started = start_proxyctl(space, label, path, 2, START_S)
        wait_listening(started, port)
        return started
    raise LoadTestError(f"no proxy called {name} does {work}")
