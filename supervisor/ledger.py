"""The counters of all workers, dead ones included (design section 3, "Stats").

Each worker pushes cumulative snapshots. Live totals are the base plus the latest snapshot of each
worker; when a worker is gone, its last snapshot goes into the base. So no counter goes back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Struct, field

from shared.stats import RouteCounts, Snapshot, Totals, add, end_as_killed


class SnapshotHead(Struct, frozen=True, kw_only=True):
    """What must be known of a snapshot at once; the rest is decoded when someone asks."""

    run: str
    incarnation: int
    sequence: int
    part: int = 0
    is_last: bool = False


class _Entry(Struct):
    """What came last of each part of a worker's counters, as bytes until someone asks."""

    head: SnapshotHead | None = None
    parts: dict[int, bytes] = field(default_factory=dict)
    decoded: Snapshot | None = None


_decode_head: Final = msgspec.msgpack.Decoder(SnapshotHead).decode
_decode_snapshot: Final = msgspec.msgpack.Decoder(Snapshot).decode


class Ledger:
    """Counters by worker incarnation."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._base = Totals()
        self._live: dict[int, _Entry] = {}
        self.folds = 0  # workers whose last words went into the base

    def open(self, incarnation: int) -> None:
        """Expect snapshots of this worker."""
        self._live[incarnation] = _Entry()

    def take(self, raw: bytes) -> None:
        """A snapshot came. Dropped: of another run, of a folded worker, and an older one.

        msgspec.MsgspecError when it is damaged.
        """
        head = _decode_head(raw)
        entry = self._live.get(head.incarnation)
        if head.run != self._run or entry is None:
            return
        if entry.head is None or head.sequence > entry.head.sequence:
            entry.head, entry.decoded = head, None
            entry.parts[head.part] = raw

    def has_last(self, incarnation: int) -> bool:
        """Whether nothing more can come of this worker."""
        entry = self._live.get(incarnation)
        return entry is None or (entry.head is not None and entry.head.is_last)

    def fold(self, incarnation: int) -> None:
        """The worker is gone; what it held has ended as ``killed``."""
        entry = self._live.pop(incarnation, None)
        snapshot = _content(entry) if entry is not None else None
        if snapshot is not None:
            end_as_killed(snapshot)
            add(self._base, snapshot)
            self.folds += 1

    def reports(self) -> list[bytes]:
        """What came last of each part of each worker's counters."""
        return [raw for entry in self._live.values() for raw in entry.parts.values()]

    def ended_routes(self) -> Mapping[str, RouteCounts]:
        """The counters of workers that are gone, by route; not to be changed."""
        return self._base.routes

    def totals(self) -> Totals:
        """All workers together, as a fresh object."""
        totals = Totals()
        add(totals, self._base)
        for entry in self._live.values():
            snapshot = _content(entry)
            if snapshot is not None:
                add(totals, snapshot)
        return totals


def _content(entry: _Entry) -> Snapshot | None:
    if entry.decoded is None and entry.head is not None:
        entry.decoded = whole = _decode_snapshot(entry.parts[entry.head.part])
        for part, raw in entry.parts.items():
            if part != entry.head.part:
                other = _decode_snapshot(raw)
                whole.routes.update(other.routes)
                whole.listeners.update(other.listeners)
    return entry.decoded
