"""Routes that read HTTP and say nothing of TLS, on a port where others end it for their names.

A request may go to any of them, and the handshake comes first: so they take the `tls` of those
whose domains overlap with theirs (design section 4).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from msgspec import Struct, field

from shared.config import Config, Route, Tls
from shared.units import short
from supervisor.config_findings import Findings
from supervisor.config_listeners import enabled_routes
from supervisor.config_overlap import HINT, by_port, covering, way_of
from supervisor.config_protocol import has_criteria, reads_http

_Met = dict[Hashable, int]  # ways to end TLS, each with the first route that has it


class TakenTls(Struct, frozen=True):
    """By the place of a route in the config: the `tls` that it takes; two that differ."""

    tls: dict[int, Tls] = field(default_factory=dict)
    clashes: dict[int, tuple[int, int]] = field(default_factory=dict)


def taken_tls(config: Config) -> TakenTls:
    """Which routes take the `tls` of others. Where the others differ a route takes none."""
    ways: dict[int, Hashable] = {}
    takers: list[int] = []
    for index, route in enabled_routes(config):
        tls = route.action.tls
        if tls is not None and tls.terminates:
            ways[index] = way_of(tls)
        elif takes_tls(route):
            takers.append(index)
    if not ways or not takers:
        return TakenTls()
    met: dict[int, _Met] = {index: {} for index in takers}
    for members in by_port(config, [*ways, *takers]):
        _meet(config, members, ways, met)
    taken = TakenTls()
    for index, found in met.items():
        first, *others = sorted(found.values()) or [-1]
        if others:
            taken.clashes[index] = (first, others[0])
        elif first >= 0:
            tls = config.routes[first].action.tls
            assert tls is not None
            taken.tls[index] = tls
    return taken


def takes_tls(route: Route) -> bool:
    """Whether the route would take the `tls` of others."""
    return route.action.tls is None and route.match.tls is not False and reads_http(route)


def _meet(
    config: Config, members: Iterable[int], ways: dict[int, Hashable], met: dict[int, _Met]
) -> None:
    """Note for each route of a port that takes TLS, whose it meets there.

    One without domains meets all. One with domains meets those without only where it meets no
    other: the certificate for a name is that of the route with the name.
    """
    named: dict[str, _Met] = {}
    nameless: _Met = {}
    everyone: _Met = {}
    wanting: dict[str, list[int]] = {}
    for index in members:
        domains = [str(name) for name in config.routes[index].match.domains]
        if index not in ways:
            for domain in domains:
                wanting.setdefault(domain, []).append(index)
            continue
        everyone.setdefault(ways[index], index)
        if not domains:
            nameless.setdefault(ways[index], index)
        for domain in domains:
            named.setdefault(domain, {}).setdefault(ways[index], index)
    here: dict[int, _Met] = {}
    for domain, found in named.items():
        for other in covering(domain):
            for index in wanting.get(other, ()):
                _add(here.setdefault(index, {}), found)
    for domain, indexes in wanting.items():
        for other in covering(domain):
            for index in indexes:
                _add(here.setdefault(index, {}), named.get(other, {}))
    for index in members:
        if index not in ways:
            is_named = bool(config.routes[index].match.domains)
            _add(met[index], here.get(index) or (nameless if is_named else everyone))


def _add(into: _Met, found: _Met) -> None:
    for way, index in found.items():
        into[way] = min(index, into.get(way, index))


def check_taken(config: Config, taken: TakenTls, found: Findings) -> None:
    """Routes that meet several; and those that would pass on what others must read."""
    for index, pair in taken.clashes.items():
        name, *others = [short(str(config.routes[at].name)) for at in (index, *pair)]
        message = (
            f"route {name} reads HTTP and would take the tls of the routes that it meets, but"
            f" route {others[0]} and route {others[1]} end TLS differently"
        )
        hint = f"{HINT}; or write domains, or tls: false in match of route {name}"
        found.error(found.route(index, "match"), message, hint)
    _check_passed(config, found)


def _check_passed(config: Config, found: Findings) -> None:
    """One port, one name, and one route that passes TLS on beside one that must read inside."""
    passing, reading = _passing(config), _reading(config)
    if not passing or not reading:
        return
    readers = frozenset(reading)
    reported: set[int] = set()
    for members in by_port(config, [*passing, *reading]):
        owners: dict[str, int] = {}
        for index in members:
            if index in readers:
                for domain in config.routes[index].match.domains:
                    owners.setdefault(domain, index)
        for index in members:
            if index in readers or index in reported:
                continue
            both = [one for one in config.routes[index].match.domains if one in owners]
            if both:
                reported.add(index)
                name = short(str(config.routes[index].name))
                other = short(str(config.routes[owners[both[0]]].name))
                message = (
                    f"route {name} and route {other} are both for {both[0]}, and only the second"
                    " ends TLS: which of them it is can be told behind the handshake alone"
                )
                hint = f"give route {name} the same tls, or tls: false in match for plain clients"
                found.error(found.route(index, "match", "domains"), message, hint)


def _passing(config: Config) -> list[int]:
    """Routes that pass on TLS of a name, whatever else the client says."""
    return [
        index
        for index, route in enabled_routes(config)
        if route.match.domains
        and passes_tls(route)
        and not (route.match.alpn or route.match.tls_versions or route.match.client_ips)
    ]


def passes_tls(route: Route) -> bool:
    """Whether TLS clients may get the route, with their TLS left closed by default."""
    return route.action.tls is None and route.match.tls is not False and not reads_http(route)


def _reading(config: Config) -> list[int]:
    """Routes that end TLS of a name, and ask for more of the requests in it."""
    return [
        index
        for index, route in enabled_routes(config)
        if route.match.domains
        and route.action.tls is not None
        and route.action.tls.terminates
        and has_criteria(route)
    ]
