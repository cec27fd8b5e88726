"""Counters: what a worker reports, and how the supervisor adds the reports up.

A worker's Snapshot is cumulative since its start, so that a lost one is harmless. Gauges
(``active``) are of the moment. Everything is keyed by configured names only, never by a client.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from msgspec import Struct, field

from shared.ends import End

# Upper bounds in seconds; the last bucket has none. Starts at 0.25 ms: a proxy's dial on one host
# takes less than the 5 ms at which OpenTelemetry's advice begins.
CONNECT_BUCKETS: Final = (
    0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
# A dial is given up after some seconds, while an upload or a stream of events may last for minutes.
# Begins with all of CONNECT_BUCKETS: `Histogram` relies on that.
REQUEST_BUCKETS: Final = (*CONNECT_BUCKETS, 30.0, 60.0, 300.0)

# Rows of counts in shared memory: accepted, dialled, ended. Each row has a cache line of its own:
# two workers that write to one line make each other wait for it.
COUNT_CELLS: Final = 3
COUNT_ROW_CELLS: Final = 8


class Histogram(Struct, array_like=True, omit_defaults=True):
    """Counts per bucket (one more for what is over), and the sum of seconds.

    The upper bounds are the first ones of REQUEST_BUCKETS, as many as there are buckets less one:
    CONNECT_BUCKETS as it is made here, all of them as `request_histogram` makes it.
    """

    buckets: list[int] = field(default_factory=lambda: [0] * (len(CONNECT_BUCKETS) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        buckets = self.buckets
        buckets[bisect_left(REQUEST_BUCKETS, seconds, 0, len(buckets) - 1)] += 1
        self.total += seconds

    def bounds(self) -> tuple[float, ...]:
        """Upper bounds in seconds of all buckets but the last."""
        return REQUEST_BUCKETS[: len(self.buckets) - 1]

    def quantile(self, share: float) -> float | None:
        """Seconds within which ``share`` (0 to 1) of all durations were; None: there were none.

        Within a bucket they are taken to be spread evenly; of those over the last bound only that
        is known, so it is the answer.
        """
        wanted = share * sum(self.buckets)
        if not wanted:
            return None
        below, low = 0, 0.0
        for bound, count in zip(self.bounds(), self.buckets, strict=False):
            if count and below + count >= wanted:
                return low + (bound - low) * (wanted - below) / count
            below, low = below + count, bound
        return low


def request_histogram() -> Histogram:
    """A Histogram with all of REQUEST_BUCKETS."""
    return Histogram([0] * (len(REQUEST_BUCKETS) + 1))


class ListenerCounts(Struct):
    """Per listener name."""

    accepted: int = 0
    proxy_headers: dict[str, int] = field(default_factory=dict)  # result: v1, v2, local, ...
    refused: dict[str, int] = field(default_factory=dict)  # by end, before a route was chosen
    tls_handshakes: dict[str, int] = field(
        default_factory=dict
    )  # result: new, resumed, failed, timeout
    requests: dict[str, int] = field(default_factory=dict)  # that no route took, by "4xx"


# There may be thousands of the following in a report: they go as arrays, without what is unset at
# their ends. `supervisor/request_rates.py` reads their first fields only.
class TargetCounts(Struct, array_like=True, omit_defaults=True):
    """Per route and target name. ``received`` counts bytes from the target, ``sent`` to it.

    ``requests``: that it was sent, by the "2xx" of the answer.
    """

    requests: dict[str, int] = field(default_factory=dict)
    active: int = 0
    total: int = 0
    received: int = 0
    sent: int = 0
    connect_failures: dict[str, int] = field(default_factory=dict)  # by reason
    is_up: bool = True


class RouteCounts(Struct, array_like=True, omit_defaults=True):
    """Per route name. ``received`` counts bytes from clients, ``sent`` to them.

    ``requests``: that no target was sent, by the "4xx" of the answer.
    """

    requests: dict[str, int] = field(default_factory=dict)
    targets: dict[str, TargetCounts] = field(default_factory=dict)
    active: int = 0
    total: int = 0
    received: int = 0
    sent: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    connect: Histogram = field(default_factory=Histogram)
    draining: int = 0  # of active: the route was removed
    # Of HTTP, with REQUEST_BUCKETS; None where there was no request yet.
    request: Histogram | None = None  # from the request's first byte to the answer's last
    first_byte: Histogram | None = None  # from the request's end to the answer's first byte

    def speak_http(self) -> tuple[Histogram, Histogram]:
        """Those of requests, made where they are not there yet: thousands of routes never have
        one, and all of them are sent with each report."""
        self.request = self.request or request_histogram()
        self.first_byte = self.first_byte or request_histogram()
        return self.request, self.first_byte

    def requests_by_class(self) -> dict[str, int]:
        """All requests that the route took, by the "2xx" of the answer, in order."""
        counts: dict[str, int] = {}
        _add_counts(counts, self.requests)
        for target in self.targets.values():
            _add_counts(counts, target.requests)
        return dict(sorted(counts.items()))


class Snapshot(Struct):
    """One worker's counters since it started, or some of them where it has many routes."""

    connections: int = 0  # open now, with those that have no route yet
    accept_pauses: int = 0  # times accept stopped for want of descriptors
    log_lines_dropped: int = 0
    access_lines: int = 0  # written to the access log
    access_lines_dropped: int = 0  # for want of room, or because the file took no more
    limit_table_full: int = 0  # connections that a limit had no room to count
    listeners: dict[str, ListenerCounts] = field(default_factory=dict)
    routes: dict[str, RouteCounts] = field(default_factory=dict)


