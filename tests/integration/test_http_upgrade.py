"""WebSocket and other upgrades: from an exchange to a relay, with no byte lost."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.plan import AccessPlan, HttpMatch, HttpPlan, Timeouts, TlsPlan, UpstreamTlsPlan
from tests.helpers.certificates import Authority
from tests.helpers.http_talk import HOST, OK, Served, Talker, answer, get, route, serving
from tests.helpers.tls_pairs import authority_plan, certificate_plan
from tests.helpers.waiting import wait_until

ASKED = get("/chat", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: abc")
END = b"\r\n\r\n"
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: def\r\n\r\n"
)


@pytest.fixture
def plane() -> Iterator[Served]:
    """A data plane."""
    with serving() as plane:
        yield plane


def talk(client: Talker, server: Talker) -> None:
    """Bytes both ways, none of them HTTP."""
    for number in range(3):
        client.send(b"\x81\x00up%d" % number)
        assert server.exactly(5) == b"\x81\x00up%d" % number
        server.send(b"\x81\x00dn%d" % number)
        assert client.exactly(5) == b"\x81\x00dn%d" % number


@pytest.mark.parametrize("tls", ["none", "client", "target", "both"])
def test_bytes_in_the_same_segments(plane: Served, tls: str, tmp_path: Path) -> None:
    """What the client sends ahead, and what the target says behind its 101, arrives."""
    target, listener = plane.target(), plane.listen()
    authority = Authority(tmp_path, "ca")
    files = authority.leaf(HOST)
    is_client, is_target = tls in ("client", "both"), tls in ("target", "both")
    plane.commit(
        route(
            "r", listener, target, tls=True if is_client else None, http=HttpPlan(),
            terminate=TlsPlan(certificates=(0,)) if is_client else None,
            upstream_tls=UpstreamTlsPlan(ca=0, server_name=HOST) if is_target else None,
        ),
        certificates=[certificate_plan(files, [HOST])],
        authorities=[authority_plan(authority)],
    )  # fmt: skip
    if is_target:
        plane.serve_tls(files)
    context = ssl.create_default_context(cafile=str(authority.cert))
    client = plane.tls_client(listener, context) if is_client else plane.client(listener)
    client.send(ASKED + b"ahead")
    server = plane.accepted(target)
    asked = server.head()
    assert asked.target == "/chat"
    assert (asked.fields["connection"], asked.fields["upgrade"]) == ("upgrade", "websocket")
    assert asked.fields["sec-websocket-key"] == "abc"
    server.send(SWITCHED + b"behind")
    found = client.head()
    assert found.first == "HTTP/1.1 101 Switching Protocols"
    assert (found.fields["connection"].lower(), found.fields["upgrade"]) == ("upgrade", "websocket")
    assert found.fields["sec-websocket-accept"] == "def"
    assert client.exactly(6) == b"behind"
    assert server.exactly(5) == b"ahead"
    talk(client, server)
    size = 3 << 20
    client.sock.settimeout(20)
    server.send(bytes(size // 10))
    assert client.exactly(size // 10) == bytes(size // 10)
    plane.wait_codes({"1xx": 1})
    assert plane.counts().active == 1
    client.close()
    assert server.is_cut()
    server.close()
    wait_until(lambda: plane.counts().active == 0, "it has ended")


def test_each_byte_is_counted_once(plane: Served) -> None:
    """Also those that come along with the request, and with the answer to it."""
    target, listener = plane.target(), plane.listen()
    plane.commit(route("r", listener, target, http=HttpPlan()))
    client = plane.client(listener)
    client.send(ASKED + b"ahead")
    server = plane.accepted(target)
    asked = server.until(END)
    server.send(SWITCHED + b"behind")
    answered = client.until(END)
    assert (client.exactly(6), server.exactly(5)) == (b"behind", b"ahead")
    client.close()
    assert server.is_cut()
    server.close()
    wait_until(lambda: plane.counts().active == 0, "it has ended")
    counts, of_target = plane.counts(), plane.target_counts(target)
    assert counts.received == len(ASKED) + 5
    assert counts.sent == len(answered) + 6
    assert of_target.sent == len(asked) + 5
    assert of_target.received == len(SWITCHED) + 6


def test_on_a_connection_that_has_carried_requests(plane: Served) -> None:
    """A kept connection of the target becomes the other side, too."""
    target = plane.target()
    client, server = plane.pair(plane.http(target), target)
    client.send(ASKED)
    assert server.head().fields["upgrade"] == "websocket"
    server.send(SWITCHED)
    assert client.head().status == 101
    talk(client, server)
    server.close()
    assert client.is_ended()
    client.close()
    plane.wait_ends({"target_closed": 1})
    assert target.has_none()


def test_a_half_close_in_the_relay(plane: Served) -> None:
    """An end that was there before the switch is passed on behind it."""
    target = plane.target()
    client = plane.client(plane.http(target))
    client.send(ASKED + b"last")
    client.sock.shutdown(socket.SHUT_WR)
    server = plane.accepted(target)
    server.head()
    server.send(SWITCHED)
    assert client.head().status == 101
    assert server.rest() == b"last"
    server.send(b"bye")
    server.close()
    assert client.rest() == b"bye"
    plane.wait_ends({"client_closed": 1})


@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request", "426 Upgrade Required"])
def test_a_target_that_refuses(plane: Served, status: str) -> None:
    """Its answer passes, and HTTP goes on."""
    target = plane.target()
    client = plane.client(plane.http(target))
    client.send(ASKED)
    server = plane.accepted(target)
    server.head()
    server.send(answer(b"no", status=status))
    found = client.message()
    assert (found.first, found.body) == (f"HTTP/1.1 {status}", b"no")
    client.send(get())
    server.message()
    server.send(OK)
    assert client.message().body == b"ok"


@pytest.mark.parametrize(
    ("upgrades", "asked"),
    [
        ((), ASKED),
        (("websocket",), ASKED.replace(b"websocket", b"h2c")),
        (("h2c",), ASKED.replace(b"websocket", b"foo, h2c")),
        (("websocket",), ASKED.replace(b"websocket", b"h2c, irc/6.9")),
        (("websocket",), ASKED.replace(b"websocket", b"irc/6.9")),
        (("websocket",), ASKED.replace(b"Connection: Upgrade\r\n", b"")),
        (("websocket",), ASKED.replace(b"HTTP/1.1", b"HTTP/1.0")),
        (("websocket",), ASKED.replace(b"GET", b"DELETE")),
    ],
)
def test_what_is_not_configured_is_stripped(
    plane: Served, upgrades: tuple[str, ...], asked: bytes
) -> None:
    """The request is served as a plain one, and a 101 to it is a bad answer."""
    target = plane.target()
    listener = plane.http(target, plan=HttpPlan(upgrades=upgrades))
    for said in (OK, SWITCHED):
        client = plane.client(listener)
        client.send(asked)
        if said is OK:
            server = plane.accepted(target)
        found = server.message()
        assert "upgrade" not in found.fields
        assert "connection" not in found.fields
        assert "http2-settings" not in found.fields
        server.send(said)
        assert client.message().status == (200 if said is OK else 502)


@pytest.mark.parametrize(
    ("offered", "asked_for"),
    [
        ("h2c, WebSocket", "websocket"),
        ("foo, ,websocket, irc", "websocket"),
        ("foo\r\nUpgrade: irc, websocket", "irc"),
    ],
)
def test_the_first_that_is_configured(plane: Served, offered: str, asked_for: str) -> None:
    """Of several protocols the target is asked for that one alone, and may switch to no other."""
    target = plane.target()
    listener = plane.http(target, plan=HttpPlan(upgrades=("websocket", "irc")))
    for switched_to in (asked_for, "foo"):
        client = plane.client(listener)
        client.send(ASKED.replace(b"websocket", offered.encode()))
        server = plane.accepted(target)
        asked = server.until(END)
        assert asked.lower().count(b"\r\nupgrade: ") == 1
        assert f"\r\nUpgrade: {asked_for}\r\n".encode() in asked
        server.send(SWITCHED.replace(b"websocket", switched_to.encode()))
        assert client.head().status == (101 if switched_to == asked_for else 502)
        if switched_to == asked_for:
            talk(client, server)


def test_a_switch_to_something_else(plane: Served) -> None:
    """101 with another protocol than the one asked for: 502."""
    target = plane.target()
    client = plane.client(plane.http(target))
    client.send(ASKED)
    server = plane.accepted(target)
    server.head()
    server.send(SWITCHED.replace(b"websocket", b"mystery"))
    assert client.message().status == 502
    assert server.is_cut()


def test_a_proxy_header_comes_first(plane: Served) -> None:
    """Then the upgrade request, then the bytes of the relay."""
    target = plane.target()
    client = plane.client(plane.http(target, send_proxy="v1"))
    client.send(ASKED)
    server = plane.accepted(target)
    assert server.until(b"\r\n").startswith(b"PROXY TCP4 127.0.0.1 ")
    server.head()
    server.send(SWITCHED)
    assert client.head().status == 101
    talk(client, server)


def test_an_upgrade_on_another_route_than_the_first(plane: Served) -> None:
    """The connection counts under the route of its first request, its relay under its own."""
    one, two = plane.target(), plane.target()
    listener = plane.listen()
    plane.commit(
        route("r", listener, one, http=HttpPlan()),
        route("ws", listener, two, order=1, http=HttpPlan(match=HttpMatch(paths=("/chat",)))),
    )
    client, _ = plane.pair(listener, one)
    client.send(ASKED)
    server = plane.accepted(two)
    server.head()
    server.send(SWITCHED)
    assert client.head().status == 101
    talk(client, server)
    assert (plane.counts("r").total, plane.counts("ws").total) == (1, 0)
    plane.wait_codes({"1xx": 1}, "ws")


def test_an_unchanged_route_keeps_its_websockets(plane: Served) -> None:
    """A reload does not touch them; one that removes the route drains them."""
    target = plane.target()
    listener = plane.http(target)
    client = plane.client(listener)
    client.send(ASKED)
    server = plane.accepted(target)
    server.head()
    server.send(SWITCHED)
    assert client.head().status == 101
    plane.commit(route("r", listener, target, http=HttpPlan()))
    talk(client, server)


def test_a_websocket_of_a_removed_route_is_drained(plane: Served, tmp_path: Path) -> None:
    """It goes on for `drain`, counted as draining, and is cut then; that of a route that stays
    goes on behind it.
    """
    stays, goes, listener = plane.target(), plane.target(), plane.listen()
    drain, path = Timeouts(drain=0.5), tmp_path / "access.log"
    routes = [
        route("stays", listener, stays, domains=("b.example",), http=HttpPlan(), timeouts=drain),
        route("goes", listener, goes, order=1, domains=(HOST,), http=HttpPlan(), timeouts=drain),
    ]
    plane.commit(*routes, access=AccessPlan(file=str(path)))
    talking = []
    for target, asked in ((stays, ASKED.replace(HOST.encode(), b"b.example")), (goes, ASKED)):
        client = plane.client(listener)
        client.send(asked)
        server = plane.accepted(target)
        server.head()
        server.send(SWITCHED)
        assert client.head().status == 101
        talking.append((client, server))
    begun = time.monotonic()
    plane.commit(routes[0], access=AccessPlan(file=str(path)))
    for client, server in talking:
        talk(client, server)
    assert (plane.counts("goes").draining, plane.counts("stays").draining) == (1, 0)
    client, server = talking.pop()
    assert client.is_cut()
    assert server.is_cut()
    assert time.monotonic() - begun >= 0.5
    talk(*talking[0])
    assert plane.counts("goes").draining == 0
    assert plane.counts("goes").ends == {"route_removed": 1}
    talking[0][0].close()
    assert talking[0][1].is_ended()
    talking[0][1].close()
    plane.wait_ends({"route_removed": 1, "client_closed": 1})
    wait_until(lambda: path.exists() and path.read_text().count("\n") == 4, "four lines")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["route"], line["status"]) for line in lines[:2]] == [
        ("stays", 101),
        ("goes", 101),
    ]
    assert [(line["route"], line["end"]) for line in lines[2:]] == [
        ("goes", "route_removed"), ("stays", "client_closed"),
    ]  # fmt: skip
