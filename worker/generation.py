"""A generation: the routes of one accepted config, built completely before anything is swapped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from shared.address_set import Addresses
from shared.matching import Matcher
from shared.messages import Prepare, PrepareCertificates
from shared.plan import (
    AddressSet,
    AuthorityPlan,
    CertificatePlan,
    Endpoints,
    RoutePlan,
    Timeouts,
)
from shared.units import is_ip
from worker.balancer import Balancer, BalanceState, Endpoint, Target
from worker.gate import Gate
from worker.http_plane import Widest
from worker.http_route import HttpRoute
from worker.identity import IdentityRules
from worker.limits import Limits
from worker.proxy_out import header_builder
from worker.sent_bodies import SentBodies
from worker.tally import RouteTally
from worker.tls_contexts import Contexts, Terminator
from worker.tls_material import Ahead
from worker.unravel import is_shared, unravel
from worker.upstream_contexts import UpstreamContext

if TYPE_CHECKING:
    from worker.connection import Connection

# Slices of what is done to all routes of a generation; each takes a few ms (design section 3).
RESOLVED_A_SLICE: Final = 500
FREEING_S: Final = 0.004  # at a time


class Lasting:
    """What is kept by route name over generations: counters and the memory of balancing."""

    def __init__(self) -> None:
        self.tallies: dict[str, RouteTally] = {}
        self.balance: dict[str, BalanceState] = {}
        self.removed: set[str] = set()  # routes that were served once
        self.leaving: set[str] = set()  # of these, such as connections may still hold
        self.failing: set[str] = set()  # routes of which a dial failed lately

    def serve(self, new: Mapping[str, Route], old: Mapping[str, Route]) -> set[str]:
        """These routes are served from now on; returns the names of those that are not any more."""
        gone = old.keys() - new.keys()
        self.removed.difference_update(new)
        self.removed.update(gone)
        self.leaving &= self.removed
        self.leaving |= gone
        return gone

    def has_removed(self, route: Route) -> bool:
        """Whether this route, of whatever generation, is not served any more."""
        return bool(self.removed) and route.name in self.removed

    def draining(self) -> int:
        """The connections of routes that are not served any more."""
        active = {name: self.tallies[name].active for name in self.leaving}
        self.leaving = {name for name, count in active.items() if count}
        return sum(active.values())

    def of(self, name: str) -> tuple[RouteTally, BalanceState]:
        """The counters and the balancing of this route."""
        return (
            self.tallies.setdefault(name, RouteTally()),
            self.balance.setdefault(name, BalanceState()),
        )


class Route:
    """One route of one generation; connections hold on to the one that they began with."""

    __slots__ = (
        "balancer",
        "gate",
        "half_open",
        "has_short_timeouts",
        "http",
        "is_coded",
        "lasting",
        "name",
        "only",
        "plan",
        "rules",
        "send_header",
        "tally",
        "terminator",
        "timeouts",
        "tls_handshake_s",
        "upstream",
    )

    def __init__(
        self,
        plan: RoutePlan,
        lasting: Lasting,
        endpoints: Endpoints,
        gate: Gate | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        self.plan = plan
        # Those of the plan, at hand; all routes that have the same share one object.
        self.timeouts = timeouts = timeouts or plan.timeouts
        self.half_open = plan.half_open
        self.gate = gate
        self.name = plan.name
        self.tally, state = lasting.of(plan.name)
        self.lasting = lasting
        # Whether a relay's deadline can come before the one that its dial stood under.
        self.has_short_timeouts = any(
            0 < limit < timeouts.connect for limit in (timeouts.idle, timeouts.lifetime)
        )
        self.send_header: Callable[[Connection], bytes] | None = header_builder(plan)
        targets = [Target(target, self.tally.target(target.name), state) for target in plan.targets]
        self.terminator: Terminator | None = None
        self.upstream: UpstreamContext | None = None
        self.rules: IdentityRules | None = None
        self.http: HttpRoute | None = None
        if plan.http is not None:
            self.http = HttpRoute(plan, plan.http)
            self.tally.expect_requests()
        self.is_coded = False  # TLS towards client or target
        self.tls_handshake_s = timeouts.tls_handshake
        self.balancer = Balancer(targets, state)
        self.only: Endpoint | None = None  # the one endpoint, where there is no choice
        self.resolve(endpoints)

    def use_tls(self, terminator: Terminator | None, upstream: UpstreamContext | None) -> None:
        """End TLS of clients, speak it to targets."""
        self.terminator, self.upstream = terminator, upstream
        self.is_coded = terminator is not None or upstream is not None

    def resolve(self, endpoints: Endpoints) -> None:
        """Take new addresses of names."""
        self.balancer.resolve(endpoints.addresses)
        self.only = self.balancer.only

    def pick(self, now: float) -> Endpoint | None:
        """As `Balancer.pick`, which is not asked where there is no choice."""
        only = self.only
        return self.balancer.pick(now) if only is None else only


class Generation:
    """The routes by name, and per listener what finds the one that wins."""

    def __init__(
        self, prepare: Prepare, lasting: Lasting, limits: Limits, contexts: Contexts
    ) -> None:
        self.number = prepare.generation
        self.listeners = {plan.id: plan for plan in prepare.listeners}
        self.endpoints = prepare.endpoints
        self.error_pages = prepare.error_pages
        self._security = prepare.security
        self._sets: list[Addresses] = []
        self._limits = limits
        self._contexts = contexts
        self._certificates: list[CertificatePlan] = []
        self._authorities: list[AuthorityPlan] = []
        self._bodies = SentBodies()
        self._ahead: Ahead | None = None
        self.routes: dict[str, Route] = {}
        self.matchers: dict[int, Matcher[Route]] = {id_: Matcher() for id_ in self.listeners}
        self._lasting = lasting
        self._users: dict[str, list[Route]] = {}  # of host names
        self.widest = Widest()
        # Each connection needs its route's: with thousands of routes a CPU's cache holds one
        # object that they share, and not one for each.
        self._timeouts: dict[Timeouts, Timeouts] = {}

    def add_set(self, addresses: AddressSet) -> int:
        """The next address set that rules name; returns how many there are."""
        self._sets.append(Addresses(addresses))
        return len(self._sets)

    def add_certificates(self, message: PrepareCertificates) -> tuple[int, int]:
        """The next certificates and authorities; returns how many there are of each."""
        self._certificates += message.certificates
        self._authorities += message.authorities
        return len(self._certificates), len(self._authorities)

    def add_bodies(self, bodies: Mapping[str, bytes]) -> int:
        """The next bodies of answers; returns how many there are."""
        return self._bodies.add(bodies)

    def build_ahead(self, seconds: float) -> bool:
        """Build TLS contexts, for so long; True when all that are built ahead are there.

        ssl.SSLError for a certificate that OpenSSL refuses.
        """
        if self._ahead is None:
            routes = self.routes.values()
            upstreams = [route.upstream for route in routes if route.upstream is not None]
            servers = [route.terminator for route in routes if route.terminator is not None]
            self._ahead = Ahead([*upstreams, *servers])
        return self._ahead.build_some(monotonic() + seconds)

    def _tls(self, route: Route) -> None:
        plan = route.plan
        terminator = upstream = None
        if plan.terminate is not None:
            group = ",".join(sorted(self.listeners[id_].name for id_ in plan.listeners))
            terminator = self._contexts.server(
                plan.terminate, self._certificates, self._authorities, group
            )
        if plan.upstream_tls is not None:
            upstream = self._contexts.upstream(
                plan.upstream_tls, self._certificates, self._authorities
            )
        route.use_tls(terminator, upstream)

    def gate(self) -> Gate | None:
        """Of everyone; None where nothing is refused. All sets have come by now."""
        gate = Gate("", self._security, self._sets, self._limits)
        return None if gate.is_open else gate

    def add_routes(self, plans: list[RoutePlan]) -> None:
        """Build one batch; LookupError and ValueError for a plan that makes no sense."""
        for plan in map(self._whole, plans):
            gate = None
            if plan.security is not None:
                gate = Gate(plan.name, plan.security, self._sets, self._limits)
            timeouts = self._timeouts.setdefault(plan.timeouts, plan.timeouts)
            route = Route(plan, self._lasting, self.endpoints, gate, timeouts)
            if plan.http is not None:
                self.widest.add(plan.http, plan.timeouts)
            if plan.terminate is not None or plan.upstream_tls is not None:
                self._tls(route)
            if plan.security is not None and plan.security.identities:
                route.rules = IdentityRules(plan.security.identities, self._sets)
            self.routes[plan.name] = route
            for listener in plan.listeners:
                self.matchers[listener].add(plan, listener, route)
            for name in {one.host for one in plan.targets if one.host and not is_ip(one.host)}:
                self._users.setdefault(name, []).append(route)

    def _whole(self, plan: RoutePlan) -> RoutePlan:
        return plan if plan.http is None else replace(plan, http=self._bodies.fill(plan.http))

    def resolve(self, endpoints: Endpoints) -> Iterator[None]:
        """Take new addresses of names, a slice of the routes at a time (`worker/chores.py`).

        Names that are not mentioned keep their addresses, and routes without a name that changed
        are left alone.
        """
        old = self.endpoints.addresses
        changed = [
            name for name, found in endpoints.addresses.items() if found != old.get(name, ())
        ]
        self.endpoints = replace(self.endpoints, addresses={**old, **endpoints.addresses})
        users = {id(route): route for name in changed for route in self._users.get(name, ())}
        for number, route in enumerate(users.values(), 1):
            route.resolve(self.endpoints)
            if number % RESOLVED_A_SLICE == 0:
                yield

    def dismantle(self) -> Iterator[None]:
        """Give up this generation, a slice at a time (`worker/chores.py`).

        To free thousands of routes at once would hold the loop. What finds them goes first, as
        soon as no client whose first bytes are awaited needs it.
        """
        yield  # what gives it up, a commit, is a long step already
        matchers, routes = list(self.matchers.values()), list(self.routes.values())
        self.matchers, self.routes, self._users, self._ahead = {}, {}, {}, None
        idle: list[object] = []
        while matchers:
            while is_shared(matchers):
                yield
            idle.append(matchers.pop())
        yield from _in_slices(unravel(idle))
        yield from _in_slices(_free(routes))


def _free(routes: list[Route]) -> Iterator[None]:
    """Let go of these, and of the certificates of those that nobody holds any more."""
    while routes:
        terminator = routes[-1].terminator
        if terminator is not None and not is_shared(routes):
            routes[-1].use_tls(None, None)
            rest: list[object] = [terminator]
            terminator = None
            yield from unravel(rest)
        routes.pop()
        yield


def _in_slices(steps: Iterator[None]) -> Iterator[None]:
    """Steps that take microseconds, FREEING_S of them at a time."""
    until = monotonic() + FREEING_S
    for _ in steps:
        if monotonic() >= until:
            yield
            until = monotonic() + FREEING_S
