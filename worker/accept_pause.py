"""When accept cannot go on: the reserve descriptor."""

from __future__ import annotations

import os


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
