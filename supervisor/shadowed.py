"""Routes that can never be chosen, because one other route always wins before them.

Pure. Claims nothing that does not hold: a route is named only where one single other route matches
every client that it matches, on each of its addresses and ports, and ranks above it each time
(`shared/match_criteria.py` has the ranks).

Near linear in the number of routes: a route is compared only with those that have one of its
domains and networks, or one that holds it, and with `_MOST_RIVALS` of them at the most.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from functools import lru_cache
from heapq import merge
from itertools import islice, product
from typing import Final, NamedTuple

from shared.match_criteria import (
    criteria_of,
    is_for_plain,
    is_for_tls,
    match_of,
    needs_bytes,
    wildcard_keys,
)
from shared.match_forwarders import forwarders_of_clients
from shared.networks import BITS, Network, parse_network
from shared.path_index import PathPattern
from shared.plan import FieldMatch, HttpMatch, RoutePlan

# Routes with more rivals differ in what is neither domain, path nor network, or in all but one of
# these alone; of those a shadow may go unnamed.
_MOST_RIVALS: Final = 50
_MOST_PAIRS: Final = 10_000  # of a route's domains, paths, networks; beyond, these stand as _MANY
_MOST_TRIED: Final = 16  # of each of a route, among which the rarest is looked for
_MOST_LABELS: Final = 127  # of a name of 253 bytes
_ASKED_AGAIN: Final = 256  # domains and paths: of the route that is looked at, and common ones
_NO_DOMAIN: Final = ""
_NO_PATH: Final = ""
_EVERYBODY: Final = frozenset({Network(4, 0, 0), Network(6, 0, 0)})  # who has an address
_MANY: Final = Network(0, 0, 0)  # stands for all networks of a route that has very many
_MANY_PATHS: Final = "?"  # the same for paths

_Key = tuple[int, str, str, Network | None]


class Shadow(NamedTuple):
    """``loser`` can never be chosen: ``winner`` always comes before it."""

    loser: RoutePlan
    winner: RoutePlan


class _Ports(NamedTuple):
    """Listeners of a route, and those of them that it names by themselves."""

    served: frozenset[int]
    single: frozenset[int]


class _Known:
    """A route, with what is asked of it many times."""

    __slots__ = (
        "believed", "criteria", "domains", "networks", "order", "paths", "plan", "ports",
        "takes_all",
    )  # fmt: skip

    def __init__(self, plan: RoutePlan, ports: int) -> None:
        self.plan = plan
        self.ports = ports  # number of its _Ports
        self.domains = frozenset(plan.domains)
        self.paths = frozenset(match_of(plan).paths)
        self.networks = frozenset(map(parse_network, plan.client_ips))
        self.takes_all = self.networks >= _EVERYBODY
        self.believed = forwarders_of_clients(plan)  # whose word ``networks`` go by
        self.criteria = criteria_of(plan)
        self.order = (-plan.priority, plan.order)


def shadows(routes: Iterable[RoutePlan], addressed: Set[int] = frozenset()) -> list[Shadow]:
    """The routes that can never be chosen, in the order of ``routes``.

    ``addressed``: listeners all of whose clients have an IP address.
    """
    index = _Index(routes, addressed)
    found: list[Shadow] = []
    for route in index.routes:
        winner = next((rival for rival in index.rivals(route) if index.hides(rival, route)), None)
        if winner is not None:
            found.append(Shadow(route.plan, winner.plan))
    return found


class _Index:
    """All routes by what a route that hides another must have."""

    def __init__(self, routes: Iterable[RoutePlan], addressed: Set[int]) -> None:
        self._numbers: dict[_Ports, int] = {}
        self._ports: list[_Ports] = []
        self._same: dict[tuple[int, int], int] = {}
        self.routes = [_Known(route, self._number(route)) for route in routes]
        self._holding = self._holders()
        self._is_addressed = [ports.served <= addressed for ports in self._ports]
        self._prefixes: dict[int, set[int]] = {version: set() for version in BITS}
        self._by_key: dict[_Key, list[_Known]] = {}
        for route in sorted(self.routes, key=_order):
            for network in route.networks:
                self._prefixes[network.version].add(network.prefix)
            for domain, path, one in _places(route):
                self._by_key.setdefault((route.ports, domain, path, one), []).append(route)

    def _number(self, route: RoutePlan) -> int:
        # Thousands of routes may share the very objects of a range of thousands of ports.
        same = (id(route.listeners), id(route.single_port))
        number = self._same.get(same)
        if number is None:
            ports = _Ports(frozenset(route.listeners), route.single_port)
            number = self._same[same] = self._numbers.setdefault(ports, len(self._ports))
            if number == len(self._ports):
                self._ports.append(ports)
        return number

    def _holders(self) -> list[list[int]]:
        """For each set of listeners the numbers of those that hold all of it."""
        having: dict[int, set[int]] = {}
        for number, ports in enumerate(self._ports):
            for listener in ports.served:
                having.setdefault(listener, set()).add(number)
        holders: list[list[int]] = []
        for served, _ in self._ports:
            # Of ranges that overlap, few hold both ends.
            ends = having[min(served)] & having[max(served)] if served else ()
            holders.append(sorted(one for one in ends if self._ports[one].served >= served))
        return holders

    def rivals(self, route: _Known) -> Iterator[_Known]:
        """Those that might hide this route, as far as one domain, path and network of it tells."""
        domains = list(islice(route.domains, _MOST_TRIED)) or [_NO_DOMAIN]
        paths = list(islice(route.paths, _MOST_TRIED)) or [_NO_PATH]
        networks: list[Network | None] = [*islice(route.networks, _MOST_TRIED)] or [None]
        domain, path, network = domains[0], paths[0], networks[0]
        if len(domains) > 1:
            domain = min(domains, key=lambda one: self._count(route, one, path, network))
        if len(paths) > 1:
            path = min(paths, key=lambda one: self._count(route, domain, one, network))
        if len(networks) > 1:
            network = min(networks, key=lambda one: self._count(route, domain, path, one))
        ordered = merge(*self._lists(route, domain, path, network), key=_order)
        for rival in islice(ordered, _MOST_RIVALS):
            if rival.plan.priority < route.plan.priority:
                return
            if rival is not route:
                yield rival

    def _count(self, route: _Known, domain: str, path: str, network: Network | None) -> int:
        return sum(map(len, self._lists(route, domain, path, network)))

    def _lists(
        self, route: _Known, domain: str, path: str, network: Network | None
    ) -> list[list[_Known]]:
        keys = product(
            self._holding[route.ports],
            _domains_over(domain),
            _paths_over(path),
            self._networks_over(network),
        )
        return [found for key in keys if (found := self._by_key.get(key))]

    def _networks_over(self, network: Network | None) -> list[Network | None]:
        """What of another route's networks holds this one: none at all, itself, wider ones."""
        over: list[Network | None] = [None]
        if network is not None:
            over.append(_MANY)
            over += [
                _widened(network, prefix)
                for prefix in self._prefixes[network.version]
                if prefix <= network.prefix
            ]
        return over

    def hides(self, rival: _Known, route: _Known) -> bool:
        """Whether ``rival`` matches all that ``route`` matches, and always ranks above it."""
        if not _holds_criteria(rival.plan, route.plan):
            return False
        is_above = rival.plan.priority > route.plan.priority
        takes_all = is_above and rival.takes_all and self._is_addressed[route.ports]
        if rival.networks and rival.believed != route.believed and not takes_all:
            return False  # they may be asked about two addresses
        if is_above:
            return (
                self._holds_domains(rival, route)
                and _holds_paths(rival, route)
                and (takes_all or self._holds_networks(rival, route))
            )
        if rival.plan.priority < route.plan.priority:
            return False
        # What is wider ranks below: only the very same of each can draw level.
        if not _holds_same(rival.domains, route.domains):
            return False
        if not _holds_same(rival.paths, route.paths):
            return False
        if not _holds_same(rival.networks, route.networks):
            return False
        if rival.criteria != route.criteria:
            return rival.criteria > route.criteria
        return self._is_first(rival, route)

    def _is_first(self, rival: _Known, route: _Known) -> bool:
        """The last tie-breaks: a port of its own on every port, then the place in the file."""
        ports, other = self._ports[route.ports], self._ports[rival.ports]
        if ports.single - other.single:
            return False
        return rival.plan.order < route.plan.order or (
            not ports.single and other.single >= ports.served
        )

    def _holds_domains(self, rival: _Known, route: _Known) -> bool:
        if not rival.domains:
            return True
        return bool(route.domains) and all(
            any(one in rival.domains for one in _domains_over(domain)) for domain in route.domains
        )

    def _holds_networks(self, rival: _Known, route: _Known) -> bool:
        if not rival.networks:
            return True
        return bool(route.networks) and all(
            any(one in rival.networks for one in self._networks_over(network))
            for network in route.networks
        )


