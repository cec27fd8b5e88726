"""Routes that are for certain clients, and believe forwarders about who the client is.

``client_ips`` of such a route are compared with the address that its own list of forwarders yields
for a request (design section 5). Before a request was read a forwarder may bring any client: for
its connections the networks are taken to hold then, like all else that is asked of requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, TypeAlias

from shared.match_criteria import is_for_plain
from shared.networks import Network, parse_network
from shared.plan import RoutePlan

_LISTS: Final = 64  # kept parsed; more are parsed anew
# For each network of connections the one that a route ranks by; None: everyone, and no network.
Places: TypeAlias = Mapping[Network | None, Network | None]


def forwarders_of_clients(route: RoutePlan) -> frozenset[str]:
    """The networks of forwarders whose word its ``client_ips`` go by; none: they are compared with
    the connection's address.
    """
    http = route.http
    if http is None or not route.client_ips:
        return frozenset()
    reads_requests = route.terminate is not None or is_for_plain(route)
    return frozenset(http.trusted_forwarders) if reads_requests else frozenset()


def before_request(route: RoutePlan, networks: Sequence[Network | None]) -> Places:
    """Where a route of these networks stands until a request is read. Among the forwarders that it
    believes it is by the longest, since they may bring anybody.
    """
    found = {one: one for one in networks}
    forwarders = forwarders_of_clients(route)
    if forwarders:
        longest = max((one for one in networks if one is not None), key=_prefix)
        found.update(dict.fromkeys(_parsed(forwarders), longest))
    return found


@lru_cache(maxsize=_LISTS)
def _parsed(texts: frozenset[str]) -> tuple[Network, ...]:
    """Thousands of routes may share a list."""
    return tuple(map(parse_network, texts))


def _prefix(network: Network) -> int:
    return network.prefix
