"""At the limit of descriptors: accept pauses and says so once, and serves what waited afterwards.

Each scenario runs in a process of its own, since the limit is one of the process.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.data_plane_harness import Plane, running
from tests.data_plane_sockets import is_silent, read_exactly, read_to_end
from tests.helpers.waiting import wait_until

ROOT: Final = Path(__file__).parents[2]


class Shortage:
    """Takes every descriptor of this process but ``left``, until the end of the block."""

    def __init__(self, left: int) -> None:
        self._left = left
        self._taken: list[int] = []

    def __enter__(self) -> Shortage:
        while True:
            try:
                self._taken.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                break
        self.release(self._left)
        return self

    def release(self, count: int) -> None:
        """Give ``count`` of them back."""
        for _ in range(count):
            os.close(self._taken.pop())

    def __exit__(self, *_: object) -> None:
        self.release(len(self._taken))


def turns(plane: Plane) -> list[int]:
    """A list that grows by one with every batch of the reactor."""
    reactor = plane.plane.reactor
    dispatch, counted = reactor._dispatch, list[int]()

    def counting(*arguments: Any) -> None:
        counted.append(1)
        dispatch(*arguments)

    plane.call(lambda: setattr(reactor, "_dispatch", counting))
    return counted


def accept_pauses() -> None:
    """No descriptor for accept: a pause, one line, no spin; all are served once there are some."""
    with running() as plane:
        target = plane.target()
        listener = plane.serve(target)
        first = plane.connect(listener), target.accept()
        starts = [plane.connect_later(listener) for _ in range(3)]
        with Shortage(left=0):
            clients = [start() for start in starts]
            wait_until(lambda: plane.plane.is_paused, "the pause")
            counted = turns(plane)
            threading.Event().wait(0.5)
            assert len(counted) < 100
            # Those that are there go on.
            first[0].sendall(b"ping")
            assert read_exactly(first[1], 4) == b"ping"
            assert all(is_silent(client) for client in clients)
            assert len(plane.logged("accept pauses")) == 1
        servers = [target.accept() for _ in clients]
        for server in servers:
            server.sendall(b"welcome")
        for client in clients:
            assert read_exactly(client, 7) == b"welcome"
        wait_until(lambda: not plane.plane.is_paused, "the end of the pause")
        for client in (first[0], *clients):
            client.close()
        for server in (first[1], *servers):
            assert read_to_end(server) == b""
            server.close()
        plane.wait_ends({"client_closed": 4})
        assert len(plane.logged("accept pauses")) == 1
        assert plane.snapshot().accept_pauses >= 1


def the_dial_gets_the_reserve() -> None:
    """The client took the last descriptor: the reserve is for its target, accept pauses."""
    with running() as plane:
        target = plane.target()
        listener = plane.serve(target)
        start = plane.connect_later(listener)
        with Shortage(left=1):
            client = start()
            wait_until(lambda: plane.cells[1] == 1, "the dial")
            assert len(plane.logged("accept pauses")) == 1
        server = target.accept()
        client.sendall(b"ping")
        assert read_exactly(server, 4) == b"ping"
        wait_until(lambda: not plane.plane.is_paused, "the end of the pause")
        client.close()
        assert read_to_end(server) == b""
        server.close()
        plane.wait_ends({"client_closed": 1})


def overload() -> None:
    """The reserve is in use too: the client ends as overload, and no target is blamed for it."""
    with running() as plane:
        target = plane.target()
        listener = plane.serve(target, tls=False)  # dialled once the client has spoken
        clients = [plane.connect(listener) for _ in range(2)]
        wait_until(lambda: plane.plane.connections == 2, "both are accepted")
        with Shortage(left=0):
            clients[0].sendall(b"ping")
            wait_until(lambda: plane.cells[1] == 1, "the dial by the reserve")
            clients[1].sendall(b"ping")
            assert read_to_end(clients[1]) == b""
            wait_until(lambda: plane.cells[2] == 1, "the end")
            assert plane.ends() == {"overload": 1}
            assert plane.target_counts(target).connect_failures == {"no_descriptors": 1}
        server = target.accept()
        assert read_exactly(server, 4) == b"ping"
        clients[0].close()
        assert read_to_end(server) == b""
        server.close()
        again = plane.connect(listener)
        again.sendall(b"ping")
        server = target.accept()
        assert read_exactly(server, 4) == b"ping"
        again.close()
        assert read_to_end(server) == b""
        server.close()
        plane.wait_ends({"overload": 1, "client_closed": 2})


SCENARIOS: Final[dict[str, Callable[[], None]]] = {
    function.__name__: function for function in (accept_pauses, the_dial_gets_the_reserve, overload)
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_descriptors_run_out(scenario: str) -> None:
    """The scenario holds in a process that may have 64 descriptors."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.test_descriptor_limits", scenario],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    SCENARIOS[sys.argv[1]]()
