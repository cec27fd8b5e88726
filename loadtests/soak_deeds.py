"""What was done to proxyctl in a soak, with the instants that excuse what came of it."""

from __future__ import annotations

import threading
from collections import deque
from time import monotonic
from typing import Final, Literal

import msgspec
from msgspec import Struct

from loadtests.soak_judge import Listed, Served

JOURNAL_LINES: Final = 10_000  # the last ones
_BEFORE_S: Final = 6.0  # no port is longer about leaving

Kind = Literal["kill", "hang", "stop"]


class Left(Struct, kw_only=True):
    """A place that a reload took away, and the one that gave it back. inf: not yet."""

    gone_at: float  # the reload has returned
    back_begun_at: float = float("inf")
    back_at: float = float("inf")


class Signalled(Struct, frozen=True, kw_only=True):
    """A worker that was killed, stopped for the watchdog to find (hang), or for a while (stop).

    ``again_at``: of several signals the instant of the last one; between both it served others.
    """

    incarnation: int
    pid: int
    kind: Kind
    at: float  # just before the signal
    again_at: float = 0.0


class Deeds:
    """All that was done, and what did not go as it had to; used by several threads.

    ``counts`` by kind of deed, ``left`` by the name of a place, ``signalled`` by incarnation;
    ``stops`` are the spans in which a worker stood still; ``lists``, the block lists, and
    ``certificates`` are in order.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.wrong: list[str] = []
        self.left: dict[str, list[Left]] = {}
        self.signalled: dict[int, Signalled] = {}
        self.stops: list[tuple[float, float]] = []
        self.lists: list[Listed] = []
        self.certificates: list[Served] = []
        self.slowest_reload_s = 0.0
        self.journal: deque[str] = deque(maxlen=JOURNAL_LINES)
        self.standing_still = threading.Lock()  # who holds it has stopped a worker, nobody else
        self._lock = threading.Lock()

    def count(self, kind: str) -> None:
        """One more deed of this kind."""
        with self._lock:
            self.counts[kind] = self.counts.get(kind, 0) + 1

    def tell(self, text: str) -> None:
        """A line for the journal, with the instant."""
        self.journal.append(f"{monotonic():.3f} {text}")

    def before(self, at: float) -> list[str]:
        """Lines of the journal of the seconds before an instant."""
        return [line for line in self.journal if -_BEFORE_S < float(line.split()[0]) - at < 1.0]

    def note(self, noted: Signalled) -> None:
        """A worker is signalled next."""
        with self._lock:
            earlier = self.signalled.get(noted.incarnation)
            if earlier is not None:
                noted = msgspec.structs.replace(noted, at=earlier.at, again_at=noted.at)
            self.signalled[noted.incarnation] = noted

    def forget(self, noted: Signalled) -> None:
        """The signal did no harm, unless another one came since."""
        with self._lock:
            if self.signalled.get(noted.incarnation) == noted:
                del self.signalled[noted.incarnation]
