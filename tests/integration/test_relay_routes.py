"""Which route a connection gets: by address, by priority, by its first byte, or none."""

from __future__ import annotations

import socket
import time
from typing import Any, Final

import pytest

from shared.plan import ListenerPlan, Timeouts
from tests.data_plane_harness import Plane, route, running
from tests.data_plane_sockets import (
    Target,
    in_thread,
    in_turn,
    read_exactly,
    read_to_end,
    reset,
)
from tests.helpers.waiting import wait_until

HELLO: Final = b"\x16\x03\x01\x00\x05hello"  # begins as a TLS record with a handshake does
PLAIN: Final = b"GET / HTTP/1.1\r\n"


def reaches(plane: Plane, listener: ListenerPlan, target: Target, **settings: Any) -> None:
    """One client comes to this target, sees it speak, and goes."""
    words = settings.pop("words", b"")
    client = plane.connect(listener, **settings)
    client.sendall(words)
    server = target.accept()
    assert read_exactly(server, len(words)) == words
    server.sendall(b"welcome")
    assert read_exactly(client, 7) == b"welcome"
    client.close()
    assert read_to_end(server) == b""
    server.close()


def test_client_ips_the_longer_prefix_wins() -> None:
    """The most specific network decides, and a client of none gets the route without."""
    with running() as plane:
        wide, narrow, rest = plane.target(), plane.target(), plane.target()
        listener = plane.listen()
        plane.commit(
            route("rest", listener, rest),
            route("wide", listener, wide, order=1, client_ips=("127.1.0.0/16",)),
            route("narrow", listener, narrow, order=2, client_ips=("127.1.2.0/24", "10.0.0.0/8")),
        )
        reaches(plane, listener, rest)
        reaches(plane, listener, wide, source="127.1.9.9")
        reaches(plane, listener, narrow, source="127.1.2.3")
        plane.wait_ends({"client_closed": 3})
        assert {name: plane.counts(name).total for name in ("rest", "wide", "narrow")} == {
            "rest": 1,
            "wide": 1,
            "narrow": 1,
        }


def test_priority_beats_the_more_specific_match() -> None:
    """The higher priority wins although another route names the client."""
    with running() as plane:
        first, second = plane.target(), plane.target()
        listener = plane.listen()
        plane.commit(
            route("specific", listener, second, client_ips=("127.0.0.1/32",)),
            route("first", listener, first, order=1, priority=5),
        )
        reaches(plane, listener, first)


def test_no_route_for_this_client() -> None:
    """Closed, counted for the listener, logged."""
    with running() as plane:
        target = plane.target()
        listener = plane.serve(target, client_ips=("10.0.0.0/8",))
        assert read_to_end(plane.connect(listener)) == b""
        plane.wait_ends({"no_route": 1})
        assert plane.snapshot().listeners[listener.name].refused == {"no_route": 1}
        assert len(plane.logged("no_route")) == 1
        assert target.has_none()


def tls_or_not(plane: Plane, **settings: Any) -> tuple[ListenerPlan, Target, Target]:
    """One port shared by a route for TLS clients and one for others."""
    secure, plain = plane.target(), plane.target()
    listener = plane.listen()
    plane.commit(
        route("secure", listener, secure, tls=True, **settings),
        route("plain", listener, plain, order=1, tls=False, **settings),
    )
    return listener, secure, plain


def test_tls_or_not_by_the_first_byte() -> None:
    """The bytes that decided arrive whole, with what came behind them."""
    with running() as plane:
        listener, secure, plain = tls_or_not(plane)
        reaches(plane, listener, secure, words=HELLO)
        reaches(plane, listener, plain, words=PLAIN)
        plane.wait_ends({"client_closed": 2})


