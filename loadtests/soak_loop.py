"""The loop of a soak's traffic process: one edge-triggered epoll, a table, and timers."""

from __future__ import annotations

import heapq
import itertools
import select
import socket
from collections.abc import Callable
from time import monotonic
from typing import Final, Protocol

IN: Final = select.EPOLLIN
OUT: Final = select.EPOLLOUT
ENDED: Final = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
BOTH: Final = IN | OUT | select.EPOLLRDHUP | select.EPOLLET
READ_BYTES: Final = 65536

# Linux: bind to an address now, and choose the port at connect, when the whole four-tuple is
# known. Else every source address would have only as many ports as there are, over all targets.
IP_BIND_ADDRESS_NO_PORT: Final = 24  # linux/in.h; Python has no name for it


class Handler(Protocol):
    """What the table holds."""

    def ready(self, events: int) -> None:
        """Something happened on the handler's socket."""
        ...


class Loop:
    """``now`` is the instant of the current turn, ``second`` its whole second."""

    def __init__(self) -> None:
        self.now = monotonic()
        self.second = int(self.now)
        self._epoll = select.epoll()
        self._table: dict[int, Handler] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def add(self, sock: socket.socket, handler: Handler) -> None:
        """Watch a socket for both directions, by edges."""
        fd = sock.fileno()
        self._table[fd] = handler
        self._epoll.register(fd, BOTH)

    def add_listener(self, sock: socket.socket, handler: Handler) -> None:
        """Watch a listener, by level."""
        self._table[sock.fileno()] = handler
        self._epoll.register(sock.fileno(), IN)

    def close(self, sock: socket.socket) -> None:
        """Forget and close a socket; the kernel takes it out of the epoll."""
        self._table.pop(sock.fileno(), None)
        sock.close()

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Call once, so many seconds from now."""
        heapq.heappush(self._timers, (self.now + seconds, next(self._numbers), call))

    def turn(self, most_s: float) -> None:
        """Wait for events, ``most_s`` at the longest, and act on them and on what is due."""
        if self._timers:
            most_s = min(most_s, max(0.0, self._timers[0][0] - monotonic()))
        found = self._epoll.poll(most_s)
        self.now = monotonic()
        self.second = int(self.now)
        table = self._table
        for fd, events in found:
            handler = table.get(fd)
            if handler is not None:
                handler.ready(events)
        timers = self._timers
        while timers and timers[0][0] <= self.now:
            heapq.heappop(timers)[2]()
