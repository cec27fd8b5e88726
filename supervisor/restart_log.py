"""Workers that ended unasked: the last ones for `status`, all of them as counts by kind."""

from __future__ import annotations

import time
from collections import deque
from typing import Final

from msgspec import Struct, field

_KEPT: Final = 200


class Restart(Struct, frozen=True, kw_only=True):
    """A worker that ended unasked, or could not follow a generation and was replaced.

    ``kind`` is the label of the counter; ``time`` since 1970. ``accepted``, ``dialled`` and
    ``ended`` are the connections that the worker counted in all its life.
    """

    slot: int
    kind: str  # crashed, killed, hung, boot, fork, outdated
    reason: str
    pid: int = 0  # 0: it never came to be
    incarnation: int = 0
    accepted: int = 0
    dialled: int = 0
    ended: int = 0
    time: float = field(default_factory=time.time)


class RestartLog:
    """``last``: oldest first. ``counts``: by kind, since the start."""

    def __init__(self) -> None:
        self.last: deque[Restart] = deque(maxlen=_KEPT)
        self.counts: dict[str, int] = {}

    def note(self, restart: Restart) -> None:
        """One more."""
        self.last.append(restart)
        self.counts[restart.kind] = self.counts.get(restart.kind, 0) + 1
