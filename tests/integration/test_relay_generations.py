"""New generations, sockets that come and go, drain and stop, while connections live."""

from __future__ import annotations

import socket
import time

import pytest

from shared.errors import WorkerBootError
from shared.messages import Prepare
from shared.plan import Endpoints, ListenerPlan, TargetPlan, Timeouts
from tests.data_plane_harness import Plane, route, running
from tests.data_plane_sockets import Target, is_silent, read_exactly, read_to_end
from tests.helpers.waiting import wait_until
from worker.listener import ListenSocket


def pair(
    plane: Plane, listener: ListenerPlan, target: Target
) -> tuple[socket.socket, socket.socket]:
    """A client and the target's end of its connection."""
    client = plane.connect(listener)
    return client, target.accept()


def exchange(client: socket.socket, server: socket.socket) -> None:
    """A word each way."""
    client.sendall(b"ping")
    assert read_exactly(server, 4) == b"ping"
    server.sendall(b"pong")
    assert read_exactly(client, 4) == b"pong"


def finish(client: socket.socket, server: socket.socket) -> None:
    """End it from the client's side."""
    client.close()
    assert read_to_end(server) == b""
    server.close()


def test_a_commit_touches_no_connection_of_an_unchanged_route() -> None:
    """Same connection object, same sockets, no system call on them; counters go on."""
    with running() as plane:
        target = plane.target()
        listener = plane.serve(target)
        client, server = pair(plane, listener, target)
        exchange(client, server)
        (conn,) = plane.plane.open
        before = (conn.down.sock.fileno(), conn.state, conn.slot, id(conn.route))
        for _ in range(3):
            plane.commit(route("r", listener, target))
        assert plane.plane.generation == 4
        assert (conn.down.sock.fileno(), conn.state, conn.slot, id(conn.route)) == before
        exchange(client, server)
        finish(client, server)
        del conn
        plane.wait_ends({"client_closed": 1})
        assert (plane.counts().total, plane.counts().received) == (1, 8)


def test_a_changed_route_serves_new_connections_only() -> None:
    """Old connections stay with their target; the route's counters have both."""
    with running() as plane:
        first, second = plane.target(), plane.target()
        listener = plane.serve(first)
        old = pair(plane, listener, first)
        plane.commit(route("r", listener, second, timeouts=Timeouts(idle=5.0)))
        new = pair(plane, listener, second)
        exchange(*old)
        exchange(*new)
        assert plane.counts().total == 2
        assert plane.target_counts(first).total == 1
        finish(*old)
        finish(*new)
        plane.wait_ends({"client_closed": 2})


def test_a_removed_route_drains_and_then_ends() -> None:
    """Its connections go on for `drain`, counted as draining, then end as route_removed."""
    drain = 0.5
    with running() as plane:
        target = plane.target()
        listener = plane.listen()
        plane.commit(route("old", listener, target, timeouts=Timeouts(drain=drain)))
        staying = pair(plane, listener, target)
        leaving = pair(plane, listener, target)
        begun = time.monotonic()
        plane.commit(route("new", listener, target))
        exchange(*staying)
        assert plane.counts("old").draining == 2
        finish(*leaving)
        wait_until(lambda: plane.counts("old").draining == 1, "one has left")
        exchange(*staying)
        assert read_to_end(staying[0]) == b""
        assert time.monotonic() - begun >= drain
        plane.wait_ends({"client_closed": 1, "route_removed": 1})
        assert plane.counts("old").draining == 0


def test_a_removed_route_that_comes_back_keeps_its_connections() -> None:
    """Back within `drain` they are cut by nothing; removed once more, `drain` begins anew."""
    drain = 0.5
    with running() as plane:
        target = plane.target()
        listener = plane.listen()
        times = Timeouts(drain=drain)
        old, more = route("old", listener, target, timeouts=times), route("more", listener, target)
        plane.commit(old)
        staying = pair(plane, listener, target)
        plane.commit(route("gone", listener, target, timeouts=times))
        going = pair(plane, listener, target)
        plane.commit(old, more)
        assert read_to_end(going[0]) == b""  # a moment after the first one was to be cut
        exchange(*staying)
        assert plane.counts("old").draining == 0
        plane.commit(more)
        assert plane.counts("old").draining == 1
        assert read_to_end(staying[0]) == b""
        plane.wait_ends({"route_removed": 2})


