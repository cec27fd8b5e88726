"""Listening sockets and the filter on them, with the real kernel."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared import syn_filter
from shared.errors import StartError
from shared.plan import Endpoints, ListenerPlan, Plan, RoutePlan
from supervisor.listeners import Listeners
from tests.helpers.ports import free_port
from tests.helpers.sockets import connect, is_refused, occupied_port


@pytest.fixture
def listeners() -> Iterator[Listeners]:
    """Closed after the test."""
    held = Listeners()
    yield held
    held.close(list(held.held))


def plan(number: int, host: str, port: int, sockets: int = 3) -> ListenerPlan:
    """A listener on an address."""
    return ListenerPlan(id=number, name=f"{host}:{port}", host=host, port=port, sockets=sockets)


def waiting(listener: socket.socket) -> int:
    """Accept what waits; returns how many that were."""
    count = 0
    while True:
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


def test_all_sockets_of_a_listener_share_the_port(listeners: Listeners) -> None:
    """Connections spread over the sockets, and every one of them is in some queue."""
    port = free_port()
    opened = listeners.open([plan(1, "127.0.0.1", port)])
    assert opened.new == [1]
    assert listeners.listen() == []
    clients = [connect(port) for _ in range(60)]
    counts = [waiting(one) for one in listeners.held[1].sockets]
    assert sum(counts) == 60
    assert all(counts)
    for client in clients:
        client.close()


def test_accepted_sockets_inherit_nodelay(listeners: Listeners) -> None:
    """TCP_NODELAY is set once, on the listener."""
    port = free_port()
    listeners.open([plan(1, "127.0.0.1", port, sockets=1)])
    listeners.listen()
    with connect(port):
        accepted, _ = listeners.held[1].sockets[0].accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_port_of_another_is_refused_even_when_shared(listeners: Listeners) -> None:
    """Someone's SO_REUSEPORT listener of our own user is not joined silently, and is named."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(StartError, match=f"by pid {os.getpid()}"):
            listeners.open([plan(1, "127.0.0.1", port)])


def test_refusal_closes_what_was_opened(listeners: Listeners) -> None:
    """When one listener cannot be bound, those opened before it are closed again."""
    free = free_port()
    with occupied_port() as taken, pytest.raises(StartError):
        listeners.open([plan(1, "127.0.0.1", free), plan(2, "127.0.0.1", taken)])
    assert listeners.held == {}
    assert is_refused(free)


def test_nobody_gets_in_at_a_port_whose_generation_may_still_be_refused(
    listeners: Listeners, tmp_path: Path
) -> None:
    """It has the port already, but a SYN meets silence; then it is refused, or comes through."""
    port, path = free_port(), str(tmp_path / "s")
    unix = ListenerPlan(id=2, name=f"unix:{path}", host="", port=0, path=path)
    for is_refused_in_the_end in (True, False):
        listeners.open([plan(1, "127.0.0.1", port), unix])
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        with socket.socket() as client, socket.socket(socket.AF_UNIX) as local:
            client.setblocking(False)
            assert client.connect_ex(("127.0.0.1", port)) == errno.EINPROGRESS
            with pytest.raises(OSError, match="not connected"):
                client.getpeername()
            assert local.connect_ex(path) == errno.ECONNREFUSED
            if is_refused_in_the_end:
                listeners.close([1, 2])
            else:
                assert listeners.listen() == []
            assert select.select([], [client], [], 20.0)[1]
            error = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            assert error == (errno.ECONNREFUSED if is_refused_in_the_end else 0)
            assert local.connect_ex(path) == (errno.ENOENT if is_refused_in_the_end else 0)


def test_address_that_the_host_lacks_is_skipped(listeners: Listeners) -> None:
    """It is left out of plan and routes, with a warning, as long as another binds."""
    port = free_port()
    plans = (plan(1, "127.0.0.1", port), plan(2, "192.0.2.1", port))
    opened = listeners.open(plans)
    assert opened.lacking == [2]
    assert "192.0.2.1" in opened.warnings[0]
    route = RoutePlan(name="r", order=0, listeners=(1, 2), single_port=frozenset({1, 2}))
    whole = Plan(generation=1, listeners=plans, routes=(route,), endpoints=Endpoints(addresses={}))
    fitted = listeners.fit(whole, opened)
    assert [listener.id for listener in fitted.listeners] == [1]
    assert fitted.routes[0].listeners == (1,)
    assert fitted.routes[0].single_port == {1}


