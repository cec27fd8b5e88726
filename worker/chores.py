"""Work that would hold the loop if it were done at once, done a slice at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator


class Chores:
    """Each chore is an iterator; one step of it is one slice. They take turns, a slice a tick."""

    def __init__(self) -> None:
        self._waiting: deque[Iterator[None]] = deque()

    def __len__(self) -> int:
        """How many are not done yet."""
        return len(self._waiting)

    def add(self, chore: Iterator[None]) -> None:
        """Do the first slice now, and the others in later ticks."""
        self._waiting.appendleft(chore)
        self.tick()

    def tick(self) -> None:
        """Do one slice of the chore whose turn it is."""
        if not self._waiting:
            return
        chore = self._waiting.popleft()
        for _ in chore:
            self._waiting.append(chore)
            return
