"""TLS in the config: what is accepted, what contradicts what, and where it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.config import Action, Match
from supervisor.config_ciphers import check_ciphers
from supervisor.config_positions import render
from tests.helpers.tls_config import (
    TERMINATE,
    Route,
    check,
    config,
    error,
    pointed_at,
    tls,
    warning,
)


def test_defaults(certs: Path) -> None:
    """Nothing is asked of a client's TLS, and nothing is done with it."""
    route = config(certs, Route()).routes[0]
    assert (route.match.domains, route.match.tls_versions, route.match.alpn) == ([], [], [])
    assert (route.action.tls, route.action.upstream_tls) == (None, None)
    assert route.security.identities == []
    shown = config(certs, Route(action=tls("{}"))).routes[0].action.tls
    assert shown is not None
    assert (shown.mode, shown.terminates, shown.client_auth.mode) == ("passthrough", False, "none")


def test_criteria(certs: Path) -> None:
    """Names are normalised, versions and protocols kept as plain text."""
    match = "ports: [8443], domains: [A.Example., '*.bücher.example'], tls_versions: ['1.3'],"
    found: Match = config(certs, Route(match=f"{match} alpn: [h2]")).routes[0].match
    assert found.domains == ["a.example", "*.xn--bcher-kva.example"]
    assert (found.tls_versions, found.alpn) == (["1.3"], ["h2"])
    assert {type(text) for text in (*found.domains, *found.tls_versions, *found.alpn)} == {str}


@pytest.mark.parametrize(
    ("criterion", "path", "why"),
    [
        ("domains: [a.example, 'a.example:443']", "domains[1]", "has a port"),
        ("domains: ['*']", "domains[0]", "leave domains out"),
        ("domains: ['a.*.b']", "domains[0]", "a * is a whole label at one end"),
        ("domains: [7]", "domains[0]", "expected a domain such as example.com, got a number"),
        ("domains: a.example", "domains", "expected a list, got text"),
        ("tls_versions: [1.3]", "tls_versions[0]", 'write "1.3", in quotes'),
        ("tls_versions: ['1.4']", "tls_versions[0]", "one of: 1.0, 1.1, 1.2, 1.3"),
        ("tls_versions: ['TLSv1.3']", "tls_versions[0]", "is no TLS version"),
        ("alpn: ['']", "alpn[0]", "is no name of a protocol"),
        ("alpn: ['h 2']", "alpn[0]", "is no name of a protocol"),
        ("alpn: [ü]", "alpn[0]", "is no name of a protocol"),
        (f"alpn: [{'x' * 256}]", "alpn[0]", "has 256 bytes, 255 at most"),
        ("alpn: [1]", "alpn[0]", "got a number"),
    ],
)
def test_wrong_criteria(certs: Path, criterion: str, path: str, why: str) -> None:
    """A wrong entry is told at its own place."""
    found = error(certs, Route(match=f"ports: [1], {criterion}"))
    assert found.path == f"routes[0].match.{path}"
    assert why in found.message


@pytest.mark.parametrize(
    ("match", "action", "why"),
    [
        ("tls_versions: ['1.3']", "targets: ['t:1']", "tls_versions can only be for TLS clients"),
        ("alpn: [h2]", "targets: ['t:1']", "alpn can only be for TLS clients"),
        ("client_ips: []", tls("{mode: passthrough}"), "the tls of its action can only be for TLS"),
        (
            "protocol: tcp, domains: [a.example]",
            "targets: ['t:1']",
            "without TLS name a domain in HTTP alone",
        ),
    ],
)
def test_criteria_of_tls_for_others(certs: Path, match: str, action: str, why: str) -> None:
    """tls: false leaves nobody who could meet them."""
    found = error(certs, Route(match=f"ports: [1], tls: false, {match}", action=action))
    assert (found.path, pointed_at(found)) == ("routes[0].match.tls", "false")
    assert why in found.message
    assert "leave tls out of match" in found.hint
    config(certs, Route(match=f"ports: [1], tls: true, {match}", action=action))


