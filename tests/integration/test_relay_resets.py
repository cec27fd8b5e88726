"""RST from either side: passed on as RST, after what was said before it, and nothing spins."""

from __future__ import annotations

import resource
import socket
import threading
from collections.abc import Callable
from typing import Any, Final

import pytest

from shared.plan import Timeouts
from tests.data_plane_harness import Plane, running
from tests.data_plane_sockets import (
    in_turn,
    read_exactly,
    read_to_end,
    read_to_reset,
    reset,
    send_until_full,
)
from tests.helpers.waiting import wait_until

BLOCK: Final = bytes(range(256)) * 256  # 64 KiB
SIDES: Final = pytest.mark.parametrize("is_client", [True, False], ids=["client", "target"])


def reason(is_client: bool) -> dict[str, int]:
    """The end when that side reset."""
    return {"client_reset" if is_client else "target_reset": 1}


def pair(plane: Plane, is_client: bool, **settings: Any) -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection, the one that will reset first."""
    target = plane.target()
    client = plane.connect(plane.serve(target, **settings))
    server = target.accept()
    return (client, server) if is_client else (server, client)


def fill(sock: socket.socket) -> int:
    """Send until nothing more goes for a while; returns how many bytes went."""
    return send_until_full(sock, BLOCK * 1000)


def turns(plane: Plane, function: Callable[[], object]) -> int:
    """Batches of the reactor while ``function`` runs."""
    reactor = plane.plane.reactor
    counted = 0
    dispatch = reactor._dispatch

    def counting(*arguments: Any) -> None:
        nonlocal counted
        counted += 1
        dispatch(*arguments)

    plane.call(lambda: setattr(reactor, "_dispatch", counting))
    function()
    plane.call(lambda: setattr(reactor, "_dispatch", dispatch))
    return counted


def idle() -> None:
    """Let 300 ms go by."""
    threading.Event().wait(0.3)


@SIDES
def test_a_reset_is_passed_on(is_client: bool) -> None:
    """The other side sees RST, not FIN, after all that was sent before."""
    with running() as plane:
        first, second = pair(plane, is_client)
        first.sendall(b"last words")
        assert read_exactly(second, 10) == b"last words"
        reset(first)
        assert read_to_reset(second) == b""
        plane.wait_ends(reason(is_client))


@SIDES
def test_bytes_and_reset_seen_together(is_client: bool) -> None:
    """Bytes that the RST overtook in the same batch are delivered before it."""
    with running() as plane:
        first, second = pair(plane, is_client)
        plane.call(in_turn(lambda: first.sendall(b"last words"), lambda: reset(first)))
        assert read_to_reset(second) == b"last words"
        plane.wait_ends(reason(is_client))


@SIDES
def test_a_reset_behind_a_large_queue_comes_after_it(is_client: bool) -> None:
    """A reader that was slow gets all that had been read or was queued, and then the RST."""
    with running() as plane:
        first, second = pair(plane, is_client)
        sent = fill(first)
        reset(first)
        received = read_to_reset(second)
        plane.wait_ends(reason(is_client))
        # What the sender's kernel still held is gone with its RST; all that was read is not.
        counts = plane.counts()
        (target,) = counts.targets.values()
        taken = counts.received if is_client else target.received
        assert 0 < len(received) == taken <= sent
        expected = BLOCK * (len(received) // len(BLOCK) + 1)
        assert received == expected[: len(received)]


@SIDES
def test_a_reset_while_paused_is_not_kept_for_ever(is_client: bool) -> None:
    """With a peer that never reads, the connection is over after a short cap, without a spin."""
    with running() as plane:
        first, second = pair(plane, is_client)
        fill(first)
        before = resource.getrusage(resource.RUSAGE_SELF)
        reset(first)
        assert turns(plane, idle) < 100
        after = resource.getrusage(resource.RUSAGE_SELF)
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.25
        plane.wait_ends(reason(is_client))
        read_to_reset(second)


@SIDES
def test_a_reset_after_fin(is_client: bool) -> None:
    """An RST of the side that had ended is passed on to the one that still sends."""
    with running() as plane:
        first, second = pair(plane, is_client)
        first.shutdown(socket.SHUT_WR)
        assert read_to_end(second) == b""
        reset(first)
        wait_until(lambda: plane.plane.connections == 0, "the end")
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            second.sendall(BLOCK * 1000)
        plane.wait_ends(reason(is_client))


@SIDES
def test_a_reset_of_the_side_that_still_sends(is_client: bool) -> None:
    """In the half-closed state the RST of the open side reaches the one that had ended."""
    with running() as plane:
        first, second = pair(plane, is_client)
        second.shutdown(socket.SHUT_WR)
        assert read_to_end(first) == b""
        plane.call(in_turn(lambda: first.sendall(b"partial"), lambda: reset(first)))
        assert read_to_reset(second) == b"partial"
        plane.wait_ends(reason(is_client))


@SIDES
def test_a_reset_in_splice_mode(is_client: bool) -> None:
    """While a direction is spliced, an RST of its sender gives the pipe back."""
    with running() as plane:
        first, second = pair(plane, is_client)
        plane.splice(first, second, BLOCK * 1000)
        reset(first)
        assert read_to_reset(second)
        plane.wait_ends(reason(is_client))
        assert plane.plane.pipes.lent == 0


@SIDES
def test_a_reader_that_resets_in_splice_mode(is_client: bool) -> None:
    """While bytes wait for it in a pipe, an RST of the reader reaches the writer."""
    with running() as plane:
        reader, writer = pair(plane, is_client)
        plane.splice(writer, reader, BLOCK * 1000)
        reset(reader)
        wait_until(lambda: plane.plane.connections == 0, "the end")
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            writer.sendall(BLOCK * 1000)
        plane.wait_ends(reason(is_client))


@SIDES
def test_a_close_with_unread_bytes_is_a_reset(is_client: bool) -> None:
    """A peer that closes without having read what was sent to it is a reset; nobody hangs."""
    with running() as plane:
        first, second = pair(plane, is_client)
        second.sendall(b"never read")
        wait_until(lambda: first.recv(1, socket.MSG_PEEK) != b"", "the bytes")
        first.close()
        assert read_to_reset(second) == b""
        plane.wait_ends(reason(is_client))


def test_a_target_that_resets_right_after_it_accepted() -> None:
    """The client is let go in any case, whether the dial or the relay met the RST."""
    with running() as plane:
        target = plane.target()
        listener = plane.serve(target)
        for _ in range(10):
            client = plane.connect(listener)
            reset(target.accept())
            try:
                assert client.recv(1) == b""
            except ConnectionResetError:
                pass
        wait_until(lambda: plane.plane.connections == 0, "the end")
        ends = plane.ends()
        assert sum(ends.values()) == 10
        assert set(ends) <= {"target_reset", "connect_failed"}


@SIDES
def test_half_dead_connections_do_not_spin(is_client: bool) -> None:
    """A connection half closed and one held back by its reader cause no turns while idle."""
    with running() as plane:
        listener = plane.serve(target := plane.target(), timeouts=Timeouts(half_closed=60.0))
        clients = [plane.connect(listener) for _ in range(2)]
        servers = [target.accept() for _ in range(2)]
        first, second = (clients, servers) if is_client else (servers, clients)
        first[0].shutdown(socket.SHUT_WR)
        assert read_to_end(second[0]) == b""
        fill(first[1])
        before = resource.getrusage(resource.RUSAGE_SELF)
        assert turns(plane, idle) < 100
        after = resource.getrusage(resource.RUSAGE_SELF)
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.25
        for sock in clients:
            reset(sock)
        wait_until(lambda: plane.plane.connections == 0, "the end")
        assert plane.ends() == {"client_reset": 2}
