"""The index against a reference that compares every route anew, on random routes and clients."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.matching import Matcher
from shared.plan import RoutePlan, TlsPlan
from supervisor.shadowed import shadows
from tests.helpers.routes import LISTENER, Asked, Hello, matcher, route, winner

NETWORKS = ["10.0.0.0/8", "10.1.0.0/16", "10.1.1.1/32", "0.0.0.0/0", "::/0", "fd00::/8"]
CLIENTS = ["10.1.1.1", "10.1.9.9", "10.9.9.9", "8.8.8.8", "fd00::1", "2001:db8::1", ""]
DOMAINS = ["a.test", "b.a.test", "a.org", "*.test", "*.a.test", "a.*", "b.a.*", "*.b.a.test"]
NAMES = ["", "a.test", "A.Test.", "b.a.test", "c.b.a.test", "a.org", "b.a.org", "test", "x.y.test"]
VERSIONS = ["1.2", "1.3"]
ALPN = ["h2", "redis"]


def some(values: list[str]) -> st.SearchStrategy[tuple[str, ...]]:
    """None of them twice as often as a few."""
    few = st.lists(st.sampled_from(values), min_size=1, max_size=2, unique=True).map(tuple)
    return st.just(()) | few


settings_of_a_route = st.fixed_dictionaries(
    {
        "priority": st.sampled_from([0, 0, 1]),
        "domains": some(DOMAINS),
        "client_ips": some(NETWORKS),
        "tls": st.sampled_from([None, None, True, False]),
        "tls_versions": some(VERSIONS),
        "alpn": some(ALPN),
        "terminate": st.sampled_from([None, None, TlsPlan(certificates=())]),
        "single_port": st.sampled_from([frozenset[int](), frozenset({LISTENER})]),
        "initial_data": st.sampled_from([1.0, 2.0, 3.0]),
    }
)


@st.composite
def tables(draw: st.DrawFn) -> list[RoutePlan]:
    """Up to eight routes, in any order, all on one listener."""
    drawn: list[dict[str, Any]] = draw(st.lists(settings_of_a_route, min_size=1, max_size=8))
    made = [
        route(str(order), order, *keys.pop("domains"), **keys) for order, keys in enumerate(drawn)
    ]
    return draw(st.permutations(made))


hellos = st.builds(Hello, st.sampled_from(NAMES), some(VERSIONS), some(ALPN))
clients = st.one_of(
    st.builds(Asked, st.sampled_from(CLIENTS), st.sampled_from([None, False])),
    st.builds(Asked, st.sampled_from(CLIENTS), st.just(True), st.none() | hellos),
)
EVERYTHING = [
    Asked(ip, tls, hello)
    for ip in CLIENTS
    for tls, hello in [
        (None, None),
        (False, None),
        (True, None),
        *(
            (True, Hello(name, versions, alpn))
            for name in NAMES
            for versions in ((), ("1.2",), ("1.3",), ("1.3", "1.2"))
            for alpn in ((), ("h2",), ("redis",), ("h2", "redis"))
        ),
    ]
]


def falls_under(name: str, pattern: str) -> bool:
    """Label by label."""
    labels, wanted = name.lower().removesuffix(".").split("."), pattern.split(".")
    if not name:
        return False
    if wanted[0] == "*":
        return len(labels) >= len(wanted) and labels[1 - len(wanted) :] == wanted[1:]
    if wanted[-1] == "*":
        return len(labels) >= len(wanted) and labels[: len(wanted) - 1] == wanted[:-1]
    return labels == wanted


def ranks(one: RoutePlan, asked: Asked) -> list[tuple[int, ...]]:
    """Of each domain and network of a route that match, as the documentation puts it."""
    is_tls_route = one.terminate is not None or bool(one.tls_versions) or bool(one.alpn)
    wanted = True if is_tls_route else one.tls
    hello = asked.hello if asked.tls else None
    if wanted is not None and wanted is not asked.tls:
        return []
    for texts, offered in (
        (one.tls_versions, hello.versions if hello else ()),
        (one.alpn, hello.alpn if hello else ()),
    ):
        if texts and not set(texts) & set(offered):
            return []
    levels = [0]
    if one.domains:
        held = [
            text for text in one.domains if falls_under(hello.server_name if hello else "", text)
        ]
        levels = [-len(text) if "*" in text else -9999 for text in held]
    prefixes = [1]
    if one.client_ips:
        nets = [ip_network(text) for text in one.client_ips]
        ip = ip_address(asked.ip) if asked.ip else None
        prefixes = [-net.prefixlen for net in nets if ip is not None and ip in net]
    criteria = (wanted is not None) + bool(one.tls_versions) + bool(one.alpn)
    port = 0 if LISTENER in one.single_port else 1
    return [
        (-one.priority, level, prefix, -criteria, port, one.order)
        for level in levels
        for prefix in prefixes
    ]


def reference(routes: list[RoutePlan], asked: Asked) -> tuple[tuple[int, ...], RoutePlan] | None:
    """The least rank of all, worked out from scratch."""
    found = [(rank, one.order, one) for one in routes for rank in ranks(one, asked)]
    rank, _, one = min(found, default=(None, None, None), key=lambda each: each[:2])
    return None if rank is None or one is None else (rank, one)


def needs_no_bytes(one: RoutePlan) -> bool:
    """Whether nothing but the client's address is asked."""
    return (
        one.tls is None
        and one.terminate is None
        and not (one.domains or one.tls_versions or one.alpn)
    )