def test_a_route_removed_while_its_first_bytes_are_awaited() -> None:
    """The connection gets its route all the same, and drains with it."""
    with running() as plane:
        target = plane.target()
        listener = plane.listen()
        plane.commit(route("old", listener, target, tls=False, timeouts=Timeouts(drain=0.3)))
        client = plane.connect(listener)
        wait_until(lambda: plane.plane.connections == 1, "the accept")
        plane.commit(route("new", listener, target))
        client.sendall(b"words")
        server = target.accept()
        assert read_exactly(server, 5) == b"words"
        assert read_to_end(client) == b""
        plane.wait_ends({"route_removed": 1})


def test_counters_survive_a_route_that_returns() -> None:
    """Removed and back under the same name, it goes on counting where it was."""
    with running() as plane:
        target = plane.target()
        listener = plane.serve(target)
        finish(*pair(plane, listener, target))
        plane.wait_ends({"client_closed": 1})
        plane.commit(route("other", listener, target))
        plane.commit(route("r", listener, target))
        finish(*pair(plane, listener, target))
        plane.wait_ends({"client_closed": 2})
        assert plane.counts().total == 2


def test_marks_and_turns_survive_a_commit() -> None:
    """A target known to be dead stays the last choice after a reload."""
    with running() as plane:
        dead, target = plane.dead_target(), plane.target()
        listener = plane.serve(dead, target)
        for _ in range(4):
            finish(*pair(plane, listener, target))
            plane.commit(route("r", listener, dead, target))
        plane.wait_ends({"client_closed": 4})
        assert plane.target_counts(dead).connect_failures == {"refused": 1}


def test_an_aborted_generation_leaves_no_trace() -> None:
    """Its sockets are closed, its routes unknown, and the old one serves."""
    with running() as plane:
        target = plane.target()
        listener = plane.serve(target)
        refused = plane.listen()
        plane.listeners.remove(refused)

        def prepare_and_abort() -> None:
            data_plane = plane.plane
            data_plane.begin(
                Prepare(
                    generation=2,
                    listeners=[listener, refused],
                    routes=1,
                    endpoints=Endpoints(addresses={}),
                )
            )
            data_plane.add_routes([route("r2", refused, target)])
            data_plane.abort(2)

        plane.call(prepare_and_abort)
        with pytest.raises(ConnectionRefusedError):
            plane.connect(refused)
        with pytest.raises(WorkerBootError):
            plane.call(lambda: plane.plane.commit(2))
        assert plane.plane.generation == 1
        finish(*pair(plane, listener, target))
        plane.wait_ends({"client_closed": 1})


def test_a_generation_without_its_sockets_says_which() -> None:
    """What is missing is named by listener and index."""
    with running() as plane:
        absent = ListenerPlan(id=99, name="127.0.0.1:9", host="127.0.0.1", port=9, sockets=2)

        def prepare() -> list[tuple[int, int]]:
            plane.plane.begin(
                Prepare(
                    generation=1,
                    listeners=[absent],
                    routes=0,
                    endpoints=Endpoints(addresses={}),
                )
            )
            missing = plane.plane.missing_sockets()
            plane.plane.abort(1)
            return missing

        assert plane.call(prepare) == [(99, 0), (99, 1)]


def test_retire_serves_what_waits_and_closes() -> None:
    """Connections in the backlog are accepted under their old routes; then the port is closed."""
    with running() as plane:
        target = plane.target()
        listener = plane.serve(target)
        plane.call(lambda: plane.plane.assign([]))
        clients = [plane.connect(listener) for _ in range(40)]
        assert plane.plane.connections == 0
        plane.call(lambda: plane.plane.retire([listener.id]))
        servers = [target.accept() for _ in clients]
        with pytest.raises(ConnectionRefusedError):
            plane.connect(listener)
        for client, server in zip(clients, servers, strict=True):
            client.close()
            assert read_to_end(server) == b""
            server.close()
        plane.wait_ends({"client_closed": 40})


def polled(plane: Plane) -> list[int]:
    """Indexes of the sockets that are polled now."""
    table = plane.plane.reactor.table
    found = [one for one in table.values() if isinstance(one, ListenSocket)]
    return sorted(
        index
        for one in found
        for index, sock in one.listener.sockets.items()
        if sock is one and one.is_polled
    )


