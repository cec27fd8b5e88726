"""A worker's way out: how its connections end, from the order to drain to the last of them."""

from __future__ import annotations

from collections.abc import Callable, Collection

from shared.ends import End


class Departure:
    """Counts ends while a drain is under way; ``on_done(drained, cut)`` when none is open."""

    def __init__(self, open_: Collection[object], on_done: Callable[[int, int], None]) -> None:
        self._open = open_
        self._on_done = on_done
        self._drained = self._cut = 0
        self._is_over = False

    def ended(self, reason: End) -> None:
        """A connection has ended."""
        if reason is End.DRAIN_DEADLINE or reason is End.STOPPED:
            self._cut += 1
        else:
            self._drained += 1
        self.check()

    def check(self) -> None:
        """Say so, once, when no connection is open."""
        if not self._open and not self._is_over:
            self._is_over = True
            self._on_done(self._drained, self._cut)