@pytest.mark.parametrize(
    ("value", "path", "why"),
    [
        ("{mode: terminate}", "tls.certificates", "mode: terminate needs certificates"),
        ("{mode: terminate-and-reencrypt}", "tls.certificates", "needs certificates"),
        ("{mode: ends}", "tls.mode", "unknown value 'ends'"),
        ("{mode: terminate, certificates: [{key: a.key}]}", "tls.certificates[0]", "field 'cert'"),
        (TERMINATE[:-1] + ", min_version: '1.1'}", "tls.min_version", "RFC 8996 forbids it"),
        (TERMINATE[:-1] + ", min_version: '1.0'}", "tls.min_version", "1.2 is the least"),
        (TERMINATE[:-1] + ", min_version: 1.2}", "tls.min_version", "in quotes"),
        (TERMINATE[:-1] + ", min_version: '2'}", "tls.min_version", "is no TLS version"),
        (TERMINATE[:-1] + ", ciphers: nope}", "tls.ciphers", "finds no cipher of TLS 1.2"),
        (TERMINATE[:-1] + ", ciphers: ''}", "tls.ciphers", "length >= 1"),
        (
            TERMINATE[:-1] + ", ciphers: 'ECDHE+AESGCM:TLS_AES_128_GCM_SHA256'}",
            "tls.ciphers",
            "is of TLS 1.3, whose ciphers cannot be chosen",
        ),
        (TERMINATE[:-1] + ", ciphers: aNULL}", "tls.ciphers", "lets others read or pose as us"),
        (
            TERMINATE[:-1] + ", ciphers: ECDHE+AESGCM, min_version: '1.3'}",
            "tls.ciphers",
            "which min_version excludes",
        ),
        (
            TERMINATE[:-1] + ", client_auth: {mode: required}}",
            "tls.client_auth",
            "mode: required needs ca",
        ),
        (
            TERMINATE[:-1] + ", client_auth: {mode: optional}}",
            "tls.client_auth",
            "mode: optional needs ca",
        ),
        (
            TERMINATE[:-1] + ", client_auth: {ca: ca.pem}}",
            "tls.client_auth.ca",
            "no client is asked for a certificate",
        ),
        (TERMINATE[:-1] + ", client_auth: {mode: some}}", "tls.client_auth.mode", "unknown value"),
        ("{certificates: [{cert: a.pem}]}", "tls.certificates", "no effect with mode: passthrough"),
        ("{mode: passthrough, min_version: '1.2'}", "tls.min_version", "no effect"),
        ("{mode: passthrough, ciphers: ECDHE}", "tls.ciphers", "no effect"),
        ("{mode: passthrough, alpn: [h2]}", "tls.alpn", "no effect"),
        ("{client_auth: {mode: required, ca: ca.pem}}", "tls.client_auth", "no effect"),
        ("{}, upstream_tls: {}", "upstream_tls", "no effect with mode: passthrough"),
        (f"{TERMINATE}, upstream_tls: {{key: a.key}}", "upstream_tls.key", "is without its cert"),
        (
            f"{TERMINATE}, upstream_tls: {{password_file: password}}",
            "upstream_tls.password_file",
            "is without its certificate",
        ),
        (
            f"{TERMINATE}, upstream_tls: {{server_name: '*.a.example'}}",
            "upstream_tls.server_name",
            "stands for many names",
        ),
        (f"{TERMINATE}, upstream_tls: {{verify: maybe}}", "upstream_tls.verify", "true or false"),
        (f"{TERMINATE}, upstream_tls: {{ca: ''}}", "upstream_tls.ca", "names no file"),
    ],
)
def test_wrong_actions(certs: Path, value: str, path: str, why: str) -> None:
    """A contradiction, or a key without effect, is told at the key."""
    found = error(certs, Route(action=tls(value)))
    assert found.path == f"routes[0].action.{path}"
    assert why in found.message
    assert "secret" not in render(found)


def test_upstream_tls_where_tls_goes_on(certs: Path) -> None:
    """TLS that is not ended cannot begin again; for plain clients it begins here."""
    for criterion in ("tls: true", "domains: [a.example]", "alpn: [h2]"):
        route = Route(match=f"ports: [1], {criterion}", action="targets: ['t:1'], upstream_tls: {}")
        found = error(certs, route)
        assert found.path == "routes[0].action.upstream_tls"
        assert "inside another" in found.message
        assert "terminate-and-reencrypt" in found.hint
    for match in ("ports: [1]", "ports: [1], tls: false"):
        action = "targets: ['t:1'], upstream_tls: {ca: ca.pem}"
        config(certs, Route(match=match, action=action))


