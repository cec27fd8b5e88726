"""A warning for each route of a config that can never be chosen, as `supervisor/shadowed.py` says.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from shared.config import Config
from shared.plan import HttpPlan, RoutePlan, TlsPlan
from shared.units import short
from supervisor.compile_http import match_plan
from supervisor.compile_tls import is_for_tls
from supervisor.config_findings import Findings
from supervisor.config_listeners import PortKey, enabled_routes, port_keys
from supervisor.config_protocol import speaks_http
from supervisor.config_taken_tls import taken_tls
from supervisor.shadowed import shadows

_ENDED: Final = TlsPlan(certificates=())  # of a route that ends TLS, however it does


def check_shadowed(config: Config, found: Findings) -> None:
    """One warning for each enabled route of a checked config that can never be chosen."""
    ids: dict[PortKey, int] = {}
    routes = list(_matches(config, ids))
    addressed = frozenset(number for key, number in ids.items() if isinstance(key, int))
    for loser, winner in shadows(routes, addressed):
        name, other = short(loser.name), short(winner.name)
        message = f"route {name} can never be chosen: {other} comes before it on every port"
        hint = f"give it a priority above {winner.priority}, narrow the match of {other}, "
        found.warn(found.route(loser.order, "name"), message, hint + "or remove one", "shadowed")


def _matches(config: Config, ids: dict[PortKey, int]) -> Iterator[RoutePlan]:
    """What of each enabled route decides whether it is chosen. All addresses of a port have the
    same routes, so a port stands for them. ``ids`` is filled: the listener of each port.
    """
    taken = taken_tls(config).tls
    common = tuple(config.http.trusted_forwarders)
    known: dict[tuple[str, ...], tuple[tuple[int, ...], frozenset[int]]] = {}
    for place, route in enabled_routes(config):
        match = route.match
        entries = tuple(match.ports)
        if entries not in known:
            keys = port_keys(entries)
            numbers = {key: ids.setdefault(key, len(ids)) for key in keys}
            own = frozenset(numbers[key] for key, is_single in keys.items() if is_single)
            known[entries] = (tuple(numbers.values()), own)
        listeners, single = known[entries]
        tls = route.action.tls or taken.get(place)
        trusted = None if route.http is None else route.http.trusted_forwarders
        believed = common if trusted is None else tuple(trusted)
        yield RoutePlan(
            name=str(route.name),
            order=place,
            listeners=listeners,
            single_port=single,
            priority=route.priority,
            client_ips=tuple(match.client_ips),
            tls=is_for_tls(route, taken.get(place)),
            domains=tuple(map(str, match.domains)),
            tls_versions=tuple(match.tls_versions),
            alpn=tuple(match.alpn),
            terminate=_ENDED if tls is not None and tls.terminates else None,
            http=HttpPlan(match=match_plan(match), trusted_forwarders=believed)
            if speaks_http(route)
            else None,
        )
