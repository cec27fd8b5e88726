"""What happens to connections through three hops when the middle one is reloaded, ended, killed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from tests.helpers.chain import (
    REQUEST,
    Hop,
    Topology,
    answer_to_end,
    assert_true_addresses,
    connect,
    forward,
    hop_config,
    read_seen,
    read_to_end,
)
from tests.helpers.processes import Config
from tests.helpers.sockets import exchange, is_refused
from tests.helpers.targets import HOSTS, HeaderTarget, dual_ports
from tests.helpers.waiting import wait_until

CLIENTS: Final = 8


class Live(Topology):
    """first -> middle -> last -> server. The middle one is at the mercy of the test."""

    middle: Hop
    port: int
    middle_port: int
    config: Config

    def start(self) -> None:
        """Start the server and the hops."""
        server = self.target(HeaderTarget())
        first, middle, last = dual_ports(3)
        self.port, self.middle_port = first, middle
        trusted = list(HOSTS.values())
        last_route = forward("only", last, server.address, send_proxy="v2")
        route = forward("only", middle, f"127.0.0.1:{last}", send_proxy="v1")
        first_route = forward("only", first, f"127.0.0.1:{middle}", send_proxy="v2")
        self.config = hop_config([route], trusted)
        _, self.middle, _ = self.start_hops(
            {
                "last": hop_config([last_route], trusted),
                "middle": self.config,
                "first": hop_config([first_route]),
            }
        )

    @contextlib.contextmanager
    def clients(self) -> Iterator[list[socket.socket]]:
        """Several connections through all hops, each of which has been served."""
        with contextlib.ExitStack() as stack:
            found = []
            for _ in range(CLIENTS):
                client = stack.enter_context(connect(self.port))
                client.sendall(REQUEST)
                assert_true_addresses(read_seen(client))
                found.append(client)
            yield found


@pytest.fixture
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Three hops of this test alone."""
    started = Live(tmp_path_factory.mktemp("live"))
    try:
        started.start()
        yield started
    finally:
        started.end()


def test_reload_of_the_middle_touches_nothing(live: Live) -> None:
    """Reloads that change the middle hop's routes leave every live connection alone."""
    with live.clients() as clients:
        before = [hop.totals()["ended"] for hop in live.hops]
        for number in range(3):
            (spare,) = dual_ports(1)
            more = forward(f"more-{number}", spare, "127.0.0.1:1")
            live.middle.write(live.config | {"routes": [*live.config["routes"], more]})
            code, document = live.middle.run("reload")
            assert code == 0, document
            for index, client in enumerate(clients):
                text = f"client {index} after reload {number}".encode()
                assert exchange(client, text) == text
        assert live.middle.status()["generation"] == 4
        assert [hop.totals()["ended"] for hop in live.hops] == before
        with connect(live.port) as late:
            late.sendall(REQUEST)
            assert_true_addresses(read_seen(late))
    live.settle()
    assert [hop.totals()["accepted"] for hop in live.hops] == [CLIENTS + 1] * 3


def test_refused_reload_of_the_middle_touches_nothing(live: Live) -> None:
    """A config with an error is refused, and connections old and new go on as before."""
    with live.clients() as clients:
        live.middle.write(live.config | {"routs": []})
        assert live.middle.run("reload")[0] == 1
        for client in clients:
            assert exchange(client, b"still here") == b"still here"
        with connect(live.port) as late:
            late.sendall(REQUEST)
            assert_true_addresses(read_seen(late))
    live.wait_empty()


def stop_at_once(middle: Hop) -> None:
    """`stop --now`."""
    assert middle.run("stop", "--now")[0] == 0
    assert middle.wait() == 0


def stop_by_deadline(middle: Hop) -> None:
    """`stop` with a drain that is soon over."""
    code, document = middle.run("stop", "--timeout", "300ms")
    assert code == 0
    assert document["data"] == {"drained": 0, "cut": CLIENTS}
    assert middle.wait() == 0


def kill_workers(middle: Hop) -> None:
    """SIGKILL to every worker once they have reported; the supervisor replaces them."""
    wait_until(lambda: middle.status()["connections"] == CLIENTS, "reports of all connections")
    pids = middle.ready_pids()
    assert len(pids) == 2
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("end", [stop_at_once, stop_by_deadline, kill_workers])
def test_end_of_the_middle_ends_every_connection(live: Live, end: Callable[[Hop], None]) -> None:
    """Clients see an end, and neither the hop before nor the hop behind keeps a connection."""
    with live.clients() as clients:
        end(live.middle)
        for client in clients:
            assert read_to_end(client) == b""
    last, middle, first = live.hops
    for hop in (last, first):
        totals = hop.settle()
        assert totals["accepted"] == CLIENTS == sum(totals["ends"].values())
    if end is kill_workers:
        middle.wait_for_workers(
            lambda found: sum(one["state"] == "ready" for one in found) == 2, "new workers"
        )
        totals = middle.settle()
        assert totals["accepted"] == totals["ended"] == CLIENTS
        assert totals["ends"] == {"killed": CLIENTS}
        with live.clients():
            pass
        live.settle()
    else:
        assert is_refused(live.middle_port)
        assert middle.alive() == []


def test_chain_comes_back_with_its_middle(live: Live) -> None:
    """While the middle hop is down clients get an end; once it runs again they are served."""
    stop_at_once(live.middle)
    assert answer_to_end(live.port) == b""
    ends = wait_until(lambda: live.hops[2].totals()["ends"], "it is counted")
    assert ends == {"connect_failed": 1}
    live.hop("middle-again", live.config)
    with live.clients() as clients:
        assert exchange(clients[0], b"again") == b"again"
    live.settle()
