"""A service manager's notify socket, for tests: bound anew each time, read without waiting."""

from __future__ import annotations

import socket
from collections.abc import Callable
from types import TracebackType

from tests.helpers.waiting import wait_until

Message = dict[str, str]


class NotifySocket:
    """Takes the datagrams of sd_notify(3). ``address`` is what NOTIFY_SOCKET is to say."""

    def __init__(self, address: str) -> None:
        """``address`` begins with "@" for an abstract one."""
        self.address = address
        self.messages: list[Message] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)

    def __enter__(self) -> NotifySocket:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def read(self) -> list[Message]:
        """Everything that has come until now, oldest first; each as its variables."""
        while True:
            try:
                raw = self._socket.recv(65536)
            except BlockingIOError:
                return self.messages
            lines = raw.decode().split("\n")
            self.messages.append(dict(line.split("=", 1) for line in lines))

    def wait_for(self, is_it: Callable[[Message], bool], what: str, start: int = 0) -> int:
        """The place of the first such message from ``start`` on, once it has come."""

        def look() -> int:
            places = (n for n, one in enumerate(self.read()[start:], start) if is_it(one))
            return next(places, -1) + 1

        return wait_until(look, what) - 1

    def wait_for_status(self, text: str, start: int = 0) -> int:
        """The place of the first message with this STATUS."""
        return self.wait_for(lambda one: one.get("STATUS") == text, f"STATUS={text}", start)
