"""Finds the route of each request among thousands, by Host, path and whatever else a route asks.

The candidates of one kind of client, with TLS that ended here or without any, stand in an
`HttpTable`: by domain, under it by path, under that by the values that they want of a field. What
was found for a host, path and method is remembered where nothing else was asked on the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Generic, TypeVar

from shared.by_network import ByNetwork, Client
from shared.http.forwarding import Forwarders, forwarders_of
from shared.http.head import Request
from shared.match_criteria import (
    LAST,
    NO_DOMAIN,
    Offer,
    Rank,
    best_path,
    domain_rank,
    is_for_plain,
    is_for_tls,
    match_of,
    rank_of,
    tls_of,
    wildcard_key,
    wildcard_keys,
)
from shared.match_fields import tests_of
from shared.match_forwarders import Places, forwarders_of_clients
from shared.match_shelf import Ask, Found, HttpCandidate, NetworkGroup, Shelf, rank_in_list
from shared.networks import Network
from shared.path_index import NO_PARAMS, NO_PATH, PathPattern
from shared.plan import RoutePlan

__all__ = ("Found", "HttpTable")

V = TypeVar("V")

# With the next one all are dropped. More where there are more candidates: then their own paths all
# have room, and still it is no more than they take themselves.
_MEMO_ENTRIES: Final = 1024
_MEMO_PER_PLACE: Final = 2
_MEMO_TEXT: Final = 256  # characters of host and path together; longer ones are not remembered
_FEW: Final = 8  # candidates of a domain that stand in a row; more are indexed
# Networks of a route that are looked up; more are tried one prefix length after the other.
_MANY_NETWORKS: Final = 64


_Entry = tuple[HttpCandidate[V], ...] | Shelf[V]


class HttpRoutes(Generic[V]):
    """The routes of a listener that speak HTTP, and those that relay whatever comes.

    ``plain`` and ``through_tls`` go by the connection's address. Routes whose ``client_ips`` go by
    what forwarders say have tables of their own, for each list in ``forwarders``.
    """

    __slots__ = ("_behind", "_dormant", "forwarders", "plain", "plain_ranks", "through_tls")

    def __init__(self) -> None:
        self.plain: HttpTable[V] = HttpTable()
        self.through_tls: HttpTable[V] = HttpTable()
        self.forwarders: tuple[Forwarders, ...] = ()
        self._behind: dict[frozenset[str], _Pair[V]] = {}  # in the same order
        #: The best rank of what speaks HTTP with clients without TLS, if anything does.
        self.plain_ranks: ByNetwork[list[Rank]] = ByNetwork(list)
        self._dormant: dict[str, tuple[RoutePlan, V]] = {}  # that no request reaches

    def add(
        self,
        route: RoutePlan,
        listener: int,
        value: V,
        networks: Sequence[Network | None],
        before: Places,
    ) -> int:
        """Put a route that speaks HTTP where its requests are found; returns the places.

        ``before``: where it stands until they are read.
        """
        places = 0
        plain, through_tls = self._tables_of(route)
        if route.terminate is not None and is_for_tls(route):
            places += through_tls.add(route, listener, value, networks)
        if is_for_plain(route):
            places += plain.add(route, listener, value, networks)
            level = min(map(domain_rank, route.domains), default=NO_DOMAIN)
            for place, network in before.items():
                rank = rank_of(route, listener, level, network, best_path(route))
                ranks = self.plain_ranks.at(place)
                ranks[:] = [min([rank, *ranks])]
        if not places:
            self._dormant[route.name] = route, value
        return places

    def _tables_of(self, route: RoutePlan) -> _Pair[V]:
        """For clients without TLS, and with TLS that ended here."""
        names = forwarders_of_clients(route)
        if route.http is None or not names:
            return self.plain, self.through_tls
        pair = self._behind.get(names)
        if pair is None:
            pair = self._behind[names] = HttpTable(), HttpTable()
            # The one that the route has: what it makes of a request is remembered once.
            self.forwarders += (forwarders_of(route.http.trusted_forwarders),)
        return pair

    def add_relayed(
        self, route: RoutePlan, listener: int, value: V, networks: Sequence[Network | None]
    ) -> int:
        """One that only relays takes a request of a client without TLS as any other bytes."""
        if route.http is not None or route.domains or tls_of(route) is True:
            return 0
        return self.plain.add(route, listener, value, networks)

    def find_behind(
        self, client: Client, named: Sequence[Client], is_tls: bool, hello: Offer | None,
        request: Request,
    ) -> Found[V] | None:  # fmt: skip
        """The best of all tables. ``named``: the client by the word of each of ``forwarders``."""
        if not is_tls:
            hello = None
        best = (self.through_tls if is_tls else self.plain).find(client, hello, request)
        for (plain, through_tls), who in zip(self._behind.values(), named, strict=True):
            found = (through_tls if is_tls else plain).find(who, hello, request)
            if found is not None and (best is None or found.rank < best.rank):
                best = found
        return best

    def by_list(self, named: Sequence[Client]) -> dict[frozenset[str], Client]:
        """The client by the word of each list of forwarders, as `find_behind` takes it."""
        return dict(zip(self._behind, named, strict=False))

    def best_of_plain(self, client: Client) -> Rank:
        """The best rank that a request of this client, without TLS, may get; LAST: none."""
        return min((one[0] for one in self.plain_ranks.over(client) if one), default=LAST)

    def by_name(self) -> dict[str, tuple[RoutePlan, V]]:
        """Every route that speaks HTTP, with its value."""
        found = dict(self._dormant)
        for pair in ((self.plain, self.through_tls), *self._behind.values()):
            for one in (*pair[0], *pair[1]):
                found[one.route.name] = one.route, one.found.value
        return found


class HttpTable(Generic[V]):
    """All that requests of one kind of client may get on a listener."""

    __slots__ = (
        "_behind", "_best_nameless", "_best_wild", "_exact", "_in_front", "_memo",
        "_memo_entries", "_nameless", "_wild",
    )  # fmt: skip

    def __init__(self) -> None:
        self._best_wild: Rank = LAST
        self._best_nameless: Rank = LAST
        self._exact: dict[str, _Entry[V]] = {}
        self._wild: dict[str, _Entry[V]] = {}  # by `wildcard_key`
        self._in_front = self._behind = 0  # most dots in such a key, by the end that has the star
        self._nameless: ByNetwork[Shelf[V]] = ByNetwork(Shelf)
        self._memo: dict[tuple[str, str, str], Found[V]] = {}
        self._memo_entries = _MEMO_ENTRIES

    def add(
        self, route: RoutePlan, listener: int, value: V, networks: Sequence[Network | None]
    ) -> int:
        """Put a route in its places; returns their number. ``networks``: those of client_ips."""
        self._memo.clear()
        match = match_of(route)
        patterns: list[PathPattern | None] = [*map(PathPattern, dict.fromkeys(match.paths))] or [
            None
        ]
        tests = tests_of(match)
        groups = _grouped(networks)
        is_looked_up = not route.domains and len(networks) <= _MANY_NETWORKS
        places = 0
        alike: dict[int, list[HttpCandidate[V]]] = {}
        for level in dict.fromkeys(map(domain_rank, route.domains)) or (NO_DOMAIN,):
            made = alike[level] = []
            for group in groups:
                network = None if group is None else group.networks[0]
                for pattern in patterns:
                    path = NO_PATH if pattern is None else pattern.rank
                    rank = rank_of(route, listener, level, network, path)
                    asked = None if is_looked_up else group
                    one = HttpCandidate(route, value, rank, pattern, asked, tests)
                    made.append(one)
                    if not route.domains:
                        places += self._add_nameless(one, group if is_looked_up else None)
            made.sort(key=rank_in_list)
        if route.domains:
            places += self._add_domains(route.domains, alike)
        self._memo_entries += _MEMO_PER_PLACE * places
        return places

    def _add_nameless(self, one: HttpCandidate[V], group: NetworkGroup | None) -> int:
        self._best_nameless = min(self._best_nameless, one.rank)
        networks: Sequence[Network | None] = (None,) if group is None else group.networks
        for network in networks:
            self._nameless.at(network).add(one)
        return len(networks)

    def _add_domains(
        self, domains: Sequence[str], alike: Mapping[int, list[HttpCandidate[V]]]
    ) -> int:
        entries: dict[int, _Entry[V]] = {}
        for level, made in alike.items():
            if len(made) <= _FEW:
                entries[level] = tuple(made)
                continue
            shelf: Shelf[V] = Shelf()
            shelf.is_shared = True
            for one in made:
                shelf.add(one)
            entries[level] = shelf
        for domain in dict.fromkeys(domains):
            level = domain_rank(domain)
            if "*" not in domain:
                _put(self._exact, domain, entries[level])
                continue
            self._best_wild = min(self._best_wild, alike[level][0].rank)
            key = wildcard_key(domain)
            if key[0] == ".":
                self._in_front = max(self._in_front, key.count("."))
            else:
                self._behind = max(self._behind, key.count("."))
            _put(self._wild, key, entries[level])
        return len(domains) + sum(map(len, alike.values()))

    def find(self, client: Client, hello: Offer | None, request: Request) -> Found[V] | None:
        """Who takes this request; None: nobody. ``hello``: None where there is no TLS."""
        entry = self._exact.get(request.host)
        if entry is not None and not isinstance(entry, Shelf):
            first = entry[0]
            if first.is_open and first.rank < self._best_wild and first.rank < self._best_nameless:
                return first.found
        key = (request.host, request.path, request.method)
        known = self._memo.get(key)
        if known is not None:
            return known
        ask: Ask[V] = Ask(client, hello, request)
        self._search(ask)
        winner = ask.found
        if winner is None:
            return None
        found = winner.found
        if ask.params is not NO_PARAMS:
            found = Found(found.value, ask.params, found.rank)
        if ask.is_lasting and len(request.host) + len(request.path) <= _MEMO_TEXT:
            if len(self._memo) >= self._memo_entries:
                self._memo.clear()
            self._memo[key] = found
        return found

    def _search(self, ask: Ask[V]) -> None:
        """The best rank over the few places whose candidates may match."""
        name = ask.request.host
        entry = self._exact.get(name)
        if entry is not None:
            _look(entry, ask)
        if name and self._best_wild < ask.best:
            for key in wildcard_keys(name, self._in_front, self._behind):
                entry = self._wild.get(key)
                if entry is not None:
                    _look(entry, ask)
        if self._best_nameless < ask.best:
            if self._nameless.has_networks:
                ask.is_lasting = False
            for shelf in self._nameless.over(ask.client):
                shelf.look(ask)

    def __iter__(self) -> Iterator[HttpCandidate[V]]:
        """Every candidate, some more than once."""
        for table in (self._exact, self._wild):
            for entry in table.values():
                yield from entry
        for shelf in self._nameless:
            yield from shelf


def _look(entry: _Entry[V], ask: Ask[V]) -> None:
    if isinstance(entry, Shelf):
        entry.look(ask)
    else:
        ask.first(entry)


def _put(table: dict[str, _Entry[V]], key: str, own: _Entry[V]) -> None:
    """Add to what a domain has; a route that has it to itself shares its candidates."""
    there = table.get(key)
    if there is None:
        table[key] = own
        return
    if not isinstance(there, Shelf) and not isinstance(own, Shelf):
        both = sorted((*there, *own), key=rank_in_list)
        if len(both) <= _FEW:
            table[key] = tuple(both)
            return
    shelf = there if isinstance(there, Shelf) and not there.is_shared else Shelf()
    for entry in (own,) if shelf is there else (there, own):
        if isinstance(entry, Shelf):
            shelf.join(entry)
        else:
            for one in entry:
                shelf.add(one)
    table[key] = shelf


def _grouped(networks: Sequence[Network | None]) -> list[NetworkGroup | None]:
    """By version and prefix length, since those rank alike; None stands for everyone."""
    by_prefix: dict[tuple[int, int], list[Network]] = {}
    found: list[NetworkGroup | None] = []
    for network in networks:
        if network is None:
            found.append(None)
        else:
            by_prefix.setdefault((network.version, network.prefix), []).append(network)
    return [*found, *map(NetworkGroup, by_prefix.values())]


_Pair = tuple[HttpTable[V], HttpTable[V]]
