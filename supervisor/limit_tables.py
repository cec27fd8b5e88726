"""Owner of the shared memory in which workers count what is limited over all of them.

Workers write and read it (`worker/limits.py`); the supervisor only gives rows out and sets the
connections of a worker that is gone to 0. Layout: `shared/limit_layout.py`.
"""

from __future__ import annotations

import mmap
import os

from shared.limit_layout import layout
from shared.limit_rows import LimitRows


class LimitTables:
    """``fd`` is passed to each worker by the fork server. Rows are those of `CountsTable`."""

    def __init__(self, rows: int) -> None:
        self.fd = os.memfd_create("proxyctl-limits", os.MFD_CLOEXEC)
        size = layout(rows).size
        os.ftruncate(self.fd, size)
        self._map = mmap.mmap(self.fd, size)
        self._header = memoryview(self._map)[:16].cast("Q")
        self._header[0] = rows
        self._rows = LimitRows(self.fd)

    def open_row(self, row: int) -> None:
        """A worker is about to count in this row: all are to look at it from now on."""
        self._header[1] = max(self._header[1], row + 1)

    def forget(self, row: int) -> None:
        """The row's worker is gone: its connections count no more, its rates still do."""
        self._rows.forget(row)

    def close(self) -> None:
        """Give the memory back."""
        self._rows.close()
        self._header.release()
        self._map.close()
        os.close(self.fd)
