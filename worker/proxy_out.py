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

_TYPES: Final = {
    "authority": int(TlvType.AUTHORITY),
    "alpn": int(TlvType.ALPN),
    "ssl": int(TlvType.SSL),
    "unique_id": int(TlvType.UNIQUE_ID),
}
# Names that tell of the client's TLS.
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
    """v2 with TLVs, in the order of the config, each type once.

    What an entry names is never left to "received", wherever that stands: it passes on only the
    types that no other entry names. Of TLS that passes through little is known here, so then it
    passes on those of which we have nothing to say too.
    """

    def __init__(self, tlvs: Sequence[TlvPlan]) -> None:
        self._tlvs = tuple(tlv for tlv in tlvs if tlv.name != "crc32c")
        self._has_checksum = len(self._tlvs) < len(tlvs)
        named = {_type_of(tlv) for tlv in self._tlvs if tlv.name != "received"}
        self._not_passed = _NOT_PASSED | named

    def __call__(self, conn: Connection) -> bytes:
        received = conn.header.tlvs if conn.header is not None else ()
        known: dict[int, bytes] = {}
        for tlv in self._tlvs:
            value = None if tlv.name == "received" else _value(tlv, conn, received)
            if value is not None:
                known.setdefault(_type_of(tlv), value)
        is_closed = conn.tls is not None and conn.tls.object is None
        not_passed = _NOT_PASSED | known.keys() if is_closed else self._not_passed
        sent: dict[int, bytes] = {}
        for tlv in self._tlvs:
            if tlv.name != "received":
                type_ = _type_of(tlv)
                if type_ in known:
                    sent[type_] = known[type_]
                continue
            for type_, value in received:
                if type_ not in not_passed and _fits(type_, value):
                    sent.setdefault(type_, value)
        tlvs = list(sent.items())
        return encode_v2(*_addresses(conn), tlvs=tlvs, crc32c=self._has_checksum)


def _type_of(tlv: TlvPlan) -> int:
    """Not of "received" and "crc32c"."""
    return _TYPES[tlv.name] if tlv.name else tlv.type


def _fits(type_: int, value: bytes) -> bool:
    return type_ != TlvType.UNIQUE_ID or len(value) <= UNIQUE_ID_MAX_BYTES


def _value(tlv: TlvPlan, conn: Connection, received: Sequence[Tlv]) -> bytes | None:
    """Of an entry that names its type; None: there is none to send."""
    if not tlv.name:
        return tlv.value
    if tlv.name == "unique_id":
        return conn.plane.connection_id(conn).encode()
    if conn.tls is not None:  # its own word alone: a front's is of other TLS
        return _OWN[tlv.name](conn.tls)
    wanted = _TYPES[tlv.name]
    return next((value for type_, value in received if type_ == wanted), None)
