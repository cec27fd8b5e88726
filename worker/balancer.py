"""Which endpoint a connection goes to: weighted round robin over targets, down ones last.

Pure but for what it remembers between calls; the clock is an argument. What must outlive a reload
(positions, marks) lies in BalanceState, keyed by route name and address, outside the plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, reduce
from math import gcd
from socket import AF_INET, AF_INET6, AF_UNIX
from typing import Final

from shared.plan import TargetPlan
from shared.units import is_ip
from worker.tally import TargetTally

MARK_S: Final = 10.0  # an endpoint whose dial failed is tried last this long (design section 4)
MOST_MARKS: Final = 1000  # per route; a name may have had any number of addresses in its life
LONGEST_SCHEDULE: Final = 1000  # entries; weights beyond are scaled down


class Mark:
    """What is remembered of one endpoint."""

    __slots__ = ("failed_until",)

    def __init__(self) -> None:
        self.failed_until = 0.0


class BalanceState:
    """What a route's balancing remembers over generations."""

    __slots__ = ("addresses", "marks", "position")

    def __init__(self) -> None:
        self.position = 0
        self.addresses: dict[str, int] = {}  # target name -> position among its addresses
        self.marks: dict[str, Mark] = {}  # by address text


class Endpoint:
    """One resolved address of a target; it does not hold the Target, which holds it."""

    __slots__ = ("address", "family", "host", "mark", "tally", "target")

    def __init__(self, plan: TargetPlan, tally: TargetTally, host: str, mark: Mark) -> None:
        self.target = plan
        self.tally = tally
        self.host = host  # IP address; "" for a Unix socket
        # A plain number: an IntEnum is converted anew with every call.
        self.family = int(AF_UNIX if not host else AF_INET6 if ":" in host else AF_INET)
        self.mark = mark
        # As connect(2) wants it; None: preserve, the port is the client's.
        self.address: str | tuple[str, int] | None = plan.path or (
            _address(host, plan.port) if plan.port else None
        )


@lru_cache(maxsize=4096)
def _address(host: str, port: int) -> tuple[str, int]:
    """One object for all routes that have the same target, so that a CPU's cache holds it."""
    return host, port


class Target:
    """One configured target with its endpoints of this moment."""

    __slots__ = ("endpoints", "plan", "state", "tally")

    def __init__(self, plan: TargetPlan, tally: TargetTally, state: BalanceState) -> None:
        self.plan = plan
        self.tally = tally
        self.state = state
        self.endpoints: list[Endpoint] = []

    def resolve(self, addresses: Mapping[str, Sequence[str]]) -> None:
        """Take the addresses of the target's name; an IP address or a path stands for itself."""
        plan = self.plan
        hosts: Iterable[str] = (plan.host,)
        if plan.host and not is_ip(plan.host):
            # One that is not there is down: connect(2) must never be given a name to look up.
            hosts = addresses.get(plan.host, ())
        marks = self.state.marks
        self.endpoints = [
            Endpoint(plan, self.tally, host, marks.setdefault(_key(plan, host), Mark()))
            for host in hosts
        ]
        self.tally.counts.is_up = bool(self.endpoints)

    def judge(self, now: float) -> None:
        """Note whether the target is up: has an endpoint whose dial did not fail lately."""
        for one in self.endpoints:  # no generator: this runs for thousands of targets
            if one.mark.failed_until <= now:
                self.tally.counts.is_up = True
                return
        self.tally.counts.is_up = False

    def pick(self, now: float) -> Endpoint | None:
        """The next of this target's addresses; one that failed lately only where all did."""
        endpoints = self.endpoints
        if len(endpoints) == 1:
            return endpoints[0]
        if not endpoints:
            return None
        position = self.state.addresses.get(self.plan.name, 0)
        for offset in range(len(endpoints)):
            endpoint = endpoints[(position + offset) % len(endpoints)]
            if endpoint.mark.failed_until <= now:
                position += offset
                break
        self.state.addresses[self.plan.name] = position + 1
        return endpoints[position % len(endpoints)]


def _key(plan: TargetPlan, host: str) -> str:
    return f"{host}{plan.path}:{plan.port}"


def schedule(weights: Sequence[int]) -> list[int]:
    """Indexes in smooth weighted order: 5, 1, 1 gives 0 0 1 0 2 0 0 (nginx's algorithm).

    Weight 0 does not occur in it. The list repeats after its end.
    """
    total = sum(weights)
    if total == 0:
        return []
    divisor = reduce(gcd, weights)
    steps = [weight // divisor for weight in weights]
    if sum(steps) > LONGEST_SCHEDULE:
        scale = LONGEST_SCHEDULE / sum(steps)
        steps = [max(1, round(weight * scale)) if weight else 0 for weight in steps]
    total = sum(steps)
    current = [0] * len(steps)
    order: list[int] = []
    for _ in range(total):
        current = [value + step for value, step in zip(current, steps, strict=True)]
        best = current.index(max(current))
        current[best] -= total
        order.append(best)
    return order


class Balancer:
    """Hands out endpoints of one route."""

    __slots__ = ("_schedule", "only", "size", "state", "targets")

    def __init__(self, targets: Sequence[Target], state: BalanceState) -> None:
        self.targets = targets
        self.state = state
        order = schedule([target.plan.weight for target in targets])
        self._schedule = [targets[index] for index in order]
        self.size = 0  # endpoints that may be tried
        self.only: Endpoint | None = None  # the one endpoint, where there is no choice

    def resolve(self, addresses: Mapping[str, Sequence[str]]) -> None:
        """Take the addresses of the targets' names."""
        for target in self.targets:
            target.resolve(addresses)
        endpoints = [
            endpoint
            for target in self.targets
            if target.plan.weight
            for endpoint in target.endpoints
        ]
        self.size = len(endpoints)
        if len(self.state.marks) > MOST_MARKS:
            used = {id(endpoint.mark) for endpoint in endpoints}
            marks = self.state.marks
            self.state.marks = {key: mark for key, mark in marks.items() if id(mark) in used}
        self.only = endpoints[0] if self.size == 1 else None

    def has(self, mark: Mark) -> bool:
        """Whether the endpoint that this is remembered of is still one of ours."""
        for target in self.targets:
            if target.plan.weight:
                for endpoint in target.endpoints:
                    if endpoint.mark is mark:
                        return True
        return False

    def pick(self, now: float) -> Endpoint | None:
        """The endpoint to try first; None where no target has one. ``now`` is monotonic."""
        if self.only is not None:
            return self.only
        turns = self._schedule
        position = self.state.position
        self.state.position = position + 1
        fallback: Endpoint | None = None
        for offset in range(len(turns)):
            endpoint = turns[(position + offset) % len(turns)].pick(now)
            if endpoint is None:
                continue
            if endpoint.mark.failed_until <= now:
                return endpoint
            fallback = fallback or endpoint
        return fallback

    def others(self, first: Endpoint, now: float) -> list[Endpoint]:
        """Every other endpoint once, in the order of balancing, those that failed lately last."""
        left = [endpoint for endpoint in self._in_order() if endpoint is not first]
        left.sort(key=lambda endpoint: endpoint.mark.failed_until > now)
        return left

    def _in_order(self) -> Iterator[Endpoint]:
        turns, position = self._schedule, self.state.position
        seen: set[int] = set()
        for offset in range(len(turns)):
            target = turns[(position + offset) % len(turns)]
            if id(target) not in seen:
                seen.add(id(target))
                yield from target.endpoints
