"""Counters seen from outside: what each number may and may not contain."""

from __future__ import annotations

import time

from tests.conftest import StartProxyctl
from tests.helpers.processes import config_of
from tests.helpers.sockets import EchoServer, connect, exchange, free_port
from tests.helpers.waiting import wait_until

HEADER = b"PROXY TCP4 203.0.113.7 203.0.113.8 5555 80\r\n"
WAIT_S = 0.4  # of the client, before it sends its header


def test_connect_duration_leaves_the_wait_for_the_header_out(
    proxyctl: StartProxyctl, echo: EchoServer
) -> None:
    """It runs from the choice of a route: a client that is slow to say who it is adds nothing."""
    port = free_port()
    trust = {"trusted": ["127.0.0.1"]}
    running = proxyctl(config_of({"a": (port, echo.address)}, proxy_protocol=trust))
    with connect(port) as client:
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began >= WAIT_S, "the client is slow")
        client.sendall(HEADER)
        assert exchange(client, b"x") == b"x"
    wait_until(lambda: sum(running.status()["totals"]["ends"].values()) == 1, "it has ended")
    connect_counts = running.status()["totals"]["routes"]["a"]["connect"]
    assert sum(connect_counts["buckets"]) == 1
    assert connect_counts["total"] < WAIT_S / 2
