"""What the users of plain TCP of a load run do. No locust here."""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Callable
from typing import Any

import gevent
from gevent import socket

from loadtests.locust_wire import (
    CHUNK,
    Unexpected,
    connect,
    cut,
    random_source,
    read_all,
    require,
    require_refused,
)


def short() -> int:
    """Send, say FIN, get all of it back, then FIN."""
    sent = cut(1, 2000)
    with connect("echo") as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        require(read_all(connection), sent)
    return len(sent)


def bulk() -> int:
    """Send and receive some MiB at the same time; hash and length of both must agree."""
    sent = cut(256 * 1024, 4 * 1024 * 1024)
    with connect("echo") as connection:
        sender = gevent.spawn(_send, connection, sent)
        digest, size = hashlib.sha256(), 0
        while part := connection.recv(CHUNK):
            digest.update(part)
            size += len(part)
        if (error := sender.get()) is not None:
            raise error
    if digest.digest() != hashlib.sha256(sent).digest():
        raise Unexpected("ended too early" if size < len(sent) else "other bytes came")
    return size


def _send(connection: Any, sent: bytes) -> OSError | None:
    """Send all and end; an error is returned, for the receiver to report."""
    try:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
    except OSError as error:
        return error
    return None


def seen(port: str, header: Callable[[str, int], bytes]) -> int:
    """Name an address, ask the target behind the proxy which it saw.

    Header and request leave together, or the header in two pieces.
    """
    source = random_source()
    sent = header(*source) + b"GET /seen HTTP/1.0\r\n\r\n"
    split = random.choice([0, random.randrange(1, len(sent))])
    with connect(port) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in (sent[:split], sent[split:]):
            connection.sendall(part)
            gevent.sleep(0)  # let other users run between the pieces
        answer = read_all(connection)
    require(answer.rpartition(b"\r\n\r\n")[2], f"{source[0]} {source[1]}\n".encode())
    return len(answer)


def refused(sent: bytes, fin: bool = False) -> int:
    """Send this where a PROXY header is required: refused without a byte."""
    with connect(random.choice(["from_v1", "from_v2"])) as connection:
        return require_refused(connection, sent, fin)


def reset() -> int:
    """RST in the middle of an echo."""
    connection = connect("echo")
    connection.sendall(cut(1, 100_000))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    return 0


def fin_at_once() -> int:
    """FIN without a byte: the target ends too, and sends nothing."""
    with connect("echo") as connection:
        connection.shutdown(socket.SHUT_WR)
        require(read_all(connection), b"")
    return 0
