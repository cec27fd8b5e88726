"""HTTP keys of a config as workers get them."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.plan import (
    AnswerPlan,
    FieldMatch,
    FieldRules,
    HttpMatch,
    HttpPlan,
    Timeouts,
)
from supervisor.compile import names_of
from tests.helpers.http_config import (
    FORWARD,
    HASH,
    REDIRECT,
    accepted,
    make_pages,
    plan,
    route,
    route_plan,
)

TEXT = ("Content-Type", "text/plain; charset=utf-8")
HTML = ("Content-Type", "text/html; charset=utf-8")


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """A folder with pages and users."""
    make_pages(tmp_path)
    return tmp_path


def http(folder: Path, *routes: str, head: str = "") -> HttpPlan:
    """How the first route speaks HTTP."""
    found = route_plan(folder, *routes, head=head).http
    assert found is not None
    return found


def answer(folder: Path, action: str) -> AnswerPlan:
    """What a route with this action answers."""
    found = http(folder, route(action=action)).answer
    assert found is not None
    return found


def test_defaults(pages: Path) -> None:
    """Nothing written is what the plan has by default."""
    assert http(pages, route("ports: [80], protocol: http")) == HttpPlan()
    assert route_plan(pages, route()).timeouts == Timeouts()


def test_criteria(pages: Path) -> None:
    """Header names are in lower case; each thing that must hold is there once."""
    match = (
        "ports: [80], paths: [/a, /a, /:id], methods: [GET, GET], headers: {X-A: v, Y: [v, w, v]},"
        " query: {A: {regex: 'x.*'}}, cookies: {S: true}"
    )
    assert http(pages, route(match)).match == HttpMatch(
        paths=("/a", "/:id"),
        methods=("GET",),
        headers=(FieldMatch(name="x-a", values=("v",)), FieldMatch(name="y", values=("v", "w"))),
        query=(FieldMatch(name="A", regex="x.*"),),
        cookies=(FieldMatch(name="S"),),
    )


def test_rules(pages: Path) -> None:
    """Rules keep their order and the case of names; texts go as they are."""
    action = (
        f"{FORWARD}, host: 'app.example:8080', rewrite: {{strip_prefix: /api/, add_prefix: /v1}},"
        " headers: {request: {set: {X-A: ' {path} '}, add: {X-B: [b, c]}, remove: [X-C]},"
        " response: {remove: [Server]}}"
    )
    found = http(pages, route(action=action))
    assert found.request == FieldRules(
        remove=("X-C",), set=(("X-A", "{path}"),), add=(("X-B", "b"), ("X-B", "c"))
    )
    assert found.response == FieldRules(remove=("Server",))
    assert (found.strip_prefix, found.add_prefix) == ("/api", "/v1")
    assert (found.host, found.answer) == ("app.example:8080", None)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("preserve", "preserve"),
        ("target", "target"),
        ("App.Example.", "app.example"),
        ("10.0.0.1", "10.0.0.1"),
        ("'::1'", "[::1]"),
        ("'[::1]:80'", "[::1]:80"),
    ],
)
def test_host(pages: Path, written: str, meant: str) -> None:
    """Names are normalised; addresses stand as a Host has them."""
    assert http(pages, route(action=f"{FORWARD}, host: {written}")).host == meant


def test_redirect(pages: Path) -> None:
    """301 unless another status is written."""
    to = "https://{host}{path_and_query}"
    assert answer(pages, REDIRECT) == AnswerPlan(status=301, location=to)
    more = f"{REDIRECT}, status: 308, headers: {{Cache-Control: no-store}}"
    assert answer(pages, more) == AnswerPlan(
        status=308, location=to, headers=(("Cache-Control", "no-store"),)
    )


def test_rules_of_an_answer(pages: Path) -> None:
    """The rules for answers may stand in a route that answers by itself too."""
    found = http(pages, route(action="type: respond, headers: {response: {set: {X: '{path}'}}}"))
    assert found.response == FieldRules(set=(("X", "{path}"),))
    assert found.answer == AnswerPlan(status=200)


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("", AnswerPlan(status=200)),
        (", status: 204", AnswerPlan(status=204)),
        (", body: grün", AnswerPlan(status=200, headers=(TEXT,), body="grün".encode())),
        (", file: sorry.html, status: 404",
         AnswerPlan(status=404, headers=(HTML,), body=b"<p>Sorry</p>")),
        (", file: robots.txt", AnswerPlan(status=200, headers=(TEXT,), body=b"User-agent: *\n")),
        (", file: data.json",
         AnswerPlan(status=200, headers=(("Content-Type", "application/json"),), body=b"{}")),
        (", file: logo.svgz",
         AnswerPlan(status=200, headers=(("Content-Type", "application/octet-stream"),),
                    body=b"\x1f\x8b")),
        (", file: blob",
         AnswerPlan(status=200, headers=(("Content-Type", "application/octet-stream"),),
                    body=b"\x00\x01")),
        (", body: '{}', headers: {content-type: application/json, Set-Cookie: [a=1, b=2]}",
         AnswerPlan(status=200, headers=(("content-type", "application/json"),
                                         ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")),
                    body=b"{}")),
    ],
)  # fmt: skip
def test_respond(pages: Path, action: str, expected: AnswerPlan) -> None:
    """The body is in the plan, with a Content-Type unless the headers say one."""
    assert answer(pages, f"type: respond{action}") == expected


def test_settings_of_a_route(pages: Path) -> None:
    """What a route says is laid over the global settings, of error pages status by status."""
    head = (
        "http: {head_limit: 8KiB, field_limit: 50, body_limit: 1MiB, trusted_forwarders:"
        " [10.0.0.0/8], error_pages: {502: sorry.html, 404: sorry.html}, maintenance:"
        " {retry_after: 1500ms}, upgrades: [], underscores: pass, upstream_idle: 5s}"
    )
    own = (
        "http: {body_limit: 0, trusted_forwarders: ['::1'], error_pages: {404: robots.txt},"
        " maintenance: {retry_after: 1m, file: sorry.html}, upgrades: [WebSocket, websocket]},"
    )
    sorry = AnswerPlan(status=502, headers=(HTML,), body=b"<p>Sorry</p>")
    first, second = plan(
        pages, route(rest=own), route("ports: [81], protocol: http", name="b"), head=head
    ).routes
    assert first.http == HttpPlan(
        head_limit=8192,
        field_limit=50,
        trusted_forwarders=("::1/128",),
        error_pages=(
            (404, AnswerPlan(status=404, headers=(TEXT,), body=b"User-agent: *\n")),
            (502, sorry),
        ),
        maintenance=AnswerPlan(
            status=503, headers=(("Retry-After", "60"), HTML), body=b"<p>Sorry</p>"
        ),
        underscores="pass",
        upstream_idle=5.0,
    )
    assert second.http is not None
    assert (second.http.body_limit, second.http.upgrades) == (1 << 20, ())
    assert second.http.maintenance is not None
    assert second.http.maintenance.headers == (("Retry-After", "2"), TEXT)


def test_pages_where_no_route_is(pages: Path) -> None:
    """The global ones; none where nothing speaks HTTP."""
    head = "http: {error_pages: {404: sorry.html}}"
    own = "http: {error_pages: {404: robots.txt, 502: robots.txt}},"
    made = plan(pages, route(rest=own), head=head)
    page = AnswerPlan(status=404, headers=(HTML,), body=b"<p>Sorry</p>")
    assert made.error_pages == ((404, page),)
    assert plan(pages, route("ports: [80]"), head=head).error_pages == ()


def test_timeouts(pages: Path) -> None:
    """Those of HTTP come from the global ones, then the route's."""
    head = "timeouts: {request_head: 3s, response: 5s}"
    action = f"{FORWARD}, timeouts: {{response: 0, http_keep_alive: 7s}}"
    found = route_plan(pages, route(action=action), head=head).timeouts
    assert (found.request_head, found.http_keep_alive, found.response) == (3.0, 7.0, 0.0)


