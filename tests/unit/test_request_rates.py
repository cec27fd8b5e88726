"""Requests per second over the last minute, and what is said of a route's requests."""

from __future__ import annotations

import asyncio

import pytest

from shared.messages import encode
from shared.plan import Endpoints, HttpPlan, Plan, RoutePlan
from shared.stats import Report, RouteCounts, Snapshot, TargetCounts, Totals
from supervisor import request_counts
from supervisor.ledger import Ledger
from supervisor.request_rates import SAMPLE_S, WINDOW_S, RequestRates


class Scene:
    """A ledger that workers report to, rates over it, and a clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.ledger = Ledger("run")
        self.rates = RequestRates(self.ledger, lambda: self.now)
        self.sequence = 0

    def report(self, incarnation: int, requests: int, *, own: int = 0) -> None:
        """A worker has sent so many to its target, and answered so many itself, since it began."""
        route = RouteCounts(
            total=1,
            targets={"t": TargetCounts(requests={"2xx": requests})},
            requests={"4xx": own} if own else {},
        )
        route.speak_http()
        snapshot = Snapshot(routes={"r": route, "tcp": RouteCounts(total=5)})
        self.take(incarnation, snapshot, has_requests=True)

    def take(self, incarnation: int, snapshot: Snapshot, *, has_requests: bool) -> None:
        """It comes from a worker."""
        self.sequence += 1
        report = Report("run", incarnation, self.sequence, 0, False, has_requests, encode(snapshot))
        self.ledger.take(encode(report))

    def rate(self) -> float | None:
        """Of the route, as it is told now."""
        rates = self.rates.per_second(self.ledger.totals().routes)
        assert "tcp" not in rates
        return rates.get("r")

    def pass_time(self, seconds: float) -> None:
        """Take a sample every SAMPLE_S for so long."""
        for _ in range(int(seconds / SAMPLE_S)):
            self.now += SAMPLE_S
            asyncio.run(self.rates.sample())


@pytest.fixture
def scene() -> Scene:
    """With one worker that has said nothing yet."""
    made = Scene()
    made.ledger.open(1)
    return made


def test_rate_since_the_start_is_over_the_time_that_has_passed(scene: Scene) -> None:
    """Not over a minute that has not been yet; over a second at least."""
    assert scene.rate() is None
    scene.report(1, 20, own=10)
    assert scene.rate() == 30.0
    scene.now += 10.0
    assert scene.rate() == 3.0


def test_rate_is_that_of_the_last_minute(scene: Scene) -> None:
    """What came before no longer counts, and what comes now counts at once."""
    scene.report(1, 600)
    scene.pass_time(WINDOW_S)
    assert scene.rate() == 10.0
    scene.pass_time(SAMPLE_S)
    assert scene.rate() == 0.0
    scene.report(1, 660)
    assert scene.rate() == 1.0
    scene.pass_time(10 * WINDOW_S)
    assert scene.rate() == 0.0


def test_rate_goes_on_over_the_death_of_a_worker(scene: Scene) -> None:
    """What a dead one had counted is neither lost nor new."""
    scene.report(1, 600)
    scene.pass_time(2 * WINDOW_S)
    scene.ledger.fold(1)
    assert scene.rate() == 0.0
    scene.pass_time(SAMPLE_S)
    scene.ledger.open(2)
    scene.report(2, 120)
    assert scene.rate() == 2.0
    scene.pass_time(2 * WINDOW_S)
    assert scene.rate() == 0.0


def test_sample_during_which_a_worker_ends_is_left_out(scene: Scene) -> None:
    """Its counts would be there twice, and the rate too low for a minute."""
    scene.report(1, 600)
    scene.now += SAMPLE_S

    async def both() -> None:
        sampling = asyncio.ensure_future(scene.rates.sample())
        await asyncio.sleep(0)  # the report of the worker has been read
        scene.ledger.fold(1)
        await sampling

    asyncio.run(both())
    assert scene.rate() == 600 / SAMPLE_S


def test_nothing_is_decoded_of_a_worker_without_requests(scene: Scene) -> None:
    """What it reports may have thousands of routes."""
    scene.ledger.open(2)
    scene.report(1, 600)
    scene.sequence += 1
    damaged = Report("run", 2, scene.sequence, 0, False, False, b"\xc1")
    scene.ledger.take(encode(damaged))
    scene.pass_time(SAMPLE_S)
    scene.ledger.open(2)  # else its damage would be read for the rate
    assert scene.rate() == 600 / SAMPLE_S


def plan(*names: str) -> Plan:
    """Routes that speak HTTP, and one that does not."""
    routes = [
        RoutePlan(name=name, order=order, listeners=(), http=HttpPlan())
        for order, name in enumerate(names)
    ]
    tcp = RoutePlan(name="tcp", order=9, listeners=())
    return Plan(
        generation=1, listeners=(), routes=(*routes, tcp), endpoints=Endpoints(addresses={})
    )


def test_what_is_said_of_requests() -> None:
    """In all, by class, per second, the share of errors, and durations from the histogram."""
    counts = RouteCounts(
        requests={"4xx": 2},
        targets={
            "a": TargetCounts(requests={"2xx": 90, "5xx": 3}),
            "b": TargetCounts(requests={"2xx": 4, "5xx": 1}),
        },
    )
    counts.speak_http()
    assert counts.request is not None
    for seconds, times in ((0.002, 50), (0.2, 45), (20.0, 5)):
        for _ in range(times):
            counts.request.observe(seconds)
    totals = Totals(routes={"web": counts, "idle": RouteCounts(), "tcp": RouteCounts(total=4)})
    said = request_counts.by_route(plan("web", "idle"), totals, {"web": 2.5})
    assert said == {
        "web": {
            "requests": 100,
            "by_class": {"2xx": 94, "4xx": 2, "5xx": 4},
            "per_second": 2.5,
            "error_rate": 0.04,
            "p50_s": 0.0025,
            "p95_s": 0.25,
            "p99_s": 26.0,
        },
        "idle": {
            "requests": 0,
            "by_class": {},
            "per_second": 0.0,
            "error_rate": 0.0,
            "p50_s": None,
            "p95_s": None,
            "p99_s": None,
        },
    }


def test_a_removed_route_keeps_its_requests() -> None:
    """While it is counted at all; it spoke HTTP once."""
    counts = RouteCounts(requests={"2xx": 1})
    counts.speak_http()
    assert list(request_counts.by_route(plan(), Totals(routes={"gone": counts}), {})) == ["gone"]
