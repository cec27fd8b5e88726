"""Routes that can never be chosen."""

from __future__ import annotations

from typing import Any

import pytest

from shared.plan import RoutePlan, TlsPlan
from supervisor.config_file import load_bytes
from supervisor.shadowed import shadows
from tests.helpers.http_routes import ENDED, field, http_route
from tests.helpers.routes import route

RANGE: dict[str, Any] = {"listeners": (1, 2, 3), "single_port": frozenset()}


def pairs(*routes: RoutePlan) -> list[tuple[str, str]]:
    """(loser, winner) by name."""
    return [(loser.name, other.name) for loser, other in shadows(routes)]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (route("w"), route("l", 1)),
        (route("w", 1, priority=1), route("l", 0)),
        (route("w", 1, priority=1), route("l", 0, "a.example", alpn=("h2",))),
        (route("w", 0, "a.example", "b.example"), route("l", 1, "b.example")),
        (route("w", 0, "*.example"), route("l", 1, "*.example")),
        (route("w", 1, "*.example", priority=1), route("l", 0, "a.example", "*.b.example")),
        (route("w", 1, "a.*", priority=1), route("l", 0, "a.example", "a.b.*")),
        (route("w", 1, "a.example", tls=True), route("l", 0, "a.example")),
        (route("w", 0, tls=True), route("l", 1, terminate=TlsPlan(certificates=()))),
        (route("w", 0, tls=False), route("l", 1, tls=False)),
        (route("w", 0, alpn=("h2", "h3")), route("l", 1, alpn=("h2",))),
        (
            route("w", 1, priority=1, tls_versions=("1.2", "1.3")),
            route("l", 0, tls_versions=("1.3",), alpn=("h2",)),
        ),
        (
            route("w", 1, priority=1, client_ips=("10.0.0.0/8",)),
            route("l", 0, client_ips=("10.1.0.0/16", "10.2.0.1/32")),
        ),
        (
            route("w", 0, client_ips=("10.0.0.0/8", "fd00::/8")),
            route("l", 1, client_ips=("fd00::/8",)),
        ),
        (route("w", 1), route("l", 0, single_port=frozenset())),
        (route("w", 0, **RANGE), route("l", 1, listeners=(2, 3), single_port=frozenset())),
        (route("w", 1, priority=1, **RANGE), route("l", 0, listeners=(2, 3))),
    ],
)
def test_hidden(first: RoutePlan, second: RoutePlan) -> None:
    """One route is always before the other, in whatever order they are given."""
    assert pairs(first, second) == pairs(second, first) == [("l", "w")]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (route("a"), route("b", 1, "a.example")),
        (route("a"), route("b", 1, tls=False)),
        (route("a", tls=True, priority=1), route("b", 1)),
        (route("a", tls=True, priority=1), route("b", 1, tls=False)),
        (route("a", 0, "a.example", priority=1), route("b", 1, "a.example", "b.example")),
        (route("a", 0, "*.a.example", priority=1), route("b", 1, "a.example", "*.example")),
        (route("a", 0, "a.example.*", priority=1), route("b", 1, "*.example.com")),
        (route("a", 0, "*.example"), route("b", 1, "a.example")),
        (route("a", 0, "a.example"), route("b", 1, "*.example")),
        (route("a", 0, "a.example"), route("b", 1, "a.example", alpn=("h2",))),
        (route("a", 0, alpn=("h2",), priority=1), route("b", 1, alpn=("h2", "h3"))),
        (route("a", 0, client_ips=("10.0.0.0/8",)), route("b", 1, client_ips=("10.1.0.0/16",))),
        (
            route("a", 0, client_ips=("10.0.0.0/8",), priority=1),
            route("b", 1, client_ips=("10.1.0.0/16", "11.0.0.1/32")),
        ),
        (route("a", 0, client_ips=("10.0.0.0/8",)), route("b", 1)),
        (route("a", listeners=(1, 2), single_port=frozenset()), route("b", 1)),
        (route("a", priority=1), route("b", 1, listeners=(1, 2))),
        (
            route("a", 0, listeners=(1, 2), single_port=frozenset({1})),
            route("b", 1, listeners=(1, 2), single_port=frozenset({2})),
        ),
    ],
)
def test_not_hidden(first: RoutePlan, second: RoutePlan) -> None:
    """Each of them gets somebody."""
    assert pairs(first, second) == []


