"""Routes and workers that leave: whose exchange is cut, and whose request is still taken."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shared.plan import HttpPlan, ListenerPlan, RoutePlan, Timeouts
from tests.data_plane_sockets import Target
from tests.helpers.http_talk import HOST, OK, Served, Talker, get, route, serving
from tests.helpers.waiting import wait_until

OTHER = "b.example"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n"
ASKED = get("/chat", "Connection: Upgrade", "Upgrade: websocket", host=OTHER)
SWITCHED = b"HTTP/1.1 101 OK\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
DRAIN = Timeouts(drain=0.3)


@pytest.fixture
def plane() -> Iterator[Served]:
    """A data plane."""
    with serving() as plane:
        yield plane


def route_for(listener: ListenerPlan, target: Target, host: str) -> RoutePlan:
    """A route for one host, named after it; whoever is there when it is removed has 0.3 s."""
    return route(host, listener, target, domains=(host,), http=HttpPlan(), timeouts=DRAIN)


def begun(client: Talker, server: Talker, host: str) -> None:
    """A request to this host under way, half of its answer there."""
    client.send(get(host=host))
    server.message()
    server.send(HEAD + b"abc")
    assert "connection" not in client.head().fields
    assert client.exactly(3) == b"abc"


def answered(plane: Served, listener: ListenerPlan, server: Talker) -> Talker:
    """One more client, behind its first request, which this kept connection carried."""
    client = plane.client(listener)
    client.send(get())
    server.message()
    server.send(OK)
    assert client.message().body == b"ok"
    return client


def wait_for_the_drain(client: Talker, server: Talker) -> None:
    """Of the route that was removed: one of its own is cut."""
    assert client.is_cut()
    assert server.is_cut()


def test_another_route_than_that_of_the_exchange_is_removed(plane: Served) -> None:
    """Where the connection's first request went does not matter for the one that is under way."""
    first, second = plane.target(), plane.target()
    listener = plane.listen()
    plane.commit(route_for(listener, first, HOST), route_for(listener, second, OTHER))
    clock = plane.pair(listener, first)
    client = answered(plane, listener, clock[1])
    begun(*clock, HOST)
    client.send(get(host=OTHER))
    server = plane.accepted(second)
    server.message()
    server.send(HEAD + b"abc")
    assert client.head().status == 200
    plane.commit(route_for(listener, second, OTHER))
    wait_for_the_drain(*clock)
    server.send(b"def")
    assert client.exactly(6) == b"abcdef"
    begun(client, server, OTHER)  # there was no word of an end, and none comes
    server.send(b"def")
    assert client.exactly(3) == b"def"


def test_a_websocket_of_another_route_than_the_removed_one(plane: Served) -> None:
    """The removal stops the clock of the old route with the request for the new one."""
    first, second = plane.target(), plane.target()
    listener = plane.listen()
    plane.commit(route_for(listener, first, HOST), route_for(listener, second, OTHER))
    clock = plane.pair(listener, first)
    client = answered(plane, listener, clock[1])
    begun(*clock, HOST)
    plane.commit(route_for(listener, second, OTHER))
    client.send(ASKED)
    server = plane.accepted(second)
    server.head()
    server.send(SWITCHED)
    assert client.head().status == 101
    wait_for_the_drain(*clock)
    for _ in range(3):
        client.send(b"up")
        assert server.exactly(2) == b"up"
        server.send(b"down")
        assert client.exactly(4) == b"down"
    client.close()
    assert server.is_ended()
    server.close()
    plane.wait_ends({"client_closed": 1, "route_removed": 1})


def test_the_route_of_the_exchange_is_removed(plane: Served) -> None:
    """It has its drain, also where the connection's first request went to a route that stays."""
    first, second = plane.target(), plane.target()
    listener = plane.listen()
    plane.commit(route_for(listener, first, HOST), route_for(listener, second, OTHER))
    client, _ = plane.pair(listener, first)
    client.send(get(host=OTHER))
    server = plane.accepted(second)
    server.message()
    server.send(HEAD + b"abc")
    assert client.head().status == 200
    assert client.exactly(3) == b"abc"
    plane.commit(route_for(listener, first, HOST))
    assert client.is_cut()
    assert server.is_cut()
    plane.wait_ends({"route_removed": 1})


def test_a_worker_that_leaves_in_mid_answer(plane: Served) -> None:
    """That answer has promised another one: the next request is taken, and told to be the last."""
    target = plane.target()
    listener = plane.http(target)
    client, server = plane.pair(listener, target)
    begun(client, server, HOST)
    done: list[tuple[int, int]] = []
    plane.call(lambda: plane.plane.drain(None, False, lambda *counts: done.append(counts)))
    server.send(b"def")
    assert client.exactly(3) == b"def"
    client.send(get("/next", "Content-Length: 4", method="POST") + b"body")
    request = server.message()
    assert (request.target, request.body) == ("/next", b"body")
    server.send(OK)
    found = client.message()
    assert (found.body, found.fields["connection"]) == (b"ok", "close")
    assert client.is_ended()
    wait_until(lambda: done == [(1, 0)], "it has drained")
    plane.wait_codes({"2xx": 3})
    plane.wait_ends({"drained": 1})


def test_a_worker_that_stops_in_mid_answer(plane: Served) -> None:
    """With a deadline nothing is awaited behind it: the connection ends once it is whole."""
    target = plane.target()
    listener = plane.http(target)
    client, server = plane.pair(listener, target)
    begun(client, server, HOST)
    done: list[tuple[int, int]] = []
    plane.call(lambda: plane.plane.drain(30.0, False, lambda *counts: done.append(counts)))
    server.send(b"def")
    assert client.exactly(3) == b"def"
    assert client.is_ended()
    wait_until(lambda: done == [(1, 0)], "it has drained")
