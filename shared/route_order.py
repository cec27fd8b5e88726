"""Which route wins where several match: the order of design section 4, "more specific".

Priority (higher first), then ``client_ips`` (the longer prefix that holds the client, then none),
then the number of other criteria, then a port of its own before a range, then the file's order.
A route with several networks stands in the list once per network, so that the first candidate
that matches is the winner and no look-up has to compare.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from shared.networks import Network, parse_network, split_ip
from shared.plan import RoutePlan

Rank = tuple[int, int, int, int, int]


class Candidate(Struct, frozen=True):
    """One route for the clients of one network; None: for all clients."""

    route: RoutePlan
    network: Network | None

    def matches(self, client: tuple[int, int]) -> bool:
        """Whether the client, as `shared.networks.split_ip` gives it, is one of these."""
        return self.network is None or self.network.contains(*client)


def order_key(
    *, priority: int, prefix: int | None, criteria: int, is_single: bool, order: int
) -> Rank:
    """Sort key: smaller wins. ``prefix`` in bits of the network that matched, None without one."""
    longest_first = 1 if prefix is None else -prefix
    return (-priority, longest_first, -criteria, 0 if is_single else 1, order)


def rank(route: RoutePlan, listener: int, prefix: int | None = None) -> Rank:
    """The sort key of a route on a listener (its id), matched by a network of ``prefix`` bits."""
    return order_key(
        priority=route.priority,
        prefix=prefix,
        criteria=int(needs_bytes(route)),
        is_single=listener in route.single_port,
        order=route.order,
    )


def needs_bytes(route: RoutePlan) -> bool:
    """Whether the client's first bytes must be read to know that the route matches."""
    return route.tls is not None


def candidates_of(route: RoutePlan, listener: int) -> list[tuple[Rank, Candidate]]:
    """A route's candidates on a listener (its id) with their sort keys; none where it has none.

    ValueError where the route holds a network that is none: a checked plan never does.
    """
    if listener not in route.listeners:
        return []
    networks: list[Network | None] = [parse_network(text) for text in route.client_ips]
    return [
        (
            rank(route, listener, None if network is None else network.prefix),
            Candidate(route, network),
        )
        for network in networks or [None]
    ]


def build_candidates(routes: Iterable[RoutePlan], listener: int) -> list[Candidate]:
    """The candidates of a listener (its id), the first that matches wins."""
    ranked = [pair for route in routes for pair in candidates_of(route, listener)]
    ranked.sort(key=lambda pair: pair[0])
    return [candidate for _, candidate in ranked]


def matching(candidates: Sequence[Candidate], client_ip: str) -> list[RoutePlan]:
    """The routes that are left for this client, best first, each once.

    Ends with the first that needs no bytes: what comes after can never win. So a list whose first
    route needs none is decided at accept. ValueError where ``client_ip`` is no IP address.
    """
    client = split_ip(client_ip)
    found: list[RoutePlan] = []
    seen: set[int] = set()
    for candidate in candidates:
        if candidate.route.order in seen or not candidate.matches(client):
            continue
        found.append(candidate.route)
        seen.add(candidate.route.order)
        if not needs_bytes(candidate.route):
            break
    return found


def choose(routes: Sequence[RoutePlan], tls: bool | None) -> RoutePlan | None:
    """The first of `matching`'s routes that fits what was read.

    ``tls``: whether the first bytes are a ClientHello; None: nothing came, or nothing was read,
    and then only a route that needs no bytes fits. None where no route is left.
    """
    for route in routes:
        if route.tls is None or route.tls == tls:
            return route
    return None


def best(
    routes: Iterable[RoutePlan], listener: int, client_ip: str, tls: bool | None = None
) -> RoutePlan | None:
    """The winner for one client, worked out from scratch; for explanations and tests."""
    return choose(matching(build_candidates(routes, listener), client_ip), tls)
