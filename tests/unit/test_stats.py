"""Adding up counters, and the ledger that never goes back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from shared.messages import encode
from shared.stats import (
    CONNECT_BUCKETS,
    REQUEST_BUCKETS,
    Histogram,
    ListenerCounts,
    Report,
    RouteCounts,
    Snapshot,
    TargetCounts,
    Totals,
    add,
    end_as_killed,
    request_histogram,
    unrouted_requests,
)
from supervisor.ledger import Ledger


def snapshot(*, total: int, active: int = 0) -> Snapshot:
    """One worker's counters, with one route and one target."""
    target = TargetCounts(active=active, total=total, received=3 * total, sent=total)
    ends = {"client_closed": total - active} if total > active else {}
    route = RouteCounts(active=active, total=total, ends=ends, targets={"t": target})
    return Snapshot(
        connections=active,
        listeners={"l": ListenerCounts(accepted=total)},
        routes={"r": route},
    )


def report(
    incarnation: int,
    sequence: int,
    snapshot: Snapshot,
    *,
    run: str = "run",
    part: int = 0,
    is_last: bool = False,
) -> bytes:
    """As it comes from a worker."""
    made = Report(run, incarnation, sequence, part, is_last, False, encode(snapshot))
    return encode(made)


def test_adding_sums_every_counter() -> None:
    """Counters, maps and buckets of several workers add up; a down target is down for all."""
    down = snapshot(total=4)
    down.routes["r"].targets["t"].is_up = False
    down.routes["r"].connect.observe(0.3)
    totals = Totals()
    add(totals, snapshot(total=3, active=1))
    add(totals, down)
    route = totals.routes["r"]
    assert (totals.connections, route.total, route.active) == (1, 7, 1)
    assert route.ends == {"client_closed": 6}
    assert (route.targets["t"].received, route.targets["t"].is_up) == (21, False)
    assert sum(route.connect.buckets) == 1
    assert totals.listeners["l"].accepted == 7


def test_histogram_has_a_bucket_for_everything() -> None:
    """A duration falls into the bucket whose bound it does not exceed; the last has none."""
    histogram = Histogram()
    for seconds in (0.0, CONNECT_BUCKETS[0], CONNECT_BUCKETS[-1], CONNECT_BUCKETS[-1] + 1):
        histogram.observe(seconds)
    assert (histogram.buckets[0], histogram.buckets[-2], histogram.buckets[-1]) == (2, 1, 1)


def test_histogram_of_requests_has_longer_buckets() -> None:
    """It begins with the same ones, and each duration falls where its bound says."""
    histogram = request_histogram()
    assert histogram.bounds() == REQUEST_BUCKETS == (*CONNECT_BUCKETS, 30.0, 60.0, 300.0)
    assert Histogram().bounds() == CONNECT_BUCKETS
    for seconds in (0.0, 10.0, 10.1, 30.0, 60.0, 300.0, 300.1, 1e9):
        histogram.observe(seconds)
    assert histogram.buckets == [1, *[0] * 13, 1, 2, 1, 1, 2]
    assert histogram.total == pytest.approx(1e9 + 710.2)


def test_quantile_is_interpolated() -> None:
    """Even within a bucket; the last bound for what is over it; None where nothing was."""
    histogram = request_histogram()
    assert histogram.quantile(0.5) is None
    for _ in range(4):
        histogram.observe(0.3)  # 0.25 to 0.5
    assert [histogram.quantile(share) for share in (0.25, 0.5, 1.0)] == [0.3125, 0.375, 0.5]
    for _ in range(4):
        histogram.observe(1000.0)
    assert [histogram.quantile(share) for share in (0.25, 0.5, 0.95)] == [0.375, 0.5, 300.0]


def test_quantile_never_falls() -> None:
    """A larger share takes at least as long, whatever lies between."""
    histogram = Histogram()
    for seconds in (0.0001, 0.003, 0.003, 0.2, 4.0, 50.0):
        histogram.observe(seconds)
    found = [histogram.quantile(share / 100) for share in range(1, 101)]
    values = [value for value in found if value is not None]
    assert len(values) == 100
    assert values == sorted(values)
    assert (values[0] < 0.00025, values[-1]) == (True, 10.0)


def test_adding_sums_requests() -> None:
    """By route, by target and by listener; histograms of requests come into being."""
    totals = Totals()
    for number in (1, 2):
        one = snapshot(total=1)
        route = one.routes["r"]
        route.requests = {"4xx": number}
        route.targets["t"].requests = {"2xx": 10 * number, "5xx": 1}
        one.listeners["l"].requests = {"4xx": 3}
        route.speak_http()
        assert route.request is not None
        assert route.first_byte is not None
        route.request.observe(45.0)
        route.first_byte.observe(0.001)
        add(totals, one)
    add(totals, snapshot(total=1))
    merged = totals.routes["r"]
    assert merged.requests == {"4xx": 3}
    assert merged.targets["t"].requests == {"2xx": 30, "5xx": 2}
    assert merged.requests_by_class() == {"2xx": 30, "4xx": 3, "5xx": 2}
    assert unrouted_requests(totals) == {"4xx": 6}
    assert merged.request is not None
    assert merged.first_byte is not None
    assert (merged.request.buckets[-3], merged.request.total) == (2, 90.0)
    assert sum(merged.first_byte.buckets) == 2


