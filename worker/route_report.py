"""Which routes' counters a snapshot holds, brought up to date."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Final

from shared.stats import RouteCounts
from worker.generation import Route

# To find and to send so many takes 1 + 1 ms where all were used; traffic goes on in between.
ROUTES_A_PART: Final = 1000


def parts(
    lasting: Mapping[str, RouteCounts], served: Mapping[str, Route], now: float
) -> Iterator[tuple[dict[str, RouteCounts], bool]]:
    """Counters by route, some routes at a time, each with whether no part follows.

    There is one part at least. ``served``: the routes of the committed generation; ``now`` is
    monotonic. Counters that come into being meanwhile wait for the next report.
    """
    counters = list(lasting.items())
    last = max(0, len(counters) - 1) // ROUTES_A_PART
    each = iter(counters)
    for part in range(last + 1):
        yield told_routes(islice(each, ROUTES_A_PART), served, now), part == last


def told_routes(
    counters: Iterable[tuple[str, RouteCounts]], served: Mapping[str, Route], now: float
) -> dict[str, RouteCounts]:
    """Those that have something to say.

    A route that nobody has used and whose targets are up says nothing: thousands of them would be
    sent for it.
    """
    told: dict[str, RouteCounts] = {}
    for name, counts in counters:
        route = served.get(name)
        counts.draining = counts.active if route is None else 0
        if counts.total or counts.requests:
            told[name] = counts
            if route is not None:
                for target in route.balancer.targets:
                    target.judge(now)
        else:
            for one in counts.targets.values():
                if one.requests or not one.is_up:
                    told[name] = counts
                    break
    return told