def _order(route: _Known) -> tuple[int, int]:
    return route.order


def _places(route: _Known) -> Iterator[tuple[str, str, Network | None]]:
    # For everybody is found where for anybody is looked for, also by those without networks.
    networks: list[Network | None] = [None]
    if route.networks and not route.takes_all:
        networks = [*route.networks]
    paths = [*route.paths] or [_NO_PATH]
    domains = len(route.domains) or 1
    if len(networks) * len(paths) * domains > _MOST_PAIRS:
        networks = [_MANY] if route.networks else networks
    if len(networks) * len(paths) * domains > _MOST_PAIRS:
        paths = [_MANY_PATHS] if route.paths else paths
    return product(route.domains or (_NO_DOMAIN,), paths, networks)


@lru_cache(_ASKED_AGAIN)
def _paths_over(path: str) -> tuple[str, ...]:
    """What of another route's paths holds this one: none at all, itself, all under a folder."""
    over = [_NO_PATH]
    if path:
        over += [_MANY_PATHS, path]
        folder = ""
        for part in PathPattern(path).prefix.split("/")[:-1]:
            folder += f"{part}/"
            if f"{folder}*" != path:
                over.append(f"{folder}*")
    return tuple(over)


def _holds_paths(rival: _Known, route: _Known) -> bool:
    if not rival.paths:
        return True
    return bool(route.paths) and all(
        any(one in rival.paths for one in _paths_over(path)) for path in route.paths
    )


