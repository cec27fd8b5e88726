"""Which route takes a request, and what is remembered of that."""

from __future__ import annotations

import itertools

import pytest

from shared.match_fields import parse_cookies, parse_query
from shared.matching import Matcher
from shared.path_index import NO_PARAMS
from shared.plan import AnswerPlan, AuthPlan, HttpPlan, RoutePlan
from tests.helpers.http_routes import ENDED, field, http_route, params, request, takes
from tests.helpers.routes import Hello, matcher, plain, route, silent, tls, winner

MANY = 3000


def best(routes: list[RoutePlan], *asked: object, **more: object) -> str | None:
    """The winner, the same whatever order the routes are added in, asked twice."""
    names = {
        takes(found, *asked, **more)  # type: ignore[arg-type]
        for shuffled in itertools.permutations(routes)
        for found in [matcher(*shuffled)] * 2
    }
    assert len(names) == 1
    return names.pop()


def test_path_stands_between_domain_and_network() -> None:
    """A domain beats a path, a path beats a network, a network beats other criteria."""
    routes = [
        route("criteria", 0, http=HttpPlan(), tls=False),
        http_route("method", 1, methods=("GET",), headers=(field("x"),)),
        http_route("network", 2, client_ips=("10.0.0.0/8",)),
        http_route("path", 3, paths=("/a*",)),
        http_route("domain", 4, "*.test"),
    ]
    asked = request("/a", "a.test", x="1")
    assert [best(routes[:size], asked) for size in range(1, 6)] == [
        "criteria", "method", "network", "path", "domain",
    ]  # fmt: skip


def test_each_path_of_a_route_counts_by_itself() -> None:
    """Of several paths the best that matches gives the rank."""
    routes = [
        http_route("mixed", 0, paths=("/a/*", "/b")),
        http_route("middle", 1, paths=("/a/b/*", "/b*")),
    ]
    assert best(routes, request("/a/b/c")) == "middle"
    assert best(routes, request("/a/c")) == "mixed"
    assert best(routes, request("/b")) == "mixed"
    assert best(routes, request("/bc")) == "middle"


def test_params() -> None:
    """What parameters stand for comes with the route; one empty mapping where there are none."""
    found = matcher(http_route("user", 0, paths=("/u/:id/f/*", "/u/:id")), http_route("any", 1))
    assert params(found, request("/u/a%20b")) == {"id": "a%20b"}
    assert params(found, request("/u/7/f/x/y")) == {"id": "7", "*": "x/y"}
    other = found.with_request(None, False, None, request("/"))
    assert other is not None
    assert other.params is NO_PARAMS


def test_what_is_remembered_is_asked_by_what_decides() -> None:
    """A request for the same path goes elsewhere by its fields, its client and its method."""
    found = matcher(
        http_route("any", 0, "a.test"),
        http_route("post", 1, "a.test", methods=("POST",)),
        http_route("header", 2, "a.test", headers=(field("x", "1"),), methods=("GET",)),
        http_route("office", 3, "a.test", client_ips=("10.9.0.0/16",)),
        http_route("query", 4, "b.test", query=(field("q", regex="a+"),)),
        http_route("rest", 5),
    )
    for _ in range(2):
        assert takes(found, request("/", "a.test")) == "any"
        assert takes(found, request("/", "a.test", "POST")) == "post"
        assert takes(found, request("/", "a.test", x="1")) == "header"
        assert takes(found, request("/", "a.test"), "10.9.1.1") == "office"
        assert takes(found, request("/?q=aa", "b.test")) == "query"
        assert takes(found, request("/?q=ab", "b.test")) == "rest"
        assert takes(found, request("/", "b.test")) == "rest"


def test_what_is_remembered_is_bounded() -> None:
    """Ever new paths do not grow what is kept, and find their route all the same."""
    found = matcher(http_route("any", 0, paths=("/*",)))
    http = found._http
    assert http is not None
    for number in range(5000):
        assert takes(found, request(f"/{number}")) == "any"
        assert len(http.plain._memo) <= 1100
    assert takes(found, request("/" + "x" * 10_000)) == "any"
    assert max(len(path) for _, path, _ in http.plain._memo) < 300


