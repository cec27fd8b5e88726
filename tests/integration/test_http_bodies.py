"""Bodies of every size either way, with a length and in chunks, plain and with TLS."""

from __future__ import annotations

import hashlib
import select
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from shared.plan import HttpPlan, ListenerPlan, TlsPlan, UpstreamTlsPlan
from tests.data_plane_sockets import Target, in_thread, is_silent, send_until_full
from tests.helpers.certificates import Authority
from tests.helpers.chain import send_slowly
from tests.helpers.http_talk import HOST, OK, Served, Talker, chunked, get, post, route, serving
from tests.helpers.tls_pairs import authority_plan, certificate_plan
from tests.helpers.waiting import wait_until

KIB = 1024
SIZES = (0, 1, 127 * KIB, 128 * KIB, 129 * KIB, 5 << 20)
FRAMING = pytest.mark.parametrize("framing", ["length", "chunks"])
MOST_HELD = 1 << 20  # bytes of one connection that may lie in our own memory


class Bodies:
    """A client and a target with a route between them; ``tls`` says which side speaks TLS."""

    def __init__(self, plane: Served, tls: str, directory: Path) -> None:
        self.plane, self.tls = plane, tls
        self.target: Target = plane.target()
        self.listener: ListenerPlan = plane.listen()
        authority = Authority(directory, "ca")
        files = authority.leaf(HOST)
        is_client, is_target = tls in ("client", "both"), tls in ("target", "both")
        plane.commit(
            route(
                "r", self.listener, self.target, tls=True if is_client else None, http=HttpPlan(),
                terminate=TlsPlan(certificates=(0,)) if is_client else None,
                upstream_tls=UpstreamTlsPlan(ca=0, server_name=HOST) if is_target else None,
            ),
            certificates=[certificate_plan(files, [HOST])],
            authorities=[authority_plan(authority)],
        )  # fmt: skip
        self.context = ssl.create_default_context(cafile=str(authority.cert))
        if is_target:
            plane.serve_tls(files)

    def client(self) -> Talker:
        """A client."""
        if self.tls in ("client", "both"):
            return self.plane.tls_client(self.listener, self.context)
        return self.plane.client(self.listener)


@pytest.fixture(params=["none", "client", "target", "both"])
def bodies(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bodies]:
    """With TLS nowhere, and on each side."""
    with serving() as plane:
        yield Bodies(plane, request.param, tmp_path)


def made(size: int) -> bytes:
    """Bytes of which no part repeats."""
    return hashlib.shake_256(b"%d" % size).digest(size)


def digest(data: bytes) -> str:
    """Short enough for the report of a failure."""
    return hashlib.sha256(data).hexdigest()


@FRAMING
def test_all_sizes_both_ways(bodies: Bodies, framing: str) -> None:
    """What goes in comes out, on one connection, and both sides are kept."""
    client = bodies.client()
    server: Talker | None = None
    for size in SIZES:
        body = made(size)
        if framing == "length":
            asked, answered = post(body), b"Content-Length: %d\r\n\r\n%b" % (size, body)
        else:
            asked = get("/", "Transfer-Encoding: chunked", method="POST") + chunked(body, 70_000)
            answered = b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body, 70_000)
        with in_thread(partial(client.send, asked)):
            server = server or bodies.plane.accepted(bodies.target)
            assert digest(server.message().body) == digest(body)
        with in_thread(partial(server.send, b"HTTP/1.1 200 OK\r\n", answered)):
            assert digest(client.message().body) == digest(body)
    assert bodies.target.has_none()
    total = sum(SIZES)
    counts = bodies.plane.target_counts(bodies.target)
    assert counts.requests == {"2xx": len(SIZES)}
    assert total < counts.received < total + 64 * KIB
    assert total < counts.sent < total + 64 * KIB


def test_a_body_until_the_end_of_the_connection(bodies: Bodies) -> None:
    """It goes on in chunks, so that the client's connection is kept."""
    client = bodies.client()
    for size in (0, 1, 300 * KIB):
        client.send(get())
        server = bodies.plane.accepted(bodies.target)
        server.message()
        body = made(size)

        def give(server: Talker = server, body: bytes = body) -> None:
            server.send(b"HTTP/1.1 200 OK\r\n\r\n", body)
            if isinstance(server.sock, ssl.SSLSocket):
                server.sock.unwrap().close()
            else:
                server.sock.shutdown(socket.SHUT_WR)

        with in_thread(give):
            found = client.message()
            assert found.fields["transfer-encoding"] == "chunked"
            assert digest(found.body) == digest(body)


def test_trailers_both_ways() -> None:
    """They pass, but for those that may not be trailers."""
    with serving() as plane:
        target = plane.target()
        client, server = plane.pair(plane.http(target), target)
        lines = "X-Sum: 5\r\nHost: evil\r\nX-More: 6\r\n"
        client.send(
            get("/", "Transfer-Encoding: chunked", "Trailer: X-Sum", method="POST"),
            chunked(b"abc", 2, lines),
        )
        asked = server.message()
        assert (asked.body, asked.trailers) == (b"abc", {"x-sum": "5", "x-more": "6"})
        server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        server.send(chunked(b"defgh", 3, "X-Sum: 7\r\n"))
        found = client.message()
        assert (found.body, found.trailers) == (b"defgh", {"x-sum": "7"})


