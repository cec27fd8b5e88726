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

# Rows of counts in shared memory: accepted, dialled, ended. Each row has a cache line of its own:
# two workers that write to one line make each other wait for it.
COUNT_CELLS: Final = 3
COUNT_ROW_CELLS: Final = 8


class Histogram(Struct):
    """Counts per bucket of CONNECT_BUCKETS (one more for what is over), and the sum of seconds."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(CONNECT_BUCKETS) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.buckets[bisect_left(CONNECT_BUCKETS, seconds)] += 1
        self.total += seconds


class ListenerCounts(Struct):
    """Per listener name."""

    accepted: int = 0
    proxy_headers: dict[str, int] = field(default_factory=dict)  # result: v1, v2, local, ...
    refused: dict[str, int] = field(default_factory=dict)  # by end, before a route was chosen
    tls_handshakes: dict[str, int] = field(
        default_factory=dict
    )  # result: new, resumed, failed, timeout


class TargetCounts(Struct):
    """Per route and target name. ``received`` counts bytes from the target, ``sent`` to it."""

    active: int = 0
    total: int = 0
    received: int = 0
    sent: int = 0
    connect_failures: dict[str, int] = field(default_factory=dict)  # by reason
    is_up: bool = True


class RouteCounts(Struct):
    """Per route name. ``received`` counts bytes from clients, ``sent`` to them."""

    active: int = 0
    draining: int = 0  # of active: the route was removed
    total: int = 0
    received: int = 0
    sent: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    targets: dict[str, TargetCounts] = field(default_factory=dict)
    connect: Histogram = field(default_factory=Histogram)


class Snapshot(Struct, kw_only=True):
    """One worker's counters since it started, or a part of them where it has many routes."""

    slot: int
    pid: int
    incarnation: int
    run: str  # random id of the supervisor's run; a stray of another run is dropped
    sequence: int  # the parts of one report have the same
    part: int = 0  # counted from 0; the first has all but most of the routes
    is_end: bool = True  # no part follows
    is_last: bool = False
    connections: int = 0  # open now, with those that have no route yet
    accept_pauses: int = 0  # times accept stopped for want of descriptors
    log_lines_dropped: int = 0
    access_lines: int = 0  # written to the access log
    access_lines_dropped: int = 0  # for want of room, or because the file took no more
    limit_table_full: int = 0  # connections that a limit had no room to count
    listeners: dict[str, ListenerCounts] = field(default_factory=dict)
    routes: dict[str, RouteCounts] = field(default_factory=dict)


class Totals(Struct):
    """Counters of several workers added up."""

    connections: int = 0
    accept_pauses: int = 0
    log_lines_dropped: int = 0
    access_lines: int = 0  # written to the access log
    access_lines_dropped: int = 0  # for want of room, or because the file took no more
    limit_table_full: int = 0  # connections that a limit had no room to count
    listeners: dict[str, ListenerCounts] = field(default_factory=dict)
    routes: dict[str, RouteCounts] = field(default_factory=dict)


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


def _add_route(into: RouteCounts, other: RouteCounts) -> None:
    into.active += other.active
    into.draining += other.draining
    into.total += other.total
    into.received += other.received
    into.sent += other.sent
    _add_counts(into.ends, other.ends)
    into.connect.total += other.connect.total
    for index, count in enumerate(other.connect.buckets):
        into.connect.buckets[index] += count
    for name, target in other.targets.items():
        add_target(into.targets.setdefault(name, TargetCounts()), target)


def add(into: Totals, other: Snapshot | Totals) -> None:
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
    for name, route in other.routes.items():
        _add_route(into.routes.setdefault(name, RouteCounts()), route)


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
