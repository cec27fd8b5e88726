"""Users of a running proxyctl, good and bad. `run_load.py` starts what they talk to.

Every request is checked byte for byte; what is not as expected is a failure.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from time import perf_counter
from typing import Any

from locust import User, constant, task

from loadtests import gate, locust_http, locust_tcp, locust_tls
from loadtests.locust_wire import (
    Unexpected,
    connect,
    cut,
    random_source,
    read_exactly,
    require,
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


class LongUser(TcpUser):
    """Base of those that have one connection for as long as they live, over every reload."""

    abstract = True
    kind = ""
    _connection: Any = None

    def connect(self) -> Any:
        """The connection, or what stands for it and can be closed."""
        raise NotImplementedError

    def exchange(self, connection: Any) -> int:
        """Something there and back; the bytes received."""
        raise NotImplementedError

    @task
    def once_more(self) -> None:
        """One exchange; after a failure the next one connects anew."""

        def work() -> int:
            if self._connection is None:
                self._connection = self.connect()
            return self.exchange(self._connection)

        if not self.measure(self.kind, work):
            self.on_stop()

    def on_stop(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class ShortConnections(TcpUser):
    """One connection per request, half-closed by the client, read to the end."""

    fixed_count = 6

    @task
    def echo(self) -> None:
        """Send, say FIN, get all of it back, then FIN."""
        self.measure(gate.SHORT, locust_tcp.short)


class LongEcho(LongUser):
    """Messages."""

    fixed_count = 8
    kind = gate.LONG

    def connect(self) -> Any:
        """To the echo."""
        return connect("echo")

    def exchange(self, connection: Any) -> int:
        """Send a message and get it back."""
        sent = cut(1, 16384)
        connection.sendall(sent)
        require(read_exactly(connection, len(sent)), sent)
        return len(sent)


class BulkTransfers(TcpUser):
    """A few MiB both ways at once."""

    fixed_count = 2
    wait_time = constant(0.1)

    @task
    def transfer(self) -> None:
        """Send and receive at the same time; hash and length of both must agree."""
        self.measure(gate.BULK, locust_tcp.bulk)


class ProxyV1Sender(TcpUser):
    """Sends v1; the proxy sends v2 on."""

    fixed_count = 3

    @task
    def send(self) -> None:
        """Ask once which address the target saw."""
        self.measure(gate.FROM_V1, lambda: locust_tcp.seen("from_v1", v1_header))


class ProxyV2Sender(TcpUser):
    """Sends v2; the proxy sends v1 on."""

    fixed_count = 3

    @task
    def send(self) -> None:
        """Ask once which address the target saw."""
        self.measure(gate.FROM_V2, lambda: locust_tcp.seen("from_v2", v2_header))


class BadClients(TcpUser):
    """Clients that break the rules. A request succeeds when the proxy does what it must."""

    fixed_count = 6
    wait_time = constant(0.05)

    @task
    def garbage(self) -> None:
        """Bytes that cannot begin a header, where one is required: refused."""
        self.measure(gate.GARBAGE, lambda: locust_tcp.refused(b"\x16" + cut(1, 600)))

    @task
    def truncated(self) -> None:
        """The beginning of a header, then FIN: refused."""
        header = random.choice([v1_header, v2_header])(*random_source())
        part = header[: random.randrange(1, len(header))]
        self.measure(gate.TRUNCATED, lambda: locust_tcp.refused(part, fin=True))

    @task
    def silent(self) -> None:
        """Not a byte, where a header is required: refused after its timeout."""
        self.measure(gate.SILENT, lambda: locust_tcp.refused(b""))

    @task
    def reset(self) -> None:
        """RST in the middle of an echo."""
        self.measure(gate.RESET, locust_tcp.reset)

    @task
    def fin_at_once(self) -> None:
        """FIN without a byte: the target ends too, and sends nothing."""
        self.measure(gate.AT_ONCE, locust_tcp.fin_at_once)


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
        self.measure(gate.TLS_PASSED, lambda: locust_tls.echo("pass.test"))

    @task
    def terminated(self) -> None:
        """Ended by the proxy, TLS 1.3."""
        self.measure(gate.TLS_13, lambda: locust_tls.echo("term.test"))

    @task
    def terminated_as_1_2(self) -> None:
        """Ended by the proxy, TLS 1.2."""
        self.measure(gate.TLS_12, lambda: locust_tls.echo("term.test", "1.2"))

    @task
    def reencrypted(self) -> None:
        """Ended by the proxy, and encrypted again to the target."""
        self.measure(gate.TLS_REENCRYPTED, lambda: locust_tls.echo("encr.test"))

    @task
    def with_certificate(self) -> None:
        """The client has the certificate that the route requires."""
        self.measure(gate.TLS_CLIENT, lambda: locust_tls.echo("auth.test", has_certificate=True))


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

        self.measure(gate.TLS_RESUMED, work)


class TlsLongEcho(LongUser):
    """Messages over TLS."""

    fixed_count = 4
    wait_time = constant(0.05)
    kind = gate.TLS_LONG

    def connect(self) -> Any:
        """By one kind of route."""
        return locust_tls.connect_tls(random.choice(["term.test", "encr.test", "pass.test"]))

    def exchange(self, connection: Any) -> int:
        """Send a message and get it back."""
        return locust_tls.exchange(connection, cut(1, 40_000))


class BadTlsClients(TlsUser):
    """Clients that break the rules of TLS. A request succeeds when the proxy does what it must."""

    fixed_count = 4

    @task
    def without_certificate(self) -> None:
        """No certificate where one is required: not a byte is echoed."""
        self.measure(
            gate.TLS_NO_CLIENT, lambda: locust_tls.refused_without_certificate("auth.test")
        )

    @task
    def cut_in_the_middle(self) -> None:
        """The end, or a reset, within the ClientHello or behind it."""
        self.measure(gate.TLS_CUT, lambda: locust_tls.cut_handshake("term.test"))

    @task
    def garbage(self) -> None:
        """A good ClientHello, and then no TLS."""
        self.measure(gate.TLS_GARBAGE, lambda: locust_tls.garbage_behind_hello("term.test"))

    @task
    def plain(self) -> None:
        """A plain HTTP request for a name that is served over TLS alone: no route has it."""
        self.measure(gate.TLS_PLAIN, lambda: locust_http.not_found("tls", "term.test"))


class HttpKept(LongUser):
    """Requests with bodies, which come back, on one connection."""

    fixed_count = 4
    wait_time = constant(0.02)
    kind = gate.HTTP_KEPT

    def connect(self) -> Any:
        """To the port for HTTP."""
        return locust_http.open_web(is_tls=False)

    def exchange(self, connection: Any) -> int:
        """One request."""
        return locust_http.ask(connection)


class HttpsKept(HttpKept):
    """The same over TLS."""

    fixed_count = 3
    wait_time = constant(0.05)
    kind = gate.HTTPS_KEPT

    def connect(self) -> Any:
        """To the port for TLS."""
        return locust_http.open_web(is_tls=True)


class HttpConnections(TcpUser):
    """One connection per request."""

    fixed_count = 3
    wait_time = constant(0.02)

    @task(4)
    def plain(self) -> None:
        """Without TLS."""
        self.measure(gate.HTTP_ONCE, lambda: locust_http.ask_once(is_tls=False))

    @task(1)
    def over_tls(self) -> None:
        """With TLS."""
        self.measure(gate.HTTPS_ONCE, lambda: locust_http.ask_once(is_tls=True))

    @task(1)
    def ambiguous(self) -> None:
        """Two lengths of one body: 400, and no answer to what may be a second request."""
        self.measure(gate.HTTP_BAD, locust_http.ambiguous)


class WebSocketEcho(LongUser):
    """Messages on a WebSocket."""

    fixed_count = 3
    wait_time = constant(0.02)
    kind = gate.WEBSOCKET

    def connect(self) -> Any:
        """Shake hands."""
        return locust_http.WebSocket(is_tls=False)

    def exchange(self, connection: Any) -> int:
        """Send a message and get it back."""
        return int(connection.echo())


class WebSocketTlsEcho(WebSocketEcho):
    """The same over TLS."""

    wait_time = constant(0.05)
    kind = gate.WEBSOCKET_TLS

    def connect(self) -> Any:
        """Shake hands, twice."""
        return locust_http.WebSocket(is_tls=True)


class WebSocketConnections(TcpUser):
    """WebSockets that come and go."""

    fixed_count = 1
    wait_time = constant(0.05)

    @task
    def visit(self) -> None:
        """Shake hands, one message there and back, and a proper end; with TLS or without."""
        self.measure(gate.WEBSOCKET_ONCE, locust_http.visit)
