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
    is_end: bool = True
    is_last: bool = False


class _Entry(Struct):
    """A worker's latest whole report, as bytes until its content is asked for."""

    head: SnapshotHead | None = None
    raws: list[bytes] = field(default_factory=list)
    decoded: Snapshot | None = None
    coming: int = -1  # the sequence of the one whose parts are gathered
    parts: list[bytes] = field(default_factory=list)


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
        """A snapshot, or a part of one, came. Dropped: of another run, of a folded worker, an older
        one, and parts of one that does not become whole.

        msgspec.MsgspecError when it is damaged.
        """
        head = _decode_head(raw)
        entry = self._live.get(head.incarnation)
        if head.run != self._run or entry is None:
            return
        if head.sequence > entry.coming:
            entry.coming, entry.parts = head.sequence, []
        if head.sequence < entry.coming or head.part != len(entry.parts):
            return  # older, or a part before it was lost
        entry.parts.append(raw)
        if head.is_end:
            entry.head, entry.raws, entry.decoded = head, entry.parts, None
            entry.parts = []

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
        """The latest whole report of each worker, all parts of it, as they came."""
        return [raw for entry in self._live.values() for raw in entry.raws]

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
    if entry.decoded is None and entry.raws:
        entry.decoded = _decode_snapshot(entry.raws[0])
        for raw in entry.raws[1:]:
            entry.decoded.routes.update(_decode_snapshot(raw).routes)
    return entry.decoded
