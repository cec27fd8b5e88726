"""Contradictions and doubtful settings, with their places."""

from __future__ import annotations

import pytest

from shared.errors import ConfigError, Problem
from supervisor.config_file import load_bytes

ROUTE = "- {name: a, match: {ports: [8080]}, action: {type: forward, targets: ['t:1']}}\n"


def route(name: str = "b", match: str = "ports: [8081]", action: str = "targets: ['t:1']") -> str:
    """One more route, as a line of YAML."""
    return f"- {{name: {name}, match: {{{match}}}, action: {{type: forward, {action}}}}}\n"


def check(head: str = "", *routes: str) -> tuple[list[Problem], list[Problem]]:
    """(errors, warnings) of a config with lines before its routes."""
    text = head + ("\n" if head else "") + "routes:\n" + "".join(routes or (ROUTE,))
    try:
        return [], load_bytes(text.encode(), "f", "yaml").warnings
    except ConfigError as exc:
        return exc.problems, []


def error(head: str = "", *routes: str) -> Problem:
    """The only error of a config."""
    errors, _ = check(head, *routes)
    assert len(errors) == 1, errors
    assert errors[0].line > 0
    return errors[0]


def warning(head: str = "", *routes: str) -> Problem:
    """The only warning of a config that is accepted."""
    errors, warnings = check(head, *routes)
    assert (errors, len(warnings)) == ([], 1), (errors, warnings)
    assert warnings[0].line > 0
    return warnings[0]


def test_plain_config_has_nothing() -> None:
    """A plain config has no errors and no warnings."""
    assert check() == ([], [])


def test_duplicate_names() -> None:
    """The second of two equal names is wrong; the hint says where the first stands."""
    found = error("", ROUTE, route("a"))
    assert (found.path, found.message) == ("routes[1].name", "duplicate route name 'a'")
    assert found.hint == "first at routes[0].name, line 2"


def test_workers_beyond_max_workers() -> None:
    """More workers than slots."""
    assert error("workers: 5\nmax_workers: 4").path == "workers"
    assert check("workers: 4\nmax_workers: 4") == ([], [])
    assert check("workers: auto\nmax_workers: 1") == ([], [])


@pytest.mark.parametrize(
    ("listen", "admin", "is_taken"),
    [
        ("127.0.0.1", "127.0.0.1:8080", True),
        ("0.0.0.0", "127.0.0.1:8080", True),
        ("127.0.0.1", "0.0.0.0:8080", True),
        ("127.0.0.1", "127.0.0.2:8080", False),
        ("127.0.0.1", "127.0.0.1:8081", False),
        ("::", "127.0.0.1:8080", False),
        ("::", "[::1]:8080", True),
        ("127.0.0.1", "unix:/run/a", False),
    ],
)
def test_port_of_the_admin_listener(listen: str, admin: str, is_taken: bool) -> None:
    """A route may not have an address that the admin listener binds, by wildcard or exactly."""
    head = f"listen: ['{listen}']\nadmin: {{listen: '{admin}'}}"
    if is_taken:
        assert error(head).path == "routes[0].match.ports[0]"
    else:
        assert check(head) == ([], [])


def test_admin_port_in_a_range_and_on_a_socket() -> None:
    """A range that holds the admin port is wrong, and so is its socket; one disabled is not."""
    ranged = route(match="ports: [9000, '9900-9910']")
    assert error("", ranged).path == "routes[0].match.ports[1]"
    socket = route(match="ports: ['unix:/run/a']")
    assert "taken by the admin" in error("admin: {listen: 'unix:/run/a'}", socket).message
    assert check("admin: null", ranged) == ([], [])
    assert check("", ROUTE, ranged.replace("name: b", "name: b, enabled: false")) == ([], [])


def test_listen_that_holds_itself() -> None:
    """A wildcard beside an address of its family would be bound twice."""
    assert error("listen: ['0.0.0.0', '127.0.0.1']").path == "listen[1]"
    assert check("listen: ['0.0.0.0', '::1', '0.0.0.0']") == ([], [])