def test_reencrypting_is_upstream_tls_with_its_defaults(certs: Path) -> None:
    """The mode alone means verified TLS to the target, by the system's authorities."""
    value = TERMINATE.replace("terminate", "terminate-and-reencrypt")
    found: Action = config(certs, Route(action=tls(value))).routes[0].action
    assert found.upstream_tls is not None
    assert found.upstream_tls.verify
    assert found.upstream_tls.ca is not None
    assert found.upstream_tls.ca.plan.name == "system"
    assert b"BEGIN CERTIFICATE" in found.upstream_tls.ca.plan.pem


def test_a_target_without_a_host_needs_a_server_name(certs: Path) -> None:
    """Nothing could be checked of a Unix socket's certificate."""
    action = "targets: ['t:1', 'unix:/t'], tls: " + TERMINATE + ", upstream_tls: {ca: ca.pem}"
    found = error(certs, Route(action=action))
    assert found.path == "routes[0].action.targets[1]"
    assert "server_name" in found.hint
    named = action.replace("{ca:", "{server_name: t.example, ca:")
    config(certs, Route(action=named))
    _, errors, _ = check(certs, Route(action=action.replace("{ca:", "{verify: false, ca:")))
    assert errors == []


def test_unverified_targets_warn_by_name(certs: Path) -> None:
    """verify: false is said at every load, with the name of the route."""
    route = Route(name="shop", action=tls(more=", upstream_tls: {verify: false}"))
    found = warning(certs, route)
    assert (found.path, found.code) == ("routes[0].action.upstream_tls.verify", "not_verified")
    assert pointed_at(found) == "false"
    assert "route 'shop' believes any certificate" in found.message
    assert "ca: FILE" in found.hint


@pytest.mark.parametrize(
    ("ports", "place"), [("[443]", 0), ("[80, '400-500']", 1), ("[443, 444]", 0)]
)
def test_terminating_tcp_on_443_warns(certs: Path, ports: str, place: int) -> None:
    """HTTPS that is only relayed is most often a mistake."""
    found = warning(certs, Route(name="web", match=f"ports: {ports}", action=tls()))
    assert (found.path, found.code) == (f"routes[0].match.ports[{place}]", "tcp_on_443")
    assert "'web'" in found.message
    config(certs, Route(match=f"ports: {ports}", action=tls("{mode: passthrough}")))
    config(certs, Route(match="ports: [442, '444-500', 'unix:/443']", action=tls()))


@pytest.mark.parametrize("value", ["0", "-1", "'0s'"])
def test_handshakes_need_time(certs: Path, value: str) -> None:
    """0 is no timeout of a handshake, globally or in a route."""
    assert error(certs, Route(), head=f"timeouts: {{tls_handshake: {value}}}\n").line == 1
    action = f"targets: ['t:1'], timeouts: {{tls_handshake: {value}}}"
    assert error(certs, Route(action=action)).path.endswith("timeouts.tls_handshake")


def test_ciphers() -> None:
    """A list is judged by what OpenSSL makes of it; parts that do nothing are named."""
    assert check_ciphers("ECDHE+AESGCM:!aNULL:-SHA1:@STRENGTH") == ("", [])
    assert check_ciphers("ECDHE-RSA-AES128-GCM-SHA256, ECDHE+CHACHA20") == ("", [])
    assert check_ciphers("ECDHE+AESGCM:ECDHE-RSA-AES123:!nope") == ("", ["ECDHE-RSA-AES123"])
    assert "allows" in check_ciphers("ALL:eNULL")[0]
    assert check_ciphers("\0")[0]
    assert check_ciphers("ü")[0]
    assert check_ciphers(":")[0]


def test_a_part_of_ciphers_that_selects_none_warns(certs: Path) -> None:
    """A slip of the pen in one name is not passed over."""
    value = TERMINATE[:-1] + ", ciphers: 'ECDHE+AESGCM:ECHDE+CHACHA20'}"
    found = warning(certs, Route(action=tls(value)))
    assert found.path == "routes[0].action.tls.ciphers"
    assert "'ECHDE+CHACHA20' selects no cipher" in found.message
