"""A thread of a soak that looks at something, again and again."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod


class Looking(ABC):
    """Does ``look`` every ``every_s`` seconds, from ``start`` to ``stop``.

    An error ends it and stands in ``wrong``, with ``what`` was looked at.
    """

    def __init__(self, what: str, every_s: float) -> None:
        self.wrong: list[str] = []
        self._what = what
        self._every_s = every_s
        self._is_over = threading.Event()
        self._lock = threading.Lock()  # against whoever looks from another thread
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """No more, once the look that is under way is done."""
        self._is_over.set()
        self._thread.join()

    @abstractmethod
    def look(self) -> None:
        """One look."""

    def _run(self) -> None:
        while not self._is_over.wait(self._every_s):
            try:
                self.look()
            except Exception as error:
                self.wrong.append(f"{self._what}: {type(error).__name__}: {error}")
                return
