"""Routes as candidates for a request: one search over ordered lists of them, by path and by the
values that they want of a field (`shared/match_http.py` finds the lists).
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from shared.by_network import Client
from shared.http.head import Request
from shared.match_criteria import LAST, Offer, Rank, alpn_holds, match_of, versions_hold
from shared.match_fields import FieldTest, Kind, RequestFields
from shared.networks import BITS, Network
from shared.path_index import NO_PARAMS, PathIndex, PathPattern
from shared.plan import RoutePlan

V = TypeVar("V")


class Found(Generic[V]):
    """What takes a request. ``params``: what ``:name`` and a last ``*`` of its path stand for,
    with percent escapes as they are. ``rank``: by what it was the best.
    """

    __slots__ = ("params", "rank", "value")

    def __init__(self, value: V, params: Mapping[str, str], rank: Rank) -> None:
        self.value = value
        self.params = params
        self.rank = rank


class HttpCandidate(Generic[V]):
    """A route under one of its paths, for networks of one prefix length, and under those of its
    domains that rank alike.
    """

    __slots__ = (
        "_has_offers", "_is_simple", "_methods", "_networks", "found", "is_open", "pattern", "rank",
        "route", "tests",
    )  # fmt: skip

    def __init__(
        self,
        route: RoutePlan,
        value: V,
        rank: Rank,
        pattern: PathPattern | None,
        networks: NetworkGroup | None,
        tests: tuple[FieldTest, ...],
    ) -> None:
        self.route = route
        self.found = Found(value, NO_PARAMS, rank)
        self.rank = rank
        self.pattern = pattern
        self.tests = tests
        self._networks = networks
        self._methods = frozenset(match_of(route).methods)
        self._has_offers = bool(route.tls_versions or route.alpn)
        self._is_simple = networks is None and not tests and not self._has_offers
        #: Whether its domain is all that it asks for.
        self.is_open = self._is_simple and pattern is None and not self._methods

    def holds(self, ask: Ask[V]) -> Mapping[str, str] | None:
        """Parameters of its path, if all criteria hold that its domain does not settle."""
        request = ask.request
        if self._methods and request.method not in self._methods:
            return None
        pattern = self.pattern
        params = NO_PARAMS if pattern is None else pattern.match(request.path)
        if params is None or self._is_simple or self._rest_holds(ask):
            return params
        return None

    def _offers_hold(self, hello: Offer | None) -> bool:
        return versions_hold(self.route, hello) and alpn_holds(self.route, hello)

    def _rest_holds(self, ask: Ask[V]) -> bool:
        ask.is_lasting = False
        networks = self._networks
        if networks is not None and not networks.holds(ask.client):
            return False
        if self._has_offers and not self._offers_hold(ask.hello):
            return False
        return all(test.holds(ask.fields()) for test in self.tests)


class NetworkGroup:
    """Networks of one version and prefix length."""

    __slots__ = ("_bases", "_shift", "_version", "networks")

    def __init__(self, networks: Sequence[Network]) -> None:
        self.networks = networks
        self._version = networks[0].version
        shift = self._shift = BITS[self._version] - networks[0].prefix
        self._bases = frozenset(one.base >> shift for one in networks)

    def holds(self, client: Client) -> bool:
        """Whether the client is in one of them."""
        if client is None:
            return False
        version, number = client
        return version == self._version and number >> self._shift in self._bases


class Ask(Generic[V]):
    """One search: what is asked, and the best that was found so far."""

    __slots__ = (
        "_fields", "best", "client", "found", "hello", "is_lasting", "params", "request",
    )  # fmt: skip

    def __init__(self, client: Client, hello: Offer | None, request: Request) -> None:
        self.client = client
        self.hello = hello
        self.request = request
        self._fields: RequestFields | None = None
        self.found: HttpCandidate[V] | None = None
        self.params: Mapping[str, str] = NO_PARAMS  # of what was found
        self.best: Rank = LAST
        self.is_lasting = True  # host, path and method alone have decided so far

    def fields(self) -> RequestFields:
        """Of the request; made when a candidate asks for some first."""
        made = self._fields
        if made is None:
            made = self._fields = RequestFields(self.request)
        return made

    def first(self, group: Sequence[HttpCandidate[V]]) -> None:
        """Take the first of an ordered list that holds, if it is better."""
        for candidate in group:
            if candidate.rank >= self.best:
                return
            params = candidate.holds(self)
            if params is not None:
                self.found, self.best, self.params = candidate, candidate.rank, params
                return


class Bucket(Generic[V]):
    """Candidates of one place, in order. Those that want an exact value of a field stand by it:
    any number of them costs one look for each name that they ask for.
    """

    __slots__ = ("best", "by_value", "others")

    def __init__(self) -> None:
        self.best: Rank = LAST
        self.others: list[HttpCandidate[V]] = []
        self.by_value: dict[tuple[Kind, str], dict[str, list[HttpCandidate[V]]]] = {}

    def add(self, candidate: HttpCandidate[V]) -> None:
        """One more, in any order."""
        self.best = min(self.best, candidate.rank)
        for test in candidate.tests:
            if test.match.values:
                table = self.by_value.setdefault((test.kind, test.match.name), {})
                for value in dict.fromkeys(test.match.values):
                    insort(table.setdefault(value, []), candidate, key=rank_in_list)
                return
        insort(self.others, candidate, key=rank_in_list)

    def look(self, ask: Ask[V]) -> None:
        """Take the best that holds, if it is better."""
        ask.first(self.others)
        if not self.by_value:
            return
        ask.is_lasting = False
        for (kind, name), table in self.by_value.items():
            for value in ask.fields().texts(kind, name):
                group = table.get(value)
                if group is not None:
                    ask.first(group)

    def __iter__(self) -> Iterator[HttpCandidate[V]]:
        """Every candidate, some more than once."""
        yield from self.others
        for table in self.by_value.values():
            for group in table.values():
                yield from group


class Shelf(Generic[V]):
    """The candidates of one domain, or of none, by their path.

    ``shared``: shelves that many domains of a route have in common, looked at as well.
    """

    __slots__ = ("best", "is_shared", "paths", "shared")

    def __init__(self) -> None:
        self.best: Rank = LAST
        self.paths: PathIndex[Bucket[V]] = PathIndex(Bucket)
        self.shared: list[Shelf[V]] = []
        self.is_shared = False

    def add(self, candidate: HttpCandidate[V]) -> None:
        """One more, in any order."""
        self.best = min(self.best, candidate.rank)
        self.paths.at(candidate.pattern).add(candidate)

    def look(self, ask: Ask[V]) -> None:
        """Take the best that holds, if it is better."""
        for bucket in self.paths.over(ask.request.path):
            if bucket.best < ask.best:
                bucket.look(ask)
        for other in self.shared:
            if other.best < ask.best:
                other.look(ask)

    def join(self, other: Shelf[V]) -> None:
        """Look at this one as well."""
        self.best = min(self.best, other.best)
        self.shared.append(other)

    def __iter__(self) -> Iterator[HttpCandidate[V]]:
        """Every candidate, some more than once."""
        for bucket in self.paths:
            yield from bucket
        for other in self.shared:
            yield from other


def rank_in_list(candidate: HttpCandidate[Any]) -> Rank:
    """By what lists of candidates are ordered."""
    return candidate.rank
