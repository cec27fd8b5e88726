"""Which routes' counters a snapshot holds, brought up to date."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Final

from shared.stats import RouteCounts
from worker.generation import Lasting, Route
from worker.tally import RouteTally

# To find and to send so many takes some 1.5 ms where all were used.
ROUTES_A_PART: Final = 500


class RouteParts:
    """All routes that a worker has ever had, in the order in which they came, cut into parts.

    A route stays in its part for ever. Names and tallies lie apart: pairs would be objects that
    the garbage collector walks.
    """

    def __init__(self, lasting: Lasting) -> None:
        self._lasting = lasting
        self._names: list[str] = []
        self._tallies: list[RouteTally] = []

    def count(self) -> int:
        """How many parts there are, one at least."""
        return max(1, -(-len(self._lasting.tallies) // ROUTES_A_PART))

    def told(self, part: int, served: Mapping[str, Route], now: float) -> dict[str, RouteCounts]:
        """Counters by route. ``served``: the committed ones; ``now`` is monotonic."""
        lasting, known = self._lasting, len(self._names)
        if len(lasting.tallies) > known:
            self._names += islice(lasting.tallies, known, None)
            self._tallies += islice(lasting.tallies.values(), known, None)
        some = slice(part * ROUTES_A_PART, (part + 1) * ROUTES_A_PART)
        each = zip(self._names[some], self._tallies[some], strict=True)
        return told_routes(each, served, lasting.failing, now)


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
        if tally.total or tally.received:  # of HTTP: a request on another route's connection
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
