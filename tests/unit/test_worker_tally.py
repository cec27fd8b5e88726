"""What connections count, and what is reported of it."""

from __future__ import annotations

from shared.ends import End
from shared.stats import Histogram, RouteCounts, TargetCounts
from worker.tally import RouteTally


def test_what_was_counted_is_told() -> None:
    """All of it, at each time, whatever was told before."""
    tally = RouteTally()
    target = tally.target("t")
    assert tally.target("t") is target
    for round_ in (1, 2):
        tally.active += 4
        tally.total += 4
        for end in (End.CLIENT_CLOSED, End.TARGET_CLOSED, End.IDLE_TIMEOUT):
            tally.ended(end)
        tally.received += 10
        tally.sent += 20
        tally.connected(0.25 / 1024)
        tally.connected(1024.0)
        target.active += 1
        target.total += 2
        target.received += 3
        target.sent += 5
        tally.tell()
        tally.tell()
        assert tally.counts == RouteCounts(
            active=round_,
            total=4 * round_,
            received=10 * round_,
            sent=20 * round_,
            ends=dict.fromkeys(("client_closed", "target_closed", "idle_timeout"), round_),
            targets={
                "t": TargetCounts(
                    active=round_, total=2 * round_, received=3 * round_, sent=5 * round_
                )
            },
            connect=Histogram(
                buckets=[round_, *[0] * 14, round_], total=(1024.0 + 0.25 / 1024) * round_
            ),
        )


def test_what_is_told_rarely_is_there_at_once() -> None:
    """A route that nothing happened to tells nothing but zeros."""
    tally = RouteTally()
    tally.tell()
    assert tally.counts == RouteCounts()
