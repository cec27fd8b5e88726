"""Who may come from where: by name and certificate, in both families, told by peer or header."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives import hashes
from msgspec import Struct

from shared.proxy_protocol import encode_v2
from tests.helpers.certificates import Authority, Files
from tests.helpers.chain import read_to_end
from tests.helpers.client_hello_builder import message, records, server_name
from tests.helpers.processes import whole_lines
from tests.helpers.targets import HOSTS, Target, dual_ports
from tests.helpers.tls_clients import (
    VERSIONS,
    TlsClient,
    Way,
    nameless,
    plain,
    trusting,
    way_of,
)
from tests.helpers.tls_site import Site, client_auth, route, terminate
from tests.helpers.tls_targets import echo
from tests.helpers.waiting import wait_until

FAMILY = pytest.mark.parametrize("family", HOSTS)
NETWORKS: Final = {"v4": "10.20.0.0/16", "v6": "2001:db8:20::/48"}
INSIDE: Final = {"v4": "10.20.0.7", "v6": "2001:db8:20::7"}
OUTSIDE: Final = {"v4": "10.21.0.7", "v6": "2001:db8:21::7"}
OWN: Final = ["127.0.0.0/8", "::1"]
NOBODY: Final = ["192.0.2.0/24", "2001:db8:ffff::/48"]
HEADER_NAME: Final = "header.example"
SECRET, OPEN = "secret.example", "open.example"
# Ways to write a name that mean the same one to whoever chooses by it.
SPELLINGS: Final = ("{}", "{}.", "{}..", "{}:443", "{}.:443", "{}..:", "{}:443.")


class Rule(Struct, frozen=True, kw_only=True):
    """An entry for loopback clients by its lists, and whether it lets them in."""

    allow: tuple[str, ...] = ()
    block: tuple[str, ...] = ()
    matches: bool = True
    is_in: bool

    def entry(self, match: dict[str, str], other: dict[str, str]) -> dict[str, Any]:
        """As configs write it."""
        return {
            "match": match if self.matches else other,
            "allow": list(self.allow),
            "block": list(self.block),
        }


RULES: Final = {
    "anywhere": Rule(is_in=True),
    "allow-hit": Rule(allow=tuple(OWN), is_in=True),
    "allow-miss": Rule(allow=tuple(NOBODY), is_in=False),
    "block-hit": Rule(block=tuple(OWN), is_in=False),
    "block-miss": Rule(block=tuple(NOBODY), is_in=True),
    "block-beats-allow": Rule(allow=tuple(OWN), block=tuple(OWN), is_in=False),
    "no-entry": Rule(matches=False, is_in=False),
}
RULE = pytest.mark.parametrize("rule", RULES)
# Each of these is Alice and not Bob; the second is what no client here is.
FIELDS: Final[dict[str, tuple[str, str]]] = {
    "cn": ("ali*", "bob"),
    "san": ("*@office.example", "URI:https://bob.example/*"),
    "subject": ("*O=Office*", "*O=Elsewhere*"),
    "issuer": ("*CN=Test CA*", "*CN=Other*"),
    "sni": ("*.ended.example", "*.other.example"),
}


class Doors(Site):
    """A port for each rule of passthrough, and one of terminated TLS by name."""

    passed: dict[str, int]
    ended: int
    by_header: int
    named: int
    named_passed: int
    open: Files
    root: Authority
    alice: Files
    bob: Files
    target: Target


def passed_routes(passed: dict[str, int], target: Target) -> list[dict[str, Any]]:
    """By SNI alone, since nobody opens the TLS."""
    return [
        route(
            f"passed-{name}",
            passed[name],
            target.address,
            match={"domains": ["*.passed.example"]},
            security={
                "identities": [
                    rule.entry({"sni": "*.passed.example"}, {"sni": "*.other.example"}),
                ]
            },
        )
        for name, rule in RULES.items()
    ]


def ended_routes(doors: Doors, files: Files) -> list[dict[str, Any]]:
    """A name for each field and rule, on one port; every one asks for a certificate."""
    auth = client_auth("optional", doors.root)
    tls = terminate(files, client_auth=auth)
    found = []
    for field, (match, other) in FIELDS.items():
        for name, rule in RULES.items():
            made = route(
                f"{field}-{name}",
                doors.ended,
                doors.target.address,
                match={"domains": [f"{field}-{name}.ended.example"]},
                tls=tls,
                security={"identities": [rule.entry({field: match}, {field: other})]},
            )
            found.append(made)
    return found


def header_route(doors: Doors, files: Files) -> dict[str, Any]:
    """Alice from one network, whoever has the right fingerprint from another; nobody else."""
    digest = doors.bob.certificate.fingerprint(hashes.SHA256())
    return route(
        "by-header",
        doors.by_header,
        doors.target.address,
        tls=terminate(files, client_auth=client_auth("required", doors.root)),
        security={
            "identities": [
                {"match": {"cn": "alice"}, "allow": list(NETWORKS.values())},
                {"match": {"fingerprint": digest.hex(":").upper()}, "block": [*NETWORKS.values()]},
            ]
        },
    )


def named_routes(doors: Doors, files: Files) -> list[dict[str, Any]]:
    """A name that nobody may ask for from here, beside one that everybody may."""
    security = {
        "identities": [{"match": {"sni": SECRET}, "block": OWN}, {"match": {"sni": "?*"}}],
    }
    tls = terminate(files)
    tls["certificates"] += terminate(doors.open)["certificates"]
    match, address = {"domains": [SECRET, OPEN]}, doors.target.address
    return [
        route("named", doors.named, address, match=match, tls=tls, security=security),
        route("named-passed", doors.named_passed, address, match=match, security=security),
    ]


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    """Started once: these tests change nothing of it."""
    directory = tmp_path_factory.mktemp("doors")
    with ExitStack() as stack:
        doors = Doors(directory / "site", [], trusted=OWN)
        root = doors.root = Authority(directory)
        doors.alice = root.client(
            "alice", san=["alice@office.example"], organization="Office", stem="alice"
        )
        doors.bob = root.client("bob", organization="Branch", stem="bob")
        files = root.leaf("*.ended.example", HEADER_NAME, stem="server")
        doors.target = Target(echo)
        stack.callback(doors.target.close)
        doors.open = root.leaf(OPEN, stem="open")
        ports = dual_ports(len(RULES) + 4)
        doors.passed = dict(zip(RULES, ports, strict=False))
        doors.ended, doors.by_header, doors.named, doors.named_passed = ports[-4:]
        routes = [
            *passed_routes(doors.passed, doors.target),
            *ended_routes(doors, files),
            header_route(doors, files),
            *named_routes(doors, files),
        ]
        direct = [*doors.passed.values(), doors.ended, doors.named, doors.named_passed]
        listeners = [{"ports": direct, "proxy_protocol": {"trusted": []}}]
        doors.write(doors.config(routes, listeners=listeners))
        stack.callback(doors.end)
        doors.start()
        yield doors


def assert_blocked(doors: Doors, way: Way, accepted: int, route_name: str) -> None:
    """It ended as blocked, the log names the route, and the target was not even dialled."""
    line = doors.line_of(way)
    assert (line["end"], line["route"], line["target"]) == ("blocked", route_name, None)
    assert line["t_connect"] is None
    before = len(whole_lines(doors.log()))

    def look() -> str:
        lines = whole_lines(doors.log())
        own = [one for one in lines if '"end":"blocked"' in one and way.own in one]
        # Of more than five a second the log has a number alone.
        return next(iter([*own, *(one for one in lines[before:] if "like it" in one)]), "")

    found = wait_until(look, f"a log line of {way.own}")
    assert "identities" in found or way.own not in found
    assert doors.target.accepted == accepted


@FAMILY
@RULE
def test_passthrough(doors: Doors, rule: str, family: str) -> None:
    """By the name alone: who is refused reaches no target, who is let in loses no byte."""
    accepted = doors.target.accepted
    hello = records(message(server_name("a.passed.example")))
    with plain(doors.passed[rule], family) as client:
        way = way_of(client)
        client.sendall(hello)
        if RULES[rule].is_in:
            assert client.recv(len(hello), socket.MSG_WAITALL) == hello
            return
        assert read_to_end(client) == b""
    assert_blocked(doors, way, accepted, f"passed-{rule}")


@FAMILY
@RULE
@pytest.mark.parametrize("field", FIELDS)
def test_terminated(doors: Doors, field: str, rule: str, family: str) -> None:
    """By each field of a verified certificate."""
    accepted = doors.target.accepted
    context = trusting(doors.root, client=doors.alice)
    name = f"{field}-{rule}.ended.example"
    with TlsClient(doors.ended, context, name, family=family, shakes=False) as client:
        assert client.talks() == RULES[rule].is_in
        if RULES[rule].is_in:
            return
    assert_blocked(doors, client.way, accepted, f"{field}-{rule}")


@FAMILY
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_spelling_of_a_name_gets_past_its_rule(
    doors: Doors, spelling: str, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Route, rule and certificate are chosen by one name, however the client writes it."""
    # Python's own clients send only what is a host name.
    monkeypatch.setattr(ssl.SSLContext, "_encode_hostname", lambda context, name: name)
    accepted = doors.target.accepted
    name = spelling.format(SECRET).upper()
    with TlsClient(doors.named, nameless(doors.root), name, family=family, shakes=False) as client:
        assert not client.talks()
    assert_blocked(doors, client.way, accepted, "named")
    name = spelling.format(OPEN).upper()
    with TlsClient(doors.named, nameless(doors.root), name, family=family) as client:
        assert client.peer() == doors.open.certificate
        assert client.echoes()


