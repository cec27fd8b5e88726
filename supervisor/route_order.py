"""Whether a reload changes which of two routes wins where only their order in the file decides.

Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from shared.match_criteria import criteria_of, domain_rank
from shared.plan import RoutePlan

# Only routes that agree in all of this can be equally specific for one client.
_Peers = tuple[int, bool, int, int, int | str]


def is_reordered(
    old: Iterable[RoutePlan], new: Iterable[RoutePlan], others: Collection[str] = ()
) -> bool:
    """Whether routes that may compete stand in another order; without ``others``, by name.

    All but these must be the same before and after.
    """
    before = [route for route in old if route.name not in others]
    after = [route for route in new if route.name not in others]
    if [route.name for route in before] == [route.name for route in after]:
        return False
    return _by_peers(before) != _by_peers(after)


def _by_peers(routes: Iterable[RoutePlan]) -> dict[_Peers, list[str]]:
    """The names of routes that may compete, in the order of the file."""
    found: dict[_Peers, list[str]] = {}
    for route in routes:
        criteria = criteria_of(route)
        domains = {
            domain_rank(domain) if "*" in domain else domain for domain in route.domains
        } or {""}
        for listener in route.listeners:
            is_single = listener in route.single_port
            for domain in domains:
                peers = (listener, is_single, route.priority, criteria, domain)
                found.setdefault(peers, []).append(route.name)
    return found
