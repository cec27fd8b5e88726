"""A generation: the routes of one accepted config, built completely before anything is swapped."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec.structs import replace

from shared.plan import Endpoints, ListenerPlan, RoutePlan
from shared.route_order import Candidate, build_candidates, needs_bytes
from shared.stats import RouteCounts, TargetCounts
from worker.balancer import Balancer, BalanceState, Target
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
        "has_short_timeouts",
        "is_removed",
        "name",
        "needs_bytes",
        "plan",
        "send_header",
    )

    def __init__(self, plan: RoutePlan, lasting: Lasting, endpoints: Endpoints) -> None:
        self.plan = plan
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


class Generation:
    """The routes by name, and per listener the candidates in the order in which they win."""

    def __init__(
        self, number: int, listeners: list[ListenerPlan], endpoints: Endpoints, lasting: Lasting
    ) -> None:
        self.number = number
        self.listeners = {plan.id: plan for plan in listeners}
        self.endpoints = endpoints
        self.routes: dict[str, Route] = {}
        self.candidates: dict[int, list[tuple[Candidate, Route]]] = {}
        self._lasting = lasting
        self._by_listener: dict[int, list[RoutePlan]] = {plan.id: [] for plan in listeners}

    def add_routes(self, plans: list[RoutePlan]) -> None:
        """Build one batch."""
        for plan in plans:
            self.routes[plan.name] = Route(plan, self._lasting, self.endpoints)
            for listener in plan.listeners:
                self._by_listener[listener].append(plan)

    def finish(self) -> None:
        """Order the candidates of every listener; ValueError for a plan that makes no sense."""
        for listener, plans in self._by_listener.items():
            self.candidates[listener] = [
                (candidate, self.routes[candidate.route.name])
                for candidate in build_candidates(plans, listener)
            ]
        self._by_listener = {}

    def resolve(self, endpoints: Endpoints) -> None:
        """Take new addresses of names; those that are not mentioned stay."""
        merged = {**self.endpoints.addresses, **endpoints.addresses}
        self.endpoints = replace(self.endpoints, addresses=merged)
        for route in self.routes.values():
            route.resolve(self.endpoints)
