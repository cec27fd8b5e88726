"""Keeps a PROXY header of somebody who is not trusted from reaching a target (`untrusted: reject`).

It looks at the first bytes of a client as they pass. Bytes that may still begin a header are held
back for a while, the byte that would complete a signature for ever.
"""

from __future__ import annotations

from enum import Enum, auto

from shared.proxy_protocol import could_begin, is_header_start


class Verdict(Enum):
    """What to do with the bytes just fed."""

    PASS = auto()  # no header, now and for ever: pass on what is held and forget the guard
    HOLD = auto()  # may still become a header
    REJECT = auto()  # a header began


class HeaderGuard:
    """Feed it the first bytes of a connection until it gives a verdict other than HOLD."""

    __slots__ = ("_released", "_seen")

    def __init__(self) -> None:
        self._seen = b""
        self._released = 0

    def feed(self, data: bytes) -> Verdict:
        """Judge all bytes so far."""
        self._seen += data
        if is_header_start(self._seen):
            return Verdict.REJECT
        return Verdict.HOLD if could_begin(self._seen) else Verdict.PASS

    def release(self) -> bytes:
        """Bytes held so far that were not released yet; they are not held any more."""
        held = self._seen[self._released :]
        self._released = len(self._seen)
        return held

    @property
    def held(self) -> int:
        """Bytes that are held back."""
        return len(self._seen) - self._released
