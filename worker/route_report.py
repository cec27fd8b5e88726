"""Which routes' counters a snapshot holds, brought up to date."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Final

from shared.stats import RouteCounts
from worker.generation import Lasting, Route
from worker.tally import RouteTally

# To find and to send so many takes 1 + 1 ms where all were used; traffic goes on in between.
ROUTES_A_PART: Final = 1000


def parts(
    lasting: Lasting, served: Mapping[str, Route], now: float
) -> Iterator[tuple[dict[str, RouteCounts], bool]]:
    """Counters by route, some routes at a time, each with whether no part follows.

    There is one part at least. ``served``: the routes of the committed generation; ``now`` is
    monotonic. Counters that come into being meanwhile wait for the next report.
    """
    names, tallies = list(lasting.tallies), list(lasting.tallies.values())
    last = max(0, len(names) - 1) // ROUTES_A_PART
    each = zip(names, tallies, strict=True)  # which leaves the collector no pairs
    for part in range(last + 1):
        some = islice(each, ROUTES_A_PART)
        yield told_routes(some, served, lasting.failing, now), part == last


def told_routes(
    tallies: Iterable[tuple[str, RouteTally]],
    served: Mapping[str, Route],
    failing: set[str],
    now: float,
) -> dict[str, RouteCounts]:
    """Those that have something to say.

    A route that nobody has used and whose targets are up says nothing: thousands of them would be
    sent for it. ``failing``: the names of routes of which a dial failed; who is up again leaves it.
    """
    told: dict[str, RouteCounts] = {}
    for name, tally in tallies:
        counts = tally.counts
        if tally.total:
            tally.tell()
            active = tally.active
            counts.draining = active if active and name not in served else 0
            told[name] = counts
            if failing and name in failing:
                _judge(name, served.get(name), failing, now)
        else:
            for one in counts.targets.values():
                if not one.is_up:
                    told[name] = counts
                    break
    return told


def _judge(name: str, route: Route | None, failing: set[str], now: float) -> None:
    """Note which targets are up; with all of them up there is nothing to come back for."""
    is_down = False
    if route is not None:
        for target in route.balancer.targets:
            target.judge(now)
            is_down = is_down or not target.tally.counts.is_up
    if not is_down:
        failing.discard(name)
