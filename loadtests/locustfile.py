"""Users of a running proxyctl, good and bad. `run_load.py` starts what they talk to.

The ports come in PROXYCTL_LOAD_PORTS as JSON: ``echo`` leads to a target that echoes, ``from_v1``
and ``from_v2`` believe a PROXY header and lead to a target that tells which address it saw.
Every request is checked byte for byte; what is not as expected is a failure.
"""

from __future__ import annotations

import errno
import hashlib
import os
import random
import struct
from collections.abc import Callable
from ipaddress import ip_address
from time import perf_counter
from typing import Any, Final

import gevent
import msgspec
from gevent import socket
from locust import User, constant, task

from loadtests.gate import (
    AT_ONCE,
    BULK,
    FROM_V1,
    FROM_V2,
    GARBAGE,
    LONG,
    RESET,
    SHORT,
    SILENT,
    TRUNCATED,
)

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


class TcpUser(User):
    """Base: times a piece of work and reports it to locust."""

    abstract = True
    wait_time = constant(0.005)

    def measure(self, name: str, work: Callable[[], int]) -> bool:
        """Run ``work`` (it returns the bytes received), fire one event; whether it succeeded."""
        start = perf_counter()
        error: Exception | None = None
        size = 0
        try:
            size = work()
        except (OSError, Unexpected) as found:
            error = found
        self.environment.events.request.fire(
            request_type="tcp",
            name=name,
            response_time=(perf_counter() - start) * 1000,
            response_length=size,
            exception=error,
        )
        return error is None


class ShortConnections(TcpUser):
    """One connection per request, half-closed by the client, read to the end."""

    fixed_count = 6

    @task
    def echo(self) -> None:
        """Send, say FIN, get all of it back, then FIN."""

        def work() -> int:
            sent = cut(1, 2000)
            with connect("echo") as connection:
                connection.sendall(sent)
                connection.shutdown(socket.SHUT_WR)
                require(read_all(connection), sent)
            return len(sent)

        self.measure(SHORT, work)


class LongEcho(TcpUser):
    """Messages on one connection that lives as long as the user does, over every reload."""

    fixed_count = 8
    _connection: Any = None

    @task
    def message(self) -> None:
        """Send a message and get it back; after a failure the next one connects anew."""

        def work() -> int:
            if self._connection is None:
                self._connection = connect("echo")
            sent = cut(1, 16384)
            self._connection.sendall(sent)
            require(read_exactly(self._connection, len(sent)), sent)
            return len(sent)

        if not self.measure(LONG, work):
            self.on_stop()

    def on_stop(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class BulkTransfers(TcpUser):
    """A few MiB both ways at once."""

    fixed_count = 2
    wait_time = constant(0.1)

    @task
    def transfer(self) -> None:
        """Send and receive at the same time; hash and length of both must agree."""

        def work() -> int:
            sent = cut(256 * 1024, 4 * 1024 * 1024)
            with connect("echo") as connection:
                sender = gevent.spawn(self._send, connection, sent)
                digest, size = hashlib.sha256(), 0
                while part := connection.recv(CHUNK):
                    digest.update(part)
                    size += len(part)
                if (error := sender.get()) is not None:
                    raise error
            if digest.digest() != hashlib.sha256(sent).digest():
                short = size < len(sent)
                raise Unexpected("ended too early" if short else "other bytes came")
            return size

        self.measure(BULK, work)

    @staticmethod
    def _send(connection: Any, sent: bytes) -> OSError | None:
        """Send all and end; an error is returned, for the receiver to report."""
        try:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
        except OSError as error:
            return error
        return None


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


class ProxySender(TcpUser):
    """Base of the senders: name an address, ask the target behind the proxy which it saw."""

    abstract = True

    def ask(self, name: str, port: str, header: Callable[[str, int], bytes]) -> None:
        """Header and request leave together, or the header in two pieces."""

        def work() -> int:
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

        self.measure(name, work)


class ProxyV1Sender(ProxySender):
    """Sends v1; the proxy sends v2 on."""

    fixed_count = 3

    @task
    def send(self) -> None:
        """Ask once."""
        self.ask(FROM_V1, "from_v1", v1_header)


class ProxyV2Sender(ProxySender):
    """Sends v2; the proxy sends v1 on."""

    fixed_count = 3

    @task
    def send(self) -> None:
        """Ask once."""
        self.ask(FROM_V2, "from_v2", v2_header)


class BadClients(TcpUser):
    """Clients that break the rules. A request succeeds when the proxy does what it must."""

    fixed_count = 6
    wait_time = constant(0.05)

    @task
    def garbage(self) -> None:
        """Bytes that cannot begin a header, where one is required: refused."""
        self.measure(GARBAGE, lambda: self._refused(b"\x16" + cut(1, 600)))

    @task
    def truncated(self) -> None:
        """The beginning of a header, then FIN: refused."""
        header = random.choice([v1_header, v2_header])(*random_source())
        self.measure(
            TRUNCATED, lambda: self._refused(header[: random.randrange(1, len(header))], fin=True)
        )

    @task
    def silent(self) -> None:
        """Not a byte, where a header is required: refused after its timeout."""
        self.measure(SILENT, lambda: self._refused(b""))

    def _refused(self, sent: bytes, fin: bool = False) -> int:
        with connect(random.choice(["from_v1", "from_v2"])) as connection:
            return require_refused(connection, sent, fin)

    @task
    def reset(self) -> None:
        """RST in the middle of an echo."""

        def work() -> int:
            connection = connect("echo")
            connection.sendall(cut(1, 100_000))
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            connection.close()
            return 0

        self.measure(RESET, work)

    @task
    def fin_at_once(self) -> None:
        """FIN without a byte: the target ends too, and sends nothing."""

        def work() -> int:
            with connect("echo") as connection:
                connection.shutdown(socket.SHUT_WR)
                require(read_all(connection), b"")
            return 0

        self.measure(AT_ONCE, work)
