"""PROXY headers from peers that are not trusted: rejected, ignored, or nobody else let in."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any, Final

import pytest

from shared.plan import ListenerPlan, ProxyPolicy
from shared.proxy_protocol import V1_PREFIX, V2_SIGNATURE, encode_v1, encode_v2
from tests.data_plane_harness import Plane, route, running
from tests.data_plane_sockets import (
    Target,
    in_turn,
    is_silent,
    leave,
    read_exactly,
    read_to_end,
    read_to_reset,
    reset,
)
from tests.helpers.waiting import wait_until
from worker.guarded import HOLD_S

SOURCE: Final = bytes([203, 0, 113, 7])
V1: Final = encode_v1(SOURCE, 1, SOURCE, 2)
V2: Final = encode_v2(SOURCE, 1, SOURCE, 2)
HEADERS: Final = pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
FORGED: Final = {"proxy_header_untrusted": 1}


def serve(plane: Plane, **settings: Any) -> tuple[ListenerPlan, Target]:
    """A listener that trusts an address which none of the test's clients has."""
    target = plane.target()
    policy = ProxyPolicy(trusted=("192.0.2.1/32",), **settings)
    return plane.serve(target, policy=policy), target


def read_what_came(server: socket.socket) -> bytes:
    """All up to the end, be it FIN or RST."""
    parts = b""
    try:
        while part := server.recv(1 << 16):
            parts += part
    except ConnectionResetError:
        pass
    return parts


@HEADERS
def test_a_whole_header_is_rejected(header: bytes) -> None:
    """The connection ends under its own reason, and the target sees no byte of the header."""
    with running() as plane:
        listener, target = serve(plane)
        client = plane.connect(listener)
        client.sendall(header + b"payload")
        assert read_what_came(client) == b""
        plane.wait_ends(FORGED)
        counts = plane.counts()
        assert counts.received == len(header + b"payload")
        assert [one.sent for one in counts.targets.values()] == [0]
        server = target.accept()  # the dial does not wait for the verdict
        assert read_what_came(server) == b""
        assert len(plane.logged("proxy_header_untrusted")) == 1


@HEADERS
def test_a_header_in_pieces_is_rejected(header: bytes) -> None:
    """Split at any byte of its signature, nothing of it passes."""
    signature = V1_PREFIX if header is V1 else V2_SIGNATURE
    with running() as plane:
        listener, target = serve(plane)
        splits = range(1, len(signature))
        for number, split in enumerate(splits, 1):
            client = plane.connect(listener)
            client.sendall(header[:split])
            server = target.accept()
            assert is_silent(server)
            client.sendall(header[split:])
            assert read_what_came(server) == b""
            server.close()
            wait_until(lambda number=number: plane.cells[2] == number, "the end")  # type: ignore[misc]
        plane.wait_ends({"proxy_header_untrusted": len(splits)})


def test_held_bytes_pass_after_a_while() -> None:
    """What only might begin a header is passed on after a second; what follows passes at once."""
    with running() as plane:
        listener, target = serve(plane)
        client = plane.connect(listener)
        server = target.accept()
        begun = time.monotonic()
        client.sendall(b"PRO")
        assert read_exactly(server, 3) == b"PRO"
        assert time.monotonic() - begun >= HOLD_S
        client.sendall(b"BLEM")
        assert read_exactly(server, 4) == b"BLEM"
        leave(client, server)
        plane.wait_ends({"client_closed": 1})
        assert plane.counts().received == 7


@HEADERS
def test_the_signature_is_never_completed(header: bytes) -> None:
    """However slowly it comes: the byte that would complete it ends the connection."""
    signature = V1_PREFIX if header is V1 else V2_SIGNATURE
    with running() as plane:
        listener, target = serve(plane)
        client = plane.connect(listener)
        server = target.accept()
        client.sendall(signature[:-1])
        assert read_exactly(server, len(signature) - 1) == signature[:-1]
        client.sendall(signature[-1:])
        assert read_what_came(server) == b""
        plane.wait_ends(FORGED)


def test_other_bytes_pass_unchanged() -> None:
    """An honest client notices nothing, whether its bytes come whole or in pieces."""
    with running() as plane:
        listener, target = serve(plane)
        for pieces in ((b"GET / HTTP/1.1\r\n",), (b"P", b"OST /"), (b"\r\n\r", b"\n\0\r\nQUIT!")):
            client = plane.connect(listener)
            server = target.accept()
            for piece in pieces:
                client.sendall(piece)
                plane.call(lambda: None)
            whole = b"".join(pieces)
            assert read_exactly(server, len(whole)) == whole
            leave(client, server)
        plane.wait_ends({"client_closed": 3})


