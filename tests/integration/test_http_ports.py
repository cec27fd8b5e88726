"""What comes to a port with HTTP beside requests: other protocols, PROXY headers, silence, TLS."""

from __future__ import annotations

import socket
import ssl

import pytest

from shared.plan import HttpMatch, HttpPlan, ProxyPolicy, Timeouts
from tests.data_plane_sockets import read_to_end
from tests.helpers.http_talk import OK, get, route, serving
from tests.helpers.waiting import wait_until


@pytest.mark.parametrize("way", ["at once", "ends", "large"])
def test_a_route_without_http_beside_one_with(way: str) -> None:
    """Requests go by Host, any other bytes to the route that needs none, whole."""
    with serving() as plane:
        web, tcp, listener = plane.target(), plane.target(), plane.listen()
        plane.commit(
            route("r", listener, web, domains=("a.example",), http=HttpPlan()),
            route("tcp", listener, tcp, order=1),
        )
        client, _ = plane.pair(listener, web)
        said = b"\x03\x00\x00\x13" + bytes(300_000 if way == "large" else 20)
        unknown = get("/", host="c.example") + said[4:]
        for data in (said, unknown):
            client = plane.client(listener)
            wait_until(lambda: plane.plane.connections > 0, "it is accepted")
            client.send(data)
            if way == "ends":
                client.sock.shutdown(socket.SHUT_WR)
            server = plane.accepted(tcp)
            if way == "ends":
                assert read_to_end(server.sock) == data
            else:
                assert server.exactly(len(data)) == data
            server.send(b"answer")
            server.close()
            assert client.rest() == b"answer"
            client.close()


def test_a_proxy_header_before_http() -> None:
    """Whom it names is the client, for the forwarding fields too."""
    with serving() as plane:
        target = plane.target()
        policy = ProxyPolicy(trusted=("127.0.0.0/8",))
        listener = plane.http(target, policy=policy)
        client = plane.client(listener)
        client.send(b"PROXY TCP4 192.0.2.7 192.0.2.1 4000 80\r\n" + get() + get())
        server = plane.accepted(target)
        for _ in range(2):
            fields = server.message().fields
            assert (fields["x-real-ip"], fields["x-forwarded-for"]) == ("192.0.2.7", "192.0.2.7")
            server.send(OK)
            assert client.message().body == b"ok"


def test_a_first_request_that_never_comes() -> None:
    """A client that says nothing is closed after request_head or initial_data."""
    with serving() as plane:
        timeouts = Timeouts(request_head=0.3, initial_data=0.3)
        client = plane.client(plane.http(plane.target(), timeouts=timeouts))
        assert client.is_ended()
        plane.wait_ends({"no_route": 1})


def test_tls_where_http_is_spoken_in_the_open() -> None:
    """A ClientHello on a plain HTTP route is no request: the connection ends by its name."""
    with serving() as plane:
        plan = HttpPlan(match=HttpMatch(paths=("/*",)))
        listener = plane.http(plane.target(), plan=plan)
        with pytest.raises((ssl.SSLError, OSError)):
            plane.tls_client(listener, ssl.create_default_context())
        plane.wait_ends({"tls_on_plain": 1})