def test_a_route_that_speaks_no_http_has_no_histograms_of_requests() -> None:
    """Thousands of them would be sent for nothing; what one has, it keeps."""
    totals = Totals()
    add(totals, snapshot(total=1))
    route = totals.routes["r"]
    assert (route.request, route.first_byte) == (None, None)
    route.speak_http()
    kept = route.request
    route.speak_http()
    assert route.request is kept is not None


def test_what_a_dead_worker_held_ends_as_killed() -> None:
    """Open connections become ended ones, and every gauge is 0."""
    dead = snapshot(total=5, active=2)
    end_as_killed(dead)
    assert dead.connections == 0
    assert dead.routes["r"].ends == {"client_closed": 3, "killed": 2}
    assert dead.routes["r"].active == dead.routes["r"].targets["t"].active == 0


def test_ledger_drops_what_does_not_count() -> None:
    """An older snapshot, one of another run, and one of a folded worker change nothing."""
    ledger = Ledger("run")
    ledger.open(1)
    ledger.take(report(1, 2, snapshot(total=5)))
    ledger.take(report(1, 1, snapshot(total=3)))
    ledger.take(report(1, 9, snapshot(total=99), run="another"))
    ledger.fold(1)
    ledger.take(report(1, 3, snapshot(total=50)))
    ledger.take(report(7, 1, snapshot(total=50)))
    assert ledger.totals().routes["r"].total == 5


def test_ledger_knows_the_last_snapshot() -> None:
    """A worker that said its last word need not be waited for."""
    ledger = Ledger("run")
    ledger.open(1)
    assert not ledger.has_last(1)
    ledger.take(report(1, 2, snapshot(total=1), is_last=True))
    assert ledger.has_last(1)
    assert ledger.has_last(2)


def test_ledger_puts_parts_together() -> None:
    """What came last of each counts; the numbers without a name are those of the last of all."""
    ledger = Ledger("run")
    ledger.open(1)
    ledger.take(report(1, 1, snapshot(total=5, active=2)))
    second = Snapshot(connections=1, routes={"s": RouteCounts(total=7)})
    ledger.take(report(1, 2, second, part=1))
    totals = ledger.totals()
    assert {name: route.total for name, route in totals.routes.items()} == {"r": 5, "s": 7}
    assert (totals.connections, totals.listeners["l"].accepted) == (1, 5)
    ledger.take(report(1, 3, snapshot(total=6)))
    assert {name: one.total for name, one in ledger.totals().routes.items()} == {"r": 6, "s": 7}
    late = Snapshot(routes={"s": RouteCounts(total=3)})
    ledger.take(report(1, 2, late, part=1))
    assert ledger.totals().routes["s"].total == 7
    assert not ledger.has_last(1)
    ledger.take(report(1, 4, second, part=1, is_last=True))
    assert ledger.has_last(1)
    ledger.fold(1)
    assert {name: one.total for name, one in ledger.totals().routes.items()} == {"r": 6, "s": 7}


class LedgerMachine(RuleBasedStateMachine):
    """Workers come, count and die in any order; no counter goes back, nothing is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger("run")
        self.alive: dict[int, list[int]] = {}  # incarnation: sequence, total, active
        self.number = 0
        self.counted = 0
        self.seen = 0

    @rule()
    def start(self) -> None:
        self.number += 1
        self.alive[self.number] = [0, 0, 0]
        self.ledger.open(self.number)

    @rule(data=st.data(), more=st.integers(0, 5))
    def report(self, data: Any, more: int) -> None:
        if self.alive:
            worker = data.draw(st.sampled_from(sorted(self.alive)))
            state = self.alive[worker]
            state[0] += 1
            state[1] += more
            state[2] = data.draw(st.integers(0, state[1]))
            self.counted += more
            counted = snapshot(total=state[1], active=state[2])
            self.ledger.take(report(worker, state[0], counted))

    @rule(data=st.data())
    def die(self, data: Any) -> None:
        if self.alive:
            worker = data.draw(st.sampled_from(sorted(self.alive)))
            del self.alive[worker]
            self.ledger.fold(worker)

    @invariant()
    def exact(self) -> None:
        totals = self.ledger.totals()
        route = totals.routes.get("r", RouteCounts())
        assert route.total == self.counted >= self.seen
        assert route.active == totals.connections == sum(s[2] for s in self.alive.values())
        self.seen = route.total


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
