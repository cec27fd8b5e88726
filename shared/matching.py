"""Which route wins where several match: one matcher for all layers (docs/matching.md).

The order is priority, then the more specific match, then the file's order. A route with several
``domains`` or ``client_ips`` stands as several candidates, each with the rank of what matched. A
`Matcher` holds the candidates of one listener, so the address and port are settled by asking the
right one. Under it they are found by exact domain, by the wildcards that a name falls under, and
without a domain by the client's network: a look-up costs the same for 10 domains and for 10,000.

Each layer asks with what it knows: before a byte was read, the client's address; behind the first
bytes, whether they are TLS and what the ClientHello offers; then each request (`match_http`).
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from typing import Final, Generic, TypeVar

from msgspec import Struct

from shared.by_network import ByNetwork, Client
from shared.http.forwarding import Forwarders
from shared.http.head import Request
from shared.match_criteria import (
    IN_CLIENT_IPS,
    LAST,
    NO_DOMAIN,
    OF_FIRST_BYTES,
    Candidate,
    Offer,
    Rank,
    best_path,
    domain_rank,
    is_for_tls,
    needs_bytes,
    needs_hello,
    ranks_of,
    wildcard_key,
    wildcard_keys,
)
from shared.match_explain import Explanation, Question, explained
from shared.match_forwarders import Places, before_request
from shared.match_http import Found, HttpRoutes
from shared.match_lists import first, put, rank_in_order
from shared.match_waiting import Waiting
from shared.networks import Network, parse_network
from shared.path_index import NO_PARAMS
from shared.plan import RoutePlan

__all__ = ("Explanation", "Found", "Matcher", "Opening")

V = TypeVar("V")

_EVERYONE: Final[tuple[Network | None, ...]] = (None,)


class Opening(Struct, Generic[V], frozen=True):
    """What can be said of a new client before it has sent a byte.

    ``value``: who wins of those that need no bytes, if any. ``wait``: one that needs bytes ranks
    above it, so they must be read; ``initial_data`` seconds at the most, the longest of those that
    rank above.
    """

    value: V | None
    wait: bool
    initial_data: float


class Matcher(Generic[V]):
    """The candidates of one listener; ``V`` is what is found, one for each route."""

    __slots__ = (
        "__weakref__", "_awaits_http", "_behind", "_best", "_best_nameless", "_best_wild", "_exact",
        "_has_asked", "_http", "_in_front", "_listener", "_of_tls", "_opening", "_ready", "_rest",
        "_sole", "_waiting", "_wild", "_worst_sole",
        "forwarders", "longest_handshake", "needs_hello", "only", "places",
    )  # fmt: skip

    def __init__(self) -> None:
        #: The value that every connection gets whoever it is, without a byte; None: there is none.
        self.only: V | None = None
        #: How many places of routes it holds.
        self.places = 0
        #: Whether some route asks for more of a ClientHello than its first byte.
        self.needs_hello = False
        self.longest_handshake = 0.0  # of all that do, in seconds
        #: Lists whose word about a request's client decides where it goes; nearly always none.
        self.forwarders: tuple[Forwarders, ...] = ()
        self._best: Rank = LAST
        self._best_wild = self._best_nameless = LAST  # of those under wildcards, without a domain
        self._exact: dict[str, Sequence[Candidate[V]]] = {}
        # Who wins the name whoever asks for it, unless a wildcard or no domain at all ranks above.
        self._sole: dict[str, V] = {}
        self._worst_sole: Rank | None = None  # the last of their ranks; None: there is none
        self._wild: dict[str, Sequence[Candidate[V]]] = {}  # by `wildcard_key`
        self._in_front = self._behind = 0  # most dots in such a key, by the end that has the star
        self._rest: ByNetwork[list[Candidate[V]]] = ByNetwork(list)  # no domain, but need bytes
        self._ready: ByNetwork[list[Candidate[V]]] = ByNetwork(list)  # need none
        self._waiting: ByNetwork[Waiting] = ByNetwork(Waiting)  # all that need bytes
        self._opening: Opening[V] | None = None  # of everyone, where the client does not matter
        self._http: HttpRoutes[V] | None = None  # where some route speaks HTTP
        self._awaits_http: bool | None = None  # of everyone, where the client does not matter
        # Who gets every client with TLS, whatever it offers; once it was asked for.
        self._of_tls: V | None = None
        self._has_asked = False
        self._listener = 0

    def add(self, route: RoutePlan, listener: int, value: V) -> None:
        """Put a route in its places, if it serves this listener (its id) at all.

        In any order. ValueError for a network or a domain that is none; a checked plan has none.
        """
        if listener not in route.listeners:
            return
        self._opening = self._awaits_http = self._of_tls = None
        self._has_asked = False
        self._listener = listener
        if needs_hello(route):
            self.needs_hello = True
            self.longest_handshake = max(self.longest_handshake, route.timeouts.tls_handshake)
        networks = _networks_of(route)
        before = before_request(route, networks)
        self.places += len(route.domains) + len(before)
        path = best_path(route)
        if route.http is not None:
            http = self._speaking_http()
            self.places += http.add(route, listener, value, networks, before)
            self.forwarders = http.forwarders
        elif self._http is not None:
            self.places += self._http.add_relayed(route, listener, value, networks)
        if route.http is None or is_for_tls(route):
            # Of one that passes TLS on no request is read, whose client could be another.
            places = {one: one for one in networks} if route.terminate is None else before
            if route.domains:
                self._add_domains(route, value, places, path)
            else:
                self._add_nameless(route, value, places, path)
        if needs_bytes(route):
            # Of its domains the best is enough: who waits for one of them waits for all.
            level = min(map(domain_rank, route.domains), default=NO_DOMAIN)
            rank_at = ranks_of(route, listener, level, path)
            for place, network in before.items():
                rank = rank_at(network)
                self._waiting.at(place).add(rank, route)
                if rank < self._best:
                    self._best = rank
                    self.only = None

    def _speaking_http(self) -> HttpRoutes[V]:
        http = self._http
        if http is None:
            http = self._http = HttpRoutes()
            for one in {each.route.name: each for each in self._nameless()}.values():
                networks = _networks_of(one.route)
                self.places += http.add_relayed(one.route, self._listener, one.value, networks)
        return http

    def _add_nameless(self, route: RoutePlan, value: V, places: Places, path: int) -> None:
        is_ready = not needs_bytes(route)
        checks = tuple(one.holds for one in OF_FIRST_BYTES if one.is_set(route))
        rank_at = ranks_of(route, self._listener, NO_DOMAIN, path)
        for place, network in places.items():
            rank = rank_at(network)
            group = (self._ready if is_ready else self._rest).at(place)
            insort(group, Candidate(route, value, rank, place, checks), key=rank_in_order)
            self._best_nameless = min(self._best_nameless, rank)
            if is_ready and rank < self._best:
                self._best = rank
                self.only = value if place is None else None

    def _add_domains(self, route: RoutePlan, value: V, places: Places, path: int) -> None:
        """Domains that rank alike share their candidates: a route may have thousands."""
        # The name of a TLS client leads here, and nothing else does.
        checks = tuple(
            one.holds
            for one in (IN_CLIENT_IPS, *OF_FIRST_BYTES)
            if one.is_set(route) and not (one is OF_FIRST_BYTES[0] and is_for_tls(route))
        )
        alike: dict[int, tuple[Candidate[V], ...]] = {}
        for domain in dict.fromkeys(route.domains):
            is_exact = "*" not in domain
            level = domain_rank(domain)
            own = alike.get(level)
            if own is None:
                rank_at = ranks_of(route, self._listener, level, path)
                made = [
                    Candidate(route, value, rank_at(one), at, checks) for at, one in places.items()
                ]
                alike[level] = own = tuple(sorted(made, key=rank_in_order))
                if not is_exact:
                    self._best_wild = min(self._best_wild, own[0].rank)
            if is_exact:
                self._add_exact(domain, own)
                continue
            key = wildcard_key(domain)
            if key[0] == ".":
                self._in_front = max(self._in_front, key.count("."))
            else:
                self._behind = max(self._behind, key.count("."))
            put(self._wild, key, own)

    def _add_exact(self, domain: str, own: tuple[Candidate[V], ...]) -> None:
        put(self._exact, domain, own)
        if len(self._exact[domain]) > 1 or own[0].checks:
            self._sole.pop(domain, None)
            return
        self._sole[domain] = own[0].value
        if self._worst_sole is None or self._worst_sole < own[0].rank:
            self._worst_sole = own[0].rank

    # -- what a layer asks -----------------------------------------------------------------

    def at_accept(self, client: Client) -> Opening[V]:
        """What can be said without a byte. ``client``: as `shared.networks.split_ip` gives it;
        None: on a Unix socket, in no network.
        """
        if self._opening is not None:
            return self._opening
        ready = self._best_ready(client)
        rank = LAST if ready is None else ready.rank
        longest = [one.longest_above(rank) for one in self._waiting.over(client)]
        waits = [one for one in longest if one is not None]
        value = None if ready is None else ready.value
        opening = Opening(value, bool(waits), max(waits, default=0.0))
        if not (self._ready.has_networks or self._waiting.has_networks):
            self._opening = opening
        return opening

    def with_first_bytes(
        self, client: Client, is_tls: bool | None, hello: Offer | None
    ) -> V | None:
        """Who wins behind the first bytes; None: nobody.

        ``is_tls``: whether they are TLS; None: nothing came in time, and only those win that need
        no bytes. ``hello``: what the ClientHello offers; None where it is not known, or is none.
        """
        if is_tls and hello is not None:
            if not self._has_asked:
                self._of_tls = self._find_of_tls(client, hello)
                self._has_asked = True
            if self._of_tls is not None:
                return self._of_tls
            worst = self._worst_sole
            if worst is not None and worst < self._best_wild and worst < self._best_nameless:
                # Nothing of a candidate is read: with thousands no cache holds them.
                value = self._sole.get(hello.server_name or "")
                if value is not None:
                    return value
        found = self._winner(client, is_tls, hello)
        return None if found is None else found.value

    def _find_of_tls(self, client: Client, hello: Offer) -> V | None:
        """Who wins for this client because it speaks TLS, and for no other reason."""
        tables = (self._rest, self._ready)
        if self._exact or self._wild or any(one.has_networks for one in tables):
            return None
        best = self._winner(client, True, hello)
        if best is None:
            return None
        # Who ranks above it may take another offer, if anything besides TLS is asked there.
        asked = [one.checks for one in self._nameless() if one.rank <= best.rank]
        others = {holds for checks in asked for holds in checks} - {OF_FIRST_BYTES[0].holds}
        return None if others else best.value

    def awaits_http(self, client: Client) -> bool:
        """Whether this client, which does not begin with TLS, may get a route that speaks HTTP: its
        first bytes are then to be read as a request's head, and asked for `with_request`.
        """
        known = self._awaits_http
        if known is not None:
            return known
        http = self._http
        if http is None:
            return False
        best = http.best_of_plain(client)
        awaits = best < LAST
        if awaits:
            other = self._winner(client, False, None)
            awaits = other is None or best < other.rank
        tables = (http.plain_ranks, self._ready, self._rest)
        if not any(one.has_networks for one in tables):
            self._awaits_http = awaits
        return awaits

    def with_request(
        self,
        client: Client,
        is_tls: bool,
        hello: Offer | None,
        request: Request,
        named: Sequence[Client] = (),
    ) -> Found[V] | None:
        """Who takes this request; None: nobody.

        ``is_tls``: it came through TLS that ended here, ``hello`` is what was offered then: only
        routes that end TLS and speak HTTP take part. Else all do that take this client, also those
        that only relay: by their rank, like others. ``named``: the client by the word of each list
        in ``forwarders``; without it, that is the connection's.
        """
        http = self._http
        if http is None:
            one = None if is_tls else self._winner(client, False, None)
            return None if one is None else Found(one.value, NO_PARAMS, one.rank)
        if self.forwarders:
            named = named or [client] * len(self.forwarders)
            return http.find_behind(client, named, is_tls, hello, request)
        if is_tls:
            return http.through_tls.find(client, hello, request)
        return http.plain.find(client, None, request)

    def tls_only(self, client: Client) -> bool:
        """Whether this client has candidates, and all of them are for TLS clients.

        One with domains is, unless it speaks HTTP, which has a name in each request.
        """
        return self._all_wait(client, is_tls=True)

    def plain_only(self, client: Client) -> bool:
        """Whether this client has candidates, and all of them are for clients without TLS."""
        return self._all_wait(client, is_tls=False)

    def _all_wait(self, client: Client, *, is_tls: bool) -> bool:
        """Whether there are candidates, all of them need bytes, and are of this kind."""
        if self._best_ready(client) is not None:
            return False
        waiting = self._waiting.over(client)
        of_tls = any(one.is_for_tls for one in waiting)
        of_others = any(one.is_for_others for one in waiting)
        return of_tls is is_tls and of_others is not is_tls

    def _best_ready(self, client: Client) -> Candidate[V] | None:
        groups = self._ready.over(client)
        if len(groups) == 1:  # of everyone: the usual case
            return groups[0][0] if groups[0] else None
        return min((group[0] for group in groups if group), key=rank_in_order, default=None)

    def _winner(
        self, client: Client, is_tls: bool | None, hello: Offer | None
    ) -> Candidate[V] | None:
        """The best rank over the few ordered lists whose candidates may match."""
        found: Candidate[V] | None = None
        best = LAST
        if not is_tls:
            hello = None
        name = None if hello is None else hello.server_name
        if name:
            exact = self._exact.get(name)
            if exact is not None:
                found = first(exact, client, is_tls, hello)
                if found is not None:
                    best = found.rank
        if name and self._best_wild < best:
            for key in wildcard_keys(name, self._in_front, self._behind):
                group = self._wild.get(key)
                if group is not None and group[0].rank < best:
                    one = first(group, client, is_tls, hello)
                    if one is not None and one.rank < best:
                        found, best = one, one.rank
        if self._best_nameless < best:
            return self._best_of_nameless(found, client, is_tls, hello)
        return found

    def _best_of_nameless(
        self, found: Candidate[V] | None, client: Client, is_tls: bool | None, hello: Offer | None
    ) -> Candidate[V] | None:
        """The best of ``found`` and those without a domain."""
        for by_network in (self._rest, self._ready):
            for group in by_network.over(client):
                if group and (found is None or group[0].rank < found.rank):
                    one = first(group, client, is_tls, hello)
                    if one is not None and (found is None or one.rank < found.rank):
                        found = one
        return found

    # -- for people ------------------------------------------------------------------------

    def explain(
        self,
        client: Client,
        is_tls: bool | None = None,
        hello: Offer | None = None,
        request: Request | None = None,
        named: Sequence[Client] = (),
    ) -> Explanation[V]:
        """As `with_first_bytes`, or as `with_request` where there is one, with the reason why each
        other route lost; looks at them all.
        """
        of_lists = {} if self._http is None else self._http.by_list(named)
        question = Question(client, is_tls, hello if is_tls else None, request, of_lists)
        routes: dict[str, tuple[RoutePlan, V]] = {}
        for group in (*self._exact.values(), *self._wild.values(), self._nameless()):
            for candidate in group:
                routes[candidate.route.name] = candidate.route, candidate.value
        if self._http is not None:
            routes.update(self._http.by_name())
        return explained(routes.values(), self._listener, question)

    def _nameless(self) -> list[Candidate[V]]:
        tables = (self._rest, self._ready)
        return [one for table in tables for group in table for one in group]


def _networks_of(route: RoutePlan) -> Sequence[Network | None]:
    return list(map(parse_network, route.client_ips)) or _EVERYONE
