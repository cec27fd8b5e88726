"""Owner of the shared memory in which workers count what is limited over all of them.

Workers write and read it (`worker/limits.py`); the supervisor only gives rows out and sets the
connections of a worker that is gone to 0. Layout: `shared/limit_layout.py`.
"""

from __future__ import annotations

import mmap
import os
from array import array

from shared.limit_layout import (
    CELL_BYTES,
    OPEN,
    OPEN_STRIDE,
    PAGE_BYTES,
    Layout,
    TableLayout,
    layout,
)


class LimitTables:
    """``fd`` is passed to each worker by the fork server. Rows are those of `CountsTable`."""

    def __init__(self, rows: int) -> None:
        self._layout: Layout = layout(rows)
        self.fd = os.memfd_create("proxyctl-limits", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, self._layout.size)
        self._map = mmap.mmap(self.fd, self._layout.size)
        self._header = memoryview(self._map)[:16].cast("Q")
        opens = memoryview(self._map)[self._layout.open :][: 4 * OPEN_STRIDE * rows].cast("I")
        self._open = opens[::OPEN_STRIDE]
        self._cells = memoryview(self._map)[self._layout.cells : self._layout.rings].cast("Q")
        self._header[0] = rows

    def open_row(self, row: int) -> None:
        """A worker is about to count in this row: all are to look at it from now on."""
        self._header[1] = max(self._header[1], row + 1)

    def forget(self, row: int) -> None:
        """The row's worker is gone: its connections count no more, its rates still do."""
        self._open[row] = 0
        for table in (self._layout.addresses, self._layout.routes):
            self._forget(table, row)

    def _forget(self, table: TableLayout, row: int) -> None:
        first = table.first_cell + row * table.entries
        for page in range(0, table.entries * CELL_BYTES, PAGE_BYTES):
            # By pread, for a page that was never used is not made by it; most are not.
            raw = os.pread(self.fd, PAGE_BYTES, self._layout.cells + first * CELL_BYTES + page)
            if not raw.strip(b"\0"):
                continue
            for place, cell in enumerate(array("Q", raw), first + page // CELL_BYTES):
                if cell & OPEN:
                    self._cells[place] = cell & ~OPEN

    def close(self) -> None:
        """Give the memory back."""
        for view in (self._header, self._open, self._cells):
            view.release()
        self._map.close()
        os.close(self.fd)
