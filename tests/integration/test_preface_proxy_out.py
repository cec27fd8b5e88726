"""PROXY headers that a route sends: exact bytes, TLVs, before all else, over every family."""

from __future__ import annotations

import socket
from typing import Any, Final

import pytest

from shared.plan import ListenerPlan, ProxyPolicy, TargetPlan, TlvPlan
from shared.proxy_protocol import (
    ProxyHeader,
    TlvType,
    encode_v1,
    encode_v2,
    parse,
)
from tests.data_plane_harness import Plane, route, running
from tests.data_plane_sockets import Target, is_silent, leave, read_exactly, read_to_end
from tests.helpers.waiting import wait_until
from worker.proxy_out import packed

SOURCE: Final = bytes([203, 0, 113, 7])
DESTINATION: Final = bytes([198, 51, 100, 9])
TRUST: Final = ProxyPolicy(trusted=("127.0.0.0/8", "::1/128"))
ENCODE: Final = {"v1": encode_v1, "v2": encode_v2}
VERSIONS: Final = pytest.mark.parametrize("version", ["v1", "v2"])


def served(plane: Plane, **settings: Any) -> tuple[ListenerPlan, Target]:
    """A listener with a route to a target of its own."""
    target = plane.target()
    return plane.serve(target, **settings), target


def expected(version: str, client: socket.socket) -> bytes:
    """The header for a client by its own word."""
    here, there = client.getsockname(), client.getpeername()
    made: bytes = ENCODE[version](packed(here[:2]), here[1], packed(there[:2]), there[1])
    return made


def finish(plane: Plane, client: socket.socket, server: socket.socket) -> None:
    """End it from the client's side."""
    leave(client, server)
    plane.wait_ends({"client_closed": 1})


def read_header(server: socket.socket) -> ProxyHeader:
    """The v2 header that the connection begins with, and nothing behind it."""
    start = read_exactly(server, 16)
    found = parse(start + read_exactly(server, int.from_bytes(start[14:16], "big")))
    assert found is not None
    assert is_silent(server)
    return found[0]


@VERSIONS
def test_exact_bytes_before_the_payload(version: str) -> None:
    """The client's address and port and its original destination, then what it says."""
    with running() as plane:
        listener, target = served(plane, send_proxy=version)
        client = plane.connect(listener)
        client.sendall(b"payload")
        server = target.accept()
        header = expected(version, client)
        assert read_exactly(server, len(header) + 7) == header + b"payload"
        finish(plane, client, server)
        assert plane.counts().received == 7
        assert plane.target_counts(target).sent == 7


@VERSIONS
def test_sent_at_once_for_server_first_protocols(version: str) -> None:
    """The target has the header although the client is silent, and answers."""
    with running() as plane:
        listener, target = served(plane, send_proxy=version)
        client = plane.connect(listener)
        server = target.accept()
        header = expected(version, client)
        assert read_exactly(server, len(header)) == header
        server.sendall(b"220 ready")
        assert read_exactly(client, 9) == b"220 ready"
        finish(plane, client, server)


@VERSIONS
def test_a_client_that_only_ends(version: str) -> None:
    """Header, then FIN."""
    with running() as plane:
        listener, target = served(plane, send_proxy=version)
        client = plane.connect(listener)
        client.shutdown(socket.SHUT_WR)
        server = target.accept()
        assert read_to_end(server) == expected(version, client)
        server.close()
        assert read_to_end(client) == b""
        plane.wait_ends({"client_closed": 1})


@VERSIONS
@pytest.mark.parametrize("host", ["::1", "::"])
def test_ipv6(version: str, host: str) -> None:
    """IPv6 clients, also where the listener is a wildcard and the destination is asked for."""
    with running() as plane:
        listener, target = served(plane, host=host, send_proxy=version)
        client = plane.connect(listener)
        server = target.accept()
        header = expected(version, client)
        assert read_exactly(server, len(header)) == header
        finish(plane, client, server)


