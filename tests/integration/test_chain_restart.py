"""Three proxyctl in a row; the one in the middle is stopped and started, and clients come back."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.helpers.ports import free_ports
from tests.helpers.processes import Proxyctl, config_of
from tests.helpers.sockets import EchoServer, connect, echoes, exchange
from tests.helpers.waiting import wait_until

ROUTE = "hop"


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[tuple[int, list[Proxyctl]]]:
    """The port of the first one, and the three, which pass on the client by PROXY v2."""
    with ExitStack() as stack:
        echo = stack.enter_context(EchoServer())
        ports = free_ports(3)
        targets = [f"127.0.0.1:{ports[1]}", f"127.0.0.1:{ports[2]}", echo.address]
        hops = []
        for number, (port, target) in enumerate(zip(ports, targets, strict=True)):
            config = config_of({ROUTE: (port, target)}, timeouts={"drain": "20s"})
            if number:
                config["proxy_protocol"] = {"trusted": ["127.0.0.1"]}
            if number < 2:
                config["routes"][0]["action"]["send_proxy"] = "v2"
            directory = tmp_path / str(number)
            directory.mkdir()
            hop = Proxyctl(directory, config, workers=1)
            stack.callback(hop.end)
            hops.append(hop)
        for hop in reversed(hops):
            hop.start()
        yield ports[0], hops


def is_idle(hop: Proxyctl) -> bool:
    """Whether all that came have ended."""
    totals = hop.status()["totals"]
    return bool(totals["accepted"] == totals["ended"])


def test_clients_come_back_when_the_middle_one_does(chain: tuple[int, list[Proxyctl]]) -> None:
    """What it held is drained, who dials meanwhile is refused by the first, then all goes on."""
    port, (first, middle, last) = chain
    with connect(port) as client:
        assert exchange(client, b"before") == b"before"
        middle.signal(signal.SIGTERM)
        wait_until(lambda: not echoes(port), "the middle one takes nothing more")
        assert exchange(client, b"during") == b"during"
    assert middle.wait() == 0
    assert "stopped: 1 connection drained, 0 cut" in middle.output()
    middle.start()
    wait_until(lambda: echoes(port), "the chain is whole again")

    def is_counted() -> bool:
        ends = first.status()["totals"]["ends"]
        return bool(ends.get("connect_failed", 0) + ends.get("target_reset", 0))

    wait_until(is_counted, "the first one has counted who was refused")
    wait_until(lambda: all(map(is_idle, (first, last))), "nothing is left open")


def test_hundreds_of_connections_that_end_at_once_stall_no_other(
    chain: tuple[int, list[Proxyctl]],
) -> None:
    """A mass of clients goes away; one that talks on has every answer, and the books agree."""
    port, hops = chain
    with connect(port) as talker, ExitStack() as crowd:
        for _ in range(400):
            assert exchange(crowd.enter_context(connect(port)), b"here") == b"here"
        crowd.close()
        for number in range(50):
            said = b"still %d" % number
            assert exchange(talker, said) == said
        wait_until(
            lambda: hops[0].status()["totals"]["ends"].get("client_closed") == 400, "all have ended"
        )
