"""Tell the service manager how we are: the protocol of sd_notify(3), over a datagram socket.

A message that cannot be sent at once waits for the next one; nothing here blocks or raises.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import MutableMapping
from typing import Final

_KEPT: Final = 16  # messages that wait; a manager that reads none for so long will not miss them
_STATUS_MAX_CHARS: Final = 400  # of the one line that `systemctl status` shows


class Notifier:
    """Sends messages to where ``NOTIFY_SOCKET`` says, or nowhere.

    ``watchdog_s``: within so many seconds the manager wants to hear of us, None: it does not.
    """

    def __init__(self, address: str | bytes | None, watchdog_s: float | None = None) -> None:
        self._address = address
        self.watchdog_s = watchdog_s if address is not None else None
        self._waiting: deque[bytes] = deque(maxlen=_KEPT)
        self._socket: socket.socket | None = None
        if address is not None:
            kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
            self._socket = socket.socket(socket.AF_UNIX, kind)

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str] = os.environ) -> Notifier:
        """By the variables of sd_notify(3) and sd_watchdog_enabled(3), which are then removed.

        Children must not find them: what they say would be taken for ours.
        """
        place = environ.pop("NOTIFY_SOCKET", "")
        usec = environ.pop("WATCHDOG_USEC", "")
        pid = environ.pop("WATCHDOG_PID", "")
        is_meant = not pid or pid == str(os.getpid())
        is_number = usec.isascii() and usec.isdigit() and int(usec) > 0
        watchdog_s = int(usec) / 1e6 if is_meant and is_number else None
        if place.startswith("@"):
            return cls(b"\0" + os.fsencode(place[1:]), watchdog_s)
        return cls(place if place.startswith("/") else None, watchdog_s)

    @property
    def is_on(self) -> bool:
        """Somebody wants to hear."""
        return self._socket is not None

    @property
    def is_waiting(self) -> bool:
        """The manager's queue is full, and something could not be sent yet."""
        return bool(self._waiting)

    def ready(self, status: str) -> None:
        """Start or reload is over, whatever came of it."""
        self.send("READY=1", f"MAINPID={os.getpid()}", _status(status))

    def reloading(self, status: str) -> None:
        """A reload begins; `ready` must follow."""
        now_usec = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self.send("RELOADING=1", f"MONOTONIC_USEC={now_usec}", _status(status))

    def stopping(self, status: str, extend_s: float) -> None:
        """The end begins, and may take ``extend_s`` seconds."""
        self.send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(extend_s * 1e6)}", _status(status))

    def status(self, status: str) -> None:
        """One line for people."""
        self.send(_status(status))

    def ping(self) -> None:
        """We are well."""
        self.send("WATCHDOG=1")

    def send(self, *lines: str) -> None:
        """Send one message of these lines, after those that wait."""
        if self._socket is None:
            return
        self._waiting.append("\n".join(lines).encode("utf-8", "backslashreplace"))
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as the manager's queue takes it."""
        while self._waiting and self._socket is not None and self._address is not None:
            try:
                self._socket.sendto(self._waiting[0], self._address)
            except BlockingIOError:
                return
            except OSError:
                # The manager is gone, or was never there; there is nobody to tell it to.
                self._waiting.clear()
                return
            self._waiting.popleft()

    def close(self) -> None:
        """Nothing more will be sent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _status(text: str) -> str:
    return f"STATUS={' '.join(text.split())[:_STATUS_MAX_CHARS]}"