class Report(Struct, frozen=True, array_like=True):
    """A Snapshot on its way: what must be known at once, the rest as bytes for whoever asks.

    Each ``part`` holds routes of its own, always the same ones, and what came last of it counts.
    The numbers that are not by name come with each part, listeners with the first one.
    """

    run: str  # random id of the supervisor's run; a stray of another run is dropped
    incarnation: int
    sequence: int  # rises with each
    part: int
    is_last: bool  # nothing more comes of this worker
    has_requests: bool  # of HTTP, any of its routes
    snapshot: bytes  # encoded


class Totals(Snapshot):
    """Counters of several workers added up."""


def _add_counts(into: dict[str, int], other: dict[str, int]) -> None:
    for key, count in other.items():
        into[key] = into.get(key, 0) + count


def add_target(into: TargetCounts, other: TargetCounts) -> None:
    """Add one target's counters to ``into``; up only where it is up in both."""
    into.active += other.active
    into.total += other.total
    into.received += other.received
    into.sent += other.sent
    into.is_up = into.is_up and other.is_up
    _add_counts(into.connect_failures, other.connect_failures)
    _add_counts(into.requests, other.requests)


def _add_histogram(into: Histogram, other: Histogram) -> None:
    into.total += other.total
    for index, count in enumerate(other.buckets):
        into.buckets[index] += count


def _add_route(into: RouteCounts, other: RouteCounts) -> None:
    into.active += other.active
    into.draining += other.draining
    into.total += other.total
    into.received += other.received
    into.sent += other.sent
    _add_counts(into.ends, other.ends)
    _add_counts(into.requests, other.requests)
    _add_histogram(into.connect, other.connect)
    if other.request is not None:
        into.request = into.request or request_histogram()
        _add_histogram(into.request, other.request)
    if other.first_byte is not None:
        into.first_byte = into.first_byte or request_histogram()
        _add_histogram(into.first_byte, other.first_byte)
    for name, target in other.targets.items():
        add_target(into.targets.setdefault(name, TargetCounts()), target)


def add(into: Totals, other: Snapshot) -> None:
    """Add one report to ``into``, key by key."""
    into.connections += other.connections
    into.accept_pauses += other.accept_pauses
    into.log_lines_dropped += other.log_lines_dropped
    into.access_lines += other.access_lines
    into.access_lines_dropped += other.access_lines_dropped
    into.limit_table_full += other.limit_table_full
    for name, counts in other.listeners.items():
        listener = into.listeners.setdefault(name, ListenerCounts())
        listener.accepted += counts.accepted
        _add_counts(listener.proxy_headers, counts.proxy_headers)
        _add_counts(listener.refused, counts.refused)
        _add_counts(listener.tls_handshakes, counts.tls_handshakes)
        _add_counts(listener.requests, counts.requests)
    for name, route in other.routes.items():
        _add_route(into.routes.setdefault(name, RouteCounts()), route)


def unrouted_requests(totals: Totals) -> dict[str, int]:
    """Requests that no route took, over all listeners, by the "4xx" of the answer."""
    counts: dict[str, int] = {}
    for listener in totals.listeners.values():
        _add_counts(counts, listener.requests)
    return dict(sorted(counts.items()))


def end_as_killed(snapshot: Snapshot) -> None:
    """Turn what a dead worker still held into ended connections with the reason ``killed``."""
    for route in snapshot.routes.values():
        if route.active:
            route.ends[End.KILLED] = route.ends.get(End.KILLED, 0) + route.active
        route.active = route.draining = 0
        for target in route.targets.values():
            target.active = 0
            target.is_up = True
    snapshot.connections = 0
