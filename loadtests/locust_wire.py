"""What the users of a load run have in common: sockets, checks, PROXY headers. No locust here.

The ports come in PROXYCTL_LOAD_PORTS as JSON: ``echo`` leads to a target that echoes, ``from_v1``
and ``from_v2`` believe a PROXY header and lead to a target that tells which address it saw, ``tls``
takes TLS, for several routes by server name, ``http`` plain requests, and
``https`` those over TLS.
"""

from __future__ import annotations

import errno
import os
import random
import struct
from ipaddress import ip_address
from typing import Any, Final

import msgspec
from gevent import socket

Ports = dict[str, int]
PORTS: Final[Ports] = msgspec.json.decode(os.environ["PROXYCTL_LOAD_PORTS"], type=Ports)
TIMEOUT_S: Final = 10.0  # anything that takes longer hangs
CHUNK: Final = 65536
BLOCK: Final = random.Random(7).randbytes(8 * 1024 * 1024)  # what is sent is cut from this
V2_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"  # proxy-protocol.txt, section 2.2
DESTINATION_PORT: Final = 443


class Unexpected(Exception):
    """The answer is not the one that a correct proxy gives."""


def cut(least: int, most: int) -> bytes:
    """Some bytes of a random length in this range."""
    size = random.randint(least, most)
    start = random.randrange(len(BLOCK) - size)
    return BLOCK[start : start + size]


def connect(port: str) -> Any:
    """A socket of gevent (untyped there), connected to the proxy."""
    return socket.create_connection(("127.0.0.1", PORTS[port]), timeout=TIMEOUT_S)


def read_exactly(connection: Any, size: int) -> bytes:
    """Read ``size`` bytes; Unexpected when the connection ends before."""
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(min(CHUNK, size - len(parts)))
        if not part:
            raise Unexpected("ended within a message" if parts else "ended before a message")
        parts += part
    return bytes(parts)


def read_all(connection: Any) -> bytes:
    """Read until the other side ends."""
    parts = bytearray()
    while part := connection.recv(CHUNK):
        parts += part
    return bytes(parts)


def require(found: bytes, wanted: bytes) -> None:
    """Unexpected when these differ. Its text tells only how, so that locust groups by it."""
    if found == wanted:
        return
    if wanted.startswith(found):
        raise Unexpected("ended before a byte came" if not found else "ended too early")
    raise Unexpected("bytes came where none may" if not wanted else "other bytes came")


def require_refused(connection: Any, sent: bytes, fin: bool) -> int:
    """Send, FIN after it if asked; the proxy must close without a byte. Returns 0, its bytes.

    It may close as soon as it has seen enough, so FIN or RST may come before all is sent.
    """
    try:
        connection.sendall(sent)
        if fin:
            connection.shutdown(socket.SHUT_WR)
        require(read_all(connection), b"")
    except OSError as error:
        if error.errno not in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN):
            raise
    return 0


def random_source() -> tuple[str, int]:
    """A client address of the documentation ranges (RFC 5737, RFC 3849) and a port."""
    host = random.choice([f"203.0.113.{random.randint(1, 254)}", f"2001:db8::{cut(1, 1)[0] + 1:x}"])
    return host, random.randint(1, 65535)


def v1_header(host: str, port: int) -> bytes:
    """PROXY v1 line (proxy-protocol.txt, section 2.1)."""
    family, destination = ("TCP6", "2001:db8::1") if ":" in host else ("TCP4", "192.0.2.1")
    return f"PROXY {family} {host} {destination} {port} {DESTINATION_PORT}\r\n".encode()


def v2_header(host: str, port: int) -> bytes:
    """PROXY v2 header of the command PROXY, TCP over IPv4 or IPv6, without TLVs (section 2.2)."""
    source = ip_address(host)
    destination = ip_address("2001:db8::1" if source.version == 6 else "192.0.2.1")
    body = source.packed + destination.packed + struct.pack("!HH", port, DESTINATION_PORT)
    family = 0x21 if source.version == 6 else 0x11
    return V2_SIGNATURE + struct.pack("!BBH", 0x21, family, len(body)) + body
