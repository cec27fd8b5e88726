"""What some routes ask of a request: the size of its body, a password, who the client is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from shared.ends import End
from shared.http.forwarding import Forwarders, describe, told_by
from shared.networks import split_ip
from shared.units import short
from worker.gate import ENDS

if TYPE_CHECKING:
    from shared.by_network import Client
    from shared.client_hello import ClientHello
    from shared.http.head import Request
    from shared.matching import Found
    from worker.generation import Route
    from worker.http_client import HttpClient
    from worker.http_exchange import Exchange
    from worker.http_route import HttpRoute


def has_policy_of(client: HttpClient, route: Route) -> bool:
    """Whether the handshake was made as this route asks (design section 5: 421)."""
    own, wanted = client.policy, route.plan.terminate
    if own is None or wanted is None:
        return own is wanted
    return own.policy == wanted.policy and own.min_version == wanted.min_version


NOBODY: Final = Forwarders()  # is believed where no route was found
STATUS_OF: Final = {End.BLOCKED: 403, End.LIMIT: 503, End.RATE: 429}


def find_route(exchange: Exchange) -> Found[Route] | None:
    """Who takes this request; of routes that believe forwarders, by the client's address behind
    theirs (section 5).
    """
    facts = exchange.client.conn.tls
    if facts is None:
        return _ask(exchange, False, None)
    return _ask(exchange, True, facts.hello)


def no_route(exchange: Exchange) -> None:
    """Answer a request that nobody takes; 421 where it would have a route if it came through TLS
    (section 5).
    """
    client, request = exchange.client, exchange.request
    if client.conn.tls is None and _ask(exchange, True, None) is not None:
        exchange.fail(421, End.NO_ROUTE, "the route is for TLS clients")
        return
    exchange.about = describe(client.origin, request, NOBODY, exchange.plane.http.make_id())
    asked = f"{request.method} {short(request.host)} {short(request.path)}"
    exchange.fail(404, End.NO_ROUTE, asked)


def _ask(exchange: Exchange, is_tls: bool, hello: ClientHello | None) -> Found[Route] | None:
    client, request = exchange.client, exchange.request
    matcher = client.conn.listener.matcher
    if not matcher.forwarders:
        return matcher.with_request(client.network, is_tls, hello, request)
    named = [_named_by(client, request, one) for one in matcher.forwarders]
    return matcher.with_request(client.network, is_tls, hello, request, named)


def _named_by(client: HttpClient, request: Request, forwarders: Forwarders) -> Client:
    """Who the client is where these are believed; it is itself where it is none of them."""
    origin = client.origin
    if not origin.is_in(forwarders):
        return client.network
    return split_ip(told_by(origin, request, forwarders).client_ip)


class Refusal(NamedTuple):
    """What the rules of a route say to a request."""

    status: int
    end: End
    why: str


def admit(client: HttpClient, route: Route, ip: str) -> Refusal | None:
    """Ask the route's rules. The connection counts as one of the route of its first request, and
    towards the limits of each route that it has a request for, until it ends.

    ``ip``: the client's, behind trusted forwarders.
    """
    conn, now = client.conn, client.plane.reactor.now
    gate, is_first = route.gate, conn.route is None
    if is_first:
        conn.route, conn.routed_at = route, now
        route.tally.total += 1
        route.tally.active += 1
        if route.lasting.has_removed(route):
            conn.cut(now + route.timeouts.drain, End.ROUTE_REMOVED)
    if gate is None:
        return None
    if gate.counted in client.counted_by:
        found = gate.judge(ip)
    else:
        found = gate.admit(conn, now, ip)
        client.counted_by += (gate.counted,)
    if not found:
        return None
    end = ENDS[found]
    return Refusal(STATUS_OF[end], end, gate.why(found, ip))


def check(exchange: Exchange, http: HttpRoute, route: Route) -> None:
    """Go on with a request that meets all that is asked; answer any other."""
    limit = http.plan.body_limit
    if limit and exchange.request.length > limit:
        exchange.fail(413, End.BAD_REQUEST, "the body is over body_limit", is_last=True)
    elif http.plan.auth is None or _authenticate(exchange, http):
        _identify(exchange, http, route)


def _authenticate(exchange: Exchange, http: HttpRoute) -> bool:
    """False: refused, or still to be found out."""
    auth = http.plan.auth
    assert auth is not None
    if not auth.allow_plain and exchange.client.wire.tls is None:
        exchange.fail(421, End.AUTH, "a password is asked for over TLS only")
        return False
    values = exchange.request.fields.named.get(b"authorization", [])
    value = values[0] if len(values) == 1 else b""
    verdict = exchange.plane.http.auth.check(auth, value, exchange.authenticated)
    if verdict.user:
        exchange.user = verdict.user
        return True
    if not verdict.is_pending:
        _refuse(exchange, is_busy=verdict.is_busy)
    return False


def authenticated(exchange: Exchange, user: str | None, is_busy: bool) -> None:
    """The password has been checked; the client may have gone meanwhile."""
    route, http = exchange.route, exchange.http
    if exchange.is_over or route is None or http is None:
        return
    exchange.plane.reactor.look_at_clock()
    if user is None:
        _refuse(exchange, is_busy=is_busy)
    else:
        exchange.user = user
        _identify(exchange, http, route)
    exchange.client.run()


def _refuse(exchange: Exchange, *, is_busy: bool) -> None:
    if is_busy:
        exchange.fail(503, End.OVERLOAD, "too many passwords to check")
        return
    http = exchange.http
    assert http is not None
    exchange.fail(401, End.AUTH, "", extra=http.challenge)


def _identify(exchange: Exchange, http: HttpRoute, route: Route) -> None:
    rules, about = route.rules, exchange.about
    if rules is not None and about is not None:
        facts = exchange.client.conn.tls
        sni = "" if facts is None else facts.hello.server_name
        identity = None if facts is None else facts.identity()
        ip, user = about.client_ip, exchange.user
        if not rules.judge(sni, identity, ip, user):
            exchange.fail(403, End.BLOCKED, rules.why(sni, identity, ip, user))
            return
    exchange.go_on(http, route)
