"""Listeners of a worker that have left the config, and listeners that were shut down meanwhile."""

from __future__ import annotations

import socket

from tests.data_plane_harness import Plane, route, running
from tests.data_plane_sockets import read_to_end
from tests.helpers.waiting import wait_until
from worker.listener import ListenSocket


def is_polled(plane: Plane, listener: int) -> bool:
    """Whether any socket of this listener is watched."""
    table = plane.plane.reactor.table
    found = [one for one in list(table.values()) if isinstance(one, ListenSocket)]
    return any(one.listener.id == listener for one in found)


def test_a_listener_that_left_is_served_until_it_retires() -> None:
    """Whoever dials before the reload has answered does not wait for the port's end."""
    with running() as plane:
        target = plane.target()
        kept, removed = plane.listen(), plane.listen()
        plane.commit(route("kept", kept, target), route("removed", removed, target))
        plane.listeners.remove(removed)
        plane.commit(route("kept", kept, target))
        with plane.connect(removed) as client, target.accept() as server:
            client.sendall(b"served")
            assert server.recv(6) == b"served"
        plane.call(lambda: plane.plane.retire([removed.id]))
        assert not is_polled(plane, removed.id)
        assert is_polled(plane, kept.id)


def test_a_listener_that_was_shut_down_does_not_pause_the_others() -> None:
    """A worker that slept while a port left finds its socket shut down: it leaves that alone."""
    with running() as plane:
        target = plane.target()
        kept, gone = plane.listen(), plane.listen()
        plane.commit(route("kept", kept, target), route("gone", gone, target))
        plane.call(lambda: plane.plane._held[gone.id, 0].shutdown(socket.SHUT_RDWR))
        wait_until(lambda: not plane.call(lambda: is_polled(plane, gone.id)), "it is left alone")
        assert not plane.plane.is_paused
        assert plane.lines == []
        client = plane.connect(kept)
        with target.accept() as server:
            client.close()
            assert read_to_end(server) == b""
        plane.wait_ends({"client_closed": 1})
