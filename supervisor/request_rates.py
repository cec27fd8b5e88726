"""Requests per second of each route over the last minute, from the counters of all workers.

Every SAMPLE_S the sums of all routes are noted, with the time; a rate is the difference between
now and a minute ago. Only the counts of requests are decoded, of workers that had any, one part of
a report at a time: a report may have thousands of routes, and the loop is needed for other things.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from msgspec import Struct, field

from shared.stats import RouteCounts
from supervisor.ledger import Ledger

WINDOW_S: Final = 60.0
SAMPLE_S: Final = 5.0
_LEAST_S: Final = 1.0  # workers report every half second: over less than this a rate says nothing
_ROUTES_A_STEP: Final = 1000  # about 1 ms


# The first fields of RouteCounts and TargetCounts, which are arrays; what follows is left unread.
class _Target(Struct, array_like=True):
    requests: dict[str, int] = field(default_factory=dict)


class _Route(Struct, array_like=True):
    requests: dict[str, int] = field(default_factory=dict)
    targets: dict[str, _Target] = field(default_factory=dict)


class _Snapshot(Struct):
    """What is needed of a Snapshot."""

    routes: dict[str, _Route] = field(default_factory=dict)


class _Sample(Struct, frozen=True):
    at: float  # monotonic
    requests: Mapping[str, int]  # by route, those without any are left out


_decode: Final = msgspec.msgpack.Decoder(_Snapshot).decode


class RequestRates:
    """``clock``: monotonic seconds."""

    def __init__(self, ledger: Ledger, clock: Callable[[], float] = time.monotonic) -> None:
        self._ledger = ledger
        self._clock = clock
        self._samples = deque([_Sample(clock(), {})])

    async def run(self) -> None:
        """Note the sums for ever."""
        while True:
            await asyncio.sleep(SAMPLE_S)
            await self.sample()

    async def sample(self) -> None:
        """Note the sums as they are now."""
        counts = await self._count()
        if counts is None:
            return  # a worker ended meanwhile, and would count twice or not at all
        now = self._clock()
        self._samples.append(_Sample(now, counts))
        while self._samples[1].at <= now - WINDOW_S:
            self._samples.popleft()

    async def _count(self) -> dict[str, int] | None:
        folds = self._ledger.folds
        counts: dict[str, int] = {}
        for raw in self._ledger.with_requests():
            _add(counts, _decode(raw).routes)
            await asyncio.sleep(0)
        ended = list(self._ledger.ended_routes().items())
        for start in range(0, len(ended), _ROUTES_A_STEP):
            _add(counts, dict(ended[start : start + _ROUTES_A_STEP]))
            await asyncio.sleep(0)
        return counts if folds == self._ledger.folds else None

    def per_second(self, routes: Mapping[str, RouteCounts]) -> dict[str, float]:
        """By name of those that had requests; ``routes``: the counters of this moment.

        Over the time since the start where that is less than a minute; at least over a second.
        """
        now = self._clock()
        since = self._samples[0]
        elapsed = max(now - since.at, _LEAST_S)
        rates: dict[str, float] = {}
        for name, counts in routes.items():
            if counts.request is None:
                continue  # it had none; there may be thousands
            if requests := _sum(counts):
                more = max(0, requests - since.requests.get(name, 0))
                rates[name] = round(more / elapsed, 3)
        return rates


def _add(into: dict[str, int], routes: Mapping[str, _Route] | Mapping[str, RouteCounts]) -> None:
    for name, route in routes.items():
        if requests := _sum(route):
            into[name] = into.get(name, 0) + requests


def _sum(route: _Route | RouteCounts) -> int:
    return sum(route.requests.values()) + sum(
        [sum(target.requests.values()) for target in route.targets.values() if target.requests]
    )
