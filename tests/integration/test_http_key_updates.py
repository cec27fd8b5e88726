"""Key updates of TLS 1.3 in HTTP: each is answered, but not without end."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from shared.plan import HttpPlan, TlsPlan
from tests.data_plane_sockets import Target
from tests.helpers.certificates import Authority
from tests.helpers.http_talk import HOST, OK, Served, Talker, get, route, serving
from tests.helpers.tls_pairs import certificate_plan
from tests.helpers.tls_records import HandWriter, logging_context
from worker.http_client import HttpClient
from worker.http_wire import MOST_ANSWERS_BYTES, MOST_READ

UPLOAD = get("/", "Content-Length: 1000000", method="POST")
SMALL_BYTES = 4096  # of the kernel's buffers, so that they are soon full


@pytest.fixture
def plane() -> Iterator[Served]:
    """A data plane."""
    with serving() as plane:
        yield plane


def connected(plane: Served, target: Target, directory: Path) -> tuple[Talker, HandWriter]:
    """A client of a route that ends TLS: its reading side, and its writing side."""
    authority, listener = Authority(directory, "ca"), plane.listen()
    plane.commit(
        route(
            "r", listener, target, http=HttpPlan(), tls=True,
            terminate=TlsPlan(certificates=(0,)),
        ),
        certificates=[certificate_plan(authority.leaf(HOST), [HOST])],
    )  # fmt: skip
    key_log = directory / "keys.log"
    client = plane.tls_client(listener, logging_context(authority, key_log))
    writer = HandWriter(client.sock, key_log)  # type: ignore[arg-type]
    plane.keep(writer.sock)
    return client, writer


def shrink(plane: Served, writer: HandWriter) -> None:
    """Leave the kernel little room for what the data plane sends to this client."""

    def shrink() -> None:
        (conn,) = plane.plane.open
        assert isinstance(conn.phase, HttpClient)
        conn.phase.wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BYTES)

    plane.call(shrink)
    writer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BYTES)


def test_some_key_updates(plane: Served, tmp_path: Path) -> None:
    """Before, within and behind requests: the client reads each answer with the next keys."""
    target = plane.target()
    client, writer = connected(plane, target, tmp_path)
    head, body = get("/", "Content-Length: 4", method="POST"), b"body"
    server = None
    for _ in range(3):
        writer.sock.sendall(writer.key_update() + writer.payload(head[:10]) + writer.key_update())
        writer.sock.sendall(writer.payload(head[10:]) + writer.key_update())
        writer.sock.sendall(writer.payload(body) + writer.key_update())
        server = server or plane.accepted(target)
        assert server.message().body == body
        server.send(OK)
        assert client.message().body == b"ok"
    writer.sock.close()


def test_key_updates_without_end(plane: Served, tmp_path: Path) -> None:
    """Who asks for them and does not read them is cut, before its answers fill the memory."""
    target = plane.target()
    client, writer = connected(plane, target, tmp_path)
    writer.sock.sendall(writer.payload(UPLOAD))
    server = plane.accepted(target)
    assert server.head().fields["content-length"] == "1000000"
    shrink(plane, writer)
    # An update and its answer have the same size; some of it waits in the kernel, on either side.
    asked, most = 0, 2 * (MOST_ANSWERS_BYTES + 2 * MOST_READ)
    with suppress(ConnectionError):
        while asked < most:
            updates = b"".join([writer.key_update() for _ in range(100)])
            writer.sock.sendall(updates)
            asked += len(updates)
    assert server.is_cut()
    writer.sock.close()
    client.close()
    plane.wait_ends({"client_reset": 1})
