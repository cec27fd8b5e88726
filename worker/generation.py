"""A generation: the routes of one accepted config, built completely before anything is swapped."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec.structs import replace

from shared.address_set import Addresses
from shared.messages import Prepare
from shared.plan import AddressSet, Endpoints, RoutePlan
from shared.route_order import Candidate, Rank, candidates_of, needs_bytes
from shared.stats import RouteCounts, TargetCounts
from worker.balancer import Balancer, BalanceState, Target
from worker.gate import Gate
from worker.limits import Limits
from worker.proxy_out import header_builder

if TYPE_CHECKING:
    from worker.connection import Connection


class Lasting:
    """What is kept by route name over generations: counters and the memory of balancing."""

    def __init__(self) -> None:
        self.counts: dict[str, RouteCounts] = {}
        self.balance: dict[str, BalanceState] = {}

    def of(self, name: str) -> tuple[RouteCounts, BalanceState]:
        """The counters and the balancing of this route."""
        return (
            self.counts.setdefault(name, RouteCounts()),
            self.balance.setdefault(name, BalanceState()),
        )


class Route:
    """One route of one generation; connections hold on to the one that they began with."""

    __slots__ = (
        "balancer",
        "counts",
        "gate",
        "has_short_timeouts",
        "is_removed",
        "name",
        "needs_bytes",
        "plan",
        "send_header",
    )

    def __init__(
        self, plan: RoutePlan, lasting: Lasting, endpoints: Endpoints, gate: Gate | None = None
    ) -> None:
        self.plan = plan
        self.gate = gate
        self.name = plan.name
        self.counts, state = lasting.of(plan.name)
        self.needs_bytes = needs_bytes(plan)
        self.is_removed = False
        timeouts = plan.timeouts
        # Whether a relay's deadline can come before the one that its dial stood under.
        self.has_short_timeouts = any(
            0 < limit < timeouts.connect for limit in (timeouts.idle, timeouts.lifetime)
        )
        self.send_header: Callable[[Connection], bytes] | None = header_builder(plan)
        targets = [
            Target(target, self.counts.targets.setdefault(target.name, TargetCounts()), state)
            for target in plan.targets
        ]
        self.balancer = Balancer(targets, state)
        self.resolve(endpoints)

    def resolve(self, endpoints: Endpoints) -> None:
        """Take new addresses of names."""
        self.balancer.resolve(endpoints.addresses)


class Candidates:
    """The routes of one listener in the order in which they win; kept in order as they come.

    So no step of building a generation takes longer than its batch, however many routes it has.
    """

    __slots__ = ("_keys", "ordered")

    def __init__(self) -> None:
        self._keys: list[Rank] = []
        self.ordered: list[tuple[Candidate, Route]] = []

    def add(self, route: Route, listener: int) -> None:
        """Put a route in its places; ValueError for a network that is none."""
        for key, candidate in candidates_of(route.plan, listener):
            place = bisect_right(self._keys, key)
            self._keys.insert(place, key)
            self.ordered.insert(place, (candidate, route))


class Generation:
    """The routes by name, and per listener the candidates in the order in which they win."""

    def __init__(self, prepare: Prepare, lasting: Lasting, limits: Limits) -> None:
        self.number = prepare.generation
        self.listeners = {plan.id: plan for plan in prepare.listeners}
        self.endpoints = prepare.endpoints
        self._security = prepare.security
        self._sets: list[Addresses] = []
        self._limits = limits
        self.routes: dict[str, Route] = {}
        self.candidates = {id_: Candidates() for id_ in self.listeners}
        self._lasting = lasting

    def add_set(self, addresses: AddressSet) -> int:
        """The next address set that rules name; returns how many there are."""
        self._sets.append(Addresses(addresses))
        return len(self._sets)

    def gate(self) -> Gate | None:
        """Of everyone; None where nothing is refused. All sets have come by now."""
        gate = Gate("", self._security, self._sets, self._limits)
        return None if gate.is_open else gate

    def add_routes(self, plans: list[RoutePlan]) -> None:
        """Build one batch; LookupError and ValueError for a plan that makes no sense."""
        for plan in plans:
            gate = None
            if plan.security is not None:
                gate = Gate(plan.name, plan.security, self._sets, self._limits)
            route = Route(plan, self._lasting, self.endpoints, gate)
            self.routes[plan.name] = route
            for listener in plan.listeners:
                self.candidates[listener].add(route, listener)

    def resolve(self, endpoints: Endpoints) -> None:
        """Take new addresses of names; those that are not mentioned stay."""
        merged = {**self.endpoints.addresses, **endpoints.addresses}
        self.endpoints = replace(self.endpoints, addresses=merged)
        for route in self.routes.values():
            route.resolve(self.endpoints)