def test_listeners_entries() -> None:
    """A port in two entries, and listen for a Unix socket, are wrong; one for no route is odd."""
    twice = "listeners: [{ports: [8080]}, {ports: ['8000-8100']}]"
    assert error(twice).path == "listeners[1].ports[0]"
    socket = "listeners: [{ports: ['unix:/a'], listen: ['::1']}]"
    assert "does not apply" in error(socket, route(match="ports: ['unix:/a']")).message
    unused = warning("listeners: [{ports: [8080, 9999]}]")
    assert (unused.path, unused.code) == ("listeners[0].ports[1]", "unused")


def test_nobody_may_connect() -> None:
    """untrusted: close without anyone trusted refuses all; also where an entry makes it so."""
    assert error("proxy_protocol: {untrusted: close}").path == "proxy_protocol.untrusted"
    assert check("proxy_protocol: {untrusted: close, trusted: [10.0.0.1]}") == ([], [])
    head = "proxy_protocol: {untrusted: close, trusted: [10.0.0.1]}\n"
    entry = "listeners: [{ports: [8080], proxy_protocol: {trusted: []}}]"
    assert error(head + entry).path == "listeners[0].proxy_protocol.trusted"
    assert check(head + entry.replace("[]", "[], untrusted: reject")) == ([], [])
    own = "listeners: [{ports: [8080], proxy_protocol: {untrusted: close}}]"
    assert error(own).path == "listeners[0].proxy_protocol.untrusted"


@pytest.mark.parametrize("everyone", ["0.0.0.0/0", "::/0", "::ffff:0:0/96"])
def test_trusting_everyone_warns(everyone: str) -> None:
    """Everyone as a trusted source is accepted with a warning that says why."""
    found = warning(f"proxy_protocol: {{trusted: [10.0.0.1, '{everyone}']}}")
    assert (found.path, found.code) == ("proxy_protocol.trusted[1]", "trusts_everyone")
    assert "any client can claim any address" in found.message
    entry = f"listeners: [{{ports: [8080], proxy_protocol: {{trusted: ['{everyone}']}}}}]"
    assert warning(entry).path == "listeners[0].proxy_protocol.trusted[0]"


def test_trusting_every_forwarder_warns() -> None:
    """The same where anybody's X-Forwarded-For would be believed."""
    found = warning("http: {trusted_forwarders: [10.0.0.1, '::/0']}")
    assert (found.path, found.code) == ("http.trusted_forwarders[1]", "trusts_everyone")
    own = "http: {trusted_forwarders: ['0.0.0.0/0']}, action: {type: forward, targets: ['t:1']}"
    own = f"- {{name: b, match: {{ports: [8081]}}, {own}}}\n"
    assert warning("", own).path == "routes[0].http.trusted_forwarders[0]"


def test_weights() -> None:
    """All weights 0 leave no target; one that has a weight is enough."""
    none = "targets: [{host: a, port: 1, weight: 0}, {host: b, port: 1, weight: 0}]"
    assert error("", route(action=none)).path == "routes[0].action.targets"
    assert check("", route(action=none.replace("weight: 0}]", "weight: 1}]"))) == ([], [])


@pytest.mark.parametrize("send", ["", "send_proxy: v1, ", "send_proxy: null, "])
def test_tlvs_need_version_2(send: str) -> None:
    """TLVs without send_proxy, or with v1, are wrong."""
    tlvs = f"targets: ['t:1'], {send}send_proxy_tlvs: [alpn]"
    assert error("", route(action=tlvs)).path == "routes[0].action.send_proxy_tlvs"


def test_tlvs_that_no_header_can_hold() -> None:
    """A UNIQUE_ID beyond its limit, and more bytes than receivers take, are found before use."""
    send = "targets: ['t:1'], send_proxy: v2, send_proxy_tlvs: "
    found = error("", route(action=f"{send}[{{type: 5, value: {'x' * 129}}}]"))
    assert found.path == "routes[0].action.send_proxy_tlvs"
    assert "128" in found.message
    long = f"{{type: 0xE1, value: {'x' * 4000}}}"
    assert "4096" in error("", route(action=f"{send}[{long}, {long}]")).message
    assert check("", route(action=f"{send}[{long}]")) == ([], [])


