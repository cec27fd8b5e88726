"""The proxies that are compared, the origins behind them, and their configs."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import yaml
from msgspec import Struct

from loadtests.processes import (
    LoadTestError,
    Started,
    Workspace,
    find_program,
    proxyctl_program,
    wait_line,
    wait_listening,
)
from loadtests.works import EVERYTHING, OFF

STREAM_MODULE: Final = Path("/usr/lib/nginx/modules/ngx_stream_module.so")  # Debian's place
MAX_CONNECTIONS: Final = 6000  # two descriptors each must fit below RLIMIT_NOFILE
V2: Final = "proxy_v2"  # the one work that needs PROXY headers


class Subject(Struct, kw_only=True):
    """One start of a proxy: where it takes each work, and the programs that it consists of."""

    name: str
    ports: dict[str, int]  # by work
    started: list[Started] = []

    @property
    def pids(self) -> list[int]:
        """The process that was started for each part; their descendants belong to it too."""
        return [part.popen.pid for part in self.started]


def haproxy_config(forwards: dict[str, tuple[int, int]]) -> str:
    """HAProxy, tcp mode, 2 threads. ``forwards``: work to (port, target port)."""
    lines = [
        "global",
        "    nbthread 2",
        f"    maxconn {MAX_CONNECTIONS}",
        "defaults",
        "    mode tcp",
        "    timeout connect 10s",
        "    timeout client 1h",
        "    timeout server 1h",
    ]
    for work, (port, target) in forwards.items():
        accept, send = (" accept-proxy", " send-proxy-v2") if work == V2 else ("", "")
        lines += [
            f"listen {work}",
            f"    bind 127.0.0.1:{port}{accept}",
            f"    server target 127.0.0.1:{target}{send}",
        ]
    return "\n".join(lines) + "\n"


def front_config(forwards: dict[str, tuple[int, int]]) -> str:
    """The HAProxy that stands in front of every proxy and sends it PROXY v2.

    ``forwards``: name of the proxy to (port, port on which that proxy takes PROXY v2).
    """
    lines = ["global", "    nbthread 1", f"    maxconn {MAX_CONNECTIONS}"]
    lines += ["defaults", "    mode tcp", "    timeout connect 10s"]
    lines += ["    timeout client 1h", "    timeout server 1h"]
    for name, (port, target) in forwards.items():
        lines += [f"listen {name}", f"    bind 127.0.0.1:{port}"]
        lines += [f"    server target 127.0.0.1:{target} send-proxy-v2"]
    return "\n".join(lines) + "\n"


def nginx_main(directory: Path, name: str, workers: int) -> str:
    """What stands at the top of every config."""
    return (
        f"worker_processes {workers};\ndaemon off;\npid {directory}/{name}.pid;\n"
        f"error_log stderr error;\n"
        f"events {{ worker_connections {2 * MAX_CONNECTIONS}; }}\n"
    )


def nginx_stream_config(directory: Path, name: str, forwards: dict[str, tuple[int, int]]) -> str:
    """nginx stream, 2 workers. ``forwards``: work to (port, target port).

    reuseport gives each of its workers a listener, its fastest way to share a port.
    """
    module = f"load_module {STREAM_MODULE};\n" if STREAM_MODULE.exists() else ""
    servers = "".join(
        f"    server {{ listen 127.0.0.1:{port} reuseport; proxy_pass 127.0.0.1:{target};"
        f" proxy_timeout 1h; }}\n"
        for port, target in forwards.values()
    )
    return f"{module}{nginx_main(directory, name, 2)}stream {{\n{servers}}}\n"


def origin_config(directory: Path, port: int, v2_port: int) -> str:
    """A plain nginx of one worker; /seen tells the address that a PROXY header named."""
    paths = "".join(
        f"    {kind}_temp_path {directory}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return (
        f"{nginx_main(directory, 'origin', 1)}http {{\n{paths}"
        f"    access_log off;\n    default_type text/plain;\n"
        f"    keepalive_requests 1000000000;\n    keepalive_timeout 1h;\n"
        f"    server {{ listen 127.0.0.1:{port};"
        f' location / {{ return 200 "ok\\n"; }} }}\n'
        f"    server {{ listen 127.0.0.1:{v2_port} proxy_protocol;"
        f' location / {{ return 200 "ok\\n"; }}'
        f" location = /seen"
        f' {{ return 200 "$proxy_protocol_addr $proxy_protocol_port\\n"; }} }}\n'
        f"}}\n"
    )


def proxyctl_config(forwards: dict[str, tuple[int, int]], rules: Path | None) -> str:
    """proxyctl: one route per work. ``forwards``: work to (port, target port).

    ``rules``: where the block list and the access log go, with every limit and rule on; None:
    everything off that can be.
    """
    config: dict[str, object] = {"version": 1, "listen": ["127.0.0.1"], "admin": None}
    if V2 in forwards:
        trust = {"trusted": ["127.0.0.0/8"]}
        config["listeners"] = [{"ports": [forwards[V2][0]], "proxy_protocol": trust}]
    security: dict[str, object] = {"max_connections": 0}
    if rules is not None:
        blocked = rules / "blocked.txt"
        blocked.write_text("".join(f"{line}\n" for line in blocked_addresses()))
        security = {
            "allow": ["127.0.0.0/8", "10.0.0.0-10.255.255.255", "::1"],
            "block": [f"file:{blocked}", "192.168.1.*"],
            "max_connections": 100_000,
            "max_connections_per_ip": 50_000,
            "connection_rate_per_ip": "1000000/1s",
        }
        config["log"] = {"access": {"file": str(rules / "access.log"), "format": "json"}}
    config["security"] = security
    config["routes"] = [
        {
            "name": work,
            "match": {"ports": [port]},
            **({} if rules is None else {"security": security}),
            "action": {
                "type": "forward",
                "targets": [f"127.0.0.1:{target}"],
                **({"send_proxy": "v2"} if work == V2 else {}),
            },
        }
        for work, (port, target) in forwards.items()
    ]
    text: str = yaml.safe_dump(config, sort_keys=False)
    return text


def blocked_addresses() -> list[str]:
    """100,000 networks that no client of a test comes from."""
    return [f"{20 + n // 10_000}.{n // 100 % 100}.{n % 100}.0/25" for n in range(100_000)]


def start_proxyctl(
    space: Workspace,
    name: str,
    config: Path,
    workers: int,
    timeout_s: float = 20.0,
    env: dict[str, str] | None = None,
) -> Started:
    """Start proxyctl and wait for its ready line. Its runtime directory is NAME.run."""
    command = [proxyctl_program(), "start", "--config", str(config)]
    command += ["--workers", str(workers), "--runtime-dir", str(space.directory / f"{name}.run")]
    started = space.start(name, command, env)
    wait_line(started, "ready", timeout_s)
    return started


def start_nginx(space: Workspace, name: str, config: str, port: int) -> Started:
    """Start nginx in the foreground and wait until ``port`` accepts."""
    path = space.write(f"{name}.conf", config)
    command = [find_program("nginx"), "-p", str(space.directory), "-c", str(path), "-e", "stderr"]
    started = space.start(name, command)
    wait_listening(started, port)
    return started


def start_haproxy(space: Workspace, name: str, config: str, port: int) -> Started:
    """Start HAProxy in the foreground and wait until ``port`` accepts."""
    path = space.write(f"{name}.cfg", config)
    started = space.start(name, [find_program("haproxy"), "-q", "-db", "-f", str(path)])
    wait_listening(started, port)
    return started


def _start_with(
    space: Workspace, label: str, forwards: dict[str, tuple[int, int]], rules: Path | None
) -> Started:
    path = space.write(f"{label}.yaml", proxyctl_config(forwards, rules))
    return start_proxyctl(space, label, path, 2)


@contextmanager
def running(
    space: Workspace,
    name: str,
    forwards: dict[str, tuple[int, int]],
    template: str | None,
    label: str,
) -> Iterator[Subject]:
    """A proxy, started anew and stopped at the end. ``forwards``: work to (port, target port).

    ``template``: the command of an unknown proxy with {port} and {target_port}; it is started
    once per work. ``label`` keeps files of several instances apart.
    """
    subject = Subject(name=name, ports={work: port for work, (port, _) in forwards.items()})
    try:
        if template is None:
            subject.started.append(_start_known(space, name, forwards, label))
        else:
            for work, (port, target) in forwards.items():
                words = [
                    word.format(port=port, target_port=target) for word in shlex.split(template)
                ]
                part = space.start(f"{label}-{work}", words)
                subject.started.append(part)
                wait_listening(part, port)
        yield subject
    finally:
        for part in subject.started:
            space.stop(part)


def _start_known(
    space: Workspace, name: str, forwards: dict[str, tuple[int, int]], label: str
) -> Started:
    plain = [port for work, (port, _) in forwards.items() if work != V2]
    first = plain[0] if plain else forwards[V2][0]
    if name == "haproxy":
        return start_haproxy(space, label, haproxy_config(forwards), first)
    if name == "nginx":
        config = nginx_stream_config(space.directory, label, forwards)
        return start_nginx(space, label, config, first)
    if name == EVERYTHING:
        rules = space.directory / f"{label}.rules"
        rules.mkdir(exist_ok=True)
        return _start_with(space, label, forwards, rules)
    if name == OFF:
        return _start_with(space, label, forwards, None)
    raise LoadTestError(f"no proxy called {name} (haproxy, nginx, proxyctl, or NAME=COMMAND)")
