"""Ids of requests, which are the ids of their traces too, without a system call for each."""

from __future__ import annotations

from random import Random
from typing import Final

ID_BITS: Final = 128  # of a trace id, W3C Trace Context section 3.2.2.3
_ONES: Final = 1 << 64 | 1


class RequestIds:
    """One per worker, made after the fork: ids repeat where the seed does.

    They are hard to guess and no secret: nothing may be granted to whoever knows one.
    """

    __slots__ = ("_bits",)

    def __init__(self, seed: int) -> None:
        """``seed``: at least 128 random bits of the system's."""
        self._bits = Random(seed).getrandbits

    def make(self) -> str:
        """32 lower-case hex digits, neither half of them all zeros (section 3.2.2.4)."""
        return f"{self._bits(ID_BITS) | _ONES:032x}"