def test_a_route_that_comes_later_is_seen() -> None:
    """Nothing that was remembered before hides it."""
    found = matcher(http_route("any", 0))
    assert takes(found, request("/a")) == "any"
    found.add(http_route("a", 1, paths=("/a",)), 1, "a")
    assert takes(found, request("/a")) == "a"


@pytest.mark.parametrize(
    ("test", "values", "is_match"),
    [
        (field("x"), None, False),
        (field("x"), "", True),
        (field("x", "a", "b"), "b", True),
        (field("x", "a", "b"), "B", False),
        (field("x", "a", "b"), "c|a", True),
        (field("x", "a"), "a, b", False),
        (field("x", ""), "", True),
        (field("x", "\u00e4"), "\u00e4", True),
        (field("x", regex="[0-9]+"), "12", True),
        (field("x", regex="[0-9]+"), "12a", False),
        (field("x", regex="a|ab"), "ab", True),
        (field("x", regex="\u00e4."), "\u00e4b", True),
        (field("X", "a"), "a", True),
    ],
)
def test_headers(test: object, values: str | None, is_match: bool) -> None:
    """Of the lines of one name one is enough; each is compared as a whole, with case."""
    found = matcher(http_route("r", headers=(test,)))
    fields = {} if values is None else {"x": values}
    assert (takes(found, request("/", **fields)) == "r") is is_match


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {}),
        ("a", {"a": [""]}),
        ("a=1&a=2&&b=%20+c", {"a": ["1", "2"], "b": ["  c"]}),
        ("%61=%31", {"a": ["1"]}),
        ("a=b=c;d", {"a": ["b=c;d"]}),
        ("a=%", {"a": ["%"]}),
        ("a=%FF%C3%A4", {"a": ["\udcff\u00e4"]}),
        ("=1", {"": ["1"]}),
    ],
)
def test_query(query: str, expected: dict[str, list[str]]) -> None:
    """Percent-decoded names and values, several of one name in order."""
    assert parse_query(query) == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], {}),
        ([b"a=1; b=2;a=3"], {"a": ["1", "3"], "b": ["2"]}),
        ([b"a=1", b" \tb = 2=3 "], {"a": ["1"], "b": ["2=3"]}),
        ([b'a="x"; c; ;=d'], {"a": ['"x"'], "": ["d"]}),
        ([b"a=\xc3\xa4\xff"], {"a": ["\u00e4\udcff"]}),
    ],
)
def test_cookies(lines: list[bytes], expected: dict[str, list[str]]) -> None:
    """Pairs between semicolons, without the blanks around them, as they were sent."""
    assert parse_cookies(lines) == expected


def test_query_and_cookies_decide() -> None:
    """Their names are compared with case; each entry counts as a criterion."""
    found = matcher(
        http_route("one", 0, query=(field("v", "a b"),)),
        http_route("two", 1, query=(field("v", "a b"),), cookies=(field("s", "1"),)),
    )
    assert takes(found, request("/?v=a+b")) == "one"
    assert takes(found, request("/?v=a%20b", cookie="S=1")) == "one"
    assert takes(found, request("/?x&v=a%20b", cookie="t=2; s=1")) == "two"
    assert takes(found, request("/?V=a+b", cookie="s=1")) is None


def test_through_tls_only_those_that_end_it() -> None:
    """Behind TLS that ended here the Host counts, not the SNI; others get nothing of it."""
    found = matcher(
        http_route("ends", 0, "a.test", paths=("/x",), terminate=ENDED, tls=True),
        http_route("both", 1, "b.test", terminate=ENDED),
        http_route("plain", 2, paths=("/*",)),
        http_route("h2", 3, "a.test", paths=("/x",), terminate=ENDED, alpn=("h2",)),
        route("relay", 4),
    )
    hello = Hello("b.test", alpn=("http/1.1",))
    assert takes(found, request("/x", "a.test"), is_tls=True, hello=hello) == "ends"
    assert takes(found, request("/x", "b.test"), is_tls=True, hello=hello) == "both"
    assert takes(found, request("/y", "a.test"), is_tls=True, hello=hello) is None
    assert takes(found, request("/x", "c.test"), is_tls=True, hello=hello) is None
    h2 = Hello("a.test", alpn=("h2",))
    assert takes(found, request("/x", "a.test"), is_tls=True, hello=h2) == "h2"
    assert takes(found, request("/x", "a.test"), is_tls=True, hello=hello) == "ends"
    assert takes(found, request("/x", "a.test")) == "plain"
    assert takes(found, request("/x", "b.test")) == "both"
    assert takes(found, request("*", "a.test")) == "relay"


