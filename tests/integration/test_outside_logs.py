"""The operational log as its reader sees it: which connection, from where, and why."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from tests.conftest import StartProxyctl
from tests.helpers.ports import free_port
from tests.helpers.processes import Proxyctl, config_of, whole_lines
from tests.helpers.sockets import EchoServer, connect
from tests.helpers.waiting import wait_until

HEADER = b"PROXY TCP6 2001:db8:bad::1 2001:db8::9 5555 443\r\n"


def refusals(running: Proxyctl) -> list[dict[str, Any]]:
    """The lines about connections that were refused."""
    lines = [json.loads(line) for line in whole_lines(running.log())]
    return [line for line in lines if line["event"].startswith("connection refused")]


def test_addresses_in_the_log_can_be_told_from_ports(
    proxyctl: StartProxyctl, echo: EchoServer, tmp_path: Path
) -> None:
    """IPv6 stands in brackets, as in the access log; a client on a Unix socket has no address."""
    port, path = free_port(), tmp_path / "unix.sock"
    config = config_of(
        {"a": (port, echo.address)},
        proxy_protocol={"trusted": ["127.0.0.1"]},
        security={"allow": ["2001:db8:1::/48"]},
        log={"format": "json"},
    )
    config["routes"][0]["match"]["ports"].append(f"unix:{path}")
    running = proxyctl(config)
    with connect(port) as client:
        client.sendall(HEADER)
        assert client.recv(1) == b""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        assert client.recv(1) == b""
    first, second = wait_until(
        lambda: found if len(found := refusals(running)) == 2 else [], "both are in the log"
    )
    by_listener = {line["listener"]: line for line in (first, second)}
    assert by_listener[f"127.0.0.1:{port}"]["client"] == "[2001:db8:bad::1]:5555"
    assert by_listener[f"unix:{path}"]["peer"] == ""
    assert {line["detail"] for line in (first, second)} == {"security: allow does not have it"}