def test_duplicate_tlv() -> None:
    """A named TLV goes out once; own types may repeat."""
    action = "targets: ['t:1'], send_proxy: v2, send_proxy_tlvs: [alpn, crc32c, alpn]"
    assert error("", route(action=action)).path == "routes[0].action.send_proxy_tlvs[2]"
    own = "targets: ['t:1'], send_proxy: v2, send_proxy_tlvs: [{type: 224, value: a}, "
    assert check("", route(action=own + "{type: 224, value: b}]")) == ([], [])


def test_preserve_on_a_unix_socket() -> None:
    """A client on a Unix socket came in on no port that could be preserved."""
    action = "targets: ['t:1', {host: a, port: preserve}]"
    found = error("", route(match="ports: [1, 'unix:/a']", action=action))
    assert found.path == "routes[0].action.targets[1]"


def test_no_enabled_route_warns() -> None:
    """No route at all, or none enabled, is accepted with a warning."""
    assert warning("", ROUTE.replace("name: a", "name: a, enabled: false")).path == "routes"
    loaded = load_bytes(b"routes: []", "f", "yaml")
    assert [problem.path for problem in loaded.warnings] == ["routes"]


def test_too_many_ports() -> None:
    """More ports than there may be sockets, even with one each, are refused with the number."""
    found = error("listen: ['::1']", route(match="ports: ['1000-5096']"))
    assert "need 4097 listening sockets" in found.message
    assert check("listen: ['::1']", route(match="ports: ['1000-5095']")) == ([], [])


@pytest.mark.parametrize(
    ("first", "second", "loser"),
    [
        (("ports: [80]", 0), ("ports: [80]", 0), "b"),
        (("ports: [80]", 0), ("ports: [80]", 1), "a"),
        (("ports: ['80-90']", 0), ("ports: [80]", 0), ""),
        (("ports: ['80-90']", 1), ("ports: [80, 85]", 0), "b"),
        (("ports: [80, 81]", 0), ("ports: [80, 82]", 0), ""),
        (("ports: [80]", 0), ("ports: [80], client_ips: [10.0.0.0/8]", 0), ""),
        (("ports: [80]", 1), ("ports: [80], client_ips: [10.0.0.0/8]", 0), "b"),
        (("ports: [80], client_ips: [10.0.0.0/8]", 1), ("ports: [80]", 0), ""),
        (("ports: [80], tls: true", 0), ("ports: [80]", 0), ""),
        (("ports: [80], tls: true", 0), ("ports: [80], tls: true", 0), "b"),
        (("ports: [80], tls: true", 0), ("ports: [80], tls: false", 0), ""),
        (("ports: [80]", 1), ("ports: [80], tls: true", 0), "b"),
    ],
)
def test_shadowed_routes(first: tuple[str, int], second: tuple[str, int], loser: str) -> None:
    """A route that another beats on every port warns with both names; any other does not."""
    routes = [
        route(name, match).replace("match", f"priority: {priority}, match", 1)
        for name, (match, priority) in (("a", first), ("b", second))
    ]
    if not loser:
        assert check("", *routes) == ([], [])
        return
    found = warning("", *routes)
    assert (found.path, found.code) == (f"routes[{'ab'.index(loser)}].name", "shadowed")
    assert "'a'" in found.message
    assert "'b'" in found.message


def test_checks_go_on_beside_broken_parts() -> None:
    """With a wrong type elsewhere, contradictions in sound parts are still found in their place."""
    broken = "- {name: a, match: {}, action: {type: forward, targets: ['t:1']}}\n"
    weightless = route("c", "ports: [9901]", "targets: [{host: a, port: 1, weight: 0}]")
    head = "keep_alive: never\nworkers: 3\nmax_workers: 2"
    errors, _ = check(head, broken, route("a"), weightless)
    assert [(problem.line, problem.path) for problem in errors] == [
        (1, "keep_alive"),
        (2, "workers"),
        (5, "routes[0].match"),
        (6, "routes[1].name"),
        (7, "routes[2].match.ports[0]"),
        (7, "routes[2].action.targets"),
    ]
