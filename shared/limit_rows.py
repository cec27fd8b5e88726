"""Rows of the limits' shared memory: whose worker lives, and how that of a dead one is cleared.

A worker holds a lock on that byte of the memory's file which has its row's number (fcntl(2),
F_SETLK). The kernel lets it go with the process, so whoever looks needs neither a pid nor a file.
As long as there is a supervisor it sees the end of each worker; without one the workers look
(design section 2). Layout: `shared/limit_layout.py`.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from array import array

from shared.limit_layout import CELL_BYTES, OPEN, OPEN_STRIDE, PAGE_BYTES, TableLayout, layout


def hold(fd: int, row: int) -> None:
    """This process counts in the row until it ends, or closes any descriptor of this file."""
    fcntl.lockf(fd, fcntl.LOCK_EX, 1, row)


class LimitRows:
    """All rows of the memory behind ``fd``, which stays the caller's to close."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._map = mmap.mmap(fd, 0)
        self._header = memoryview(self._map)[:16].cast("Q")
        self._layout = layout(self._header[0])
        opens = memoryview(self._map)[self._layout.open :]
        self._open = opens[: 4 * OPEN_STRIDE * self._layout.rows].cast("I")[::OPEN_STRIDE]
        self._cells = memoryview(self._map)[self._layout.cells : self._layout.rings].cast("Q")

    def used(self) -> int:
        """Rows that any worker ever counted in: those below this number."""
        return self._header[1]

    def is_abandoned(self, row: int) -> bool:
        """Whether no other process holds it: of one's own row it is always True."""
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, row)
        except OSError:  # EAGAIN or EACCES, fcntl(2); with ENOLCK nobody can tell
            return False
        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, row)
        return True

    def forget(self, row: int) -> None:
        """The row's worker is gone: its connections count no more, its rates still do."""
        self._open[row] = 0
        for table in (self._layout.addresses, self._layout.routes):
            self._forget(table, row)

    def _forget(self, table: TableLayout, row: int) -> None:
        first = table.first_cell + row * table.entries
        for page in range(0, table.entries * CELL_BYTES, PAGE_BYTES):
            # By pread, for a page that was never used is not made by it; most are not.
            raw = os.pread(self._fd, PAGE_BYTES, self._layout.cells + first * CELL_BYTES + page)
            if not raw.strip(b"\0"):
                continue
            for place, cell in enumerate(array("Q", raw), first + page // CELL_BYTES):
                if cell & OPEN:
                    self._cells[place] = cell & ~OPEN

    def close(self) -> None:
        """Give the mapping back."""
        for view in (self._header, self._open, self._cells):
            view.release()
        self._map.close()
