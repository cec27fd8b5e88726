"""Work that would hold the loop if it were done at once, done a slice at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from time import perf_counter
from typing import Final

MOST_A_TICK_S: Final = 0.002  # then the rest waits; one slice may take longer


class Chores:
    """Each chore is an iterator; one step of it is one slice. They take turns, a slice a tick."""

    def __init__(self) -> None:
        self._waiting: deque[Iterator[None]] = deque()

    def __len__(self) -> int:
        """How many are not done yet."""
        return len(self._waiting)

    def add(self, chore: Iterator[None]) -> None:
        """Do the first slice now, and the others in later ticks."""
        self._step(chore)

    def tick(self) -> None:
        """Do a slice of each; where there are many, those whose turn it is."""
        until = perf_counter() + MOST_A_TICK_S
        for _ in range(len(self._waiting)):
            self._step(self._waiting.popleft())
            if perf_counter() >= until:
                return

    def _step(self, chore: Iterator[None]) -> None:
        for _ in chore:
            self._waiting.append(chore)
            return
