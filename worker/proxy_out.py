"""What goes to a target first: the PROXY header of the route, and what the client has said."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from shared.plan import RoutePlan, TlvPlan
from shared.proxy_protocol import UNIQUE_ID_MAX_BYTES, TlvType, encode_v1, encode_v2
from worker.client_tls import ClientTls
from worker.relay import BUFFER, DONTWAIT, VIEW

if TYPE_CHECKING:
    from worker.connection import Address, Connection
    from worker.relay import Side

Tlv = tuple[int, bytes]

# Well-known names that tell of TLS: of what was read here, else what the header that came says.
_PASSED: Final = {
    "authority": int(TlvType.AUTHORITY),
    "alpn": int(TlvType.ALPN),
    "ssl": int(TlvType.SSL),
}
_OWN: Final = {
    "authority": ClientTls.authority_tlv,
    "alpn": ClientTls.alpn_tlv,
    "ssl": ClientTls.ssl_tlv,
}
# Never passed on by "received": the checksum is of the old header, padding has no meaning.
_NOT_PASSED: Final = frozenset({int(TlvType.CRC32C), int(TlvType.NOOP)})


def header_builder(plan: RoutePlan) -> Callable[[Connection], bytes] | None:
    """What gives the header of a connection of this route; None where none is sent."""
    if plan.send_proxy is None:
        return None
    if plan.send_proxy == "v1":
        return _v1
    if not plan.send_proxy_tlvs:
        return _v2
    return _WithTlvs(plan.send_proxy_tlvs)


def send_first(conn: Connection, up: Side, header: bytes, waiting: int) -> None:
    """Header and what the client already said, in one write.

    ``waiting``: events of the client's socket since accept; 0: nothing to read there.
    """
    down, pending = conn.down, conn.pending
    payload = len(pending)
    first: bytes | memoryview = header + pending  # may be longer than the shared buffer
    if waiting and not payload and conn.guard is None:
        size = len(header)
        BUFFER[:size] = header
        try:
            payload = down.sock.recv_into(VIEW[size:], 0, DONTWAIT)
        except BlockingIOError:
            pass
        except OSError:
            down.is_reset = True  # said once; the relay will read an end and pass on an RST
        else:
            down.has_ended = payload == 0  # acted on once the header is out
            first = VIEW[: size + payload]
    conn.pending = b""
    down.count(payload)
    try:
        sent = up.sock.send(first, DONTWAIT)
    except BlockingIOError:
        sent = 0
    except OSError:
        down.cannot_write(up)
        return
    if sent < len(first):
        up.outbox = bytes(first[sent:])


def packed(address: Address) -> bytes:
    """The address as 4 or 16 bytes; b"" for a Unix socket."""
    host = address[0]
    if not host:
        return b""
    return socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)


def _addresses(conn: Connection) -> tuple[bytes, int, bytes, int]:
    """Client source and original destination (the trap of using our own socket to the target)."""
    header = conn.header
    if header is not None and header.has_addresses:
        return header.source, header.source_port, header.destination, header.destination_port
    client, destination = conn.client, conn.destination
    return packed(client), client[1], packed(destination), destination[1]


def _v1(conn: Connection) -> bytes:
    return encode_v1(*_addresses(conn))


def _v2(conn: Connection) -> bytes:
    return encode_v2(*_addresses(conn))


class _WithTlvs:
    """v2 with TLVs, in the order of the config; each type once, the first that names it wins."""

    def __init__(self, tlvs: Sequence[TlvPlan]) -> None:
        self._tlvs = tuple(tlv for tlv in tlvs if tlv.name != "crc32c")
        self._has_checksum = len(self._tlvs) < len(tlvs)
        self._own = {tlv.type for tlv in tlvs if not tlv.name}
        if any(tlv.name == "unique_id" for tlv in tlvs):
            self._own.add(int(TlvType.UNIQUE_ID))

    def __call__(self, conn: Connection) -> bytes:
        received = conn.header.tlvs if conn.header is not None else ()
        sent: list[Tlv] = []
        taken: set[int] = set()
        for tlv in self._tlvs:
            for type_, value in self._values(tlv, conn, received):
                if tlv.name == "received" and type_ in taken:
                    continue
                taken.add(type_)
                sent.append((type_, value))
        return encode_v2(*_addresses(conn), tlvs=sent, crc32c=self._has_checksum)

    def _values(self, tlv: TlvPlan, conn: Connection, received: Sequence[Tlv]) -> list[Tlv]:
        if not tlv.name:
            return [(tlv.type, tlv.value)]
        if tlv.name == "unique_id":
            return [(int(TlvType.UNIQUE_ID), conn.plane.connection_id(conn).encode())]
        if tlv.name == "received":
            skip = _NOT_PASSED | self._own
            return [
                (type_, value)
                for type_, value in received
                if type_ not in skip
                and (type_ != TlvType.UNIQUE_ID or len(value) <= UNIQUE_ID_MAX_BYTES)
            ]
        own = None if conn.tls is None else _OWN[tlv.name](conn.tls)
        if own is not None:
            return [(_PASSED[tlv.name], own)]
        wanted = _PASSED[tlv.name]
        return [(type_, value) for type_, value in received if type_ == wanted]