@VERSIONS
def test_a_wildcard_listener_names_the_address_that_was_dialled(version: str) -> None:
    """127.0.0.3 was dialled, so 127.0.0.3 is the destination, not 0.0.0.0."""
    with running() as plane:
        listener, target = served(plane, host="0.0.0.0", send_proxy=version)
        client = plane.keep(socket.create_connection(("127.0.0.3", listener.port), 10))
        server = target.accept()
        header = expected(version, client)
        assert read_exactly(server, len(header)) == header
        finish(plane, client, server)


@pytest.mark.parametrize(
    ("version", "header"), [("v1", b"PROXY UNKNOWN\r\n"), ("v2", encode_v2(None, 0, None, 0))]
)
def test_a_unix_listener_has_no_addresses(version: str, header: bytes) -> None:
    """UNKNOWN and UNSPEC, since a Unix client has no address."""
    with running() as plane:
        path = str(plane.directory() / "in")
        listener, target = served(plane, path=path, send_proxy=version)
        client = plane.connect(listener)
        server = target.accept()
        assert read_exactly(server, len(header)) == header
        finish(plane, client, server)


@VERSIONS
@pytest.mark.parametrize("came", ["v1", "v2"])
def test_a_chain_passes_the_first_client_on(version: str, came: str) -> None:
    """What a trusted header says goes out again, in the route's own version."""
    with running() as plane:
        listener, target = served(plane, policy=TRUST, send_proxy=version)
        client = plane.connect(listener)
        client.sendall(ENCODE[came](SOURCE, 5555, DESTINATION, 443) + b"!")
        server = target.accept()
        header: bytes = ENCODE[version](SOURCE, 5555, DESTINATION, 443)
        assert read_exactly(server, len(header) + 1) == header + b"!"
        finish(plane, client, server)


@VERSIONS
def test_two_planes_in_a_chain(version: str) -> None:
    """The first sends, the second believes: the last target sees the client of the first."""
    with running() as plane:
        target = plane.target()
        inner = plane.serve(target, policy=TRUST, send_proxy=version)
        outer = plane.listen()
        hop = TargetPlan(name="inner", host="127.0.0.1", port=inner.port)
        plane.commit(
            route("inner", inner, target, send_proxy=version),
            route("outer", outer, hop, send_proxy=version, order=1),
        )
        client = plane.connect(outer)
        server = target.accept()
        header = expected(version, client)
        assert read_exactly(server, len(header)) == header
        server.sendall(b"220 ready")
        assert read_exactly(client, 9) == b"220 ready"
        leave(client, server)
        plane.wait_ends({"client_closed": 2})


def test_mixed_families() -> None:
    """An IPv4 source with an IPv6 destination goes out with the source IPv4-mapped."""
    v6 = packed(("2001:db8::1", 0))
    mapped = bytes(10) + b"\xff\xff" + SOURCE
    with running() as plane:
        listener, target = served(plane, policy=TRUST, send_proxy="v2")
        client = plane.connect(listener)
        client.sendall(encode_v2(mapped, 1, v6, 2))
        server = target.accept()
        header = read_header(server)
        assert (header.source, header.destination) == (mapped, v6)
        finish(plane, client, server)


def test_tlvs_of_our_own() -> None:
    """unique_id is the connection's id, a custom value keeps its NULs, the checksum is right."""
    tlvs = (
        TlvPlan(name="unique_id"),
        TlvPlan(type=0xE1, value=b"a\0\xff\0"),
        TlvPlan(name="crc32c"),
    )
    with running() as plane:
        listener, target = served(plane, send_proxy="v2", send_proxy_tlvs=tlvs)
        client = plane.connect(listener)
        server = target.accept()
        header = read_header(server)  # verifies the checksum
        assert [type_ for type_, _ in header.tlvs] == [TlvType.UNIQUE_ID, 0xE1, TlvType.CRC32C]
        assert dict(header.tlvs)[0xE1] == b"a\0\xff\0"
        assert dict(header.tlvs)[int(TlvType.UNIQUE_ID)] == b"3-7-1"
        finish(plane, client, server)


