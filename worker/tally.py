"""What each connection counts, as plain numbers of compiled classes.

A number in a Struct is an object of its own, and so is what replaces it: with thousands of routes
in use, each change would touch memory that no cache holds. The counters that are reported
(`shared/stats.py`) are brought up to date when they are; rare ones are counted there at once.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from shared.ends import End
from shared.stats import (
    CONNECT_BUCKETS,
    Histogram,
    RouteCounts,
    TargetCounts,
    request_histogram,
)

CLIENT_CLOSED: Final = End.CLIENT_CLOSED
TARGET_CLOSED: Final = End.TARGET_CLOSED


class TargetTally:
    """Of one target of a route."""

    __slots__ = ("active", "counts", "received", "sent", "total")

    def __init__(self, counts: TargetCounts) -> None:
        self.counts = counts
        self.active = self.total = self.received = self.sent = 0

    def tell(self) -> None:
        """Bring what is reported up to date."""
        counts = self.counts
        counts.active, counts.total = self.active, self.total
        counts.received, counts.sent = self.received, self.sent


class RouteTally:
    """Of one route. ``connect_s``: seconds that its dials took, all together."""

    __slots__ = (
        "active",
        "bucket",
        "by_client",
        "by_target",
        "connect_s",
        "counts",
        "in_bucket",
        "received",
        "sent",
        "spare",
        "targets",
        "total",
    )

    def __init__(self) -> None:
        self.counts = RouteCounts()
        self.targets: dict[str, TargetTally] = {}  # by name
        self.active = self.total = self.received = self.sent = 0
        self.by_client = self.by_target = 0  # the usual ends
        self.connect_s = 0.0
        self.bucket = self.in_bucket = 0  # the bucket of the last dials, and how many they were
        self.spare: tuple[Histogram, Histogram] | None = None

    def target(self, name: str) -> TargetTally:
        """That of the target with this name."""
        found = self.targets.get(name)
        if found is None:
            counts = self.counts.targets[name] = TargetCounts()
            found = self.targets[name] = TargetTally(counts)
        return found

    def expect_requests(self) -> None:
        """Make their histograms with the route, so that they lie in memory beside it; they are
        reported once there was a request.
        """
        if self.spare is None and self.counts.request is None:
            self.spare = request_histogram(), request_histogram()

    def had_request(self) -> tuple[Histogram, Histogram]:
        """Of whole requests, and of first bytes."""
        counts = self.counts
        if self.spare is not None:
            counts.request, counts.first_byte = self.spare
            self.spare = None
        return counts.speak_http()

    def connected(self, seconds: float) -> None:
        """A dial took so long."""
        bucket = bisect_left(CONNECT_BUCKETS, seconds)
        if bucket != self.bucket:
            self._tell_bucket()
            self.bucket = bucket
        self.in_bucket += 1
        self.connect_s += seconds

    def _tell_bucket(self) -> None:
        if self.in_bucket:
            self.counts.connect.buckets[self.bucket] += self.in_bucket
            self.in_bucket = 0

    def ended(self, end: End) -> None:
        """A connection that had this route is over."""
        self.active -= 1
        if end is CLIENT_CLOSED:
            self.by_client += 1
        elif end is TARGET_CLOSED:
            self.by_target += 1
        else:
            ends = self.counts.ends
            ends[end] = ends.get(end, 0) + 1

    def tell(self) -> None:
        """Bring what is reported up to date."""
        counts = self.counts
        counts.active, counts.total = self.active, self.total
        counts.received, counts.sent = self.received, self.sent
        self._tell_bucket()
        counts.connect.total = self.connect_s
        if self.by_client:
            counts.ends[CLIENT_CLOSED] = self.by_client
        if self.by_target:
            counts.ends[TARGET_CLOSED] = self.by_target
        for target in self.targets.values():
            target.tell()