def test_handshakes_come_before_requests() -> None:
    """A ClientHello is compared by name, versions and alpn; what is asked of requests holds."""
    found = matcher(
        http_route("ends", 0, "a.test", paths=("/x",), methods=("PUT",), terminate=ENDED),
        http_route("open", 1, "*.test"),
        http_route("reads", 2, "c.test", paths=("/",)),
    )
    assert winner(found, tls("a.test")) == "ends"
    assert winner(found, tls("b.test")) == "open"
    assert winner(found, tls("c.test")) == "open"
    assert winner(matcher(http_route("reads", 0, "c.test", paths=("/",))), tls("c.test")) is None
    assert takes(found, request("/", "b.test")) == "open"
    assert takes(found, request("/", "c.test")) == "reads"


@pytest.mark.parametrize(
    "keys",
    [
        {"answer": AnswerPlan(status=200)},
        {"auth": AuthPlan(realm="r", users=(), digest="")},
    ],
)
def test_what_must_be_read_is_never_passed_on(keys: dict[str, object]) -> None:
    """A route that answers itself, or asks who it is, gets no TLS that stays closed."""
    closed = route("r", 0, "a.test", http=HttpPlan(**keys))  # type: ignore[arg-type]
    assert winner(matcher(route("r", 0, "a.test", http=HttpPlan())), tls("a.test")) == "r"
    assert winner(matcher(closed), tls("a.test")) is None
    assert takes(matcher(closed), request("/", "a.test")) == "r"


def test_http_needs_bytes() -> None:
    """Nothing is chosen at accept, and silence or other bytes get only what relays."""
    found = matcher(http_route("http", 0, "a.test", initial_data=7.0), route("relay", 1))
    opening = found.at_accept(silent().client)
    assert (opening.value, opening.wait, opening.initial_data) == ("relay", True, 7.0)
    assert found.only is None
    assert winner(found, plain()) == winner(found, silent()) == "relay"
    assert takes(found, request("/", "b.test")) == "relay"
    alone = matcher(http_route("http", 0))
    assert alone.at_accept(silent().client).wait
    assert alone.only is winner(alone, plain()) is winner(alone, silent()) is None
    assert alone.plain_only(silent().client)
    assert not alone.needs_hello
    assert matcher(http_route("http", 0, "a.test")).needs_hello


def test_awaits_http() -> None:
    """A head is awaited where a route that speaks HTTP may win over all that only relay."""
    client = plain().client
    assert not matcher(route("relay")).awaits_http(client)
    assert not matcher(http_route("ends", 0, terminate=ENDED, tls=True)).awaits_http(client)
    assert matcher(http_route("both", 0, terminate=ENDED)).awaits_http(client)
    assert matcher(http_route("http"), route("relay", 1)).awaits_http(client)
    first = [http_route("http", 1, "a.test", paths=("/",)), route("relay", 0, priority=1)]
    assert not matcher(*first).awaits_http(client)
    clear = [http_route("http", 1), route("clear", 0, tls=False)]
    assert not matcher(*clear).awaits_http(client)
    office = matcher(http_route("http", 0, client_ips=("10.9.0.0/16",)), route("relay", 1))
    assert office.awaits_http(plain("10.9.0.1").client)
    assert not office.awaits_http(plain("10.8.0.1").client)


