"""Which routes' counters a snapshot holds, brought up to date."""

from __future__ import annotations

from collections.abc import Mapping

from shared.stats import RouteCounts
from worker.generation import Route


def told_routes(
    lasting: Mapping[str, RouteCounts], served: Mapping[str, Route], now: float
) -> dict[str, RouteCounts]:
    """Counters by route. ``served``: the routes of the committed generation; ``now`` is monotonic.

    A route that nobody has used and whose targets are up says nothing: thousands of them would be
    sent for it.
    """
    told: dict[str, RouteCounts] = {}
    for name, counts in lasting.items():
        route = served.get(name)
        counts.draining = counts.active if route is None else 0
        if counts.total:
            told[name] = counts
            if route is not None:
                for target in route.balancer.targets:
                    target.judge(now)
        else:
            for one in counts.targets.values():
                if not one.is_up:
                    told[name] = counts
                    break
    return told
