"""Limits as clients meet them: who counts as whom, and what a reload does to what is open."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from shared.proxy_protocol import encode_v2
from tests.conftest import StartProxyctl
from tests.helpers.ports import free_port
from tests.helpers.processes import Config, config_of
from tests.helpers.sockets import EchoServer, connect
from tests.helpers.waiting import wait_until

MAPPED = bytes(10) + b"\xff\xff"


def v2(client: str, *, mapped: bool = False) -> bytes:
    """A header of this IPv4 client, as IPv4 or as IPv4-mapped IPv6."""
    source, destination = socket.inet_aton(client), bytes([198, 51, 100, 9])
    if mapped:
        source, destination = MAPPED + source, MAPPED + destination
    return encode_v2(source, 5555, destination, 443)


def served(stack: ExitStack, port: int, tries: int, header: bytes = b"") -> int:
    """How many of so many connections are served; they stay open until the stack is closed."""
    count = 0
    for _ in range(tries):
        client = stack.enter_context(connect(port))
        try:
            client.sendall(header + b"x")
            count += client.recv(1) == b"x"
        except ConnectionError:
            continue
    return count


def test_mapped_addresses_are_those_of_ipv4(proxyctl: StartProxyctl, echo: EchoServer) -> None:
    """A balancer that speaks IPv6 makes no single client of all of IPv4, and none two of one."""
    port = free_port()
    proxyctl(
        config_of(
            {"a": (port, echo.address)},
            proxy_protocol={"trusted": ["127.0.0.1"]},
            security={"max_connections_per_ip": 2},
        ),
        workers=1,
    )
    with ExitStack() as stack:
        for number in range(1, 6):
            assert served(stack, port, 1, v2(f"203.0.113.{number}", mapped=True)) == 1
        assert served(stack, port, 2, v2("203.0.113.1")) == 1
        assert served(stack, port, 2, v2("203.0.113.1", mapped=True)) == 0


@pytest.mark.parametrize("rules", [{"max_connections_per_ip": 6}, {}])
def test_a_new_limit_counts_nobody_twice(
    proxyctl: StartProxyctl, echo: EchoServer, rules: dict[str, int]
) -> None:
    """A connection that one limit counts already counts once, also when a reload adds another."""
    port = free_port()

    def limited(**more: int) -> Config:
        config = config_of({"a": (port, echo.address)}, security={**rules, **more})
        config["routes"][0]["security"] = {"max_connections": 6} if not rules else {}
        return config

    running = proxyctl(limited(), workers=1)
    with ExitStack() as stack:
        assert served(stack, port, 2) == 2
        config = limited(max_connections_per_ip=6)
        config["routes"][0]["security"] = {"max_connections": 6, "max_connections_per_ip": 100}
        running.write(config)
        assert running.run("reload")[0] == 0
        wait_until(lambda: running.workers()[0]["generation"] == 2, "it serves by the new rules")
        assert served(stack, port, 6) == 4
