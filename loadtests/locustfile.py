"""Users of a running proxyctl, good and bad. `run_load.py` starts what they talk to.

Every request is checked byte for byte; what is not as expected is a failure.
"""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Callable
from time import perf_counter
from typing import Any

import gevent
from gevent import socket
from locust import User, constant, task

from loadtests import locust_tls
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
    TLS_12,
    TLS_13,
    TLS_CLIENT,
    TLS_CUT,
    TLS_GARBAGE,
    TLS_LONG,
    TLS_NO_CLIENT,
    TLS_PASSED,
    TLS_PLAIN,
    TLS_REENCRYPTED,
    TLS_RESUMED,
    TRUNCATED,
)
from loadtests.locust_wire import (
    CHUNK,
    Unexpected,
    connect,
    cut,
    random_source,
    read_all,
    read_exactly,
    require,
    require_refused,
    v1_header,
    v2_header,
)


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


class TlsUser(TcpUser):
    """Base of those that speak TLS: a handshake costs as much CPU as many messages."""

    abstract = True
    wait_time = constant(0.05)


class TlsConnections(TlsUser):
    """One connection per request, by each kind of route and version, verified by name and CA."""

    fixed_count = 6

    @task
    def passed(self) -> None:
        """Passed through by its server name: the certificate is the target's."""
        self.measure(TLS_PASSED, lambda: locust_tls.echo("pass.test"))

    @task
    def terminated(self) -> None:
        """Ended by the proxy, TLS 1.3."""
        self.measure(TLS_13, lambda: locust_tls.echo("term.test"))

    @task
    def terminated_as_1_2(self) -> None:
        """Ended by the proxy, TLS 1.2."""
        self.measure(TLS_12, lambda: locust_tls.echo("term.test", "1.2"))

    @task
    def reencrypted(self) -> None:
        """Ended by the proxy, and encrypted again to the target."""
        self.measure(TLS_REENCRYPTED, lambda: locust_tls.echo("encr.test"))

    @task
    def with_certificate(self) -> None:
        """The client has the certificate that the route requires."""
        self.measure(TLS_CLIENT, lambda: locust_tls.echo("auth.test", has_certificate=True))


class TlsResumed(TlsUser):
    """The session of a connection resumes in the next, on any worker, over every reload."""

    fixed_count = 2
    _session: Any = None

    @task
    def again(self) -> None:
        """Once more with the last session; the first one has none."""

        def work() -> int:
            version = random.choice(["1.2", "1.3"])
            sessions = self._session or {}
            found, size = locust_tls.resume("term.test", version, sessions.get(version))
            self._session = {**sessions, version: found}
            return size

        self.measure(TLS_RESUMED, work)


class TlsLongEcho(TlsUser):
    """Messages on one TLS connection that lives as long as the user does, over every reload."""

    fixed_count = 4
    _connection: Any = None

    @task
    def message(self) -> None:
        """Send a message and get it back; after a failure the next one connects anew."""

        def work() -> int:
            if self._connection is None:
                name = random.choice(["term.test", "encr.test", "pass.test"])
                self._connection = locust_tls.connect_tls(name)
            return locust_tls.exchange(self._connection, cut(1, 40_000))

        if not self.measure(TLS_LONG, work):
            self.on_stop()

    def on_stop(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class BadTlsClients(TlsUser):
    """Clients that break the rules of TLS. A request succeeds when the proxy does what it must."""

    fixed_count = 4

    @task
    def without_certificate(self) -> None:
        """No certificate where one is required: not a byte is echoed."""
        self.measure(TLS_NO_CLIENT, lambda: locust_tls.refused_without_certificate("auth.test"))

    @task
    def cut_in_the_middle(self) -> None:
        """The end, or a reset, within the ClientHello or behind it."""
        self.measure(TLS_CUT, lambda: locust_tls.cut_handshake("term.test"))

    @task
    def garbage(self) -> None:
        """A good ClientHello, and then no TLS."""
        self.measure(TLS_GARBAGE, lambda: locust_tls.garbage_behind_hello("term.test"))

    @task
    def plain(self) -> None:
        """A plain HTTP request where TLS is due: refused."""

        def work() -> int:
            with connect("tls") as connection:
                request = b"GET / HTTP/1.1\r\nHost: term.test\r\n\r\n"
                return require_refused(connection, request, fin=False)

        self.measure(TLS_PLAIN, work)
