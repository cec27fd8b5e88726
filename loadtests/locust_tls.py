"""What the TLS users of a load run do. No locust here.

PROXYCTL_LOAD_FILES names files as JSON: ``authority``, which has signed everything, and ``client``,
a client's certificate with its key.
"""

from __future__ import annotations

import contextlib
import os
import random
import struct
from functools import cache
from typing import Any, Final

import msgspec
from gevent import socket, ssl

from loadtests.locust_wire import (
    Unexpected,
    connect,
    cut,
    read_all,
    read_exactly,
    require,
    require_refused,
)

FILES: Final[dict[str, str]] = msgspec.json.decode(
    os.environ["PROXYCTL_LOAD_FILES"], type=dict[str, str]
)
_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@cache
def context(version: str, has_certificate: bool) -> Any:
    """A client's context, of gevent (untyped there), that verifies chain and name."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.load_verify_locations(FILES["authority"])
    made.minimum_version = made.maximum_version = _VERSIONS[version]
    if has_certificate:
        made.load_cert_chain(FILES["client"])
    return made


def connect_tls(
    name: str,
    version: str = "1.3",
    has_certificate: bool = False,
    session: Any = None,
    port: str = "tls",
) -> Any:
    """A connection whose handshake is over."""
    plain = connect(port)
    try:
        return context(version, has_certificate).wrap_socket(
            plain, server_hostname=name, session=session
        )
    except OSError:
        plain.close()
        raise


def exchange(connection: Any, sent: bytes) -> int:
    """Send and get it back; returns the bytes received."""
    connection.sendall(sent)
    require(read_exactly(connection, len(sent)), sent)
    return len(sent)


def echo(name: str, version: str = "1.3", has_certificate: bool = False) -> int:
    """Connect, send and get it back; then both sides end, and say so in TLS."""
    with connect_tls(name, version, has_certificate) as connection:
        size = exchange(connection, cut(1, 40_000))
        connection.unwrap().close()
    return size


def resume(name: str, version: str, session: Any) -> tuple[Any, int]:
    """The same with a session, which must be resumed; the next session, and the bytes."""
    with connect_tls(name, version, session=session) as connection:
        if session is not None and not connection.session_reused:
            raise Unexpected("the session was not resumed")
        size = exchange(connection, cut(1, 2000))  # of TLS 1.3 the tickets are read with this
        return connection.session, size


def refused_without_certificate(name: str) -> int:
    """Of TLS 1.3 a client learns of its refusal with the first read, or in the handshake."""
    try:
        with connect_tls(name, random.choice(["1.2", "1.3"])) as connection:
            connection.sendall(cut(1, 2000))
            found = connection.recv(4096)
    except (ssl.SSLError, ConnectionResetError, BrokenPipeError):
        return 0
    require(found, b"")
    return 0


def client_hello(name: str) -> bytes:
    """The ClientHello of `connect_tls`, as its record."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = context("1.3", False).wrap_bio(incoming, outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        connection.do_handshake()
    return bytes(outgoing.read())


def cut_handshake(name: str) -> int:
    """FIN within the ClientHello: not a byte comes. FIN or RST behind it: the proxy ends too."""
    hello = client_hello(name)
    with connect("tls") as connection:
        how = random.choice(["within", "end", "reset"])
        if how == "within":
            return require_refused(connection, hello[: random.randrange(1, len(hello))], fin=True)
        connection.sendall(hello)
        if not connection.recv(4096):
            raise Unexpected("no answer to a ClientHello")
        if how == "reset":
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            return 0
        connection.shutdown(socket.SHUT_WR)
        return _until_end(connection)


def garbage_behind_hello(name: str) -> int:
    """The proxy answers the ClientHello, and ends when it reads on."""
    with connect("tls") as connection:
        connection.sendall(client_hello(name) + cut(100, 600))
        return _until_end(connection)


def _until_end(connection: Any) -> int:
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        return len(read_all(connection))
    return 0
