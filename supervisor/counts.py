"""Counts in shared memory that outlive a killed worker (design section 3).

One row of three unsigned 64-bit cells per incarnation: accepted, dialled, ended. Only the worker
writes its row; it never goes back. The supervisor reads at any moment, and folds a row into the
base when its worker is gone.
"""

from __future__ import annotations

import heapq
import mmap
import os
from typing import Final

from msgspec import Struct

from shared.errors import InternalError
from shared.stats import COUNT_CELLS, COUNT_ROW_CELLS

ROW_BYTES: Final = COUNT_ROW_CELLS * 8


class Counts(Struct, frozen=True):
    """Connections since the start."""

    accepted: int = 0
    dialled: int = 0
    ended: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.accepted + other.accepted,
            self.dialled + other.dialled,
            self.ended + other.ended,
        )


class Killed(Struct):
    """Workers that ended by force, and the counts of all of them together."""

    workers: int = 0
    accepted: int = 0
    dialled: int = 0
    ended: int = 0


class CountsTable:
    """Owner of the memfd. ``fd`` is passed to each worker by the fork server.

    ``rows``: workers that live at one time, those that drain included.
    """

    def __init__(self, rows: int) -> None:
        self.fd = os.memfd_create("proxyctl-counts", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, rows * ROW_BYTES)
        self._map = mmap.mmap(self.fd, rows * ROW_BYTES)
        self._cells = memoryview(self._map).cast("Q")
        self._free = list(range(rows))  # a heap: the lowest first, so that few rows are looked at
        self._used: dict[int, int] = {}  # row: slot
        self._base: dict[int, Counts] = {}  # slot: of workers that are gone

    def take(self, slot: int = 0) -> int:
        """A row of zeros for a new incarnation in this slot."""
        if not self._free:
            raise InternalError(f"all {len(self._used)} rows of the counts table are in use")
        row = heapq.heappop(self._free)
        self._used[row] = slot
        return row

    def read(self, row: int) -> Counts:
        """The row as it is now."""
        start = row * COUNT_ROW_CELLS
        return Counts(*self._cells[start : start + COUNT_CELLS])

    def fold(self, row: int) -> Counts:
        """The row's worker is gone: keep its numbers, free the row; returns them as they were."""
        slot = self._used.pop(row, None)
        if slot is None:
            return Counts()
        left = self.read(row)
        # What it held has ended with it.
        counts = Counts(left.accepted, left.dialled, max(left.ended, left.accepted))
        self._base[slot] = self._base.get(slot, Counts()) + counts
        start = row * COUNT_ROW_CELLS
        for cell in range(start, start + COUNT_CELLS):
            self._cells[cell] = 0
        heapq.heappush(self._free, row)
        return left

    def total(self) -> Counts:
        """All workers together, dead ones included."""
        return sum(self.by_slot().values(), Counts())

    def by_slot(self) -> dict[int, Counts]:
        """The workers of each slot together, dead ones included; none goes back."""
        counts = dict(self._base)
        for row, slot in self._used.items():
            counts[slot] = counts.get(slot, Counts()) + self.read(row)
        return counts

    def close(self) -> None:
        """Give the memory back."""
        self._cells.release()
        self._map.close()
        os.close(self.fd)
