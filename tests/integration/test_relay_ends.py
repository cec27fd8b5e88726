"""How a relayed connection ends by FIN: who goes first, half-closed states, queued bytes."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any, Final

import pytest

from shared.plan import Timeouts
from tests.data_plane_harness import Plane, running
from tests.data_plane_sockets import in_thread, is_silent, read_exactly, read_to_end
from tests.helpers.waiting import wait_until
from worker.connection_state import State

Pair = tuple[socket.socket, socket.socket]
LARGE: Final = bytes(range(256)) * 4 * 8192  # 8 MiB, more than all buffers on the way hold


def pair(plane: Plane, timeouts: Timeouts | None = None, **settings: Any) -> Pair:
    """A client and the target's end of the same connection."""
    target = plane.target()
    client = plane.connect(plane.serve(target, timeouts=timeouts, **settings))
    return client, target.accept()


def send_and_end(sock: socket.socket, data: bytes) -> None:
    """All of it, then FIN."""
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


def state(plane: Plane) -> State:
    """Of the one connection."""
    (conn,) = plane.plane.open
    return conn.state


def test_server_first() -> None:
    """A target that speaks before the client does is heard at once."""
    with running() as plane:
        client, server = pair(plane)
        server.sendall(b"220 ready\r\n")
        assert read_exactly(client, 11) == b"220 ready\r\n"
        client.sendall(b"QUIT\r\n")
        assert read_exactly(server, 6) == b"QUIT\r\n"
        server.close()
        assert read_to_end(client) == b""
        client.close()
        plane.wait_ends({"target_closed": 1})


def test_client_first_bytes_wait_for_the_dial() -> None:
    """What the client says before the target is there comes first and once."""
    with running() as plane:
        target = plane.target()
        client = plane.connect(plane.serve(target))
        client.sendall(b"hello")
        server = target.accept()
        assert read_exactly(server, 5) == b"hello"
        client.close()
        assert read_to_end(server) == b""
        server.close()
        plane.wait_ends({"client_closed": 1})


@pytest.mark.parametrize("is_client_first", [True, False], ids=["client", "target"])
def test_half_close_is_passed_on_and_the_other_side_goes_on(is_client_first: bool) -> None:
    """After the FIN of one side the other sends megabytes; the end names who ended first."""
    with running() as plane:
        client, server = pair(plane)
        first, second = (client, server) if is_client_first else (server, client)
        first.sendall(b"request")
        first.shutdown(socket.SHUT_WR)
        assert read_to_end(second) == b"request"
        wait_until(lambda: state(plane) is State.HALF_CLOSED, "the state follows the FIN")
        with in_thread(lambda: second.sendall(LARGE), second.close):
            assert read_to_end(first) == LARGE
        plane.wait_ends({"client_closed" if is_client_first else "target_closed": 1})
        counts = plane.counts()
        assert sorted((counts.received, counts.sent)) == [7, len(LARGE)]


def test_both_ends_in_the_same_batch() -> None:
    """Two FINs that are seen together, with bytes in front of them, lose nothing."""
    with running() as plane:
        client, server = pair(plane)

        def end_both() -> None:
            for sock, words in ((client, b"from the client"), (server, b"from the target")):
                sock.sendall(words)
                sock.shutdown(socket.SHUT_WR)

        plane.call(end_both)
        assert read_to_end(server) == b"from the client"
        assert read_to_end(client) == b"from the target"
        wait_until(lambda: plane.plane.connections == 0, "the end")
        assert set(plane.ends()) <= {"client_closed", "target_closed"}