def test_without_any_address_the_start_is_refused(listeners: Listeners) -> None:
    """Nothing to listen on is an error."""
    with pytest.raises(StartError, match="none of the addresses"):
        listeners.open([plan(1, "192.0.2.1", free_port())])


def test_our_own_overlapping_address_may_be_joined(listeners: Listeners) -> None:
    """Where we ourselves hold the port on another address, it is bound all the same."""
    port = free_port()
    listeners.open([plan(1, "127.0.0.1", port)])
    listeners.listen()
    assert listeners.open([plan(1, "127.0.0.1", port), plan(2, "0.0.0.0", port)]).new == [2]


def test_number_of_sockets_stays_while_the_port_is_served(listeners: Listeners) -> None:
    """A plan that wants another number is fitted to what is held, or a queue would be lost."""
    port = free_port()
    listeners.open([plan(1, "127.0.0.1", port, sockets=3)])
    wanted = (plan(1, "127.0.0.1", port, sockets=1),)
    opened = listeners.open(wanted)
    whole = Plan(generation=2, listeners=wanted, routes=(), endpoints=Endpoints(addresses={}))
    assert listeners.fit(whole, opened).listeners[0].sockets == 3


def test_filter_drops_new_connections_until_it_is_taken_off(listeners: Listeners) -> None:
    """A dial meets silence, not refusal, and succeeds by itself when the filter is gone."""
    port = free_port()
    listeners.open([plan(1, "127.0.0.1", port, sockets=2)])
    listeners.listen()
    listeners.stop_accepting([1])
    with socket.socket() as client:
        client.setblocking(False)
        assert client.connect_ex(("127.0.0.1", port)) == errno.EINPROGRESS
        # Over loopback a SYN that is not dropped is answered within the system call.
        with pytest.raises(OSError, match="not connected"):
            client.getpeername()
        assert [waiting(one) for one in listeners.held[1].sockets] == [0, 0]
        listeners.accept_again([1])
        assert select.select([], [client], [], 20.0)[1]
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def test_filter_lets_what_has_connected_be_accepted(listeners: Listeners) -> None:
    """A connection that waits when the filter comes is still there."""
    port = free_port()
    listeners.open([plan(1, "127.0.0.1", port, sockets=1)])
    listeners.listen()
    with connect(port):
        listeners.stop_accepting([1])
        assert waiting(listeners.held[1].sockets[0]) == 1


def test_filter_can_be_taken_off_twice() -> None:
    """Where there is no filter, taking it off does nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        syn_filter.detach(server)
        syn_filter.attach(server)
        syn_filter.detach(server)
        syn_filter.detach(server)


def test_whether_someone_waits_is_known_of_every_socket(
    listeners: Listeners, tmp_path: Path
) -> None:
    """Of those that share a port, of a Unix socket, and of one that does not listen yet."""
    port, path = free_port(), str(tmp_path / "s")
    unix = ListenerPlan(id=2, name=f"unix:{path}", host="", port=0, path=path)
    listeners.open([plan(1, "127.0.0.1", port), unix])
    listeners.listen()
    listeners.open([plan(3, "0.0.0.0", port)])
    every = [1, 2, 3, 4]  # nobody holds the last
    assert not listeners.held[3].is_listening
    assert not listeners.wait_in(every)
    for _ in range(8):  # they meet several of the sockets
        with connect(port):
            assert listeners.wait_in([1])
            assert not listeners.wait_in([2, 3])
            assert sum(waiting(one) for one in listeners.held[1].sockets) == 1
        assert not listeners.wait_in(every)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        assert listeners.wait_in(every)
        assert not listeners.wait_in([1, 3])
        assert waiting(listeners.held[2].sockets[0]) == 1
    assert not listeners.wait_in(every)


def test_unix_socket_that_someone_serves_is_not_taken(listeners: Listeners, tmp_path: Path) -> None:
    """A socket file with a listener behind it stays; the start is refused."""
    path = str(tmp_path / "s")
    listener = ListenerPlan(id=1, name=f"unix:{path}", host="", port=0, path=path)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        with pytest.raises(StartError, match="already in use"):
            listeners.open([listener])
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
    # Now that nobody listens there, it is stale.
    assert listeners.open([listener]).new == [1]


def test_file_in_the_place_of_a_unix_socket_is_kept(listeners: Listeners, tmp_path: Path) -> None:
    """What is no socket is never removed."""
    path = tmp_path / "precious"
    path.write_text("data")
    listener = ListenerPlan(id=1, name=f"unix:{path}", host="", port=0, path=str(path))
    with pytest.raises(StartError):
        listeners.open([listener])
    assert path.read_text() == "data"
