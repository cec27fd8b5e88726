"""What a client may do while its target is being dialled."""

from __future__ import annotations

import socket
import time

from shared.plan import Timeouts
from tests.data_plane_harness import running
from tests.data_plane_sockets import read_exactly, read_to_end, reset
from tests.helpers.waiting import wait_until


def test_a_reset_stops_the_dial() -> None:
    """The dial is given up at once, its socket closed; the target is not to blame."""
    with running() as plane:
        hole = plane.black_hole()
        client = plane.connect(plane.serve(hole, timeouts=Timeouts(connect=30.0)))
        client.sendall(b"request")
        wait_until(lambda: plane.counts().active == 1, "the dial")
        reset(client)
        plane.wait_ends({"client_gone": 1})
        assert plane.target_counts(hole).connect_failures == {}


def test_a_reset_after_fin_stops_the_dial() -> None:
    """Also where the client had ended before."""
    with running() as plane:
        client = plane.connect(plane.serve(plane.black_hole()))
        client.shutdown(socket.SHUT_WR)
        wait_until(lambda: plane.counts().active == 1, "the dial")
        reset(client)
        plane.wait_ends({"client_gone": 1})


def test_fin_during_the_dial_is_a_half_close() -> None:
    """The first target never answers; the second gets the request and its end, and answers."""
    with running() as plane:
        hole, target = plane.black_hole(), plane.target()
        client = plane.connect(plane.serve(hole, target, timeouts=Timeouts(connect=0.6)))
        client.sendall(b"request")
        client.shutdown(socket.SHUT_WR)
        server = target.accept()
        assert read_to_end(server) == b"request"
        server.sendall(b"answer")
        server.close()
        assert read_to_end(client) == b"answer"
        plane.wait_ends({"client_closed": 1})


def test_fin_without_a_byte_during_the_dial() -> None:
    """A client that only listens: its FIN is passed on and the target still speaks."""
    with running() as plane:
        hole, target = plane.black_hole(), plane.target()
        client = plane.connect(plane.serve(hole, target, timeouts=Timeouts(connect=0.6)))
        client.shutdown(socket.SHUT_WR)
        server = target.accept()
        assert read_to_end(server) == b""
        server.sendall(b"news")
        server.close()
        assert read_to_end(client) == b"news"
        plane.wait_ends({"client_closed": 1})


def test_fin_during_a_dial_that_fails() -> None:
    """The end is that of the dial, and never before its time."""
    with running() as plane:
        begun = time.monotonic()
        client = plane.connect(plane.serve(plane.black_hole(), timeouts=Timeouts(connect=0.3)))
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == b""
        assert time.monotonic() - begun >= 0.3
        plane.wait_ends({"connect_timeout": 1})


def test_bytes_during_the_dial_wait() -> None:
    """All that the client says meanwhile, also more than one read takes, arrives in order."""
    data = bytes(range(256)) * 2000
    with running() as plane:
        hole, target = plane.black_hole(), plane.target()
        client = plane.connect(plane.serve(hole, target, timeouts=Timeouts(connect=0.6)))
        for start in range(0, len(data), 100_000):
            client.sendall(data[start : start + 100_000])
        server = target.accept()
        assert read_exactly(server, len(data)) == data
        client.close()
        assert read_to_end(server) == b""
        server.close()
        plane.wait_ends({"client_closed": 1})


def test_stop_during_a_dial() -> None:
    """A full stop ends what is being dialled."""
    with running() as plane:
        client = plane.connect(plane.serve(plane.black_hole()))
        wait_until(lambda: plane.counts().active == 1, "the dial")
        plane.call(plane.plane.stop)
        assert read_to_end(client) == b""
        plane.wait_ends({"stopped": 1})
