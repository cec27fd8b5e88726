"""PROXY headers from trusted peers: split anywhere, with payload behind, wrong, late, missing."""

from __future__ import annotations

import socket
import time
from typing import Any, Final

import pytest

from shared.plan import ListenerPlan, ProxyPolicy
from shared.proxy_protocol import encode_v1, encode_v2
from tests.data_plane_harness import Plane, running
from tests.data_plane_sockets import (
    Target,
    in_thread,
    in_turn,
    is_silent,
    read_exactly,
    read_to_end,
    reset,
)
from tests.helpers.waiting import wait_until

SOURCE: Final = bytes([203, 0, 113, 7])
DESTINATION: Final = bytes([198, 51, 100, 9])
V1: Final = encode_v1(SOURCE, 5555, DESTINATION, 443)
V2: Final = encode_v2(SOURCE, 5555, DESTINATION, 443, tlvs=((0xE1, b"a\0b"),), crc32c=True)
LOCAL: Final = encode_v2(None, 0, None, 0, local=True)
BOTH: Final = pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])


def policy(**settings: Any) -> ProxyPolicy:
    """Trust in every loopback address."""
    return ProxyPolicy(trusted=("127.0.0.0/8", "::1/128"), **settings)


def serve(plane: Plane, **settings: Any) -> tuple[ListenerPlan, Target]:
    """A listener that believes headers; its target gets them too, as v1 lines, to be seen."""
    target = plane.target()
    return plane.serve(target, policy=policy(**settings), send_proxy="v1"), target


def finish(plane: Plane, client: socket.socket, server: socket.socket) -> None:
    """End it from the client's side."""
    client.close()
    assert read_to_end(server) == b""
    server.close()
    wait_until(lambda: plane.plane.connections == 0, "the end")


@BOTH
def test_split_at_every_byte(header: bytes) -> None:
    """Two pieces with a pause between: the address is believed, the payload arrives once."""
    with running() as plane:
        listener, target = serve(plane)
        splits = range(1, len(header))
        clients = [plane.connect(listener) for _ in splits]
        for client, split in zip(clients, splits, strict=True):
            client.sendall(header[:split])
        wait_until(lambda: plane.cells[0] == len(clients), "all are accepted")
        plane.call(lambda: None)
        assert target.has_none()
        for client, split in zip(clients, splits, strict=True):
            client.sendall(header[split:] + b"payload")
            server = target.accept()
            assert read_exactly(server, len(V1) + 7) == V1 + b"payload"
            client.close()
            assert read_to_end(server) == b""
            server.close()
        plane.wait_ends({"client_closed": len(clients)})
        version = "v1" if header is V1 else "v2"
        assert plane.headers() == {version: len(clients)}


@BOTH
def test_byte_by_byte(header: bytes) -> None:
    """Every byte in a packet of its own."""
    with running() as plane:
        listener, target = serve(plane)
        client = plane.connect(listener)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in header:
            client.sendall(bytes([byte]))
        server = target.accept()
        assert read_exactly(server, len(V1)) == V1
        assert is_silent(server)
        finish(plane, client, server)
        assert plane.ends() == {"client_closed": 1}


@BOTH
@pytest.mark.parametrize("is_late", [False, True], ids=["at-once", "after-accept"])
@pytest.mark.parametrize("size", [0, 1, 100, 128 * 1024, 700_000])
def test_header_payload_and_end_in_one_go(header: bytes, is_late: bool, size: int) -> None:
    """Whatever stands behind the header when it is read, bytes and FIN, is lost nowhere."""
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    with running() as plane:
        listener, target = serve(plane)
        client = plane.connect(listener)
        if is_late:
            wait_until(lambda: plane.plane.connections == 1, "the accept")

        def send() -> None:
            client.sendall(header + data)
            client.shutdown(socket.SHUT_WR)

        with in_thread(send):
            server = target.accept()
            assert read_to_end(server) == V1 + data
        server.sendall(b"answer")
        server.close()
        assert read_to_end(client) == b"answer"
        plane.wait_ends({"client_closed": 1})
        assert plane.counts().received == size


@BOTH
def test_header_and_end_seen_in_the_same_turn(header: bytes) -> None:
    """FIN right behind a header that is awaited is seen although it gives no edge of its own."""
    with running() as plane:
        listener, target = serve(plane)
        client = plane.connect(listener)
        wait_until(lambda: plane.plane.connections == 1, "the accept")
        plane.call(
            in_turn(
                lambda: client.sendall(header + b"request"),
                lambda: client.shutdown(socket.SHUT_WR),
            )
        )
        server = target.accept()
        assert read_to_end(server) == V1 + b"request"
        server.close()
        plane.wait_ends({"client_closed": 1})


