"""The dial: which endpoint is tried when, kinds of targets, and what is counted of failures."""

from __future__ import annotations

import socket
import time
from collections import Counter

import pytest

from shared.plan import TargetPlan, Timeouts
from tests.data_plane_harness import Plane, route, running
from tests.data_plane_sockets import (
    Target,
    descriptors,
    in_turn,
    is_silent,
    read_exactly,
    read_to_end,
)
from tests.helpers.waiting import wait_until


def use(plane: Plane, client: socket.socket, target: Target) -> None:
    """A word each way over a connection that must reach ``target``, then its end."""
    client.sendall(b"ping")
    server = target.accept()
    assert read_exactly(server, 4) == b"ping"
    server.sendall(b"pong")
    assert read_exactly(client, 4) == b"pong"
    client.close()
    assert read_to_end(server) == b""
    server.close()


def test_a_refused_dial_tries_the_next_target() -> None:
    """The client never notices; the failure is counted with its reason."""
    with running() as plane:
        dead, target = plane.dead_target(), plane.target()
        listener = plane.serve(dead, target)
        use(plane, plane.connect(listener), target)
        plane.wait_ends({"client_closed": 1})
        assert plane.target_counts(dead).connect_failures == {"refused": 1}
        assert plane.target_counts(dead).total == 0
        assert plane.target_counts(target).total == 1


def test_all_refused() -> None:
    """Each endpoint is tried once, then the client is closed, counted and logged."""
    with running() as plane:
        dead = [plane.dead_target() for _ in range(3)]
        client = plane.connect(plane.serve(*dead))
        assert read_to_end(client) == b""
        plane.wait_ends({"connect_failed": 1})
        for one in dead:
            assert plane.target_counts(one).connect_failures == {"refused": 1}
        assert len(plane.logged("connect_failed")) == 1


def test_a_failed_endpoint_is_tried_last() -> None:
    """After one failure the dead target is left alone as long as another is there."""
    with running() as plane:
        dead, target = plane.dead_target(), plane.target()
        listener = plane.serve(dead, target)
        for _ in range(6):
            use(plane, plane.connect(listener), target)
        plane.wait_ends({"client_closed": 6})
        assert plane.target_counts(dead).connect_failures == {"refused": 1}


def test_a_dead_address_of_a_name_is_tried_last() -> None:
    """The same holds between the addresses of one name."""
    with running() as plane:
        target = plane.target(host="127.0.0.2")
        name = TargetPlan(name="app", host="app.internal", port=target.port)
        listener = plane.listen()
        plane.commit(
            route("r", listener, name), addresses={"app.internal": ["127.0.0.1", "127.0.0.2"]}
        )
        for _ in range(6):
            use(plane, plane.connect(listener), target)
        plane.wait_ends({"client_closed": 6})
        assert plane.target_counts(name).connect_failures == {"refused": 1}


def test_a_target_is_down_until_a_dial_succeeds() -> None:
    """It is reported as down while all its endpoints are marked, up once one has answered."""
    with running() as plane:
        path = str(plane.directory() / "target")
        missing = TargetPlan(name="late", path=path)
        listener = plane.serve(missing)
        assert plane.target_counts(missing).is_up
        assert read_to_end(plane.connect(listener)) == b""
        assert not plane.target_counts(missing).is_up
        target = plane.target(path=path)
        use(plane, plane.connect(listener), target)
        plane.wait_ends({"connect_failed": 1, "client_closed": 1})
        assert plane.target_counts(missing).is_up


def test_shares_by_weight() -> None:
    """Weights 3 and 1 share eight connections as 6 and 2; weight 0 gets none."""
    with running() as plane:
        targets = [plane.target() for _ in range(3)]
        plans = [
            target.plan(weight=weight) for target, weight in zip(targets, (3, 1, 0), strict=True)
        ]
        listener = plane.serve(*plans)
        clients = [plane.connect(listener) for _ in range(8)]
        wait_until(lambda: plane.cells[1] == 8, "all are dialled")
        assert [plane.target_counts(plan).total for plan in plans] == [6, 2, 0]
        assert targets[2].has_none()
        for client in clients:
            client.close()
        for target, count in zip(targets, (6, 2, 0), strict=True):
            for _ in range(count):
                target.accept().close()
        plane.wait_ends({"client_closed": 8})


def test_only_weight_0() -> None:
    """A route whose targets all have weight 0 fails its connections at once."""
    with running() as plane:
        target = plane.target()
        assert read_to_end(plane.connect(plane.serve(target.plan(weight=0)))) == b""
        plane.wait_ends({"connect_failed": 1})
        assert target.has_none()


def test_a_unix_socket_as_target() -> None:
    """Bytes and ends pass as with TCP."""
    with running() as plane:
        target = plane.target(path=str(plane.directory() / "app.sock"))
        listener = plane.serve(target)
        use(plane, plane.connect(listener), target)
        client = plane.connect(listener)
        server = target.accept()
        server.sendall(b"bye")
        server.close()
        assert read_to_end(client) == b"bye"
        client.close()
        wait_until(lambda: plane.plane.connections == 0, "the end")
        assert plane.ends() == {"client_closed": 1, "target_closed": 1}