@FAMILY
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_spelling_of_a_name_gets_past_its_rule_passed_through(
    doors: Doors, spelling: str, family: str
) -> None:
    """The same where the TLS stays closed; the target reads the name as it was written."""
    accepted = doors.target.accepted
    with plain(doors.named_passed, family) as client:
        client.sendall(records(message(server_name(spelling.format(SECRET)))))
        assert read_to_end(client) == b""
        assert_blocked(doors, way_of(client), accepted, "named-passed")
    hello = records(message(server_name(spelling.format(OPEN))))
    with plain(doors.named_passed, family) as client:
        client.sendall(hello)
        assert client.recv(len(hello), socket.MSG_WAITALL) == hello


@FAMILY
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("who", ["bob", ""])
def test_another_client_is_refused(doors: Doors, who: str, version: str, family: str) -> None:
    """Where no entry matches: another's certificate, or none at all."""
    accepted = doors.target.accepted
    shown = doors.bob if who else None
    context = trusting(doors.root, version=VERSIONS[version], client=shown)
    name = "cn-anywhere.ended.example"
    with TlsClient(doors.ended, context, name, family=family, shakes=False) as client:
        assert not client.talks()
    assert_blocked(doors, client.way, accepted, "cn-anywhere")


@FAMILY
@pytest.mark.parametrize(
    ("who", "sources", "is_in"),
    [
        ("alice", INSIDE, True),
        ("alice", OUTSIDE, False),
        ("bob", INSIDE, False),
        ("bob", OUTSIDE, True),
    ],
)
def test_the_header_tells_where_from(
    doors: Doors, who: str, sources: dict[str, str], is_in: bool, family: str
) -> None:
    """Networks are compared with the address of a PROXY header that is believed."""
    accepted = doors.target.accepted
    context = trusting(doors.root, client=doors.alice if who == "alice" else doors.bob)
    packed = socket.inet_pton(
        socket.AF_INET6 if family == "v6" else socket.AF_INET, sources[family]
    )
    header = encode_v2(packed, 4711, packed, 443)
    with TlsClient(doors.by_header, context, HEADER_NAME, before=header, shakes=False) as client:
        assert client.talks() == is_in
    if is_in:
        assert doors.line_of(client.way)["client"].startswith(
            f"[{sources[family]}]" if family == "v6" else sources[family]
        )
        return
    assert_blocked(doors, client.way, accepted, "by-header")


def test_a_resumed_session_is_judged_again(doors: Doors) -> None:
    """The certificate of the session counts, and the address of this connection."""
    context = trusting(doors.root, client=doors.alice)
    inside, outside = (
        encode_v2(socket.inet_aton(place["v4"]), 4711, socket.inet_aton("198.51.100.1"), 443)
        for place in (INSIDE, OUTSIDE)
    )
    with TlsClient(doors.by_header, context, HEADER_NAME, before=inside) as client:
        assert client.echoes()
        session = client.session()
    with TlsClient(doors.by_header, context, HEADER_NAME, before=inside, session=session) as client:
        assert client.tls.session_reused
        assert client.echoes()
    accepted = doors.target.accepted
    client = TlsClient(
        doors.by_header, context, HEADER_NAME, before=outside, session=session, shakes=False
    )
    with client:
        assert not client.talks()
    assert_blocked(doors, client.way, accepted, "by-header")


def test_the_counts_agree(doors: Doors) -> None:
    """The counters of routes have what was refused; nothing is left open."""
    totals = doors.settle()
    blocked = totals["ends"]["blocked"]
    assert blocked == sum(one["ends"].get("blocked", 0) for one in totals["routes"].values())
    wait_until(doors.is_empty, "nothing is left")
