"""When accept cannot go on: the reserve descriptor, and listeners that were shut down meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterable
from socket import SO_ACCEPTCONN, SOL_SOCKET

from worker.listener import Listener


class Reserve:
    """A descriptor that is kept for the dial of a client that is already accepted."""

    def __init__(self) -> None:
        self._fd: int | None = None
        self.refill()

    def use(self) -> bool:
        """Give it up; False when it is not there."""
        if self._fd is None:
            return False
        os.close(self._fd)
        self._fd = None
        return True

    def refill(self) -> bool:
        """Have one again; False when there is none to be had."""
        if self._fd is None:
            try:
                self._fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return False
        return True


def leave_closed(listeners: Iterable[Listener]) -> bool:
    """Poll no socket that the supervisor has shut down; False when there was none.

    A worker that slept while a port left learns of it by accept, before the message comes.
    """
    closed = [
        one
        for listener in listeners
        for one in listener.sockets.values()
        if one.is_polled and not one.sock.getsockopt(SOL_SOCKET, SO_ACCEPTCONN)
    ]
    for one in closed:
        one.poll(False)
    return bool(closed)
