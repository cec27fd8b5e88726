"""The relay: every byte arrives once and in order, whatever the sizes, buffers and speeds."""

from __future__ import annotations

import hashlib
import random
import socket
from typing import Final

import pytest

from shared.plan import ListenerPlan
from tests.data_plane_harness import Plane, running
from tests.data_plane_sockets import (
    Target,
    in_thread,
    is_silent,
    read_exactly,
    read_to_end,
    send_until_full,
)
from tests.helpers.waiting import wait_until
from worker.relay import SIZE, SPLICE_SIZE

KIB: Final = 1024
MIB: Final = 1024 * KIB
SIZES: Final = (0, 1, 2, 1460, 4 * KIB, 64 * KIB, SIZE - 1, SIZE, SIZE + 1, 2 * SIZE, MIB + 7)


def payload(size: int, seed: int = 0) -> bytes:
    """Bytes without any period, so that a lost or doubled piece changes them."""
    return random.Random(seed).randbytes(size)


def send_and_end(sock: socket.socket, data: bytes) -> None:
    """All of it, then FIN."""
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


def pair(plane: Plane, buffer: int = 0) -> tuple[socket.socket, socket.socket]:
    """A client and the target's end of the same connection; ``buffer`` of both, in bytes."""
    target = plane.target()
    if buffer:
        # Before listen the size is inherited, and so is the window that it allows.
        target.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        target.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    client = plane.connect(plane.serve(target), buffer=buffer)
    return client, target.accept()


def finish(plane: Plane, client: socket.socket, server: socket.socket) -> None:
    """End it from the client's side and see that both ends are counted."""
    client.shutdown(socket.SHUT_WR)
    assert read_to_end(server) == b""
    server.close()
    assert read_to_end(client) == b""
    plane.wait_ends({"client_closed": 1})


@pytest.mark.parametrize("size", SIZES)
def test_both_ways_at_once(size: int) -> None:
    """A payload of this size each way, both ended by FIN, arrives whole and is counted."""
    there, back = payload(size, 1), payload(size, 2)
    with running() as plane:
        client, server = pair(plane)
        with (
            in_thread(lambda: send_and_end(client, there)),
            in_thread(lambda: send_and_end(server, back)),
        ):
            answers: list[bytes] = []
            with in_thread(lambda: answers.append(read_to_end(client))):
                assert read_to_end(server) == there
        assert answers == [back]
        wait_until(lambda: plane.plane.connections == 0, "the end")
        counts = plane.counts()
        assert (counts.received, counts.sent) == (size, size)
        target = next(iter(counts.targets.values()))
        assert (target.received, target.sent) == (size, size)
        assert sum(counts.ends.values()) == 1
        assert set(counts.ends) <= {"client_closed", "target_closed"}


def test_bulk_each_way_arrives_unchanged() -> None:
    """Several MiB, one way after the other, have the same hash at both ends."""
    data = payload(8 * MIB)
    digest = hashlib.sha256(data).digest()
    with running() as plane:
        client, server = pair(plane)
        for sender, receiver in ((client, server), (server, client)):
            with in_thread(lambda sender=sender: sender.sendall(data)):  # type: ignore[misc]
                assert hashlib.sha256(read_exactly(receiver, len(data))).digest() == digest
        finish(plane, client, server)
        counts = plane.counts()
        assert (counts.received, counts.sent) == (len(data), len(data))


def test_one_byte_drip() -> None:
    """Single bytes, each answered before the next, pass at once."""
    with running() as plane:
        client, server = pair(plane)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for value in range(300):
            byte = bytes([value % 256])
            client.sendall(byte)
            assert server.recv(10) == byte
            server.sendall(byte)
            assert client.recv(10) == byte
        finish(plane, client, server)
        assert (plane.counts().received, plane.counts().sent) == (300, 300)


def test_tiny_buffers_make_partial_writes() -> None:
    """With socket buffers of a few KiB at both peers, both directions at once lose nothing."""
    there, back = payload(600 * KIB, 3), payload(600 * KIB, 4)
    with running() as plane:
        client, server = pair(plane, buffer=4 * KIB)
        with (
            in_thread(lambda: client.sendall(there)),
            in_thread(lambda: server.sendall(back)),
        ):
            answers: list[bytes] = []
            with in_thread(lambda: answers.append(read_exactly(client, len(back)))):
                assert read_exactly(server, len(there)) == there
        assert answers == [back]
        finish(plane, client, server)


