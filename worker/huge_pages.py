"""Huge pages for the memory of thousands of routes.

Each connection reads what belongs to its route, scattered over as many pages as there are kinds of
objects; with 10,000 routes no TLB holds their addresses. madvise(2) MADV_COLLAPSE, since Linux 6.1,
puts 2 MiB at a time into one page. Where the kernel refuses, everything stays as it is.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

HUGE: Final = 2 << 20  # bytes
_COLLAPSE: Final = 25  # MADV_COLLAPSE, asm-generic/mman-common.h
MOST_REFUSED: Final = 4  # in a row, before it is given up

# Anonymous memory of our own, the heap included; proc(5).
_MAPPED: Final = re.compile(
    r"^([0-9a-f]+)-([0-9a-f]+) rw-p 00000000 00:00 0 *(?:\[heap\])?$", re.MULTILINE
)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class HugePages:
    """Leaves alone what is mapped when it is made: that is shared with the fork server."""

    def __init__(self, maps: Path = Path("/proc/self/maps")) -> None:
        self._maps = maps
        self._shared = set(self._ranges())

    def collapse(self) -> Iterator[None]:
        """Put memory into huge pages, 2 MiB in each slice, which takes 1 to 5 ms."""
        refused = 0
        for start in sorted(set(self._ranges()) - self._shared):
            if _libc.madvise(start, HUGE, _COLLAPSE) == 0:
                refused = 0
            else:
                refused += 1
                if refused == MOST_REFUSED:
                    return
            yield

    def _ranges(self) -> Iterator[int]:
        """The first address of each whole huge page."""
        try:
            text = self._maps.read_text()
        except OSError:
            return  # no /proc: nothing is known
        for found in _MAPPED.finditer(text):
            first, end = int(found[1], 16), int(found[2], 16)
            yield from range(-(-first // HUGE) * HUGE, end - HUGE + 1, HUGE)