def test_received_tlvs_are_passed_on() -> None:
    """All but the old checksum and padding; what the route sets itself wins."""
    came = (
        (int(TlvType.AUTHORITY), b"example.com"),
        (int(TlvType.NOOP), b"pad"),
        (0xE1, b"theirs"),
        (0xE2, b"more\0"),
        (int(TlvType.UNIQUE_ID), b"their id"),
    )
    tlvs = (TlvPlan(name="received"), TlvPlan(type=0xE1, value=b"ours"), TlvPlan(name="unique_id"))
    with running() as plane:
        listener, target = served(plane, policy=TRUST, send_proxy="v2", send_proxy_tlvs=tlvs)
        client = plane.connect(listener)
        client.sendall(encode_v2(SOURCE, 1, DESTINATION, 2, tlvs=came, crc32c=True))
        server = target.accept()
        assert read_header(server).tlvs == (
            (int(TlvType.AUTHORITY), b"example.com"),
            (0xE2, b"more\0"),
            (0xE1, b"ours"),
            (int(TlvType.UNIQUE_ID), b"3-7-1"),
        )
        finish(plane, client, server)


def test_named_tlvs_come_from_the_header_that_came() -> None:
    """Without TLS here they are what the front said of its own; what did not come is left out."""
    tlvs = (TlvPlan(name="alpn"), TlvPlan(name="authority"), TlvPlan(name="ssl"))
    came = ((int(TlvType.AUTHORITY), b"example.com"), (0xE7, b"x"), (int(TlvType.ALPN), b"h2"))
    with running() as plane:
        listener, target = served(plane, policy=TRUST, send_proxy="v2", send_proxy_tlvs=tlvs)
        client = plane.connect(listener)
        client.sendall(encode_v2(SOURCE, 1, DESTINATION, 2, tlvs=came))
        server = target.accept()
        assert read_header(server).tlvs == (
            (int(TlvType.ALPN), b"h2"),
            (int(TlvType.AUTHORITY), b"example.com"),
        )
        finish(plane, client, server)


def test_tlvs_without_a_header_that_came() -> None:
    """received and authority of a client without a header are nothing, and no error."""
    tlvs = (TlvPlan(name="received"), TlvPlan(name="authority"), TlvPlan(name="unique_id"))
    with running() as plane:
        listener, target = served(plane, send_proxy="v2", send_proxy_tlvs=tlvs)
        client = plane.connect(listener)
        server = target.accept()
        assert read_header(server).tlvs == ((int(TlvType.UNIQUE_ID), b"3-7-1"),)
        finish(plane, client, server)


@VERSIONS
def test_the_next_target_gets_the_header_as_well(version: str) -> None:
    """After a refused dial the header goes to the one that accepts, whole and once."""
    with running() as plane:
        target = plane.target()
        listener = plane.serve(plane.dead_target(), target, send_proxy=version)
        client = plane.connect(listener)
        client.sendall(b"payload")
        server = target.accept()
        header = expected(version, client)
        assert read_exactly(server, len(header) + 7) == header + b"payload"
        finish(plane, client, server)


def test_unique_ids_count_on() -> None:
    """Each connection has an id of its own."""
    with running() as plane:
        listener, target = served(
            plane, send_proxy="v2", send_proxy_tlvs=(TlvPlan(name="unique_id"),)
        )
        ids = []
        for _ in range(3):
            client = plane.connect(listener)
            server = target.accept()
            ids.append(dict(read_header(server).tlvs)[int(TlvType.UNIQUE_ID)])
            leave(client, server)
        assert ids == [b"3-7-1", b"3-7-2", b"3-7-3"]
        wait_until(lambda: plane.plane.connections == 0, "the end")