@pytest.mark.parametrize("is_upload", [True, False], ids=["upload", "download"])
def test_bytes_queued_before_the_end_all_arrive(is_upload: bool) -> None:
    """A FIN behind megabytes that the reader has not taken yet comes after the last of them."""
    with running() as plane:
        client, server = pair(plane)
        writer, reader = (client, server) if is_upload else (server, client)
        with in_thread(lambda: writer.sendall(LARGE), writer.close):
            wait_until(lambda: plane.counts().total == 1, "the route")
            assert read_exactly(reader, len(LARGE) // 2) == LARGE[: len(LARGE) // 2]
            assert read_to_end(reader) == LARGE[len(LARGE) // 2 :]
        reader.close()
        plane.wait_ends({"client_closed" if is_upload else "target_closed": 1})


def test_the_second_end_with_queued_bytes_still_delivers_them() -> None:
    """Both sides have ended, one reader is slow: it gets all that was said to it."""
    with running() as plane:
        client, server = pair(plane)
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(server) == b""
        with in_thread(lambda: server.sendall(LARGE), server.close):
            assert read_to_end(client) == LARGE
        plane.wait_ends({"client_closed": 1})


def test_the_half_closed_timeout_counts_from_the_last_byte() -> None:
    """Bytes of the other side put it off; it is never early, and the other side then sees FIN."""
    limit = 0.5
    with running() as plane:
        client, server = pair(plane, Timeouts(half_closed=limit))
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(server) == b""
        pause = threading.Event()
        for _ in range(4):
            pause.wait(limit / 2)
            last = time.monotonic()
            server.sendall(b".")
        assert read_to_end(client) == b"...."
        assert time.monotonic() - last >= limit
        plane.wait_ends({"half_closed_timeout": 1})


def test_the_half_closed_timeout_is_whole_after_a_long_silence() -> None:
    """It never begins before the FIN, however long the last byte is ago."""
    limit = 0.6
    with running() as plane:
        # The deadline of the dial is still in the wheel, and wakes the connection in between.
        client, server = pair(plane, Timeouts(connect=0.9, half_closed=limit))
        threading.Event().wait(0.7)
        ended = time.monotonic()
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(server) == b""
        assert read_to_end(client) == b""
        assert time.monotonic() - ended >= limit
        plane.wait_ends({"half_closed_timeout": 1})


def test_half_closed_0_ends_at_once() -> None:
    """With 0 the end of one side ends the other."""
    with running() as plane:
        client, server = pair(plane, Timeouts(half_closed=0.0))
        server.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == b""
        plane.wait_ends({"half_closed_timeout": 1})


def test_half_open_never_ends_the_other_side() -> None:
    """With half_open the half-closed timeout does not run."""
    with running() as plane:
        client, server = pair(plane, Timeouts(half_closed=0.1), half_open=True)
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(server) == b""
        threading.Event().wait(0.5)
        assert is_silent(client)
        server.sendall(b"late")
        server.close()
        assert read_to_end(client) == b"late"
        plane.wait_ends({"client_closed": 1})


def test_urgent_data_before_an_end_loses_nothing() -> None:
    """A read that stopped at urgent data is not taken for the last one before the FIN."""
    with running() as plane:
        client, server = pair(plane)

        def send() -> None:
            client.sendall(b"before")
            client.send(b"!", socket.MSG_OOB)
            client.sendall(b"after")
            client.shutdown(socket.SHUT_WR)

        plane.call(send)
        assert read_to_end(server) == b"beforeafter"
        server.close()
        plane.wait_ends({"client_closed": 1})


def test_a_unix_client_that_sends_and_closes() -> None:
    """A close of a Unix socket is an end like FIN: what was said before it is delivered."""
    with running() as plane:
        target = plane.target()
        listener = plane.serve(target, path=str(plane.directory() / "in"))
        client = plane.connect(listener)
        client.sendall(b"fire and forget")
        client.close()
        server = target.accept()
        assert read_to_end(server) == b"fire and forget"
        server.close()
        plane.wait_ends({"client_closed": 1})


def test_an_echo_that_reads_and_writes_in_turn_does_not_hang() -> None:
    """A target blocked in its write is still read from while bytes wait for it."""
    with running() as plane:
        client, server = pair(plane)

        def echo() -> None:
            while data := server.recv(1 << 16):
                server.sendall(data)
            server.close()

        data = LARGE * 4
        with in_thread(echo), in_thread(lambda: send_and_end(client, data)):
            # Nothing is read before every buffer on the way is full, both ways.
            wait_until(
                lambda: plane.plane.open and all(side_waits(plane)), "bytes wait both ways", 10.0
            )
            assert read_to_end(client) == data
        plane.wait_ends({"client_closed": 1})


def side_waits(plane: Plane) -> list[bool]:
    """For both sockets of the one connection: whether bytes wait for them."""
    (conn,) = plane.plane.open
    return plane.call(
        lambda: [side is not None and side.pending() > 0 for side in (conn.down, conn.up)]
    )
