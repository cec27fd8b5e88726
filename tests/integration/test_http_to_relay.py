"""From HTTP to a relay: by a 101 with an end behind it, and by a request for such a route."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.plan import HttpPlan, TlsPlan, UpstreamTlsPlan
from tests.helpers.certificates import Authority
from tests.helpers.held_loop import held
from tests.helpers.http_talk import HOST, Served, get, route, say_goodbye, serving
from tests.helpers.tls_pairs import authority_plan, certificate_plan

ASKED = get("/chat", "Connection: Upgrade", "Upgrade: websocket")
SWITCHED = b"HTTP/1.1 101 OK\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


@pytest.fixture
def plane() -> Iterator[Served]:
    """A data plane."""
    with serving() as plane:
        yield plane


@pytest.mark.parametrize("behind", [b"", b"\x88\x00"])
def test_close_notify_of_the_target_comes_with_its_101(
    plane: Served, behind: bytes, tmp_path: Path
) -> None:
    """It was read with the head, so no event tells of it again: it is passed on at once."""
    authority, listener, target = Authority(tmp_path, "ca"), plane.listen(), plane.target()
    files = authority.leaf(HOST)
    plane.commit(
        route(
            "r", listener, target, http=HttpPlan(),
            upstream_tls=UpstreamTlsPlan(ca=0, server_name=HOST),
        ),
        authorities=[authority_plan(authority)],
    )  # fmt: skip
    plane.serve_tls(files)
    client = plane.client(listener)
    client.send(ASKED)
    server = plane.accepted(target)
    server.head()
    with held(plane):
        server.send(SWITCHED + behind)
        say_goodbye(server)
    assert client.head().status == 101
    assert client.rest() == behind  # and its FIN, while the target's socket is open
    client.close()
    plane.wait_ends({"target_closed": 1})


@pytest.mark.parametrize("ahead", [b"", b"\x88\x80"])
def test_close_notify_of_the_client_comes_with_its_request(
    plane: Served, ahead: bytes, tmp_path: Path
) -> None:
    """It says that the client sends no more: the target hears of it once it has switched."""
    authority, listener, target = Authority(tmp_path, "ca"), plane.listen(), plane.target()
    plane.commit(
        route(
            "r", listener, target, http=HttpPlan(), tls=True,
            terminate=TlsPlan(certificates=(0,)),
        ),
        certificates=[certificate_plan(authority.leaf(HOST), [HOST])],
    )  # fmt: skip
    context = ssl.create_default_context(cafile=str(authority.cert))
    client = plane.tls_client(listener, context)
    with held(plane):
        client.send(ASKED + ahead)
        say_goodbye(client)
    server = plane.accepted(target)
    server.head()
    server.send(SWITCHED)
    assert server.rest() == ahead  # and a FIN, while the client's socket is open
    server.close()
    plane.wait_ends({"client_closed": 1})


@pytest.mark.parametrize("before", [1, 3])
def test_a_relay_begins_with_the_request_that_chose_it(plane: Served, before: int) -> None:
    """Those that were answered before it are not sent to its target, and nothing is lost of it."""
    target, listener = plane.target(), plane.listen()
    named = route("named", listener, target, domains=(HOST,), http=HttpPlan())
    plane.commit(named)
    client = plane.client(listener)
    for number in range(before):
        assert client.ask(get(f"/{number}", host="other.example")).status == 404
    plane.commit(named, route("raw", listener, target, order=1))
    asked = get("/relayed", "X-As-It-Is: 1", host="other.example") + b"more"
    client.send(asked)
    client.sock.shutdown(socket.SHUT_WR)
    server = plane.accepted(target)
    assert server.rest() == asked
    server.send(b"whatever")
    server.close()
    assert client.rest() == b"whatever"
    plane.wait_ends({"client_closed": 1})
    assert plane.counts("raw").total == 1