@pytest.mark.parametrize("is_from_client", [True, False], ids=["upload", "download"])
@pytest.mark.parametrize("most_pipes", [0, 256], ids=["copied", "spliced"])
def test_a_slow_reader_holds_the_writer_back(is_from_client: bool, most_pipes: int) -> None:
    """What the data plane holds for a reader that reads nothing is one buffer or one pipe."""
    data = payload(64 * MIB)
    with running() as plane:
        client, server = pair(plane)
        plane.plane.pipes._most = most_pipes
        writer, reader = (client, server) if is_from_client else (server, client)
        sent = send_until_full(writer, data)
        assert sent < len(data), "nothing held the writer back"
        conn = next(iter(plane.plane.open))
        assert conn.up is not None
        sides = conn.down, conn.up
        held = plane.call(
            lambda: sum(
                len(side.outbox) + (side.pipe.held if side.pipe is not None else 0)
                for side in sides
            )
        )
        assert 0 < held <= max(SIZE, SPLICE_SIZE)
        # The other direction is not held up by it.
        reader.sendall(b"still here")
        assert read_exactly(writer, 10) == b"still here"
        assert read_exactly(reader, sent) == data[:sent]
        assert is_silent(reader)
        finish(plane, client, server)


def test_both_directions_stopped_and_going_on() -> None:
    """With both peers writing and none reading all stops; reading lets both go on to the end."""
    data = payload(48 * MIB)
    with running() as plane:
        client, server = pair(plane)
        there, back = send_until_full(client, data), send_until_full(server, data)
        assert max(there, back) < len(data)
        answers: list[bytes] = []
        with in_thread(lambda: answers.append(read_exactly(client, back))):
            assert read_exactly(server, there) == data[:there]
        assert answers == [data[:back]]
        finish(plane, client, server)


def test_bulk_takes_a_pipe_and_an_idle_connection_gives_it_back() -> None:
    """A direction that proves bulk is spliced; idle it holds no pipe, and copies small bytes."""
    data = payload(32 * MIB)
    with running() as plane:
        client, server = pair(plane)
        sent, received = plane.splice(client, server, data)
        with in_thread(lambda: client.sendall(data[sent:])):
            assert received + read_exactly(server, len(data) - len(received)) == data
        wait_until(lambda: plane.lent == 0, "the pipe is given back")
        for _ in range(3):
            client.sendall(b"small")
            assert read_exactly(server, 5) == b"small"
        assert plane.lent == 0
        finish(plane, client, server)


def test_small_moves_leave_splice_while_bytes_still_come() -> None:
    """A direction that turns from bulk to messages goes back to copies without losing any."""
    data = payload(32 * MIB)
    with running() as plane:
        client, server = pair(plane)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sent, received = plane.splice(client, server, data)
        with in_thread(lambda: client.sendall(data[sent:])):
            assert received + read_exactly(server, len(data) - len(received)) == data
        for number in range(50):
            client.sendall(b"message %02d" % number)
            assert read_exactly(server, 10) == b"message %02d" % number
        wait_until(lambda: plane.lent == 0, "the pipe is given back")
        finish(plane, client, server)


def test_splice_both_ways_at_once() -> None:
    """Two pipes of one connection do not disturb each other."""
    there, back = payload(32 * MIB, 5), payload(32 * MIB, 6)
    with running() as plane:
        client, server = pair(plane)
        first, server_got = plane.splice(client, server, there)
        second, client_got = plane.splice(server, client, back)
        assert plane.lent == 2
        answers: list[bytes] = []
        with (
            in_thread(lambda: client.sendall(there[first:])),
            in_thread(lambda: server.sendall(back[second:])),
            in_thread(lambda: answers.append(read_exactly(client, len(back) - len(client_got)))),
        ):
            assert server_got + read_exactly(server, len(there) - len(server_got)) == there
        assert [client_got + answer for answer in answers] == [back]
        finish(plane, client, server)


def test_without_a_pipe_bulk_is_copied() -> None:
    """When the pool is exhausted a bulk direction goes on by copying."""
    data = payload(3 * MIB)
    with running() as plane:
        pool = plane.plane.pipes
        all_pipes = plane.call(lambda: list(iter(pool.take, None)))
        client, server = pair(plane)
        with in_thread(lambda: client.sendall(data)):
            assert read_exactly(server, len(data)) == data
        finish(plane, client, server)
        for pipe in all_pipes:
            plane.call(lambda pipe=pipe: pool.give_back(pipe))  # type: ignore[misc]


def urgent(plane: Plane, listener: ListenerPlan, target: Target) -> None:
    """Bytes before and after TCP urgent data, all there before the data plane looks."""
    client = plane.connect(listener)
    server = target.accept()

    def send() -> None:
        client.sendall(b"before")
        client.send(b"!", socket.MSG_OOB)
        client.sendall(b"after")

    plane.call(send)
    assert read_exactly(server, 11) == b"beforeafter"
    client.close()
    assert read_to_end(server) == b""
    server.close()


def test_urgent_data_stops_nothing() -> None:
    """A read stops at urgent data; what comes behind it is relayed without waiting for more."""
    with running() as plane:
        target = plane.target()
        urgent(plane, plane.serve(target), target)
        plane.wait_ends({"client_closed": 1})