def test_auth(pages: Path) -> None:
    """Users go into the plan; no repr of it has a hash."""
    auth = "security: {auth: {basic: {realm: R, users_file: users, allow_plain: true}}},"
    found = http(pages, route(rest=auth)).auth
    assert found is not None
    assert (found.realm, found.users, found.allow_plain) == ("R", (("alice", HASH),), True)
    assert HASH not in repr(found)


@pytest.mark.parametrize("name", ["sorry.html", "robots.txt", "users"])
def test_content_is_part_of_the_fingerprint(pages: Path, name: str) -> None:
    """A reload reads files again: a route changes exactly when one of its own did."""
    rest = (
        "http: {error_pages: {502: sorry.html}},"
        " security: {auth: {basic: {realm: R, users_file: users, allow_plain: true}}},"
    )
    routes = (
        route(action="type: respond, file: robots.txt", rest=rest),
        route("ports: [81], protocol: http", name="b"),
    )
    before = [one.fingerprint for one in plan(pages, *routes).routes]
    assert [one.fingerprint for one in plan(pages, *routes).routes] == before
    (pages / name).write_text(f"# changed\nbob:{HASH}\n")
    after = [one.fingerprint for one in plan(pages, *routes).routes]
    assert after[0] != before[0]
    assert after[1] == before[1]


@pytest.mark.parametrize(
    "changed",
    [
        route("ports: [80], protocol: http, paths: [/b]"),
        route("ports: [80], paths: [/a]", f"{FORWARD}, host: target"),
        route("ports: [80], paths: [/a]", f"{FORWARD}, timeouts: {{response: 1s}}"),
        route("ports: [80], paths: [/a]", rest="http: {body_limit: 1},"),
    ],
)
def test_settings_are_part_of_the_fingerprint(pages: Path, changed: str) -> None:
    """Another setting is another route."""
    first = route_plan(pages, route("ports: [80], paths: [/a]"))
    assert route_plan(pages, changed).fingerprint != first.fingerprint


def test_names_without_targets(pages: Path) -> None:
    """Routes that answer by themselves have no name to resolve."""
    config = accepted(
        pages,
        route(action=REDIRECT),
        route("ports: [81]", "type: respond, body: x", name="b"),
        route("ports: [82]", "type: forward, targets: ['app.example:1']", name="c"),
    )
    assert names_of(config) == {"app.example"}
