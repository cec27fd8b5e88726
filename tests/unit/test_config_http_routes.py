"""HTTP beside TLS in the config: whose requests can be read, and how routes of a port agree."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.http_config import (
    ENDS_OTHERWISE,
    ENDS_TLS,
    FORWARD,
    REDIRECT,
    accepted,
    check,
    error,
    make_pages,
    plan,
    route,
)

SITE = f"{FORWARD}, {ENDS_TLS}"
OTHER = f"{FORWARD}, {ENDS_OTHERWISE}"
A = "ports: [8443], domains: [a.example]"
BASIC = "realm: R, users_file: users"


@pytest.fixture(scope="module")
def files(certs: Path) -> Path:
    """The folder of certificates, with pages and users."""
    make_pages(certs)
    return certs


@pytest.mark.parametrize(
    ("match", "action", "rest", "speaks"),
    [
        ("ports: [80]", FORWARD, "", False),
        ("ports: [80], domains: [a.example]", FORWARD, "", True),
        ("ports: [80], domains: [a.example], tls: false", FORWARD, "", True),
        ("ports: [80], domains: [a.example], tls: true", FORWARD, "", False),
        ("ports: [80], domains: [a.example], alpn: [x]", FORWARD, "", False),
        ("ports: [80], domains: [a.example], tls_versions: ['1.3']", FORWARD, "", False),
        ("ports: [80], domains: [a.example], protocol: tcp", FORWARD, "", False),
        ("ports: [80], domains: [a.example]", f"{FORWARD}, tls: {{}}", "", False),
        (A, SITE, "", False),
        (f"{A}, protocol: http", SITE, "", True),
        (f"{A}, paths: [/a]", SITE, "", True),
        ("ports: [80], protocol: http", FORWARD, "", True),
        ("ports: [80], methods: [GET]", FORWARD, "", True),
        ("ports: [80]", REDIRECT, "", True),
        ("ports: [80]", "type: respond", "", True),
        ("ports: [80]", f"{FORWARD}, host: target", "", True),
        ("ports: [80]", FORWARD, "http: {},", True),
        (
            "ports: [80]",
            FORWARD,
            f"security: {{auth: {{basic: {{{BASIC}, allow_plain: true}}}}}},",
            True,
        ),
    ],
)
def test_protocol(files: Path, match: str, action: str, rest: str, speaks: bool) -> None:
    """Without `protocol` a route speaks HTTP where a key needs it, or domains are without TLS."""
    assert (plan(files, route(match, action, rest)).routes[0].http is not None) == speaks


@pytest.mark.parametrize(
    ("match", "action", "path", "why"),
    [
        ("ports: [80], paths: [/a]", f"{FORWARD}, tls: {{}}", "action.tls", "paths is of HTTP"),
        ("ports: [80], protocol: http", f"{FORWARD}, tls: {{}}", "action.tls", "protocol: http is"),
        ("ports: [80]", f"{REDIRECT}, tls: {{}}", "action.tls", "type: redirect is of HTTP"),
        ("ports: [80], paths: [/a], tls: true", FORWARD, "match.tls", "is not ended here"),
        ("ports: [80], tls_versions: ['1.3']", REDIRECT, "match.tls_versions", "is not ended"),
        ("ports: [80], paths: [/a], alpn: [x]", FORWARD, "match.alpn", "is not ended here"),
        (
            "ports: [80], paths: [/a]",
            SITE.replace("tls: {", "tls: {alpn: [h2, http/1.1], "),
            "action.tls.alpn",
            "HTTP/2 is not available yet",
        ),
        (
            "ports: [80], paths: [/a]",
            f"{FORWARD}, upstream_tls: {{alpn: [h2]}}",
            "action.upstream_tls.alpn",
            "HTTP/2 is not available yet",
        ),
        (
            "ports: [80]",
            f"type: respond, {ENDS_TLS.replace('terminate', 'terminate-and-reencrypt')}",
            "action.tls.mode",
            "write mode: terminate",
        ),
    ],
)
def test_requests_that_cannot_be_read(
    files: Path, match: str, action: str, path: str, why: str
) -> None:
    """HTTP needs bytes that are not closed in TLS, and a protocol that is spoken."""
    where, message = error(files, route(match, action))
    assert where == f"routes[0].{path}"
    assert why in message


def test_terminate_on_443(files: Path) -> None:
    """Ending TLS for tcp on port 443 warns; for HTTP it does not."""
    on_443 = "ports: [443], domains: [a.example]"
    _, _, warnings = check(files, route(on_443, SITE))
    assert [one.code for one in warnings] == ["tcp_on_443"]
    accepted(files, route(f"{on_443}, protocol: http", SITE))
    accepted(files, route(on_443, f"{REDIRECT}, {ENDS_TLS}"))


def test_upstream_tls_of_plain_clients(files: Path) -> None:
    """With domains and upstream_tls alone TLS would go into TLS; for plain clients it may be."""
    action = f"{FORWARD}, upstream_tls: {{}}"
    where, _ = error(files, route("ports: [80], domains: [a.example]", action))
    assert where == "routes[0].action.upstream_tls"
    accepted(files, route("ports: [80], domains: [a.example], tls: false", action))
    accepted(files, route("ports: [80], domains: [a.example], paths: [/x]", action))


@pytest.mark.parametrize(
    ("match", "action", "is_refused"),
    [
        ("ports: [80]", FORWARD, True),
        ("ports: [80], domains: [a.example]", FORWARD, True),
        (A, SITE, False),
        (f"{A}, paths: [/x]", SITE, False),
    ],
)
def test_passwords_on_plain_connections(
    files: Path, match: str, action: str, is_refused: bool
) -> None:
    """A password is asked for where TLS ends, or where the config says that it may be read."""
    for allowed in ("", ", allow_plain: true"):
        rest = f"security: {{auth: {{basic: {{{BASIC}{allowed}}}}}}},"
        one = route(match, action, rest)
        if is_refused and not allowed:
            where, why = error(files, one)
            assert where == "routes[0].security.auth.basic"
            assert "not encrypted" in why
        else:
            accepted(files, one)


def test_passwords_on_tcp_and_passthrough(files: Path) -> None:
    """Nobody can ask for a password in bytes that are not read, allow_plain or not."""
    rest = f"security: {{auth: {{basic: {{{BASIC}, allow_plain: true}}}}}},"
    assert error(files, route("ports: [80], protocol: tcp", FORWARD, rest))[0].endswith("auth")
    closed = route("ports: [80]", f"{FORWARD}, tls: {{}}", rest)
    assert error(files, closed)[0] == "routes[0].action.tls"


def test_taking_the_tls_of_others(files: Path) -> None:
    """A route that reads HTTP and says nothing of TLS ends it as those do whose names overlap."""
    for match in ("domains: [a.example], paths: [/x]", "domains: ['*.example']", "paths: [/x]"):
        action = REDIRECT if "paths" not in match else FORWARD
        taker = route(f"ports: [8443], {match}", action, name="b")
        found = plan(files, route(f"{A}, protocol: http", SITE), taker)
        site, other = found.routes
        assert site.tls is True
        assert other.tls is None
        assert other.terminate == site.terminate
        assert other.terminate is not None


def test_not_taking_the_tls_of_others(files: Path) -> None:
    """Other names, other ports, plain clients only: then the route is for plain clients."""
    site = route(f"{A}, protocol: http", SITE)
    for match in (
        "ports: [8443], domains: [c.example], paths: [/x]",
        "ports: [80], domains: [a.example], paths: [/x]",
        "ports: [8443], domains: [a.example], tls: false, paths: [/x]",
    ):
        other = plan(files, site, route(match, name="b")).routes[1]
        assert (other.terminate, other.tls) == (None, False)


def test_domains_alone_stay_open(files: Path) -> None:
    """For TLS clients by SNI, their bytes untouched, and for others by Host."""
    found = plan(files, route("ports: [8443], domains: [c.example]"))
    assert (found.routes[0].terminate, found.routes[0].tls) == (None, None)


def test_taking_from_several(files: Path) -> None:
    """Who would take TLS from routes that differ is told of both."""
    first = route(f"{A}, protocol: http", SITE)
    second = route("ports: [8443], domains: [r.example], protocol: http", OTHER, name="b")
    for match in ("paths: [/x]", "domains: [a.example, r.example], paths: [/x]"):
        taker = route(f"ports: [8443], {match}", name="c")
        where, why = error(files, first, second, taker)
        assert where == "routes[2].match"
        assert "'a'" in why
        assert "'b' end TLS differently" in why
    accepted(files, first, second, route(f"{A}, paths: [/x]", name="c"))
    accepted(files, first, second, route("ports: [8443], tls: false, paths: [/x]", name="c"))


def test_names_before_no_names(files: Path) -> None:
    """One with domains takes from routes without any only where nobody has its names."""
    anyone = route("ports: [8443], protocol: http", OTHER)
    named = route(f"{A}, protocol: http", SITE, name="b")
    found = plan(files, anyone, named, route(f"{A}, paths: [/x]", name="c"))
    assert found.routes[2].terminate == found.routes[1].terminate
    free = route("ports: [8443], domains: [z.example], paths: [/x]", name="c")
    assert (
        plan(files, anyone, named, free).routes[2].terminate
        == plan(files, anyone, named, free).routes[0].terminate
    )


def test_ending_differently(files: Path) -> None:
    """Two routes that end TLS for one name, each in its way, are refused by both names."""
    where, why = error(
        files, route(f"{A}, protocol: http", SITE), route(f"{A}, paths: [/x]", OTHER, name="b")
    )
    assert where == "routes[1].action.tls"
    assert "route 'b' and route 'a' end TLS differently" in why


def test_passing_on_what_another_must_read(files: Path) -> None:
    """One name cannot be passed on by one route and read for its paths by another."""
    reads = route(f"{A}, paths: [/x]", SITE)
    where, why = error(files, reads, route(A, name="b"))
    assert where == "routes[1].match.domains"
    assert "route 'b' and route 'a' are both for a.example" in why
    accepted(files, reads, route(f"{A}, alpn: [acme-tls/1]", f"{FORWARD}, tls: {{}}", name="b"))


def test_passwords_on_taken_tls(files: Path) -> None:
    """Taken TLS is for passwords where the route is for TLS clients alone."""
    rest = f"security: {{auth: {{basic: {{{BASIC}}}}}}},"
    site = route(f"{A}, protocol: http", SITE)
    accepted(files, site, route(f"{A}, tls: true, paths: [/x]", FORWARD, rest, "b"))
    where, _ = error(files, site, route(f"{A}, paths: [/x]", FORWARD, rest, "b"))
    assert where == "routes[1].security.auth.basic"