@settings(max_examples=400, deadline=None)
@given(tables(), clients)
def test_winner_explanation_and_reference_agree(routes: list[RoutePlan], asked: Asked) -> None:
    """The index, its explanation and a search from scratch name the same route."""
    found = matcher(*routes)
    expected = reference(routes, asked)
    name = expected[1].name if expected else None
    assert winner(found, asked) == name
    told = found.explain(asked.client, asked.tls, asked.hello)
    assert told.value == name
    assert told.name == (name or "")
    assert {name or "", *dict(told.lost)} - {""} == {one.name for one in routes}
    assert len(told.lost) == len(routes) - (name is not None)
    assert all(why for _, why in told.lost)


@settings(max_examples=400, deadline=None)
@given(tables(), st.lists(clients, min_size=2, max_size=6))
def test_what_one_client_got_is_not_what_the_next_one_gets(
    routes: list[RoutePlan], asked: list[Asked]
) -> None:
    """What a matcher remembers of earlier questions changes no answer."""
    found = matcher(*routes)
    for one in asked:
        expected = reference(routes, one)
        assert winner(found, one) == (expected[1].name if expected else None)


@settings(max_examples=400, deadline=None)
@given(tables(), st.sampled_from(CLIENTS))
def test_opening_agrees_with_every_route(routes: list[RoutePlan], ip: str) -> None:
    """Before a byte: the best that needs none, and whether and how long others are waited for."""
    found, asked = matcher(*routes), Asked(ip)
    opening = found.at_accept(asked.client)
    ready = reference([one for one in routes if needs_no_bytes(one)], asked)
    assert opening.value == (ready[1].name if ready else None)
    assert opening.value == winner(found, asked)
    waiting: list[RoutePlan] = []
    for one in routes:
        nets = [ip_network(text) for text in one.client_ips]
        held = [-net.prefixlen for net in nets if ip and ip_address(ip) in net] if nets else [1]
        if needs_no_bytes(one) or not held:
            continue
        levels = [-len(text) if "*" in text else -9999 for text in one.domains] or [0]
        wanted = True if one.terminate or one.tls_versions or one.alpn else one.tls
        criteria = (wanted is not None) + bool(one.tls_versions) + bool(one.alpn)
        port = 0 if LISTENER in one.single_port else 1
        rank = (-one.priority, min(levels), min(held), -criteria, port, one.order)
        if ready is None or rank < ready[0]:
            waiting.append(one)
    assert opening.wait == bool(waiting)
    longest = max((one.timeouts.initial_data for one in waiting), default=0.0)
    assert opening.initial_data == longest
    assert (found.only is not None) <= (opening.value == found.only and not opening.wait)


@settings(max_examples=200, deadline=None)
@given(tables(), st.sampled_from(CLIENTS))
def test_a_port_for_one_kind_gives_the_other_nothing(routes: list[RoutePlan], ip: str) -> None:
    """Where a matcher says that all are for TLS, no other client is served, and the reverse."""
    found = matcher(*routes)
    client = Asked(ip).client
    mine = [asked for asked in EVERYTHING if asked.ip == ip]
    if found.tls_only(client):
        assert not [asked for asked in mine if not asked.tls and winner(found, asked)]
    if found.plain_only(client):
        assert not [asked for asked in mine if asked.tls is not False and winner(found, asked)]
    assert not (found.tls_only(client) and found.plain_only(client))


@settings(max_examples=150, deadline=None)
@given(tables())
def test_a_shadow_is_one(routes: list[RoutePlan]) -> None:
    """No client gets a route that is named as shadowed, where only the other is beside it."""
    for loser, other in shadows(routes):
        pair: Matcher[str] = matcher(loser, other)
        assert all(winner(pair, asked) != loser.name for asked in EVERYTHING)
