"""Timeouts of a relayed connection: the right reason, both sides closed, never early."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

import pytest

from shared.plan import Timeouts
from tests.data_plane_harness import Plane, running
from tests.data_plane_sockets import is_silent, read_exactly, read_to_end, send_until_full
from tests.helpers.waiting import wait_until


def pair(plane: Plane, timeouts: Timeouts) -> tuple[socket.socket, socket.socket]:
    """A client and the target's end of the same connection."""
    target = plane.target()
    client = plane.connect(plane.serve(target, timeouts=timeouts))
    return client, target.accept()


@pytest.mark.parametrize("limit", [0.15, 0.4])
@pytest.mark.parametrize("connect", [0.2, 30.0], ids=["dial-slot-before", "dial-slot-after"])
def test_idle(limit: float, connect: float) -> None:
    """Silence for as long ends both sides, wherever the dial's deadline lies."""
    with running() as plane:
        client, server = pair(plane, Timeouts(idle=limit, connect=connect))
        begun = time.monotonic()
        client.sendall(b"x")
        assert read_exactly(server, 1) == b"x"
        assert read_to_end(client) == b""
        assert time.monotonic() - begun >= limit
        assert read_to_end(server) == b""
        plane.wait_ends({"idle_timeout": 1})


@pytest.mark.parametrize("is_from_client", [True, False], ids=["client", "target"])
def test_a_byte_either_way_puts_idle_off(is_from_client: bool) -> None:
    """Bytes of one side alone keep the connection; it ends no sooner than idle after the last."""
    limit = 0.4
    with running() as plane:
        client, server = pair(plane, Timeouts(idle=limit))
        writer, reader = (client, server) if is_from_client else (server, client)
        pause = threading.Event()
        for _ in range(5):
            pause.wait(limit / 2)
            last = time.monotonic()
            writer.sendall(b"x")
            assert read_exactly(reader, 1) == b"x"
        assert read_to_end(reader) == b""
        assert time.monotonic() - last >= limit
        plane.wait_ends({"idle_timeout": 1})


def test_a_slow_reader_is_not_idle() -> None:
    """It takes what has been read for it long ago; one that takes nothing for as long is cut."""
    size, piece = 6 << 20, 32 << 10
    with running() as plane:
        client, server = pair(plane, Timeouts(idle=0.2))
        sender = threading.Thread(target=server.sendall, args=(bytes(size),), daemon=True)
        sender.start()
        pause, left = threading.Event(), size
        while left:
            part = client.recv(min(piece, left))
            assert part, f"cut, {left} bytes early"
            left -= len(part)
            pause.wait(0.01)
        sender.join()
        with suppress(ConnectionError):
            send_until_full(server, bytes(8 * size))
        plane.wait_ends({"idle_timeout": 1})


def test_immortal() -> None:
    """With idle 0 silence ends nothing, also after the dial's deadline has passed."""
    with running() as plane:
        client, server = pair(plane, Timeouts(idle=0.0, connect=0.2))
        threading.Event().wait(0.6)
        assert is_silent(client)
        assert len(plane.plane.wheel) == 0
        client.sendall(b"still there")
        assert read_exactly(server, 11) == b"still there"
        client.close()
        assert read_to_end(server) == b""
        server.close()
        plane.wait_ends({"client_closed": 1})


def test_lifetime() -> None:
    """A connection that is never idle ends all the same when its time is over."""
    limit = 0.6
    with running() as plane:
        begun = time.monotonic()
        client, server = pair(plane, Timeouts(lifetime=limit))
        client.settimeout(0.05)
        received = b""
        while True:
            try:
                server.sendall(b".")
                part = client.recv(100)
            except TimeoutError:
                continue
            except OSError:
                break
            if not part:
                break
            received += part
        assert time.monotonic() - begun >= limit
        assert received
        plane.wait_ends({"lifetime": 1})


def test_the_first_of_several_deadlines_names_the_end() -> None:
    """Idle before lifetime is idle, lifetime before idle is lifetime."""
    with running() as plane:
        target = plane.target()
        for timeouts, end in (
            (Timeouts(idle=0.2, lifetime=5.0), "idle_timeout"),
            (Timeouts(idle=5.0, lifetime=0.2), "lifetime"),
        ):
            client = plane.connect(plane.serve(target, timeouts=timeouts))
            server = target.accept()
            assert read_to_end(client) == b""
            assert read_to_end(server) == b""
            assert plane.ends()[end] == 1


def test_keep_alive_probes_are_on_for_both_sides() -> None:
    """A connection that lives beyond its first deadline is probed, on both of its sockets."""
    with running() as plane:
        client, server = pair(plane, Timeouts(connect=0.1))
        wait_until(lambda: plane.cells[1] == 1, "the dial")
        (conn,) = plane.plane.open
        assert conn.up is not None
        socks = conn.down.sock, conn.up.sock
        pause = threading.Event()
        pause.wait(0.4)
        for sock in socks:
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 600
        client.close()
        assert read_to_end(server) == b""
        server.close()
        plane.wait_ends({"client_closed": 1})
        del conn, socks