@pytest.mark.parametrize("is_late", [False, True], ids=["at-once", "after-accept"])
@pytest.mark.parametrize("size", [1, 1000, 128 * 1024, 700_000])
def test_bytes_and_end_behind_the_first_byte(size: int, is_late: bool) -> None:
    """However much is there when the route is chosen, FIN included, all of it arrives."""
    data = (bytes(range(1, 256)) * 3000)[:size]
    with running() as plane:
        listener, _, plain = tls_or_not(plane)
        client = plane.connect(listener)
        if is_late:
            wait_until(lambda: plane.plane.connections == 1, "the accept")
        with in_thread(lambda: client.sendall(data), lambda: client.shutdown(socket.SHUT_WR)):
            server = plain.accept()
            assert read_to_end(server) == data
        server.close()
        plane.wait_ends({"client_closed": 1})
        assert plane.counts("plain").received == size


def test_byte_and_end_in_the_same_turn() -> None:
    """FIN that comes with the byte that decides is passed on."""
    with running() as plane:
        listener, _, plain = tls_or_not(plane)
        client = plane.connect(listener)
        wait_until(lambda: plane.plane.connections == 1, "the accept")
        plane.call(in_turn(lambda: client.sendall(b"x"), lambda: client.shutdown(socket.SHUT_WR)))
        server = plain.accept()
        assert read_to_end(server) == b"x"
        server.close()
        plane.wait_ends({"client_closed": 1})


def test_silence_without_a_fallback() -> None:
    """Nobody speaks and every route needs a byte: no route, after initial_data and not before."""
    limit = 0.3
    with running() as plane:
        listener, secure, plain = tls_or_not(plane, timeouts=Timeouts(initial_data=limit))
        begun = time.monotonic()
        assert read_to_end(plane.connect(listener)) == b""
        assert time.monotonic() - begun >= limit
        plane.wait_ends({"no_route": 1})
        assert secure.has_none()
        assert plain.has_none()


def test_silence_with_a_fallback() -> None:
    """A server-first protocol shares a port with TLS: a silent client gets it after the wait."""
    limit = 0.3
    with running() as plane:
        secure, greeter = plane.target(), plane.target()
        listener = plane.listen()
        plane.commit(
            route("secure", listener, secure, tls=True, timeouts=Timeouts(initial_data=limit)),
            route("greeter", listener, greeter, order=1),
        )
        begun = time.monotonic()
        reaches(plane, listener, greeter)
        assert time.monotonic() - begun >= limit
        reaches(plane, listener, secure, words=HELLO)
        reaches(plane, listener, greeter, words=PLAIN)
        plane.wait_ends({"client_closed": 3})


def test_a_tls_port_and_a_client_without_tls() -> None:
    """Only a TLS route: other bytes end as what they are, and the log says so."""
    with running() as plane:
        target = plane.target()
        listener = plane.serve(target, tls=True)
        client = plane.connect(listener)
        client.sendall(PLAIN)
        assert read_to_end(client) == b""
        plane.wait_ends({"plain_on_tls": 1})
        assert target.has_none()


@pytest.mark.parametrize("is_reset", [True, False], ids=["reset", "fin"])
def test_a_client_that_goes_before_it_spoke(is_reset: bool) -> None:
    """RST: it has gone. FIN: it will never say what a route needs, so there is none."""
    with running() as plane:
        listener, _, _ = tls_or_not(plane)
        client = plane.connect(listener)
        wait_until(lambda: plane.plane.connections == 1, "the accept")
        if is_reset:
            reset(client)
        else:
            client.shutdown(socket.SHUT_WR)
            assert read_to_end(client) == b""
        plane.wait_ends({"client_gone" if is_reset else "no_route": 1})


def test_fin_before_a_byte_with_a_fallback() -> None:
    """The route that needs no bytes gets the connection, and its end."""
    with running() as plane:
        secure, rest = plane.target(), plane.target()
        listener = plane.listen()
        plane.commit(
            route("secure", listener, secure, tls=True), route("rest", listener, rest, order=1)
        )
        client = plane.connect(listener)
        client.shutdown(socket.SHUT_WR)
        server = rest.accept()
        assert read_to_end(server) == b""
        server.sendall(b"news")
        server.close()
        assert read_to_end(client) == b"news"
        plane.wait_ends({"client_closed": 1})
