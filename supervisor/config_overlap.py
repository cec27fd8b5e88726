"""Routes that end TLS for the same names on the same port in different ways.

Which route a client gets may depend on more than its name, and the handshake comes first: so
routes whose domains overlap must agree on `tls` (design section 4). Those that read HTTP and say
nothing of TLS take that of the others: see `supervisor/config_taken_tls.py`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from itertools import chain
from typing import Final

from msgspec import Struct

from shared.config import Config, Tls
from shared.units import short
from supervisor.config_findings import Findings
from supervisor.config_listeners import PortKey, enabled_routes, port_keys

HINT: Final = (
    "give both the same tls; one route may list several certificates, which are chosen by name"
)


class _Owner(Struct, frozen=True):
    """The first route with a domain on a port, and its way to end TLS."""

    index: int
    way: Hashable


def check_overlap(config: Config, found: Findings) -> None:
    """One error for each route that disagrees with one before it, naming both."""
    ways: dict[int, Hashable] = {}
    for index, route in enabled_routes(config):
        tls = route.action.tls
        if tls is not None and tls.terminates and route.match.domains:
            ways[index] = way_of(tls)
    if len(set(ways.values())) < 2:
        return
    reported: set[int] = set()
    for members in by_port(config, list(ways)):
        conflicts = chain(_conflicts(config, members, ways), _crossing(config, members, ways))
        for first, second, same in conflicts:
            early, late = sorted((first, second))
            if late in reported:
                continue
            reported.add(late)
            names = [short(str(config.routes[index].name)) for index in (late, early)]
            message = f"route {names[0]} and route {names[1]} end TLS differently, and {same}"
            found.error(found.route(late, "action", "tls"), message, HINT)


def way_of(tls: Tls) -> Hashable:
    """Equal exactly where clients see the same; what the target gets is no part of it."""
    auth = tls.client_auth
    return (
        tuple((one.cert, one.key, one.password_file) for one in tls.certificates),
        tls.min_version or "1.2",
        tls.ciphers,
        tuple(tls.alpn),
        auth.mode,
        auth.ca if auth.mode != "none" else None,
    )


def by_port(config: Config, routes: list[int]) -> Iterator[list[int]]:
    """The routes of each port; ports with the same ones, as in a range, come once."""
    ports: dict[tuple[str, ...], list[int]] = {}
    for index in routes:
        ports.setdefault(tuple(map(str, config.routes[index].match.ports)), []).append(index)
    groups: dict[PortKey, list[int]] = {}
    lists = list(ports.items())
    for number, (entries, _) in enumerate(lists):
        for key in port_keys(entries):
            groups.setdefault(key, []).append(number)
    for numbers in dict.fromkeys(map(tuple, groups.values())):
        yield sorted(index for number in numbers for index in lists[number][1])


def _conflicts(
    config: Config, members: list[int], ways: dict[int, Hashable]
) -> Iterator[tuple[int, int, str]]:
    """Pairs of routes of a port that differ and whose domains overlap, each with how they do.

    Every route is compared with the first of each domain that covers one of its own, so the work
    grows with the number of labels, not of pairs.
    """
    owners: dict[str, _Owner] = {}
    domains = {
        index: [str(name) for name in config.routes[index].match.domains] for index in members
    }
    for index in members:
        for domain in domains[index]:
            owners.setdefault(domain, _Owner(index, ways[index]))
    for index in members:
        for domain in domains[index]:
            for other in covering(domain):
                owner = owners.get(other)
                if owner is not None and owner.way != ways[index]:
                    is_same = domain == other
                    same = f"both are for {domain}" if is_same else f"{other} covers {domain}"
                    yield index, owner.index, same


def _crossing(
    config: Config, members: list[int], ways: dict[int, Hashable]
) -> Iterator[tuple[int, int, str]]:
    """As `_conflicts`, of wildcards with their stars at different ends: any two share a name.

    Every one is compared with the first at the other end, and the first there of another way.
    """
    stars = [
        (index, domain, domain.startswith("*."))
        for index in members
        for domain in map(str, config.routes[index].match.domains)
        if "*" in domain
    ]
    firsts: dict[bool, dict[Hashable, tuple[int, str]]] = {True: {}, False: {}}
    for index, domain, is_front in stars:
        if len(firsts[is_front]) < 2:
            firsts[is_front].setdefault(ways[index], (index, domain))
    for index, domain, is_front in stars:
        for way, (other_index, other) in firsts[not is_front].items():
            if way != ways[index]:
                front, end = (domain, other) if is_front else (other, domain)
                yield index, other_index, f"both are for {end[:-1]}{front[2:]} by {front} and {end}"
                break


def covering(domain: str) -> Iterator[str]:
    """The domain, and every wildcard that stands for all that it stands for."""
    yield domain
    labels = domain.split(".")
    is_front, is_end = labels[0] == "*", labels[-1] == "*"
    if not is_end:
        for count in range(2 if is_front else 1, len(labels)):
            yield "*." + ".".join(labels[count:])
    if not is_front:
        for count in range(1, len(labels) - (1 if is_end else 0)):
            yield ".".join(labels[:count]) + ".*"