@pytest.mark.parametrize("is_late", [False, True], ids=["at-once", "after-accept"])
def test_header_and_reset_seen_in_the_same_turn(is_late: bool) -> None:
    """An RST behind the header stops the dial."""
    with running() as plane:
        listener = plane.serve(plane.black_hole(), policy=policy())
        client = plane.connect(listener)
        if is_late:
            wait_until(lambda: plane.plane.connections == 1, "the accept")
        plane.call(in_turn(lambda: client.sendall(V1), lambda: reset(client)))
        plane.wait_ends({"client_gone": 1})


def test_a_sent_header_longer_than_the_one_that_came() -> None:
    """A full buffer of payload behind a short header still goes out behind a longer one."""
    data = bytes(range(256)) * 2048
    with running() as plane:
        listener, target = serve(plane)
        client = plane.connect(listener)
        wait_until(lambda: plane.plane.connections == 1, "the accept")
        # All there before the first read, so that it fills the buffer.
        client.setblocking(False)
        sent = plane.call(lambda: client.send(b"PROXY UNKNOWN\r\n" + data)) - 15
        assert sent > 128 * 1024
        client.settimeout(10)
        server = target.accept()
        source, port = client.getsockname()
        line = f"PROXY TCP4 {source} 127.0.0.1 {port} {listener.port}\r\n".encode()
        assert read_exactly(server, len(line) + sent) == line + data[:sent]
        finish(plane, client, server)
        assert plane.ends() == {"client_closed": 1}


@pytest.mark.parametrize("header", [LOCAL, b"PROXY UNKNOWN\r\n", encode_v2(None, 0, None, 0)])
def test_without_addresses_the_peer_is_the_client(header: bytes) -> None:
    """LOCAL, UNKNOWN and UNSPEC keep the socket's own addresses, payload goes on."""
    with running() as plane:
        listener, target = serve(plane)
        client = plane.connect(listener)
        client.sendall(header + b"check")
        server = target.accept()
        source, port = client.getsockname()
        line = f"PROXY TCP4 {source} 127.0.0.1 {port} {listener.port}\r\n".encode()
        assert read_exactly(server, len(line) + 5) == line + b"check"
        finish(plane, client, server)
        assert plane.ends() == {"client_closed": 1}


def test_local_close() -> None:
    """With local: close a balancer's probe ends at once and reaches no target."""
    with running() as plane:
        listener, target = serve(plane, local="close")
        client = plane.connect(listener)
        client.sendall(LOCAL)
        assert read_to_end(client) == b""
        plane.wait_ends({"proxy_local": 1})
        assert plane.headers() == {"local": 1}
        assert target.has_none()


@pytest.mark.parametrize(
    "broken",
    [
        b"PROXY TCP4 203.0.113.7 198.51.100.9 05555 443\r\n",
        b"PROXY TCP4 203.0.113.7\r\n",
        b"PROXY " + b"x" * 200,
        V2[:12] + b"\x31" + V2[13:],
        V2[:-1] + bytes([V2[-1] ^ 1]),
        V2[:14] + b"\xff\xff" + bytes(100),
    ],
)
def test_a_malformed_header_closes(broken: bytes) -> None:
    """Nothing of it reaches a target, and the end has its own counter and log line."""
    with running() as plane:
        listener, target = serve(plane)
        client = plane.connect(listener)
        client.sendall(broken)
        try:
            assert client.recv(1) == b""
        except ConnectionResetError:
            pass  # bytes of it were not read any more
        plane.wait_ends({"proxy_header_invalid": 1})
        assert plane.headers() == {"invalid": 1}
        assert len(plane.logged("proxy_header_invalid")) == 1
        assert target.has_none()


def test_no_header_where_one_is_required() -> None:
    """Payload of a trusted peer without a header is refused as missing."""
    with running() as plane:
        listener, target = serve(plane)
        client = plane.connect(listener)
        client.sendall(b"GET / HTTP/1.1\r\n")
        assert read_to_end(client) == b""
        plane.wait_ends({"proxy_header_missing": 1})
        assert plane.headers() == {"missing": 1}
        assert target.has_none()


