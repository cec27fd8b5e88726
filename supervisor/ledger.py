"""The counters of all workers, dead ones included (design section 3, "Stats").

Each worker reports cumulative snapshots. Live totals are the base plus the latest snapshot of each
worker; when a worker is gone, its last snapshot goes into the base. So no counter goes back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Struct, field

from shared.stats import Report, RouteCounts, Snapshot, Totals, add, end_as_killed


class _Entry(Struct):
    """What came last of each part of a worker's counters, as bytes until someone asks."""

    sequence: int = 0
    latest: int = 0  # the part that came last
    is_last: bool = False
    has_requests: bool = False
    parts: dict[int, bytes] = field(default_factory=dict)
    decoded: Snapshot | None = None


_decode_report: Final = msgspec.msgpack.Decoder(Report).decode
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
        """A report came. Dropped: of another run, of a folded worker, and an older one.

        msgspec.MsgspecError when it is damaged.
        """
        report = _decode_report(raw)
        entry = self._live.get(report.incarnation)
        if report.run != self._run or entry is None or report.sequence <= entry.sequence:
            return
        entry.sequence, entry.latest, entry.is_last = report.sequence, report.part, report.is_last
        entry.has_requests = report.has_requests
        entry.parts[report.part] = report.snapshot
        entry.decoded = None

    def has_last(self, incarnation: int) -> bool:
        """Whether nothing more can come of this worker."""
        entry = self._live.get(incarnation)
        return entry is None or entry.is_last

    def fold(self, incarnation: int) -> None:
        """The worker is gone; what it held has ended as ``killed``."""
        entry = self._live.pop(incarnation, None)
        snapshot = _content(entry) if entry is not None else None
        if snapshot is not None:
            end_as_killed(snapshot)
            add(self._base, snapshot)
            self.folds += 1

    def with_requests(self) -> list[bytes]:
        """What came last of each part, encoded, of the workers that had requests of HTTP."""
        live = [entry for entry in self._live.values() if entry.has_requests]
        return [raw for entry in live for raw in entry.parts.values()]

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
    if entry.decoded is None and entry.parts:
        entry.decoded = whole = _decode_snapshot(entry.parts[entry.latest])
        for part, raw in entry.parts.items():
            if part != entry.latest:
                other = _decode_snapshot(raw)
                whole.routes.update(other.routes)
                whole.listeners.update(other.listeners)
    return entry.decoded
