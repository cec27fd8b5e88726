"""Workers that ended unasked: the last ones for `status`, all of them as counts by kind."""

from __future__ import annotations

import time
from collections import deque
from typing import Final

from msgspec import Struct

_KEPT: Final = 20


class Restart(Struct, frozen=True, kw_only=True):
    """A worker that ended unasked. ``kind`` is the label of the counter; ``time`` since 1970."""

    slot: int
    pid: int  # 0: it never came to be
    kind: str  # crashed, killed, hung, boot, fork
    reason: str
    time: float


class RestartLog:
    """``last``: oldest first. ``counts``: by kind, since the start."""

    def __init__(self) -> None:
        self.last: deque[Restart] = deque(maxlen=_KEPT)
        self.counts: dict[str, int] = {}

    def note(self, slot: int, pid: int, kind: str, reason: str) -> None:
        """One more."""
        self.last.append(Restart(slot=slot, pid=pid, kind=kind, reason=reason, time=time.time()))
        self.counts[kind] = self.counts.get(kind, 0) + 1
