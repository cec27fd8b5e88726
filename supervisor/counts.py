"""Counts in shared memory that outlive a killed worker (design section 3).

One row of three unsigned 64-bit cells per incarnation: accepted, dialled, ended. Only the worker
writes its row; it never goes back. The supervisor reads at any moment, and folds a row into the
base when its worker is gone.
"""

from __future__ import annotations

import mmap
import os
from typing import Final

from msgspec import Struct

from shared.errors import InternalError

CELLS: Final = 3
ROW_BYTES: Final = CELLS * 8
ROWS: Final = 4096  # workers that live at one time, the draining ones of old sizes included


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


class CountsTable:
    """Owner of the memfd. ``fd`` is passed to each worker by the fork server."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("proxyctl-counts", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, ROWS * ROW_BYTES)
        self._map = mmap.mmap(self.fd, ROWS * ROW_BYTES)
        self._cells = memoryview(self._map).cast("Q")
        self._free = list(range(ROWS - 1, -1, -1))
        self._used: set[int] = set()
        self._base = Counts()

    def take(self) -> int:
        """A row of zeros for a new incarnation."""
        if not self._free:
            raise InternalError(f"all {ROWS} rows of the counts table are in use")
        row = self._free.pop()
        self._used.add(row)
        return row

    def read(self, row: int) -> Counts:
        """The row as it is now."""
        start = row * CELLS
        return Counts(*self._cells[start : start + CELLS])

    def fold(self, row: int) -> None:
        """The row's worker is gone: keep its numbers, free the row."""
        if row not in self._used:
            return
        counts = self.read(row)
        # What it held has ended with it.
        self._base += Counts(counts.accepted, counts.dialled, max(counts.ended, counts.accepted))
        start = row * CELLS
        for cell in range(start, start + CELLS):
            self._cells[cell] = 0
        self._used.discard(row)
        self._free.append(row)

    def total(self) -> Counts:
        """All workers together, dead ones included."""
        counts = self._base
        for row in self._used:
            counts += self.read(row)
        return counts

    def close(self) -> None:
        """Give the memory back."""
        self._cells.release()
        self._map.close()
        os.close(self.fd)
