"""Why each route of a listener wins or does not, in words for the operator.

Compares every route anew, without the index that connections are matched by: slow, and a second
opinion on it in the tests.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Generic, NamedTuple, TypeVar

from msgspec import Struct

from shared.by_network import Client
from shared.http.head import Request
from shared.match_criteria import (
    NO_DOMAIN,
    Offer,
    Rank,
    advantage,
    alpn_holds,
    domain_holds,
    domain_rank,
    is_for_tls,
    match_of,
    rank_of,
    tls_of,
    versions_hold,
)
from shared.match_fields import RequestFields, tests_of
from shared.match_forwarders import forwarders_of_clients
from shared.networks import Network, parse_network
from shared.path_index import NO_PATH, PathPattern
from shared.plan import RoutePlan
from shared.units import short

V = TypeVar("V")


class Explanation(Struct, Generic[V], frozen=True):
    """Who wins, and why each other route of the listener does not, the best of them first."""

    value: V | None
    name: str  # of the route; "" where none wins
    lost: list[tuple[str, str]]  # (route, reason)


class Question(NamedTuple):
    """What is known of a client. ``is_tls`` None: it has sent nothing. ``request`` None: none has
    been read; with ``is_tls``, one that came through TLS that ended here. ``of_lists``: who the
    client is by the word of lists of forwarders, where that is not the connection's address.
    """

    client: Client
    is_tls: bool | None
    hello: Offer | None
    request: Request | None
    of_lists: Mapping[frozenset[str], Client]

    @property
    def name(self) -> str:
        """The domain that the client asks for, as names are compared; "" for none."""
        if self.request is not None:
            return self.request.host
        return (self.hello.server_name if self.hello is not None else "") or ""


def explained(
    routes: Iterable[tuple[RoutePlan, V]], listener: int, question: Question
) -> Explanation[V]:
    """Who of these routes of a listener wins, and what each other lost by."""
    judged = [(*_judged(route, listener, question), route, value) for route, value in routes]
    judged.sort(key=lambda one: one[0])
    winner = next((one for one in judged if not one[1]), None)
    lost: list[tuple[str, str]] = []
    for rank, why, route, _ in judged:
        if winner is not None and route is winner[2]:
            continue
        if not why and winner is not None:
            why = f"{winner[2].name!r} {advantage(winner[0], rank)}"
        lost.append((route.name, why))
    if winner is None:
        return Explanation(None, "", lost)
    return Explanation(winner[3], winner[2].name, lost)


def _judged(route: RoutePlan, listener: int, question: Question) -> tuple[Rank, str]:
    """The rank of a route, by what of it holds where something does, and "" or why it is out."""
    name = question.name
    networks = list(map(parse_network, route.client_ips))
    within = _within(route, networks, question)
    domains = [one for one in route.domains if domain_holds(one, name)]
    patterns = list(map(PathPattern, match_of(route).paths))
    request = question.request
    paths = patterns
    if request is not None:
        paths = [one for one in patterns if one.match(request.path) is not None]
    rank = rank_of(
        route,
        listener,
        min(map(domain_rank, domains or route.domains), default=NO_DOMAIN),
        max(within or networks, key=lambda one: one.prefix, default=None),
        min((one.rank for one in paths or patterns), default=NO_PATH),
    )
    if networks and not within:
        return rank, "client_ips: the client is in none of them"
    why = _why_not_kind(route, question)
    if not why and route.domains and not domains:
        why = _why_not_domain(question)
    why = why or _why_not_offer(route, question)
    if not why and request is not None:
        why = _why_not_request(route, request, bool(paths) or not patterns)
    return rank, why


def _within(route: RoutePlan, networks: list[Network], question: Question) -> list[Network]:
    """Those of its ``client_ips`` that hold, or may hold for what a forwarder brings."""
    client, believed = question.client, forwarders_of_clients(route)
    if question.request is not None:
        client = question.of_lists.get(believed, client)
    elif route.terminate is not None and _holding(map(parse_network, believed), client):
        return networks
    return _holding(networks, client)


def _holding(networks: Iterable[Network], client: Client) -> list[Network]:
    return [one for one in networks if client is not None and one.contains(*client)]


def _why_not_kind(route: RoutePlan, question: Question) -> str:
    """What a client is, and how far it has been read, puts some routes out."""
    is_tls, has_request = question.is_tls, question.request is not None
    wanted = tls_of(route)
    if wanted is not None and wanted is not is_tls:
        text = "TLS clients only" if wanted else "clients without TLS only"
        return f"tls: for {text}" + (", and no byte has come" if is_tls is None else "")
    if is_tls is None:
        if route.domains:
            return "domains: no byte has come"
        return "protocol: for HTTP, and no byte has come" if route.http is not None else ""
    if route.http is None:
        if has_request and is_tls:
            return "protocol: not for HTTP, for which TLS has ended here"
        if route.domains and not is_tls:
            return "domains: a client without TLS names none" + (
                " to a route that is not for HTTP" if has_request else ""
            )
        return ""
    if is_tls and (route.terminate is None if has_request else not is_for_tls(route)):
        return "tls: the route does not end TLS, so it reads no request of TLS clients"
    if not is_tls and not has_request:
        return "protocol: for HTTP, and no request has come"
    return ""


def _why_not_domain(question: Question) -> str:
    name = question.name
    if not name:
        return "domains: the client names no server"
    return f"domains: the client asks for {short(name)}"


def _why_not_offer(route: RoutePlan, question: Question) -> str:
    hello = question.hello
    if not versions_hold(route, hello):
        offered = _listed(hello.versions if hello is not None else ())
        return f"tls_versions: for {' or '.join(route.tls_versions)}; the client offers {offered}"
    if not alpn_holds(route, hello):
        offered = _listed(hello.alpn if hello is not None else ())
        return f"alpn: for {' or '.join(route.alpn)}; the client offers {offered}"
    return ""


def _listed(offered: Collection[str]) -> str:
    return ", ".join(map(ascii, offered)) or "none"


def _why_not_request(route: RoutePlan, request: Request, is_path: bool) -> str:
    match = match_of(route)
    if not is_path:
        return f"paths: for {' or '.join(match.paths)}; the request has {short(request.path)}"
    if match.methods and request.method not in match.methods:
        return f"methods: for {' or '.join(match.methods)}; the request has {short(request.method)}"
    fields = RequestFields(request)
    failed = next((one for one in tests_of(match) if not one.holds(fields)), None)
    return "" if failed is None else f"{failed.kind}: {failed.why_not(fields)}"
