"""Work that would hold the loop if it were done at once, done a slice at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

MOST_A_TICK: Final = 4  # slices, where many chores wait; each takes some ms at the most


class Chores:
    """Each chore is an iterator; one step of it is one slice. They take turns, a slice a tick.

    Where many wait, as after a burst of reloads, a tick does more: else they would gather.
    """

    def __init__(self) -> None:
        self._waiting: deque[Iterator[None]] = deque()

    def __len__(self) -> int:
        """How many are not done yet."""
        return len(self._waiting)

    def add(self, chore: Iterator[None]) -> None:
        """Do the first slice now, and the others in later ticks."""
        self._step(chore)

    def tick(self) -> None:
        """Do a slice of the chore whose turn it is; of more where many wait."""
        waiting = len(self._waiting)
        for _ in range(min(waiting, 1 + waiting // 4, MOST_A_TICK)):
            self._step(self._waiting.popleft())

    def _step(self, chore: Iterator[None]) -> None:
        for _ in chore:
            self._waiting.append(chore)
            return
