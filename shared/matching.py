"""Which route wins where several match: one matcher for all layers (docs/matching.md).

The order is priority, then the more specific match, then the file's order. A route with several
``domains`` or ``client_ips`` stands as several candidates, each with the rank of what matched. A
`Matcher` holds the candidates of one listener, so the address and port are settled by asking the
right one. Under it they are found by exact domain, by the wildcards that a name falls under, and
without a domain by the client's network: a look-up costs the same for 10 domains and for 10,000.

Each layer asks with what it knows: before a byte was read, the client's address; behind the first
bytes, whether they are TLS and what the ClientHello offers.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from typing import Any, Final, Generic, TypeVar

from msgspec import Struct

from shared.by_network import ByNetwork, Client
from shared.match_criteria import (
    IN_CLIENT_IPS,
    LAST,
    NO_DOMAIN,
    OF_FIRST_BYTES,
    Candidate,
    Offer,
    Rank,
    advantage,
    domain_rank,
    is_for_tls,
    judge,
    needs_bytes,
    needs_hello,
    plain_domain,
    rank_of,
    tls_of,
    wildcard_key,
    wildcard_keys,
)
from shared.networks import Network, parse_network
from shared.plan import RoutePlan

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


class Explanation(Struct, Generic[V], frozen=True):
    """Who wins, and why each other route of the listener does not, the best of them first."""

    value: V | None
    name: str  # of the route; "" where none wins
    lost: list[tuple[str, str]]  # (route, reason)


class Matcher(Generic[V]):
    """The candidates of one listener; ``V`` is what is found, one for each route."""

    __slots__ = (
        "__weakref__",
        "_behind",
        "_best",
        "_best_nameless",
        "_best_wild",
        "_exact",
        "_in_front",
        "_opening",
        "_ready",
        "_rest",
        "_waiting",
        "_wild",
        "longest_handshake",
        "needs_hello",
        "only",
        "places",
    )

    def __init__(self) -> None:
        #: The value that every connection gets whoever it is, without a byte; None: there is none.
        self.only: V | None = None
        #: How many places of routes it holds, which is what it costs to free it.
        self.places = 0
        #: Whether some route asks for more of a ClientHello than its first byte.
        self.needs_hello = False
        self.longest_handshake = 0.0  # of all that do, in seconds
        self._best: Rank = LAST
        self._best_wild = self._best_nameless = LAST  # of those under wildcards, without a domain
        self._exact: dict[str, Sequence[Candidate[V]]] = {}
        self._wild: dict[str, Sequence[Candidate[V]]] = {}  # by `wildcard_key`
        self._in_front = self._behind = 0  # most dots in such a key, by the end that has the star
        self._rest: ByNetwork[list[Candidate[V]]] = ByNetwork(list)  # no domain, but need bytes
        self._ready: ByNetwork[list[Candidate[V]]] = ByNetwork(list)  # need none
        self._waiting: ByNetwork[_Waiting] = ByNetwork(_Waiting)  # all that need bytes
        self._opening: Opening[V] | None = None  # of everyone, where the client does not matter

    def add(self, route: RoutePlan, listener: int, value: V) -> None:
        """Put a route in its places, if it serves this listener (its id) at all.

        In any order. ValueError for a network or a domain that is none; a checked plan has none.
        """
        if listener not in route.listeners:
            return
        self._opening = None
        if needs_hello(route):
            self.needs_hello = True
            self.longest_handshake = max(self.longest_handshake, route.timeouts.tls_handshake)
        networks: Sequence[Network | None] = _EVERYONE
        if route.client_ips:
            networks = [parse_network(text) for text in route.client_ips]
        self.places += len(route.domains) + len(networks)
        if route.domains:
            self._add_domains(route, listener, value, networks)
        else:
            is_ready = not needs_bytes(route)
            checks = tuple(one.holds for one in OF_FIRST_BYTES if one.is_set(route))
            for network in networks:
                rank = rank_of(route, listener, NO_DOMAIN, network)
                group = (self._ready if is_ready else self._rest).at(network)
                insort(group, Candidate(route, value, rank, network, checks), key=_rank)
                self._best_nameless = min(self._best_nameless, rank)
                if rank < self._best:
                    self._best = rank
                    self.only = value if is_ready and network is None else None
        if needs_bytes(route):
            # Of its domains the best is enough: who waits for one of them waits for all.
            level = min(map(domain_rank, route.domains), default=NO_DOMAIN)
            for network in networks:
                rank = rank_of(route, listener, level, network)
                self._waiting.at(network).add(rank, route)

    def _add_domains(
        self, route: RoutePlan, listener: int, value: V, networks: Sequence[Network | None]
    ) -> None:
        """Domains that rank alike share their candidates: a route may have thousands."""
        # The name of a TLS client leads here, and nothing else does.
        checks = tuple(
            one.holds
            for one in (IN_CLIENT_IPS, *OF_FIRST_BYTES)
            if one.is_set(route) and not (one is OF_FIRST_BYTES[0] and tls_of(route))
        )
        alike: dict[int, tuple[Candidate[V], ...]] = {}
        for domain in dict.fromkeys(route.domains):
            is_exact = "*" not in domain
            level = domain_rank(domain)
            own = alike.get(level)
            if own is None:
                made = [
                    Candidate(route, value, rank_of(route, listener, level, one), one, checks)
                    for one in networks
                ]
                alike[level] = own = tuple(sorted(made, key=_rank))
                best = own[0].rank
                if not is_exact:
                    self._best_wild = min(self._best_wild, best)
                if best < self._best:
                    self._best = best
                    self.only = None
            if is_exact:
                _put(self._exact, domain, own)
                continue
            key = wildcard_key(domain)
            if key[0] == ".":
                self._in_front = max(self._in_front, key.count("."))
            else:
                self._behind = max(self._behind, key.count("."))
            _put(self._wild, key, own)

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
        found = self._winner(client, is_tls, hello)
        return None if found is None else found.value

    def tls_only(self, client: Client) -> bool:
        """Whether this client has candidates, and all of them are for TLS clients.

        One with domains is, unless it says ``tls: false``: nothing else names a domain yet.
        """
        return self._all_wait(client) and not any(
            one.is_for_others for one in self._waiting.over(client)
        )

    def plain_only(self, client: Client) -> bool:
        """Whether this client has candidates, and all of them are for clients without TLS."""
        return self._all_wait(client) and not any(
            one.is_for_tls for one in self._waiting.over(client)
        )

    def _all_wait(self, client: Client) -> bool:
        if self._best_ready(client) is not None:
            return False
        return any(one.ranks for one in self._waiting.over(client))

    def _best_ready(self, client: Client) -> Candidate[V] | None:
        groups = self._ready.over(client)
        if len(groups) == 1:  # of everyone: the usual case
            return groups[0][0] if groups[0] else None
        return min((group[0] for group in groups if group), key=_rank, default=None)

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
            if exact is None:  # nothing is stored that is not plain, so a hit needs no more
                name = plain_domain(name)
                exact = self._exact.get(name)
            if exact is not None:
                found = _first(exact, client, is_tls, hello)
                if found is not None:
                    best = found.rank
        if name and self._best_wild < best:
            for key in wildcard_keys(name, self._in_front, self._behind):
                group = self._wild.get(key)
                if group is not None and group[0].rank < best:
                    one = _first(group, client, is_tls, hello)
                    if one is not None and one.rank < best:
                        found, best = one, one.rank
        if self._best_nameless < best:
            return self._nameless(found, client, is_tls, hello)
        return found

    def _nameless(
        self, found: Candidate[V] | None, client: Client, is_tls: bool | None, hello: Offer | None
    ) -> Candidate[V] | None:
        """The best of ``found`` and those without a domain."""
        for by_network in (self._rest, self._ready):
            for group in by_network.over(client):
                if group and (found is None or group[0].rank < found.rank):
                    one = _first(group, client, is_tls, hello)
                    if one is not None and (found is None or one.rank < found.rank):
                        found = one
        return found

    # -- for people ------------------------------------------------------------------------

    def explain(
        self, client: Client, is_tls: bool | None = None, hello: Offer | None = None
    ) -> Explanation[V]:
        """As `with_first_bytes`, with the reason why each other route lost; looks at them all."""
        if not is_tls:
            hello = None
        name = plain_domain((hello.server_name if hello is not None else "") or "")
        keys = {*wildcard_keys(name, self._in_front, self._behind)}
        judged: dict[str, tuple[int, Rank, Candidate[V], str]] = {}
        for candidate, key, is_exact in self._all():
            is_named = not key or (name == key if is_exact else key in keys)
            held, why = judge(candidate, is_named, name, client, is_tls, hello)
            verdict = (-held, candidate.rank, candidate, why)
            known = judged.get(candidate.route.name)
            if known is None or verdict[:2] < known[:2]:
                judged[candidate.route.name] = verdict
        matching = [one for _, _, one, why in judged.values() if not why]
        winner = min(matching, key=_rank, default=None)
        lost: list[tuple[str, str]] = []
        for _, rank, candidate, why in sorted(judged.values(), key=lambda one: one[1]):
            if candidate is winner:
                continue
            if not why and winner is not None:
                why = f"{winner.route.name!r} {advantage(winner.rank, rank)}"
            lost.append((candidate.route.name, why))
        if winner is None:
            return Explanation(None, "", lost)
        return Explanation(winner.value, winner.route.name, lost)

    def _all(self) -> Iterator[tuple[Candidate[V], str, bool]]:
        """Every candidate with the key of its domain ("": none), and whether that is exact."""
        for key, group in self._exact.items():
            for candidate in group:
                yield candidate, key, True
        for key, group in self._wild.items():
            for candidate in group:
                yield candidate, key, False
        for by_network in (self._rest, self._ready):
            for group in by_network:
                for candidate in group:
                    yield candidate, "", False


class _Waiting:
    """The candidates of one network that need bytes: who ranks above, and how long to wait.

    ``ranks`` are in order and ``longest`` grows: who ranks lower counts only where it waits longer.
    """

    __slots__ = ("is_for_others", "is_for_tls", "longest", "ranks")

    def __init__(self) -> None:
        self.ranks: list[Rank] = []
        self.longest: list[float] = []  # seconds, by the place in ``ranks``
        self.is_for_tls = self.is_for_others = False

    def add(self, rank: Rank, route: RoutePlan) -> None:
        """One more."""
        if is_for_tls(route):
            self.is_for_tls = True
        else:
            self.is_for_others = True
        seconds = route.timeouts.initial_data
        place = bisect_left(self.ranks, rank)
        if place and self.longest[place - 1] >= seconds:
            return
        end = place
        while end < len(self.ranks) and self.longest[end] <= seconds:
            end += 1
        self.ranks[place:end] = [rank]
        self.longest[place:end] = [seconds]

    def longest_above(self, rank: Rank) -> float | None:
        """The longest wait of those before ``rank``; None: there are none."""
        place = bisect_left(self.ranks, rank)
        return self.longest[place - 1] if place else None


def _rank(candidate: Candidate[Any]) -> Rank:
    return candidate.rank


def _put(table: dict[str, Sequence[Candidate[V]]], key: str, own: tuple[Candidate[V], ...]) -> None:
    """Add to a list in its order; a route that has the key to itself shares its tuple."""
    there = table.setdefault(key, own)
    if there is own:
        return
    if not isinstance(there, list):
        table[key] = there = list(there)
    for candidate in own:
        insort(there, candidate, key=_rank)


def _first(
    group: Sequence[Candidate[V]], client: Client, is_tls: bool | None, hello: Offer | None
) -> Candidate[V] | None:
    """The best of an ordered list whose checks hold."""
    for candidate in group:
        for holds in candidate.checks:
            if not holds(candidate, client, is_tls, hello):
                break
        else:
            return candidate
    return None
