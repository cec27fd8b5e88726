"""The file of a worker that lost its supervisor, as the worker and `proxyctl stop` know it.

Locked (flock) as long as the worker lives. Each field has a place of its own and is written at
once: the pid, then whether the worker is on its way out, then what became of its connections.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

PID_BYTES: Final = 32
LEAVING_AT: Final = 32
LEAVING: Final = b"leaving\n"
COUNTS_AT: Final = 64
_COUNTS_BYTES: Final = 64


class OrphanCounts(Struct, frozen=True):
    """Connections since its drain began: ended by themselves, cut; and open now."""

    drained: int = 0
    cut: int = 0
    open: int = 0

    def __add__(self, other: OrphanCounts) -> OrphanCounts:
        return OrphanCounts(
            self.drained + other.drained, self.cut + other.cut, self.open + other.open
        )

    def packed(self) -> bytes:
        """For COUNTS_AT; always of one length, so that nothing is left of a longer text."""
        return f"{self.drained} {self.cut} {self.open}\n".encode().rjust(_COUNTS_BYTES)


def counts_of(raw: bytes) -> OrphanCounts:
    """The counts of a file's bytes; zeros where none were written."""
    numbers = raw[COUNTS_AT : COUNTS_AT + _COUNTS_BYTES].split()
    if len(numbers) != len(OrphanCounts.__struct_fields__):
        return OrphanCounts()
    return OrphanCounts(*map(int, numbers))


def pid_of(raw: bytes) -> int:
    """The pid of a file's bytes; 0 where none is there."""
    text = raw[:PID_BYTES].strip()
    return int(text) if text.isdigit() else 0
