"""Idle connections: clients and the target at their other end, in one process on one epoll."""

from __future__ import annotations

import selectors
import socket
from time import monotonic
from types import TracebackType
from typing import Final

from loadtests.processes import LoadTestError

BATCH: Final = 200  # dialled at once, well below every listen backlog


class IdleConnections:
    """Opens connections to a proxy and holds both ends: the client's, and the target's.

    The target accepts and never sends, so every connection that counts is established through
    the proxy and silent. ``ended`` counts those that either side lost.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._clients: list[socket.socket] = []
        self._accepted: list[socket.socket] = []
        self.ended = 0
        self.target_port = int(self._listener.getsockname()[1])

    def __enter__(self) -> IdleConnections:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.drop()
        self._selector.close()
        self._listener.close()

    @property
    def established(self) -> int:
        """How many reached the target and were not lost since."""
        return len(self._accepted) - self.ended

    def open(self, port: int, count: int, timeout_s: float = 30.0) -> None:
        """Open ``count`` more through ``port``; LoadTestError when not all reach the target."""
        deadline = monotonic() + timeout_s
        goal = len(self._accepted) + count
        while len(self._accepted) < goal:
            missing = goal - len(self._accepted)
            behind = len(self._clients) - len(self._accepted)
            for _ in range(min(missing, BATCH) - behind):
                self._dial(port)
            self.turn(0.05)
            if monotonic() > deadline or self.ended:
                raise LoadTestError(
                    f"idle connections: {len(self._accepted)} of {goal} reached the target"
                    f" within {timeout_s:g} s, {self.ended} were lost"
                )

    def _dial(self, port: int) -> None:
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._clients.append(client)
        client.connect_ex(("127.0.0.1", port))  # its verdict comes as an event
        self._selector.register(client, selectors.EVENT_READ)

    def turn(self, timeout_s: float) -> None:
        """Handle the events of at most ``timeout_s``: new connections, and ends."""
        for key, _ in self._selector.select(timeout_s):
            if key.fileobj is self._listener:
                self._accept()
            else:  # nothing is ever sent, so readable means lost
                self._selector.unregister(key.fileobj)
                self.ended += 1

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except BlockingIOError:
                return
            accepted.setblocking(False)
            self._accepted.append(accepted)
            self._selector.register(accepted, selectors.EVENT_READ)

    def drop(self) -> None:
        """Close both ends of all of them."""
        watched = self._selector.get_map()
        for connection in self._clients + self._accepted:
            if connection in watched:
                self._selector.unregister(connection)
            connection.close()
        self._clients.clear()
        self._accepted.clear()
