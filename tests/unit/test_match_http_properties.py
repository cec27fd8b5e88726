"""Requests: the index against a search that compares every route anew."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.by_network import Client
from shared.http.forwarding import forwarders_of
from shared.matching import Matcher
from shared.plan import FieldMatch, RoutePlan
from supervisor.shadowed import shadows
from tests.helpers.http_routes import ENDED, field, http_route, request, takes
from tests.helpers.routes import LISTENER, Asked, Hello, matcher, route, winner
from tests.unit.test_matching_properties import CLIENTS, EVERYTHING, NAMES, NETWORKS, falls_under

DOMAINS = ["a.test", "b.a.test", "*.test", "*.a.test", "a.*"]
PATHS = [
    "/", "/a", "/a/b", "/*", "/a/*", "/a*", "/:x", "/a/:x", "/:x/b", "/:x/:y", "/*/b", "*b",
    "/a/*b", "/:x/b/*", "/*/:x/c", "/a/:x/*/c", "/*a*b", "*",
]  # fmt: skip
ASKED_PATHS = [
    "/", "/a", "/ab", "/a/", "/a/b", "/b", "/b/b", "/a/b/c", "/a/x/y/c", "/x/b/", "/x/b/c/d", "*",
    "//b", "/a%20b",
]  # fmt: skip
METHODS = ["GET", "POST"]
FORWARDERS = [("10.1.0.0/16",), ("10.1.1.1/32", "fd00::/8"), ("0.0.0.0/0",)]
VALUES = ["1", "2", "a b", ""]
TESTS = [field("x"), field("x", "1"), field("x", "1", "2"), field("x", regex="[12]"),
         field("y", "a b"), field("y", regex=".*b")]  # fmt: skip


def some(values: list[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    """None of them twice as often as a few."""
    few = st.lists(st.sampled_from(values), min_size=1, max_size=3, unique=True).map(tuple)
    return st.just(()) | st.just(()) | few


common = {
    "priority": st.sampled_from([0, 0, 1]),
    "client_ips": some(NETWORKS),
    "tls": st.sampled_from([None, None, True, False]),
    "alpn": some(["h2", "redis"]) | st.just(()),
    "terminate": st.sampled_from([None, None, ENDED]),
    "single_port": st.sampled_from([frozenset[int](), frozenset({LISTENER})]),
}
of_http = st.fixed_dictionaries(
    {
        **common,
        "domains": some(DOMAINS),
        "paths": some(PATHS),
        "methods": some(METHODS),
        "headers": some(TESTS),
        "query": some(TESTS),
        "cookies": some(TESTS),
        "trusts": st.sampled_from([(), (), *FORWARDERS]),
    }
)
of_relays = st.fixed_dictionaries({**common, "domains": some(DOMAINS)})


@st.composite
def tables(draw: st.DrawFn) -> list[RoutePlan]:
    """Up to twelve routes in any order, on one listener; most of them speak HTTP."""
    kinds = st.tuples(st.just(http_route), of_http) | st.tuples(st.just(route), of_relays)
    drawn: list[tuple[Any, dict[str, Any]]] = draw(st.lists(kinds, min_size=1, max_size=12))
    made = [
        make(str(order), order, *keys.pop("domains"), **keys)
        for order, (make, keys) in enumerate(drawn)
    ]
    return draw(st.permutations(made))


values = st.none() | st.sampled_from(VALUES)


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """What a client sends: text of a request, and what is told of it."""
    told = {
        "host": draw(st.sampled_from(NAMES)),
        "path": draw(st.sampled_from(ASKED_PATHS)),
        "method": draw(st.sampled_from([*METHODS, "PUT"])),
        "ip": draw(st.sampled_from(CLIENTS)),
        "is_tls": draw(st.booleans()),
        "alpn": draw(some(["h2", "redis"])),
        "behind": {texts: draw(st.sampled_from(CLIENTS[:-1])) for texts in FORWARDERS},
    }
    for kind in ("headers", "query", "cookies"):
        told[kind] = {name: draw(values) for name in "xy"}
    return told


def sent(told: dict[str, Any]) -> tuple[Any, ...]:
    """The request, and what else a matcher is asked with."""
    pairs = {
        kind: [(name, value) for name, value in told[kind].items() if value is not None]
        for kind in ("headers", "query", "cookies")
    }
    query = "&".join(f"%{ord(name):x}={value.replace(' ', '+')}" for name, value in pairs["query"])
    fields = dict(pairs["headers"])
    if pairs["cookies"]:
        fields["cookie"] = "; ".join(f"{name}={value}" for name, value in pairs["cookies"])
    target = told["path"] + (f"?{query}" if query else "")
    hello = Hello("other.test", alpn=told["alpn"]) if told["is_tls"] else None
    return request(target, told["host"], told["method"], **fields), hello


def named(found: Matcher[str], told: dict[str, Any]) -> list[Client]:
    """The client by the word of each list of forwarders that the matcher has."""
    texts = {forwarders_of(one): one for one in FORWARDERS}
    return [Asked(address(texts[one], told)).client for one in found.forwarders]


def address(trusts: tuple[str, ...], told: dict[str, Any]) -> str:
    """Whom a forwarder names, where the connection is one of a trusted one."""
    ip: str = told["ip"]
    if ip and is_within(ip, trusts):
        ip = told["behind"][trusts]
    return ip


def is_within(ip: str, networks: tuple[str, ...]) -> bool:
    """Whether an address lies in any of them."""
    return any(ip_address(ip) in ip_network(one) for one in networks)


def path_holds(pattern: str, path: str) -> bool:
    """By a regex that is right, however slow it may be."""
    parts = re.split(r"(\*|(?<=/):\w+)", pattern)
    marks = {"*": ".*", ":": "[^/]+"}
    regex = "".join(marks[one[0]] if i % 2 else re.escape(one) for i, one in enumerate(parts))
    return re.fullmatch(regex, path, re.DOTALL) is not None


def path_level(pattern: str) -> int:
    """Exact, then the longer literal prefix."""
    literal = re.split(r"\*|(?<=/):", pattern)[0]
    return -10_000 if literal == pattern else -len(literal)


def fields_hold(tests: tuple[FieldMatch, ...], has: dict[str, str | None]) -> bool:
    """Each of them, one value for each name."""
    for test in tests:
        value = has[test.name]
        if value is None or (test.values and value not in test.values):
            return False
        if test.regex and not re.fullmatch(test.regex, value):
            return False
    return True


def request_ranks(one: RoutePlan, told: dict[str, Any]) -> list[tuple[int, ...]]:
    """Of each domain, path and network of a route that match, as the documentation puts it."""
    is_tls, http = told["is_tls"], one.http
    wanted = True if one.alpn or (http is None and one.terminate) else one.tls
    if wanted is not None and wanted is not is_tls:
        return []
    if one.alpn and not (is_tls and set(one.alpn) & set(told["alpn"])):
        return []
    if http is None and (is_tls or one.domains):
        return []
    if is_tls and one.terminate is None:
        return []
    levels, paths, prefixes, criteria = [0], [1], [1], (wanted is not None) + bool(one.alpn)
    if http is not None:
        match = http.match
        if match.methods and told["method"] not in match.methods:
            return []
        for tests, kind in ((match.headers, "headers"), (match.query, "query")):
            if not fields_hold(tests, told[kind]):
                return []
        if not fields_hold(match.cookies, told["cookies"]):
            return []
        criteria += bool(match.methods)
        criteria += len(match.headers) + len(match.query) + len(match.cookies)
        if match.paths:
            paths = [path_level(text) for text in match.paths if path_holds(text, told["path"])]
    if one.domains:
        held = [text for text in one.domains if falls_under(told["host"], text)]
        levels = [-len(text) if "*" in text else -9999 for text in held]
    if one.client_ips:
        nets = [ip_network(text) for text in one.client_ips]
        text = address(http.trusted_forwarders if http is not None else (), told)
        ip = ip_address(text) if text else None
        prefixes = [-net.prefixlen for net in nets if ip is not None and ip in net]
    port = 0 if LISTENER in one.single_port else 1
    return [
        (-one.priority, level, path, prefix, -criteria, port, one.order)
        for level in levels
        for path in paths
        for prefix in prefixes
    ]


def reference(routes: list[RoutePlan], told: dict[str, Any]) -> str | None:
    """The least rank of all, worked out from scratch."""
    found = [(rank, one.name) for one in routes for rank in request_ranks(one, told)]
    return min(found, default=(None, None))[1]


@settings(max_examples=400, deadline=None)
@given(tables(), st.lists(requests(), min_size=1, max_size=6))
def test_requests_and_reference_agree(routes: list[RoutePlan], told: list[dict[str, Any]]) -> None:
    """The index, its explanation and a search from scratch name the same route, and what was
    remembered of one request is right for the next.
    """
    found = matcher(*routes)
    for one in [*told, *told]:
        asked, hello = sent(one)
        name = reference(routes, one)
        is_tls, told_of = one["is_tls"], named(found, one)
        assert takes(found, asked, one["ip"], is_tls=is_tls, hello=hello, named=told_of) == name
        client = Asked(one["ip"]).client
        explained = found.explain(client, is_tls, hello, asked, told_of)
        assert explained.name == (name or "")
        assert {name or "", *dict(explained.lost)} - {""} == {each.name for each in routes}
        assert all(why for _, why in explained.lost)


@settings(max_examples=300, deadline=None)
@given(tables(), st.lists(requests(), min_size=1, max_size=6))
def test_a_head_is_awaited_where_http_may_win(
    routes: list[RoutePlan], told: list[dict[str, Any]]
) -> None:
    """Where no head is awaited no request would get a route that speaks HTTP, and such a route is
    never chosen by what is no request, nor at accept.
    """
    found = matcher(*routes)
    speaks = {one.name for one in routes if one.http is not None}
    for one in told:
        client = Asked(one["ip"]).client
        asked, _ = sent(one)
        if not found.awaits_http(client):
            assert takes(found, asked, one["ip"], named=named(found, one)) not in speaks
        assert winner(found, Asked(one["ip"], False)) not in speaks
        assert found.at_accept(client).value not in speaks
        assert found.only not in speaks


def takes_hello(one: RoutePlan) -> bool:
    """Whether what speaks HTTP may get TLS clients: to end TLS, or to pass it on by name."""
    assert one.http is not None
    match = one.http.match
    asks = match.paths or match.methods or match.headers or match.query or match.cookies
    is_for_others = one.tls is False and not one.alpn
    return not is_for_others and (one.terminate is not None or (bool(one.domains) and not asks))


@settings(max_examples=300, deadline=None)
@given(tables(), st.sampled_from(EVERYTHING))
def test_handshakes(routes: list[RoutePlan], asked: Asked) -> None:
    """Of what speaks HTTP a ClientHello finds what ends TLS, or passes it on by name, as if every
    criterion about requests held; the explanation says the same.
    """
    found = matcher(*routes)
    name = winner(found, asked)
    assert found.explain(asked.client, asked.tls, asked.hello).name == (name or "")
    ranks: list[tuple[tuple[int, ...], str]] = []
    for one in routes:
        told: dict[str, Any] = {"is_tls": asked.tls, "ip": asked.ip, "host": ""}
        told["alpn"] = asked.hello.alpn if asked.hello is not None and asked.tls else ()
        if asked.hello is not None and asked.tls:
            told["host"] = asked.hello.server_name
        if one.http is not None and not (asked.tls and takes_hello(one)):
            continue
        ranks += [(rank, one.name) for rank in handshake_ranks(one, told)]
    assert name == min(ranks, default=(None, None))[1]


def handshake_ranks(one: RoutePlan, told: dict[str, Any]) -> list[tuple[int, ...]]:
    """As `request_ranks`, for first bytes: what is asked of requests counts, and always holds."""
    wanted = True if one.alpn or (one.http is None and one.terminate) else one.tls
    if wanted is not None and wanted is not told["is_tls"]:
        return []
    if one.alpn and not set(one.alpn) & set(told["alpn"]):
        return []
    levels, prefixes, path, criteria = [0], [1], 1, (wanted is not None) + bool(one.alpn)
    if one.http is not None:
        match = one.http.match
        path = min(map(path_level, match.paths), default=1)
        criteria += bool(match.methods)
        criteria += len(match.headers) + len(match.query) + len(match.cookies)
    if one.domains:
        held = [text for text in one.domains if falls_under(told["host"], text)]
        levels = [-len(text) if "*" in text else -9999 for text in held]
    if one.client_ips:
        nets = [ip_network(text) for text in one.client_ips]
        ip = ip_address(told["ip"]) if told["ip"] else None
        trusts = one.http.trusted_forwarders if one.http is not None and one.terminate else ()
        may_be_anybody = ip is not None and is_within(told["ip"], trusts)
        prefixes = [
            -net.prefixlen for net in nets if may_be_anybody or (ip is not None and ip in net)
        ]
    port = 0 if LISTENER in one.single_port else 1
    return [
        (-one.priority, level, path, prefix, -criteria, port, one.order)
        for level in levels
        for prefix in prefixes
    ]


@settings(max_examples=200, deadline=None)
@given(tables(), st.lists(requests(), min_size=1, max_size=20))
def test_a_shadow_is_one(routes: list[RoutePlan], told: list[dict[str, Any]]) -> None:
    """No client and no request gets a route that is named as shadowed."""
    every = matcher(*routes)
    for loser, other in shadows(routes):
        pair: Matcher[str] = matcher(loser, other)
        assert all(winner(pair, asked) != loser.name for asked in EVERYTHING)
        for one in told:
            asked, hello = sent(one)
            for found in (pair, every):
                name = takes(
                    found, asked, one["ip"], is_tls=one["is_tls"], hello=hello,
                    named=named(found, one),
                )  # fmt: skip
                assert name != loser.name


@settings(max_examples=200, deadline=None)
@given(tables(), st.sampled_from(CLIENTS))
def test_a_port_for_one_kind(routes: list[RoutePlan], ip: str) -> None:
    """Where all are for TLS no other client gets anything, and the reverse."""
    found = matcher(*routes)
    client = Asked(ip).client
    mine = [asked for asked in EVERYTHING if asked.ip == ip]
    if found.tls_only(client):
        assert not found.awaits_http(client)
        assert not [asked for asked in mine if not asked.tls and winner(found, asked)]
    if found.plain_only(client):
        assert not [asked for asked in mine if asked.tls is not False and winner(found, asked)]
    assert not (found.tls_only(client) and found.plain_only(client))


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.sampled_from(["/", "a", "b", "*", "/:x", "/:y/", "/a"]), max_size=6),
    st.text(alphabet="ab/", max_size=10),
)
def test_one_pattern(parts: list[str], rest: str) -> None:
    """A path, however it is put together, matches what its plain regex matches."""
    text = re.sub(r":([xy])(?=[^/]|$)", r":\1", "/" + "".join(parts))
    if re.search(r":[xy][^/]", text) or text.count(":x") > 1 or text.count(":y") > 1:
        return
    routed = matcher(http_route("r", paths=(text,)))
    assert takes(routed, request("/" + rest)) == ("r" if path_holds(text, "/" + rest) else None)