def test_a_unix_target_that_speaks_and_closes_at_once() -> None:
    """What it said before its close reaches the client, though both are seen with the connect."""
    with running() as plane:
        target = plane.target(path=str(plane.directory() / "app.sock"))
        listener = plane.serve(target)
        start = plane.connect_later(listener)

        def answer() -> None:
            server, _ = target.sock.accept()
            server.sendall(b"all there is")
            server.close()

        # Between the turn that dials and the one that sees the connect.
        clients: list[socket.socket] = []
        plane.call(in_turn(lambda: clients.append(start()), plane.plane.reactor.turn, answer))
        (client,) = clients
        assert read_to_end(client) == b"all there is"
        client.close()
        plane.wait_ends({"target_closed": 1})


def test_a_missing_unix_socket() -> None:
    """A path that is not there fails at once, under its own reason."""
    with running() as plane:
        missing = TargetPlan(name="missing", path=str(plane.directory() / "none.sock"))
        assert read_to_end(plane.connect(plane.serve(missing))) == b""
        plane.wait_ends({"connect_failed": 1})
        assert plane.target_counts(missing).connect_failures == {"no_socket_file": 1}


def test_ipv6_in_and_out() -> None:
    """An IPv6 listener and an IPv6 target."""
    with running() as plane:
        target = plane.target(host="::1")
        use(plane, plane.connect(plane.serve(target, host="::1")), target)
        plane.wait_ends({"client_closed": 1})


def test_port_preserve() -> None:
    """Without a port of its own a target is dialled on the port that the client came in on."""
    with running() as plane:
        listener = plane.listen(host="127.0.0.1")
        target = plane.target(host="127.0.0.2", port=listener.port)
        plane.commit(route("r", listener, target.plan(port=0)))
        use(plane, plane.connect(listener), target)
        plane.wait_ends({"client_closed": 1})


def test_an_unresolved_name_and_then_its_address() -> None:
    """Down while it does not resolve, in use from the moment that it does."""
    with running() as plane:
        target = plane.target()
        name = TargetPlan(name="app", host="app.internal", port=target.port)
        listener = plane.listen()
        plane.commit(route("r", listener, name), addresses={"app.internal": []})
        assert read_to_end(plane.connect(listener)) == b""
        plane.wait_ends({"connect_failed": 1})
        assert plane.target_counts(name).connect_failures == {"unresolved": 1}
        plane.resolve({"app.internal": ["127.0.0.1"]})
        use(plane, plane.connect(listener), target)
        plane.wait_ends({"connect_failed": 1, "client_closed": 1})


def test_a_target_that_never_answers() -> None:
    """The dial is given up after `connect`, not before; the end says so."""
    limit = 0.4
    with running() as plane:
        hole = plane.black_hole()
        listener = plane.serve(hole, timeouts=Timeouts(connect=limit))
        begun = time.monotonic()
        client = plane.connect(listener)
        assert read_to_end(client) == b""
        assert time.monotonic() - begun >= limit
        plane.wait_ends({"connect_timeout": 1})
        assert plane.target_counts(hole).connect_failures == {"timeout": 1}


def test_a_silent_target_leaves_time_for_the_next() -> None:
    """One of two endpoints gets half of `connect`, then the other one has its turn."""
    with running() as plane:
        hole, target = plane.black_hole(), plane.target()
        listener = plane.serve(hole, target, timeouts=Timeouts(connect=0.8))
        begun = time.monotonic()
        use(plane, plane.connect(listener), target)
        assert time.monotonic() - begun >= 0.4
        plane.wait_ends({"client_closed": 1})
        assert plane.target_counts(hole).connect_failures == {"timeout": 1}


@pytest.mark.parametrize("words", [b"", b"request"])
def test_quick_retries_against_a_dead_target_leave_nothing(words: bytes) -> None:
    """Twenty clients in a row, none served: no connection and no descriptor is left."""
    with running() as plane:
        listener = plane.serve(plane.dead_target())
        before = descriptors()
        for _ in range(20):
            with plane.connect(listener) as client:
                client.sendall(words)
                try:
                    assert client.recv(1) == b""
                except ConnectionResetError:
                    assert words
        plane.wait_ends({"connect_failed": 20})
        assert descriptors() == before


def test_each_address_of_a_name_takes_its_turn() -> None:
    """Two addresses of one name share its connections evenly."""
    with running() as plane:
        first = plane.target(host="127.0.0.1")
        second = plane.target(host="127.0.0.2", port=first.port)
        name = TargetPlan(name="app", host="app.internal", port=first.port)
        listener = plane.listen()
        plane.commit(
            route("r", listener, name), addresses={"app.internal": ["127.0.0.1", "127.0.0.2"]}
        )
        clients = [plane.connect(listener) for _ in range(4)]
        reached = Counter[str]()
        for target in (first, second):
            for _ in range(2):
                server = target.accept()
                reached[target.host] += 1
                assert is_silent(server)
                server.close()
        assert reached == {"127.0.0.1": 2, "127.0.0.2": 2}
        for client in clients:
            assert read_to_end(client) == b""
            client.close()
        plane.wait_ends({"target_closed": 4})