def test_chunks_byte_by_byte_both_ways() -> None:
    """Wherever they are split, extensions and trailers included."""
    with serving() as plane:
        target = plane.target()
        client, server = plane.pair(plane.http(target), target)
        body = b"4;a=b\r\nWiki\r\n0c\r\n in chunks. \r\n0;x\r\nX-Sum: 1\r\n\r\n"
        client.send(get("/", "Transfer-Encoding: chunked", method="POST"))
        send_slowly(client.sock, body + get("/next"))
        asked = server.message()
        assert (asked.body, asked.trailers) == (b"Wiki in chunks. ", {"x-sum": "1"})
        server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        send_slowly(server.sock, body)
        found = client.message()
        assert (found.body, found.trailers) == (b"Wiki in chunks. ", {"x-sum": "1"})
        assert server.message().target == "/next"
        server.send(OK)
        assert client.message().body == b"ok"


@FRAMING
def test_a_large_upload_in_one_burst_behind_a_silent_start(framing: str) -> None:
    """All of it lies in the socket before it is read: no edge comes for what one read leaves."""
    with serving() as plane:
        target = plane.target()
        client = plane.client(plane.http(target))
        wait_until(lambda: plane.plane.connections == 1, "it is accepted")
        body = made(900 * KIB)
        if framing == "length":
            asked = post(body)
        else:
            asked = get("/", "Transfer-Encoding: chunked", method="POST") + chunked(body, 999)
        with in_thread(lambda: client.send(asked)):
            server = plane.accepted(target)
            assert digest(server.message().body) == digest(body)
        server.send(OK)
        assert client.message().body == b"ok"


def test_a_client_that_does_not_read_holds_the_target_up() -> None:
    """The target is not read while the client takes nothing; nothing is lost."""
    with serving() as plane:
        target = plane.target()
        listener = plane.http(target)
        client = plane.client(listener, buffer=64 * KIB)
        client.send(get())
        server = plane.accepted(target)
        server.message()
        body = bytes(64 << 20)
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        sent = send_until_full(server.sock, body)
        assert sent < len(body)
        (up,) = plane.upstreams()
        assert up.exchange is not None
        assert len(up.exchange.client.wire.outbox) <= MOST_HELD
        with in_thread(lambda: server.send(body[sent:])):
            assert len(client.message().body) == len(body)


def test_a_target_that_does_not_read_holds_the_client_up() -> None:
    """The other way round."""
    with serving() as plane:
        target = plane.target()
        client = plane.client(plane.http(target))
        body = bytes(64 << 20)
        client.send(get("/", f"Content-Length: {len(body)}", method="POST"))
        server = plane.accepted(target)
        sent = send_until_full(client.sock, body)
        assert sent < len(body)
        (up,) = plane.upstreams()
        assert len(up.wire.outbox) <= MOST_HELD
        with in_thread(lambda: client.send(body[sent:])):
            assert len(server.message().body) == len(body)
        server.send(OK)
        assert client.message().body == b"ok"


@pytest.mark.parametrize("framing", ["chunks", "until the end"])
def test_each_event_arrives_at_once(framing: str) -> None:
    """Server-sent events: nothing waits for the next one."""
    with serving() as plane:
        target = plane.target()
        client = plane.client(plane.http(target))
        client.send(get())
        server = plane.accepted(target)
        server.message()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        server.send(
            head + (b"Transfer-Encoding: chunked\r\n\r\n" if framing == "chunks" else b"\r\n")
        )
        assert client.head().fields["content-type"] == "text/event-stream"
        for number in range(5):
            event = b"data: %d\n\n" % number
            server.send(chunked(event, 99)[:-5] if framing == "chunks" else event)
            assert int(client.until(b"\r\n")[:-2], 16) == len(event)
            assert client.exactly(len(event) + 2) == event + b"\r\n"
            assert is_silent(client.sock)
        if framing == "chunks":
            server.send(b"0\r\n\r\n")
        else:
            server.close()
        assert client.until(b"0\r\n\r\n") == b"0\r\n\r\n"


def test_an_early_answer_of_a_target_that_resets() -> None:
    """What it said before it closed with bytes unread is an answer all the same."""
    with serving() as plane:
        target = plane.target()
        client = plane.client(plane.http(target))
        client.send(get("/", "Content-Length: 50000000", method="POST"))
        server = plane.accepted(target)
        server.head()
        client.send(bytes(100_000))
        wait_until(lambda: select.select([server.sock], [], [], 0)[0], "some of the body is there")
        server.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\n\r\nlarge")
        server.close()  # with bytes unread: an RST

        def go_on() -> None:
            with suppress(ConnectionError):
                client.sock.sendall(bytes(400_000))

        with in_thread(go_on):
            found = client.message()
        assert (found.status, found.body) == (413, b"large")
        plane.wait_codes({"4xx": 1})


def test_an_early_answer_to_an_unfinished_upload() -> None:
    """It is delivered whole although the client goes on sending, and the connection ends."""
    with serving() as plane:
        target = plane.target()
        client = plane.client(plane.http(target))
        client.send(get("/", "Content-Length: 50000000", method="POST"))
        server = plane.accepted(target)
        server.head()
        client.send(bytes(100_000))
        server.exactly(100_000)
        body = made(400 * KIB)
        server.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: %d\r\n\r\n" % len(body))

        def go_on() -> None:
            server.send(body)
            for _ in range(40):
                client.sock.send(bytes(10_000))

        with in_thread(go_on):
            found = client.message()
            assert (found.status, digest(found.body)) == (413, digest(body))
            assert found.fields["connection"] == "close"
        client.close()
        with suppress(ConnectionError):
            server.rest()
        plane.wait_codes({"4xx": 1})