def test_assign_moves_the_polling() -> None:
    """Exactly the assigned sockets are polled; what waits on another is served once it is."""
    with running() as plane:
        target = plane.target()
        listener = plane.listen(sockets=3)
        plane.commit(route("r", listener, target))
        assert plane.call(lambda: polled(plane)) == [0]
        clients = [plane.connect(listener) for _ in range(30)]
        plane.call(lambda: plane.plane.assign([1]))
        assert plane.call(lambda: polled(plane)) == [1]
        plane.call(lambda: plane.plane.assign([0, 1, 2]))
        assert plane.call(lambda: polled(plane)) == [0, 1, 2]
        servers = [target.accept() for _ in clients]
        plane.call(lambda: plane.plane.assign([]))
        assert plane.call(lambda: polled(plane)) == []
        for client in clients:
            client.close()
        for server in servers:
            assert read_to_end(server) == b""
            server.close()
        plane.wait_ends({"client_closed": 30})


def drained(plane: Plane, deadline_s: float | None, close: bool) -> list[tuple[int, int]]:
    """Begin a drain; the list gets (drained, cut) when it is over."""
    result: list[tuple[int, int]] = []
    plane.call(lambda: plane.plane.drain(deadline_s, close, lambda *counts: result.append(counts)))
    return result


def test_drain_counts_who_left_and_who_was_cut() -> None:
    """Two finish by themselves, one is cut at the deadline and not before."""
    limit = 0.6
    with running() as plane:
        target = plane.target()
        listener = plane.serve(target)
        pairs = [pair(plane, listener, target) for _ in range(3)]
        begun = time.monotonic()
        result = drained(plane, limit, close=True)
        with pytest.raises(ConnectionRefusedError):
            plane.connect(listener)
        for client, server in pairs[:2]:
            exchange(client, server)
            finish(client, server)
        assert result == []
        assert read_to_end(pairs[2][0]) == b""
        assert time.monotonic() - begun >= limit
        plane.wait_ends({"client_closed": 2, "drain_deadline": 1})
        assert result == [(2, 1)]


def test_drain_serves_what_waits_and_has_no_deadline_of_its_own() -> None:
    """The backlog is accepted before polling stops; siblings keep the listener."""
    with running() as plane:
        target = plane.target()
        listener = plane.serve(target)
        plane.call(lambda: plane.plane.assign([0]))
        client = plane.connect(listener)
        result = drained(plane, None, close=False)
        server = target.accept()
        exchange(client, server)
        late = plane.connect(listener)  # into the backlog, for a sibling
        assert is_silent(late)
        assert plane.cells[0] == 1
        assert result == []
        finish(client, server)
        plane.wait_ends({"client_closed": 1})
        assert result == [(1, 0)]


def test_drain_of_nothing_is_over_at_once() -> None:
    """Without connections the answer comes within the call."""
    with running() as plane:
        plane.serve(plane.target())
        assert drained(plane, 5.0, close=True) == [(0, 0)]


def test_stop_cuts_all() -> None:
    """Every connection ends as stopped."""
    with running() as plane:
        target = plane.target()
        listener = plane.serve(target)
        pairs = [pair(plane, listener, target) for _ in range(5)]
        plane.call(plane.plane.stop)
        for client, server in pairs:
            assert read_to_end(client) == b""
            assert read_to_end(server) == b""
        plane.wait_ends({"stopped": 5})


def test_a_new_listener_beside_the_old() -> None:
    """A second port comes with a commit and serves, the first never stops."""
    with running() as plane:
        target = plane.target()
        first = plane.serve(target)
        old = pair(plane, first, target)
        second = plane.listen()
        plane.commit(route("r", [first, second], target))
        new = pair(plane, second, target)
        again = pair(plane, first, target)
        for client, server in (old, new, again):
            exchange(client, server)
            finish(client, server)
        plane.wait_ends({"client_closed": 3})
        listeners = plane.snapshot().listeners
        assert [listeners[name].accepted for name in (first.name, second.name)] == [2, 1]


def test_a_target_that_moves_by_resolution() -> None:
    """New addresses of a name serve new connections, old ones stay."""
    with running() as plane:
        first = plane.target(host="127.0.0.1")
        second = plane.target(host="127.0.0.2", port=first.port)
        name = TargetPlan(name="app", host="app.internal", port=first.port)
        listener = plane.listen()
        plane.commit(route("r", listener, name), addresses={"app.internal": ["127.0.0.1"]})
        old = pair(plane, listener, first)
        plane.resolve({"app.internal": ["127.0.0.2"]})
        new = pair(plane, listener, second)
        for client, server in (old, new):
            exchange(client, server)
            finish(client, server)
        plane.wait_ends({"client_closed": 2})