def test_an_end_behind_held_bytes() -> None:
    """FIN decides: no header can come any more, the bytes and the end are passed on."""
    with running() as plane:
        listener, target = serve(plane)
        client = plane.connect(listener)
        server = target.accept()
        plane.call(in_turn(lambda: client.sendall(b"PRO"), lambda: client.shutdown(1)))
        assert read_to_end(server) == b"PRO"
        server.sendall(b"?")
        server.close()
        assert read_to_end(client) == b"?"
        plane.wait_ends({"client_closed": 1})


def test_a_reset_behind_held_bytes() -> None:
    """The target sees the RST."""
    with running() as plane:
        listener, target = serve(plane)
        client = plane.connect(listener)
        server = target.accept()
        client.sendall(b"PRO")
        wait_until(lambda: plane.cells[1] == 1, "the dial")
        reset(client)
        assert read_to_reset(server) in (b"", b"PRO")
        plane.wait_ends({"client_reset": 1})


def test_server_first_while_the_guard_waits() -> None:
    """The dial is not held back, nor is what the target says."""
    with running() as plane:
        listener, target = serve(plane)
        client = plane.connect(listener)
        server = target.accept()
        server.sendall(b"220 ready")
        assert read_exactly(client, 9) == b"220 ready"
        client.sendall(b"QUIT")
        assert read_exactly(server, 4) == b"QUIT"
        leave(client, server)
        plane.wait_ends({"client_closed": 1})


@HEADERS
def test_ignore_passes_it_on_as_payload(header: bytes) -> None:
    """With untrusted: ignore a header is payload like any other."""
    with running() as plane:
        listener, target = serve(plane, untrusted="ignore")
        client = plane.connect(listener)
        client.sendall(header)
        server = target.accept()
        assert read_exactly(server, len(header)) == header
        leave(client, server)
        plane.wait_ends({"client_closed": 1})


def test_close_lets_nobody_else_in() -> None:
    """With untrusted: close a stranger is closed at accept, header or not."""
    with running() as plane:
        listener, target = serve(plane, untrusted="close")
        assert read_to_end(plane.connect(listener)) == b""
        plane.wait_ends(FORGED)
        assert target.has_none()


@HEADERS
def test_nobody_trusted_means_no_header_is_looked_for(header: bytes) -> None:
    """With trusted: [] the guard is off and a header is payload."""
    with running() as plane:
        target = plane.target()
        listener = plane.serve(target)
        client = plane.connect(listener)
        client.sendall(header)
        server = target.accept()
        assert read_exactly(server, len(header)) == header
        leave(client, server)
        plane.wait_ends({"client_closed": 1})


@HEADERS
@pytest.mark.parametrize("split", [0, 1, 5])
def test_the_guard_sees_bytes_that_were_read_to_choose_a_route(header: bytes, split: int) -> None:
    """A route that is chosen by the first byte opens no way round the guard."""
    with running() as plane:
        target = plane.target()
        listener = plane.listen(ProxyPolicy(trusted=("192.0.2.1/32",)))
        plane.commit(route("r", listener, target, tls=False))
        client = plane.connect(listener)
        if split:
            client.sendall(header[:split])
            server = target.accept()
            assert is_silent(server)
        client.sendall(header[split:] + b"payload")
        if split:
            assert read_what_came(server) == b""
        assert read_what_came(client) == b""
        plane.wait_ends(FORGED)


def test_held_bytes_that_chose_a_route_pass_after_a_while() -> None:
    """They wait a second from the connect on, then reach the target."""
    with running() as plane:
        target = plane.target()
        listener = plane.listen(ProxyPolicy(trusted=("192.0.2.1/32",)))
        plane.commit(route("r", listener, target, tls=False))
        client = plane.connect(listener)
        client.sendall(b"PRO")
        server = target.accept()
        assert read_exactly(server, 3) == b"PRO"
        client.sendall(b"FIT")
        assert read_exactly(server, 3) == b"FIT"
        leave(client, server)
        plane.wait_ends({"client_closed": 1})
        assert plane.counts().received == 6


def test_held_bytes_do_not_outrun_a_slow_target() -> None:
    """Bytes released by time while others wait for the target keep their order."""
    with running() as plane:
        listener, target = serve(plane)
        client = plane.connect(listener)
        server = target.accept()
        client.sendall(b"P")
        threading.Event().wait(HOLD_S / 2)
        client.sendall(b"R")
        assert read_exactly(server, 2) == b"PR"
        client.sendall(b"EFIX" * 20_000)
        assert read_exactly(server, 80_000) == b"EFIX" * 20_000
        leave(client, server)
        plane.wait_ends({"client_closed": 1})
