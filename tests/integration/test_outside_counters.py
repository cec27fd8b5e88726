"""Counters seen from outside: what each number may and may not contain."""

from __future__ import annotations

import time
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import StartProxyctl
from tests.helpers.ports import free_port, free_ports
from tests.helpers.processes import config_of
from tests.helpers.sockets import EchoServer, connect, echoes, exchange
from tests.helpers.waiting import wait_until
from worker.route_report import ROUTES_A_PART

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


def test_log_lines_that_find_no_room_are_counted(proxyctl: StartProxyctl, echo: EchoServer) -> None:
    """A full disk under the log stops nothing, and `/metrics` tells how many lines it cost."""
    port, refusing, admin, dead = free_ports(4)
    proxyctl(
        config_of(
            {"a": (port, echo.address), "dead": (refusing, f"127.0.0.1:{dead}")},
            admin={"listen": f"127.0.0.1:{admin}"},
            log={"file": "/dev/full"},
        )
    )
    own = dropped(admin)
    assert own > 0  # "worker ready" and "ready", by the supervisor
    for _ in range(2):
        with connect(refusing) as client:
            assert client.recv(1) == b""
    wait_until(lambda: dropped(admin) >= own + 2, "those of the workers are counted too")
    assert echoes(port)


def test_more_routes_than_a_report_has_room_for(proxyctl: StartProxyctl) -> None:
    """Those of each part are told, again and again."""
    port, routes = free_port(), 2 * ROUTES_A_PART + 1
    used = [f"r{number}" for number in (0, ROUTES_A_PART, 2 * ROUTES_A_PART)]
    running = proxyctl(
        {
            "listen": ["127.0.0.1"],
            "admin": None,
            "routes": [
                {
                    "name": f"r{number}",
                    "match": {"ports": [port], "domains": [f"r{number}.example"]},
                    "action": {"type": "respond", "status": 204},
                }
                for number in range(routes)
            ],
        },
        workers=1,
    )

    def totals() -> list[int]:
        told = running.status()["totals"]["routes"]
        return [told[name]["total"] for name in used]

    for asked in range(1, 4):
        for name in used:
            with connect(port) as client:
                client.sendall(f"GET / HTTP/1.1\r\nHost: {name}.example\r\n\r\n".encode())
                assert client.recv(100).startswith(b"HTTP/1.1 204")
        wait_until(lambda asked=asked: totals() == [asked] * 3, "all are told")  # type: ignore[misc]


def dropped(admin: int) -> float:
    """`proxyctl_log_lines_dropped_total`, as the admin listener has it."""
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=10) as response:
        for family in text_string_to_metric_families(response.read().decode()):
            for sample in family.samples:
                if sample.name == "proxyctl_log_lines_dropped_total":
                    return float(sample.value)
    raise AssertionError("it is not there")
