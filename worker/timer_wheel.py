"""Deadlines of connections, coarse and cheap: no timer object, no heap, no wake-up of its own.

An item lies in the slot of its deadline, a set. Moving it is two set operations; an item that is
done is taken out, so that a deadline hours away keeps nothing alive.
"""

from __future__ import annotations

from typing import Final, Generic, Protocol, TypeVar

NO_SLOT: Final = -1
MOST_AT_ONCE: Final = 500  # items handed out a tick: a mass expiry must not stall the loop


class Timed(Protocol):
    """What lies in a wheel. ``slot`` is the wheel's own; NO_SLOT at first."""

    slot: int


T = TypeVar("T", bound=Timed)


class TimerWheel(Generic[T]):
    """Hands out items at the first tick at or after their deadline, never before.

    Deadlines and ``now`` are instants of one clock, in seconds; ``tick_s`` is the granularity.
    """

    def __init__(self, tick_s: float, now: float) -> None:
        self._tick_s = tick_s
        self._slots: dict[int, set[T]] = {}
        self._done = int(now / tick_s)
        self._due: list[T] = []

    def arm(self, item: T, deadline: float) -> None:
        """Hand ``item`` out by this deadline; an earlier one that stands stays."""
        slot = int(deadline / self._tick_s) + 1
        old = item.slot
        if old != NO_SLOT:
            if old <= slot:  # nearly always: a later state has a later deadline
                return
            self.discard(item)
        if slot <= self._done:
            slot = self._done + 1
        item.slot = slot
        items = self._slots.get(slot)
        if items is None:
            self._slots[slot] = {item}
        else:
            items.add(item)

    def discard(self, item: T) -> None:
        """Take an item out; one that is not in is no error."""
        items = self._slots.get(item.slot)
        if items is not None:
            items.discard(item)
        item.slot = NO_SLOT

    def expire(self, now: float) -> list[T]:
        """Items whose deadline has come, MOST_AT_ONCE of them at the most; the rest next time.

        An item that is handed out is no longer in the wheel. One that was discarded while it
        waited for its turn here is left out.
        """
        tick = int(now / self._tick_s)
        while self._done < tick:
            self._done += 1
            items = self._slots.pop(self._done, None)
            if items:
                self._due.extend(items)
        due, self._due = self._due[:MOST_AT_ONCE], self._due[MOST_AT_ONCE:]
        handed_out: list[T] = []
        for item in due:
            if self._is_due(item):
                item.slot = NO_SLOT  # so that it comes once, however often it lies here
                handed_out.append(item)
        return handed_out

    def _is_due(self, item: T) -> bool:
        """Of one that waited here: one that was discarded since, and perhaps armed anew, is not."""
        return NO_SLOT < item.slot <= self._done

    def items(self) -> list[T]:
        """All that are in the wheel, each once."""
        due = dict.fromkeys([item for item in self._due if self._is_due(item)])
        return [*due, *[item for items in self._slots.values() for item in items]]

    def __len__(self) -> int:
        """Items in the wheel."""
        return len(self.items())