@pytest.mark.parametrize("begun", [b"", b"PRO", V2[:20]])
def test_a_header_that_is_late(begun: bytes) -> None:
    """Not whole within header_timeout, however much of it came: closed, never early."""
    limit = 0.3
    with running() as plane:
        listener, target = serve(plane, header_timeout=limit)
        begun_at = time.monotonic()
        client = plane.connect(listener)
        client.sendall(begun)
        assert read_to_end(client) == b""
        assert time.monotonic() - begun_at >= limit
        plane.wait_ends({"proxy_header_timeout": 1})
        assert plane.headers() == {"timeout": 1}
        assert target.has_none()


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_versions_that_are_not_accepted(version: str) -> None:
    """A listener for one version refuses the other and takes its own."""
    with running() as plane:
        listener, target = serve(plane, versions=(version,))
        wanted, refused = (V1, V2) if version == "v1" else (V2, V1)
        client = plane.connect(listener)
        client.sendall(refused)
        assert read_to_end(client) == b""
        plane.wait_ends({"proxy_header_invalid": 1})
        client = plane.connect(listener)
        client.sendall(wanted)
        server = target.accept()
        assert read_exactly(server, len(V1)) == V1
        finish(plane, client, server)


def test_not_required_and_silent() -> None:
    """After header_timeout a silent client is served, so that a server-first protocol works."""
    limit = 0.3
    with running() as plane:
        listener, target = serve(plane, required=False, header_timeout=limit)
        begun = time.monotonic()
        client = plane.connect(listener)
        server = target.accept()
        assert time.monotonic() - begun >= limit
        server.sendall(b"welcome")
        assert read_exactly(client, 7) == b"welcome"
        server.close()
        client.close()
        wait_until(lambda: plane.plane.connections == 0, "the end")
        assert plane.headers() == {"none": 1}


def test_not_required_and_other_bytes() -> None:
    """Bytes that cannot begin a header are payload, from the first of them."""
    with running() as plane:
        listener, target = serve(plane, required=False)
        client = plane.connect(listener)
        client.sendall(b"PR")
        wait_until(lambda: plane.plane.connections == 1, "the accept")
        client.sendall(b"INT this")
        server = target.accept()
        source, port = client.getsockname()
        line = f"PROXY TCP4 {source} 127.0.0.1 {port} {listener.port}\r\n".encode()
        assert read_exactly(server, len(line) + 10) == line + b"PRINT this"
        finish(plane, client, server)
        assert plane.ends() == {"client_closed": 1}


def test_not_required_and_a_header_all_the_same() -> None:
    """A header is still read and believed."""
    with running() as plane:
        listener, target = serve(plane, required=False)
        client = plane.connect(listener)
        client.sendall(V2)
        server = target.accept()
        assert read_exactly(server, len(V1)) == V1
        finish(plane, client, server)


@pytest.mark.parametrize(
    ("sent", "is_required", "end"),
    [
        (b"", True, "client_gone"),
        (b"PROXY TCP", True, "proxy_header_invalid"),
        (b"PROXY TCP", False, "proxy_header_invalid"),
    ],
)
@pytest.mark.parametrize("is_late", [False, True], ids=["at-once", "after-accept"])
def test_an_end_before_the_header_is_whole(
    sent: bytes, is_required: bool, end: str, is_late: bool
) -> None:
    """FIN within the header or before it ends the connection; no target sees it."""
    with running() as plane:
        listener, target = serve(plane, required=is_required)
        client = plane.connect(listener)
        if is_late:
            wait_until(lambda: plane.plane.connections == 1, "the accept")
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == b""
        plane.wait_ends({end: 1})
        assert target.has_none()


def test_an_end_without_a_header_that_is_not_required() -> None:
    """FIN and nothing before it: the target is dialled and gets the FIN."""
    with running() as plane:
        listener, target = serve(plane, required=False)
        client = plane.connect(listener)
        client.shutdown(socket.SHUT_WR)
        server = target.accept()
        assert read_to_end(server).startswith(b"PROXY TCP4 127.0.0.1")
        server.sendall(b"news")
        server.close()
        assert read_to_end(client) == b"news"
        plane.wait_ends({"client_closed": 1})


@pytest.mark.parametrize("sent", [b"", b"PROX"])
def test_a_reset_before_the_header_is_whole(sent: bytes) -> None:
    """The client has gone before there was a target."""
    with running() as plane:
        listener, target = serve(plane)
        client = plane.connect(listener)
        client.sendall(sent)
        wait_until(lambda: plane.plane.connections == 1, "the accept")
        reset(client)
        plane.wait_ends({"client_gone": 1})
        assert target.has_none()