@pytest.mark.parametrize(
    ("ports", "networks", "priority", "hidden"),
    [
        ("80", "0.0.0.0/0, '::/0'", 5, 1),
        ("80", "0.0.0.0/0, '::/0', 10.0.0.0/8", 5, 1),
        ("80", "0.0.0.0/0", 5, 0),
        ("80", "0.0.0.0/0, '::/1', '8000::/1'", 5, 0),
        ("80", "0.0.0.0/0, '::/0'", 0, 0),
        ("'unix:/run/a.sock'", "0.0.0.0/0, '::/0'", 5, 0),
        ("80, 'unix:/run/a.sock'", "0.0.0.0/0, '::/0'", 5, 0),
    ],
)
def test_all_networks(ports: str, networks: str, priority: int, hidden: int) -> None:
    """They hold every client but those of a Unix socket, who have no address."""
    action = "action: {type: forward, targets: ['127.0.0.1:1']}"
    text = (
        "routes:\n"
        f"- {{name: all, priority: {priority}, match: {{ports: [80, 'unix:/run/a.sock'],"
        f" client_ips: [{networks}]}}, {action}}}\n"
        f"- {{name: one, match: {{ports: [{ports}], domains: [x.example]}}, {action}}}\n"
    )
    warnings = load_bytes(text.encode(), "f", "yaml").warnings
    found = [problem.path for problem in warnings if problem.code == "shadowed"]
    assert found == ["routes[1].name"] * hidden


def test_all_networks_whoever_names_the_client() -> None:
    """Two addresses of one client are both of all networks."""
    both = ("0.0.0.0/0", "::/0")
    first = http_route("w", 1, client_ips=both, trusts=("fd00::/8",), priority=1)
    second = http_route("l", 0, client_ips=("10.0.0.0/8",))
    shadow = [(one.loser.name, one.winner.name) for one in shadows([first, second], {1})]
    assert shadow == [("l", "w")]
    assert pairs(first, second) == []
    nets = (*both, "10.0.0.0/8")  # at the same priority the longer network decides
    level = http_route("a", client_ips=nets, trusts=("fd00::/8",))
    assert shadows([level, http_route("b", 1, client_ips=nets)], {1}) == []


def test_a_hidden_route_is_said_once() -> None:
    """The best of those that hide it is named."""
    routes = [route("c", 2), route("a", 0), route("top", 3, priority=5), route("b", 1)]
    assert pairs(*routes) == [("c", "top"), ("a", "top"), ("b", "top")]


def test_many_networks_beside_many_domains() -> None:
    """Routes whose pairs of domain and network are too many to list are found all the same."""
    names = [f"d{number}.example" for number in range(200)]
    nets = tuple(f"10.0.{number}.0/24" for number in range(200))
    wide = route("wide", 0, *names, client_ips=nets, priority=1)
    inner = route("inner", 1, "d9.example", client_ips=("10.0.9.7/32",))
    outer = route("outer", 2, "d9.example", client_ips=("10.1.9.7/32",))
    assert pairs(wide, inner, outer) == [("inner", "wide")]


def test_rivals_that_share_one_domain() -> None:
    """A domain that all routes have does not keep the one that hides from being found."""
    crowd = [route(f"r{n}", n, "all.example", f"d{n}.example") for n in range(300)]
    late = route("late", 300, "all.example", "d299.example")
    assert pairs(*crowd, late) == [("late", "r299")]


