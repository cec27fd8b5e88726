"""HTTP in the config: what is accepted, what is refused, and where it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.http_config import (
    FORWARD,
    REDIRECT,
    accepted,
    check,
    error,
    errors,
    make_pages,
    route,
)

WITH_USERS = "security: {auth: {basic: {realm: R, users_file: users, allow_plain: true}}},"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pages and users."""
    folder = tmp_path_factory.mktemp("pages")
    make_pages(folder)
    return folder


@pytest.mark.parametrize(
    ("written", "compared"),
    [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/v1/*", "/v1/*"),
        ("/*.php", "/*.php"),
        ("/users/:id/posts/:post", "/users/:id/posts/:post"),
        ("/a:b", "/a:b"),
        ("/%7euser/%e4", "/~user/%E4"),
        ("/%41", "/A"),
        ("/grün", "/gr%C3%BCn"),
        ("/a b", "/a%20b"),
        ("//a//", "//a//"),
        ("/a/..b", "/a/..b"),
    ],
)
def test_paths(pages: Path, written: str, compared: str) -> None:
    """A path is kept in the form in which those of requests are compared."""
    config = accepted(pages, route(f"ports: [80], paths: ['{written}']"))
    assert config.routes[0].match.paths == [compared]


@pytest.mark.parametrize(
    ("criterion", "path", "why"),
    [
        ("paths: [a]", "paths[0]", "begins with /"),
        ("paths: ['']", "paths[0]", "begins with /"),
        ("paths: ['http://a/b']", "paths[0]", "begins with /"),
        ("paths: ['/a?b=1']", "paths[0]", "parameters are in `query`"),
        ("paths: ['/a#b']", "paths[0]", "a path ends before ? and #"),
        ("paths: ['/a/../b']", "paths[0]", "dot segment"),
        ("paths: ['/a/%2e%2E/b']", "paths[0]", "dot segment"),
        ("paths: ['/a%2Fb']", "paths[0]", "escaped slash"),
        ("paths: ['/a%5cb']", "paths[0]", "backslash"),
        ("paths: ['/a%00']", "paths[0]", "NUL"),
        ("paths: ['/a\\b']", "paths[0]", "holds what no path has"),
        ("paths: ['/100%']", "paths[0]", "percent sign without"),
        ("paths: ['/:']", "paths[0]", "names no parameter"),
        ("paths: ['/:1a']", "paths[0]", "names no parameter"),
        ("paths: ['/:a*']", "paths[0]", "names no parameter"),
        ("paths: ['/:a/:a']", "paths[0]", "two parameters :a"),
        ("paths: [1]", "paths[0]", "got a number"),
        ("paths: /a", "paths", "expected a list"),
        ("methods: [get]", "methods[0]", "write GET"),
        ("methods: ['G T']", "methods[0]", "is no method"),
        ("methods: [CONNECT]", "methods[0]", "never forwarded"),
        ("methods: [GETS]", "methods[0]", "no method that is served"),
        ("methods: [true]", "methods[0]", "expected a method"),
        ("headers: [a]", "headers", "expected a mapping, got a list"),
        ("headers: {'X A': b}", "headers.'X A'", "is no name of a field"),
        ("headers: {X-A: 1}", "headers.X-A", 'write "1", in quotes'),
        ("headers: {X-A: false}", "headers.X-A", "got false"),
        ("headers: {X-A: null}", "headers.X-A", "got null"),
        ("headers: {X-A: []}", "headers.X-A", "no value would match"),
        ("headers: {X-A: [[a]]}", "headers.X-A", "got a list"),
        ("headers: {X-A: {rgex: a}}", "headers.X-A.rgex", "did you mean 'regex'?"),
        ("headers: {X-A: {regex: ''}}", "headers.X-A.regex", "empty regular expression"),
        ("headers: {X-A: {regex: 'ab(c'}}", "headers.X-A.regex", "at character 3"),
        ("headers: {X-A: {regex: '[[a]'}}", "headers.X-A.regex", "nested set"),
        ("headers: {X-A: {regex: 7}}", "headers.X-A.regex", "got a number"),
        ("headers: {X-A: a, x-a: b}", "headers.x-a", "duplicate name 'x-a'"),
        ("query: {'': a}", "query.''", "is no name of a parameter"),
        ("query: {a: {regex: '*'}}", "query.a.regex", "nothing to repeat, at character 1"),
        ("cookies: {'a=b': c}", "cookies.'a=b'", "is no name of a cookie"),
        (f"cookies: {{a: {{regex: {'x' * 1001}}}}}", "cookies.a.regex", "1000 at most"),
        ("protocol: udp", "protocol", "unknown value 'udp'"),
    ],
)
def test_wrong_criteria(pages: Path, criterion: str, path: str, why: str) -> None:
    """A wrong entry is told at its own place."""
    where, message = error(pages, route(f"ports: [80], {criterion}"))
    assert where == f"routes[0].match.{path}"
    assert why in message


def test_names_that_differ_in_case(pages: Path) -> None:
    """Of parameters and cookies the case counts, so both may stand there."""
    both = "query: {a: '1', A: '2'}, cookies: {s: true, S: ['a', 'b']}"
    match = accepted(pages, route(f"ports: [80], {both}")).routes[0].match
    assert [name for name, _ in match.query] == ["a", "A"]
    assert [one.values for _, one in match.cookies] == [(), ("a", "b")]


@pytest.mark.parametrize(
    ("action", "path", "why"),
    [
        ("type: redirect", "", "missing field 'to'"),
        ("type: forward", "", "missing field 'targets'"),
        (f"{REDIRECT}, status: 200", ".status", "one of: 301, 302, 303, 307, 308"),
        (f"{REDIRECT}, status: 304", ".status", "no status of a redirect"),
        (f"{REDIRECT}, status: 600", ".status", "<= 599"),
        (f"{REDIRECT}, body: x", ".body", "no effect with type: redirect"),
        (f"{REDIRECT}, targets: ['t:1']", ".targets", "no effect"),
        (f"{REDIRECT}, rewrite: {{add_prefix: /a}}", ".rewrite", "no effect"),
        (f"{REDIRECT}, headers: {{location: /}}", ".headers.location", "is `to`"),
        ("type: redirect, to: example.com", ".to", "is no URL"),
        ("type: redirect, to: 'ftp://example.com'", ".to", "is no URL"),
        ("type: redirect, to: '/a b'", ".to", "write its escape"),
        ("type: redirect, to: /grün", ".to", "it is ASCII"),
        ("type: redirect, to: '/{pth}'", ".to", "`{pth}` is no field"),
        ("type: redirect, to: '/{param.id}'", ".to", "is no parameter"),
        ("type: redirect, to: '/{path'", ".to", "{"),
        ("type: redirect, to: ''", "", "missing field 'to'"),
        ("type: respond, status: 199", ".status", ">= 200"),
        ("type: respond, status: 204, body: x", ".body", "has no body"),
        ("type: respond, status: 304, file: robots.txt", ".file", "has no body"),
        ("type: respond, body: x, file: robots.txt", ".file", "write one of them"),
        ("type: respond, to: /a", ".to", "no effect with type: respond"),
        ("type: respond, send_proxy: v2", ".send_proxy", "no effect"),
        ("type: respond, host: target", ".host", "no effect"),
        ("type: respond, half_open: true", ".half_open", "no effect"),
        ("type: respond, headers: {X: 1}", ".headers.X", "in quotes"),
        ('type: respond, headers: {X: "a\\r\\nb"}', ".headers.X", "the end of a line"),
        ("type: respond, headers: {X: [a, '{nope}']}", ".headers.X", "is no field"),
        ("type: respond, headers: {X: []}", ".headers.X", "an empty list"),
        ("type: respond, headers: {request: {set: {A: b}}}", ".headers.request", "no target gets"),
        ("type: respond, file: missing", ".file", "missing: cannot be read: No such file"),
        ("type: respond, file: large", ".file", "is larger than 1 MiB"),
        ("type: respond, file: .", ".file", "is a directory"),
        (f"{FORWARD}, status: 200", ".status", "no effect with type: forward"),
        (f"{FORWARD}, to: /a", ".to", "no effect"),
        (f"{FORWARD}, headers: {{X: a}}", ".headers", "write headers: {request:"),
        (f"{FORWARD}, headers: {{set: {{X: a}}}}", ".headers.set", "in `request` or in `response`"),
        (f"{FORWARD}, host: 'a b'", ".host", "no domain"),
        (f"{FORWARD}, host: 'a:99999'", ".host", "no port"),
        (f"{FORWARD}, rewrite: {{strip_prefix: a}}", ".rewrite.strip_prefix", "begins with /"),
        (f"{FORWARD}, rewrite: {{add_prefix: /}}", ".rewrite.add_prefix", "changes nothing"),
        (f"{FORWARD}, rewrite: {{add_prefix: '/a?b'}}", ".rewrite.add_prefix", "has no ?"),
        (f"{FORWARD}, rewrite: {{add_prefix: /a/..}}", ".rewrite.add_prefix", "dot segment"),
    ],
)
def test_wrong_actions(pages: Path, action: str, path: str, why: str) -> None:
    """Keys that are wrong, or of another type, are told at their own place."""
    where, message = error(pages, route(action=action))
    assert where == f"routes[0].action{path}"
    assert why in message


@pytest.mark.parametrize(
    "name",
    ["Content-Length", "transfer-encoding", "Connection", "Host", "Upgrade", "Keep-Alive", "TE",
     "Trailer", "Proxy-Connection"],
)  # fmt: skip
@pytest.mark.parametrize("side", ["request", "response"])
def test_fields_that_are_ours(pages: Path, side: str, name: str) -> None:
    """No rule sets, adds or removes what says how a message is framed, and the error says why."""
    rules = f"{{set: {{{name}: x}}, add: {{{name}: x}}, remove: [{name}]}}"
    found = errors(pages, route(action=f"{FORWARD}, headers: {{{side}: {rules}}}"))
    places = [path.removeprefix(f"routes[0].action.headers.{side}.") for path, _ in found]
    assert places == [f"set.{name}", f"add.{name}", "remove[0]"]
    assert all(f"{name} cannot be set or removed: " in message for _, message in found)
    assert ("write `host`" in found[0][1]) == (name == "Host")
    answer = errors(pages, route(action=f"type: respond, headers: {{{name}: x}}"))
    assert [path for path, _ in answer] == [f"routes[0].action.headers.{name}"]


def test_templates_know_the_parameters(pages: Path) -> None:
    """{param.NAME} must be a parameter of every path of the route."""
    rules = f"{FORWARD}, headers: {{request: {{set: {{X-Id: '{{param.id}}'}}}}}}"
    accepted(pages, route("ports: [80], paths: ['/a/:id', '/b/:id/*']", rules))
    where, why = error(pages, route("ports: [80], paths: ['/a/:id', '/b/*']", rules))
    assert where == "routes[0].action.headers.request.set.X-Id"
    assert "is no parameter of the route's paths" in why


@pytest.mark.parametrize(
    ("http", "path", "why"),
    [
        ("head_limit: 64K", "head_limit", "write 64KiB"),
        ("head_limit: 100", "head_limit", "1KiB to 1MiB"),
        ("head_limit: 2MiB", "head_limit", "1KiB to 1MiB"),
        ("field_limit: 0", "field_limit", ">= 1"),
        ("body_limit: -1", "body_limit", "is no size"),
        ("body_limit: true", "body_limit", "expected a size"),
        ("trusted_forwarders: [proxy.example]", "trusted_forwarders[0]", "proxy.example"),
        ("error_pages: {200: sorry.html}", "error_pages.200", "400 to 599"),
        ("error_pages: {5xx: sorry.html}", "error_pages.5xx", "400 to 599"),
        ("error_pages: {502: missing}", "error_pages.502", "missing: cannot be read"),
        ("error_pages: {502: large}", "error_pages.502", "is larger than 1 MiB"),
        ("error_pages: {502: 7}", "error_pages.502", "expected the path of a file"),
        ("maintenance: {retry_after: 0}", "maintenance.retry_after", "0 is not allowed"),
        ("maintenance: {file: missing}", "maintenance.file", "cannot be read"),
        ("maintenance: {retry: 1}", "maintenance.retry", "did you mean 'retry_after'?"),
        ("upgrades: [h2c]", "upgrades[0]", "never switched to"),
        ("upgrades: ['a b']", "upgrades[0]", "is no name of a protocol"),
        ("underscores: keep", "underscores", "one of: drop, pass"),
        ("upstream_idle: 0", "upstream_idle", "0 is not allowed"),
    ],
)
def test_wrong_settings(pages: Path, http: str, path: str, why: str) -> None:
    """A wrong setting is told at its place, in the global `http` and in that of a route."""
    where, message = error(pages, route(), head=f"http: {{{http}}}")
    assert (where, why in message) == (f"http.{path}", True), message
    where, message = error(pages, route(rest=f"http: {{{http}}},"))
    assert (where, why in message) == (f"routes[0].http.{path}", True), message


def test_timeouts(pages: Path) -> None:
    """Only the wait for an answer may be without end."""
    found = errors(pages, route(), head="timeouts: {request_head: 0, http_keep_alive: 0}")
    assert [path for path, _ in found] == ["timeouts.request_head", "timeouts.http_keep_alive"]
    accepted(pages, route(action=f"{FORWARD}, timeouts: {{response: 0, request_head: 5s}}"))


@pytest.mark.parametrize(
    ("match", "action", "rest", "key", "name"),
    [
        ("paths: [/a]", FORWARD, "", "match.paths", "paths"),
        ("methods: [GET]", FORWARD, "", "match.methods", "methods"),
        ("headers: {a: b}", FORWARD, "", "match.headers", "headers"),
        ("query: {a: b}", FORWARD, "", "match.query", "query"),
        ("cookies: {a: b}", FORWARD, "", "match.cookies", "cookies"),
        ("tags: []", REDIRECT, "", "action.type", "type: redirect"),
        ("tags: []", "type: respond", "", "action.type", "type: respond"),
        ("tags: []", f"{FORWARD}, headers: {{}}", "", "action.headers", "headers"),
        ("tags: []", f"{FORWARD}, rewrite: {{}}", "", "action.rewrite", "rewrite"),
        ("tags: []", f"{FORWARD}, host: preserve", "", "action.host", "host"),
        ("tags: []", FORWARD, WITH_USERS, "security.auth", "auth"),
        ("tags: []", FORWARD, "http: {},", "http", "http"),
    ],
)
def test_tcp_with_keys_of_http(
    pages: Path, match: str, action: str, rest: str, key: str, name: str
) -> None:
    """protocol: tcp is refused beside any key that only HTTP has, which is named."""
    more = "" if match == "tags: []" else f", {match}"
    where, why = error(pages, route(f"ports: [80], protocol: tcp{more}", action, rest))
    assert where == f"routes[0].{key}"
    assert why.startswith(f"{name} is of HTTP, and this route is protocol: tcp")
    accepted(pages, route(f"ports: [80]{more}", action, rest))


@pytest.mark.parametrize(
    ("auth", "path", "why"),
    [
        ("{}", "", "missing field 'basic'"),
        ("{basic: {realm: R}}", ".basic", "missing field 'users_file'"),
        ("{basic: {users_file: users}}", ".basic", "missing field 'realm'"),
        ("{basic: {realm: R, users_file: users}}", ".basic", "allow_plain: true"),
        (
            "{basic: {realm: R, users_file: missing, allow_plain: true}}",
            ".basic.users_file",
            "the users file missing: cannot be read",
        ),
        ('{basic: {realm: "a\\nb", users_file: users}}', ".basic.realm", "is no realm"),
    ],
)
def test_wrong_auth(pages: Path, auth: str, path: str, why: str) -> None:
    """What is missing of users and passwords is told; also that these would be read on the way."""
    where, message = error(pages, route(rest=f"security: {{auth: {auth}}},"))
    assert where == f"routes[0].security.auth{path}"
    assert why in message


def test_users_that_are_wrong_or_none(pages: Path) -> None:
    """A line of the users file is told as that of a list file is; a file without users warns."""
    plain = WITH_USERS.replace("users_file: users", "users_file: plain")
    _, found, _ = check(pages, route(rest=plain), route("ports: [81]", rest=plain, name="b"))
    assert [(one.file, one.line) for one in found] == [(str(pages / "plain"), 1)]
    assert "secret" not in found[0].text()
    nobody = WITH_USERS.replace("users_file: users", "users_file: nobody")
    _, found, warnings = check(pages, route(rest=nobody))
    assert (found, [one.code for one in warnings]) == ([], ["allows_nobody"])


def test_user_is_an_identity(pages: Path) -> None:
    """Rules may ask for the user where a password is asked for, and nowhere else."""
    identities = "identities: [{match: {user: 'a*'}}]"
    accepted(pages, route(rest=WITH_USERS.replace("{auth", f"{{{identities}, auth")))
    where, why = error(pages, route(rest=f"security: {{{identities}}},"))
    assert where == "routes[0].security.identities[0].match.user"
    assert "this route asks for none" in why


def test_files_of_disabled_routes(pages: Path) -> None:
    """As if the route were not written: its files may be missing."""
    rest = "enabled: false, http: {error_pages: {502: missing}},"
    accepted(pages, route(name="b"), route(action="type: respond, file: missing", rest=rest))


def test_everything_is_told_at_once(pages: Path) -> None:
    """Faults of a route that is damaged do not hide files that cannot be read."""
    rest = "http: {error_pages: {502: gone.html}}, nope: 1,"
    found = errors(pages, route("ports: [80], paths: [x]", "type: respond, file: gone.txt", rest))
    assert sorted(path for path, _ in found) == [
        "routes[0].action.file",
        "routes[0].http.error_pages.502",
        "routes[0].match.paths[0]",
        "routes[0].nope",
    ]