@lru_cache(_ASKED_AGAIN)
def _domains_over(domain: str) -> tuple[str, ...]:
    """What of another route's domains holds this one: none at all, itself, wider wildcards."""
    over = [_NO_DOMAIN]
    if domain:
        over.append(domain)
        # A star in front of a key that has one already makes no domain, and so finds none.
        for key in wildcard_keys(domain, _MOST_LABELS, _MOST_LABELS):
            pattern = f"*{key}" if key[0] == "." else f"{key}*"
            if pattern != domain:
                over.append(pattern)
    return tuple(over)


def _widened(network: Network, prefix: int) -> Network:
    shift = BITS[network.version] - prefix
    return Network(network.version, network.base >> shift << shift, prefix)


def _holds_same(rival: frozenset[object], route: frozenset[object]) -> bool:
    return rival >= route if route else not rival


def _holds_criteria(rival: RoutePlan, route: RoutePlan) -> bool:
    """Whether every client, and every request, that meets the criteria of ``route`` meets those of
    ``rival``; of domains, paths and networks nothing is said.
    """
    if rival.http is None:
        # Requests within TLS that another route ended never go to one that only relays.
        if route.http is not None and route.terminate is not None:
            return False
        if not needs_bytes(rival):
            return True
    elif route.http is None:
        if _takes_plain(route):  # whatever they send
            return False
    elif (rival.terminate is None) is not (route.terminate is None):
        return False
    if _takes_tls(route) and not is_for_tls(rival):
        return False
    if _takes_plain(route) and not is_for_plain(rival):
        return False
    if not _holds_offers(rival.tls_versions, route.tls_versions):
        return False
    if not _holds_offers(rival.alpn, route.alpn):
        return False
    return route.http is None or _holds_requests(match_of(rival), match_of(route))


def _takes_tls(route: RoutePlan) -> bool:
    return not needs_bytes(route) or is_for_tls(route)


def _takes_plain(route: RoutePlan) -> bool:
    return not needs_bytes(route) or is_for_plain(route)


def _holds_requests(rival: HttpMatch, route: HttpMatch) -> bool:
    return (
        _holds_offers(rival.methods, route.methods)
        and _holds_fields(rival.headers, route.headers)
        and _holds_fields(rival.query, route.query)
        and _holds_fields(rival.cookies, route.cookies)
    )


def _holds_fields(rival: tuple[FieldMatch, ...], route: tuple[FieldMatch, ...]) -> bool:
    """Whether each that ``rival`` asks for is asked for by ``route``, as narrowly or more so."""
    return all(any(_holds_field(one, other) for other in route) for one in rival)


def _holds_field(rival: FieldMatch, route: FieldMatch) -> bool:
    if rival.name != route.name:
        return False
    if rival == route or not (rival.values or rival.regex):
        return True
    return bool(route.values) and set(route.values) <= set(rival.values)


def _holds_offers(rival: tuple[str, ...], route: tuple[str, ...]) -> bool:
    return not rival or (bool(route) and set(route) <= set(rival))
