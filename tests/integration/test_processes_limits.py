"""Limits over several worker processes: bursts, kills, and what is free again after them."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.helpers.ports import free_ports
from tests.helpers.processes import Proxyctl, config_of
from tests.helpers.waiting import wait_until

WORKERS: Final = 3
GREETING: Final = b"served"


class Greeter:
    """A target that greets whoever comes and keeps the connection until the client's end."""

    def __init__(self) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.address = f"127.0.0.1:{self.sock.getsockname()[1]}"
        self._kept: list[socket.socket] = []
        self._thread = threading.Thread(target=self._greet)
        self._thread.start()

    def _greet(self) -> None:
        while True:
            try:
                client, _ = self.sock.accept()
            except OSError:
                return
            client.sendall(GREETING)
            self._kept.append(client)

    def close(self) -> None:
        """No more greetings."""
        self.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        for one in (self.sock, *self._kept):
            one.close()


@pytest.fixture
def greeter() -> Iterator[Greeter]:
    """One target."""
    one = Greeter()
    yield one
    one.close()


class Crowd:
    """Clients of one port."""

    def __init__(self, stack: ExitStack, port: int) -> None:
        self._stack = stack
        self._port = port
        self.served: list[socket.socket] = []

    def burst(self, count: int, source: str = "127.0.0.1") -> int:
        """So many dials at once; returns how many of them are served, which stay open."""
        clients = []
        for _ in range(count):
            client = self._stack.enter_context(socket.socket())
            client.bind((source, 0))
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", self._port))
            clients.append(client)
        before = len(self.served)
        for client in clients:
            client.settimeout(10)
            try:
                if client.recv(len(GREETING)) == GREETING:
                    self.served.append(client)
            except ConnectionResetError:
                continue
        return len(self.served) - before

    def leave(self) -> None:
        """Close all that are served."""
        for client in self.served:
            client.close()
        self.served.clear()


@pytest.fixture
def started(tmp_path: Path, greeter: Greeter) -> Iterator[Proxyctl]:
    """Three workers, limits of 20 per address and of 30 connections on a route of its own."""
    port, small = free_ports(2)
    config = config_of(
        {"open": (port, greeter.address), "small": (small, greeter.address)},
        security={"max_connections_per_ip": 20},
        timeouts={"half_closed": 0, "drain": "1s"},
    )
    config["routes"][1]["security"] = {"max_connections": 30}
    proxy = Proxyctl(tmp_path, config, workers=WORKERS)
    proxy.start()
    yield proxy
    proxy.end()


def is_idle(proxy: Proxyctl) -> bool:
    """Whether as many have ended as came; these two are of the moment."""
    totals = proxy.status()["totals"]
    return bool(totals["accepted"] == totals["ended"])


def ports(proxy: Proxyctl) -> list[int]:
    """Of the two routes."""
    return [int(name.rpartition(":")[2]) for name in proxy.status()["listeners"]]


def test_a_burst_overshoots_by_one_for_each_other_worker_at_most(started: Proxyctl) -> None:
    """Per address and per route, over all workers; what leaves makes room again."""
    port, small = ports(started)
    with ExitStack() as stack:
        crowd = Crowd(stack, port)
        served = [crowd.burst(200), crowd.burst(60, "127.0.0.2")]
        assert all(20 <= one <= 20 + WORKERS - 1 for one in served)
        assert crowd.burst(50) == 0
        crowd.leave()
        wait_until(lambda: is_idle(started), "all have left")
        served.append(crowd.burst(100))
        assert 20 <= served[-1] <= 20 + WORKERS - 1
        crowd.leave()
        wait_until(lambda: is_idle(started), "all have left")
        others = Crowd(stack, small)
        served.append(sum(others.burst(12, f"127.0.1.{number}") for number in range(1, 6)))
        assert 30 <= served[-1] <= 30 + WORKERS - 1
        refused = 200 + 60 + 50 + 100 + 5 * 12 - sum(served)
        wait_until(
            lambda: started.status()["totals"]["ends"].get("limit") == refused, "all counted"
        )


def test_connections_of_a_killed_worker_stop_counting(started: Proxyctl) -> None:
    """After kill -9 just its share is free again, and no more than that."""
    port, _ = ports(started)
    with ExitStack() as stack:
        crowd = Crowd(stack, port)
        served = crowd.burst(100)
        assert served >= 20

        def held() -> dict[int, int]:
            return {one["pid"]: one["connections"] for one in started.workers() if one["pid"]}

        wait_until(lambda: sum(held().values()) == served, "all are reported")
        before = held()
        victim = max(before, key=lambda pid: before[pid])
        os.kill(victim, signal.SIGKILL)
        free = before[victim]
        found: list[int] = []

        def tried() -> bool:
            found.append(crowd.burst(free + 5))
            return sum(found) >= free

        wait_until(tried, "its share is free")
        assert sum(found) <= free + WORKERS - 1
        assert crowd.burst(40) == 0


def test_a_rate_outlives_the_worker_that_counted_it(tmp_path: Path, greeter: Greeter) -> None:
    """Killing workers gives nobody a second burst within the period."""
    (port,) = free_ports(1)
    config = config_of(
        {"r": (port, greeter.address)},
        security={"connection_rate_per_ip": "15/10m"},
        timeouts={"half_closed": 0, "drain": "1s"},
    )
    proxy = Proxyctl(tmp_path, config, workers=2)
    try:
        proxy.start()
        with ExitStack() as stack:
            crowd = Crowd(stack, port)
            assert 15 <= crowd.burst(60) <= 16
            killed = set(proxy.ready_pids())
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
            wait_until(
                lambda: len(found := proxy.ready_pids()) == 2 and killed.isdisjoint(found),
                "two successors",
            )
            assert crowd.burst(60) == 0
            assert crowd.burst(30, "127.0.0.2") >= 15
            proxy.remember()
    finally:
        proxy.end()