@pytest.mark.parametrize("domains", [1, 3])
def test_many_paths_and_values_of_one_route(domains: int) -> None:
    """Thousands of paths of a route, for one domain or several, beside others of each domain."""
    names = [f"{number}.test" for number in range(domains)]
    paths = tuple(f"/p{number}/*" for number in range(MANY))
    found = matcher(
        http_route("many", 0, *names, paths=paths),
        http_route("more", 1, *names, paths=tuple(f"{path}x" for path in paths)),
        http_route("one", 2, "0.test", paths=("/p7/one",)),
        http_route("last", 3, "0.test"),
        *(http_route(f"t{n}", 4 + n, "t.test", headers=(field("t", str(n)),)) for n in range(MANY)),
    )
    for name in names:
        assert takes(found, request("/p7/a", name)) == "many"
        assert takes(found, request(f"/p{MANY - 1}/", name)) == "many"
    assert takes(found, request("/p7/one", "0.test")) == "one"
    assert takes(found, request("/q", "0.test")) == "last"
    assert takes(found, request("/q", "t.test", t=str(MANY - 1))) == f"t{MANY - 1}"
    assert takes(found, request("/q", "t.test", t="x|7")) == "t7"
    assert found.places >= MANY


def test_many_networks() -> None:
    """A route with hundreds of networks takes each client of them, and no other."""
    networks = tuple(f"10.{number}.0.0/16" for number in range(200))
    for domains in ((), ("a.test",)):
        found = matcher(
            http_route("in", 0, *domains, paths=("/*",), client_ips=(*networks, "fd00::/8")),
            http_route("out", 1),
        )
        for ip, name in (("10.7.0.1", "in"), ("10.200.0.1", "out"), ("fd00::1", "in"), ("", "out")):
            assert takes(found, request("/", "a.test"), ip) == name


def test_a_bad_path_is_an_error() -> None:
    """A plan that was not checked is refused where its route is added."""
    with pytest.raises(ValueError, match="is no path"):
        matcher(http_route("r", paths=("a",)))


def told(found: Matcher[str], asked: object, **more: object) -> dict[str, str]:
    """Why the others lost."""
    return dict(found.explain(plain().client, request=asked, **more).lost)  # type: ignore[arg-type]


def test_explain_a_request() -> None:
    """Each route that does not take it has its reason; no value of the request is shown."""
    found = matcher(
        http_route("path", 0, paths=("/a", "/b*")),
        http_route("method", 1, methods=("PUT", "POST")),
        http_route("missing", 2, headers=(field("x-a", "1"),)),
        http_route("header", 3, headers=(field("x-b", "1", "2"),)),
        http_route("query", 4, query=(field("q", regex="[0-9]+"),)),
        http_route("cookie", 5, cookies=(field("s", "1"),)),
        http_route("domain", 6, "b.test"),
        http_route("ends", 7, terminate=ENDED, tls=True),
        http_route("winner", 8, paths=("/*",)),
        http_route("less", 9),
        route("named", 10, "a.test"),
        route("relay", 11),
        http_route("lost", 12, tls=True, paths=("/",)),
    )
    asked = request("/c?q=secret", "a.test", x_b="secret", cookie="s=secret")
    assert told(found, asked, is_tls=False) == {
        "path": "paths: for /a or /b*; the request has '/c'",
        "method": "methods: for PUT or POST; the request has 'GET'",
        "missing": "headers: the request has no x-a",
        "header": "headers: for x-b = '1' or '2', which it is not",
        "query": "query: for q that matches '[0-9]+', which it does not",
        "cookie": "cookies: for s = '1', which it is not",
        "domain": "domains: the client asks for 'a.test'",
        "ends": "tls: for TLS clients only",
        "less": "'winner' has the more specific path",
        "named": "domains: a client without TLS names none to a route that is not for HTTP",
        "relay": "'winner' has the more specific path",
        "lost": "tls: for TLS clients only",
    }
    through = told(found, asked, is_tls=True, hello=Hello("a.test"))
    assert (
        through["less"] == "tls: the route does not end TLS, so it reads no request of TLS clients"
    )
    assert through["relay"] == "protocol: not for HTTP, for which TLS has ended here"


def test_explain_before_a_request() -> None:
    """What speaks HTTP waits for a request, or cannot read it."""
    found = matcher(http_route("http", 0), http_route("reads", 1, "a.test", paths=("/",)))
    client = plain().client
    assert dict(found.explain(client).lost)["http"] == "protocol: for HTTP, and no byte has come"
    lost = dict(found.explain(client, False).lost)
    assert lost["http"] == lost["reads"] == "protocol: for HTTP, and no request has come"
    lost = dict(found.explain(client, True, Hello("a.test")).lost)
    assert set(lost.values()) == {
        "tls: the route does not end TLS, so it reads no request of TLS clients"
    }