def test_warning_names_both_and_how_to_mend() -> None:
    """An accepted config warns at the name of the route, disabled ones before it counted."""
    action = "action: {type: forward, targets: ['127.0.0.1:1']}"
    text = (
        "routes:\n"
        f"- {{name: off, enabled: false, match: {{ports: [80]}}, {action}}}\n"
        f"- {{name: all, priority: 3, match: {{ports: ['80-90']}}, {action}}}\n"
        f"- {{name: idle, match: {{ports: [85, 86], domains: [A.example]}}, {action}}}\n"
    )
    (warning,) = load_bytes(text.encode(), "f", "yaml").warnings
    assert (warning.path, warning.code, warning.line) == ("routes[2].name", "shadowed", 4)
    assert (
        warning.message == "route 'idle' can never be chosen: 'all' comes before it on every port"
    )
    assert warning.hint == "give it a priority above 3, narrow the match of 'all', or remove one"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (http_route("w"), http_route("l", 1)),
        (http_route("w", 0, paths=("/a", "/b")), http_route("l", 1, paths=("/b",))),
        (http_route("w", 1, priority=1), http_route("l", 0, "a.test", paths=("/a",))),
        (
            http_route("w", 1, paths=("/a/*",), priority=1),
            http_route("l", 0, paths=("/a/b", "/a/:x", "/a/*", "/a/b/*")),
        ),
        (
            http_route("w", 1, methods=("GET", "PUT"), priority=1),
            http_route("l", 0, methods=("PUT",), query=(field("q"),)),
        ),
        (
            http_route("w", 0, headers=(field("x", "1", "2"),)),
            http_route("l", 1, headers=(field("x", "2"),)),
        ),
        (
            http_route("w", 1, cookies=(field("x"),), priority=1),
            http_route("l", 0, cookies=(field("x", regex="a"), field("y"))),
        ),
        (
            http_route("w", 0, "a.test", paths=("/a",), terminate=ENDED, tls=True),
            http_route("l", 1, "a.test", paths=("/a",), terminate=ENDED, tls=True),
        ),
        (
            http_route("w", 0, client_ips=("10.0.0.0/8",), trusts=("fd00::/8", "192.0.2.1/32")),
            http_route("l", 1, client_ips=("10.0.0.0/8",), trusts=("192.0.2.1/32", "fd00::/8")),
        ),
        (http_route("w", 0, trusts=("fd00::/8",)), http_route("l", 1)),
        (route("w", 1, priority=1), http_route("l", 0, "a.test", paths=("/a",))),
        (http_route("w", 1, "a.test", priority=1), route("l", 0, "a.test")),
    ],
)
def test_hidden_http(first: RoutePlan, second: RoutePlan) -> None:
    """One route takes every request of the other, and every client."""
    assert pairs(first, second) == pairs(second, first) == [("l", "w")]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (http_route("a", 0), http_route("b", 1, paths=("/*",))),
        (http_route("a", 0, paths=("/a/*",)), http_route("b", 1, paths=("/a/b",))),
        (http_route("a", paths=("/a/b/*",), priority=1), http_route("b", 1, paths=("/a/*",))),
        (http_route("a", paths=("/a/",), priority=1), http_route("b", 1, paths=("/a/*",))),
        (http_route("a", methods=("GET",), priority=1), http_route("b", 1)),
        (http_route("a", methods=("GET",)), http_route("b", 1, methods=("GET", "PUT"))),
        (
            http_route("a", headers=(field("x", "1"),), priority=1),
            http_route("b", 1, headers=(field("x"),)),
        ),
        (
            http_route("a", headers=(field("x", "1"),), priority=1),
            http_route("b", 1, query=(field("x", "1"),)),
        ),
        (
            http_route("a", 0, client_ips=("10.0.0.0/8",), trusts=("fd00::/8",)),
            http_route("b", 1, client_ips=("10.0.0.0/8",)),
        ),
        (
            route("a", 0, client_ips=("10.0.0.0/8",), priority=1),
            http_route("b", 1, client_ips=("10.0.0.0/8",), trusts=("fd00::/8",)),
        ),
        (http_route("a", priority=1), http_route("b", 1, "a.test")),
        (http_route("a", priority=1), route("b", 1)),
        (http_route("a", priority=1), route("b", 1, tls=False)),
        (http_route("a", priority=1), http_route("b", 1, terminate=ENDED)),
        (route("a", priority=1), http_route("b", 1, terminate=ENDED, tls=True)),
        (
            http_route("a", 0, "a.test", priority=1),
            http_route("b", 1, "a.test", terminate=ENDED, tls=True),
        ),
    ],
)
def test_not_hidden_http(first: RoutePlan, second: RoutePlan) -> None:
    """Each of them gets some request, or some client."""
    assert pairs(first, second) == []


@pytest.mark.parametrize(("own", "hidden"), [("", 1), ("['10.0.0.9']", 1), ("['::1']", 0)])
def test_forwarders_of_a_config(own: str, hidden: int) -> None:
    """Routes for the same networks hide one another where they believe the same forwarders."""
    one = "match: {ports: [80], paths: ['/'], client_ips: [192.0.2.0/24]}, action: {type: respond}"
    override = f"http: {{trusted_forwarders: {own}}}, " if own else ""
    text = (
        "http: {trusted_forwarders: [10.0.0.9]}\n"
        f"routes: [{{name: a, {one}}}, {{name: b, {override}{one}}}]\n"
    )
    warnings = load_bytes(text.encode(), "f", "yaml").warnings
    assert [problem.code for problem in warnings] == ["shadowed"] * hidden


def test_many_paths() -> None:
    """Among thousands of routes of one domain the hidden one is found by its path."""
    routes = [
        http_route(str(number), number, "a.test", paths=(f"/p{number}",)) for number in range(2000)
    ]
    hidden = http_route("hidden", 3000, "a.test", paths=("/p1500",))
    assert pairs(*routes, hidden) == [("hidden", "1500")]
