"""Whose headers are believed, and which route the address in a header leads to."""

from __future__ import annotations

import socket
from typing import Final

from shared.plan import ProxyPolicy, Timeouts
from shared.proxy_protocol import encode_v1, encode_v2
from tests.data_plane_harness import Plane, route, running
from tests.data_plane_sockets import read_exactly, read_to_end
from tests.helpers.waiting import wait_until

SOURCE: Final = bytes([203, 0, 113, 7])
DESTINATION: Final = bytes([198, 51, 100, 9])
V1: Final = encode_v1(SOURCE, 5555, DESTINATION, 443)


def finish(plane: Plane, client: socket.socket, server: socket.socket) -> None:
    """End it from the client's side."""
    client.close()
    assert read_to_end(server) == b""
    server.close()
    wait_until(lambda: plane.plane.connections == 0, "the end")


def test_routes_by_the_address_of_the_header() -> None:
    """`client_ips` sees the header's client, IPv4-mapped unfolded, not the balancer."""
    with running() as plane:
        inside, outside = plane.target(), plane.target()
        listener = plane.listen(ProxyPolicy(trusted=("127.0.0.0/8",)))
        plane.commit(
            route("inside", listener, inside, client_ips=("203.0.113.0/24",)),
            route("outside", listener, outside, order=1),
        )
        mapped = bytes(10) + b"\xff\xff" + SOURCE
        for header, target in (
            (encode_v2(SOURCE, 1, DESTINATION, 2), inside),
            (encode_v2(mapped, 1, mapped, 2), inside),
            (encode_v2(bytes([10, 0, 0, 1]), 1, DESTINATION, 2), outside),
            (b"PROXY UNKNOWN\r\n", outside),
        ):
            client = plane.connect(listener)
            client.sendall(header + b"!")
            server = target.accept()
            assert read_exactly(server, 1) == b"!"
            finish(plane, client, server)


def test_trust_of_an_ipv4_mapped_peer() -> None:
    """A peer that comes in as ::ffff:127.0.0.1 is the 127.0.0.1 that is trusted."""
    with running() as plane:
        target = plane.target()
        listener = plane.listen(ProxyPolicy(trusted=("127.0.0.1/32",)), host="::")
        plane.commit(route("r", listener, target, send_proxy="v1", timeouts=Timeouts()))
        client = plane.keep(socket.create_connection(("127.0.0.1", listener.port), 10))
        client.sendall(V1)
        server = target.accept()
        assert read_exactly(server, len(V1)) == V1
        finish(plane, client, server)
        assert plane.headers() == {"v1": 1}


def test_names_that_are_trusted_follow_their_addresses() -> None:
    """A trusted name counts by its addresses of the moment."""
    with running() as plane:
        target = plane.target()
        listener = plane.listen(ProxyPolicy(trusted_names=("balancer",), untrusted="close"))
        plane.commit(route("r", listener, target), addresses={"balancer": []})
        assert read_to_end(plane.connect(listener)) == b""
        plane.wait_ends({"proxy_header_untrusted": 1})
        plane.resolve({"balancer": ["127.0.0.1"]})
        client = plane.connect(listener)
        client.sendall(V1 + b"!")
        server = target.accept()
        assert read_exactly(server, 1) == b"!"
        finish(plane, client, server)
