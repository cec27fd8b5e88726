"""The phases that read the client before a target is dialled. No byte that they read is lost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

from shared.client_hello import MAX_BYTES, ClientHello, HelloReader, read_client_hello
from shared.ends import End
from shared.errors import ClientHelloError, ProxyHeaderError
from shared.http.request import could_begin_request
from shared.proxy_protocol import could_begin, parse
from shared.units import short
from worker.client_tls import ClientTls
from worker.deadlines import LAST_S
from worker.guarded import guard_preface
from worker.http_start import begin_http
from worker.relay import VIEW
from worker.syscalls import LOST, receive

if TYPE_CHECKING:
    from shared.matching import Opening
    from worker.connection import Connection
    from worker.generation import Route
    from worker.listener import Policy

TLS_HANDSHAKE: Final = 0x16  # first byte of a TLS record with a ClientHello, RFC 8446 section 5.1
HTTP_METHODS: Final = frozenset(
    {b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"CONNECT", b"TRACE"}
)
SHARED_PORT_WAIT_S: Final = 3.0  # where a route that needs no bytes waits behind (design section 4)


class _Reader(ABC):
    """Collects a client's first bytes."""

    __slots__ = ("_conn", "_seen")

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self._seen = conn.pending

    def client_ready(self, events: int) -> None:
        """The client's socket has something."""
        self.read()

    @abstractmethod
    def read(self) -> None:
        """Read what is there and go on as far as it allows."""

    def _receive(self) -> int | None:
        """Bytes now in BUFFER, 0 at the end of the stream; None: nothing, or it has ended."""
        down = self._conn.down
        count = receive(down.sock, down.fd)
        if count >= 0:
            return count
        if count == LOST:
            self._conn.end(End.CLIENT_GONE)
        return None


class HeaderReader(_Reader):
    """Reads the PROXY header of a trusted peer."""

    __slots__ = ("_policy",)

    def __init__(self, conn: Connection, policy: Policy) -> None:
        super().__init__(conn)
        self._policy = policy

    def read(self) -> None:
        """Read what is there; goes on until the header is whole, wrong, or missing."""
        count = self._receive()
        while count:
            data = self._seen + bytes(VIEW[:count]) if self._seen else VIEW[:count]
            if self._judge(data):
                return
            self._seen = bytes(data)
            count = self._receive()
        if count == 0:
            self._ended()

    def _judge(self, data: bytes | memoryview) -> bool:
        """True when the header phase is over."""
        policy, conn = self._policy, self._conn
        if not policy.required and not could_begin(data):
            self._absent(bytes(data))
            return True
        try:
            found = parse(data, policy.versions)
        except ProxyHeaderError as exc:
            missing = not could_begin(data)
            self._refuse(End.PROXY_HEADER_MISSING if missing else End.PROXY_HEADER_INVALID, exc)
            return True
        if found is None:
            return False
        header, size = found
        is_local = header.command == "LOCAL"
        conn.listener.count_header("local" if is_local else f"v{header.version}")
        if is_local and policy.closes_local:
            conn.end(End.PROXY_LOCAL)
        else:
            conn.header_done(header, bytes(data[size:]))
        return True

    def _absent(self, data: bytes) -> None:
        self._conn.listener.count_header("none")
        self._conn.header_done(None, data)

    def _ended(self) -> None:
        """FIN before a whole header."""
        if self._seen:
            self._refuse(End.PROXY_HEADER_INVALID, "the connection ended within the header")
        elif self._policy.required:
            self._conn.listener.count_header("missing")
            self._conn.end(End.CLIENT_GONE)
        else:
            self._absent(b"")
            self._conn.ended_early()

    def _refuse(self, end: End, why: object) -> None:
        conn = self._conn
        conn.listener.count_header("missing" if end is End.PROXY_HEADER_MISSING else "invalid")
        conn.end(end, str(why))

    def on_deadline(self, now: float) -> None:
        """The header is late."""
        conn, policy = self._conn, self._policy
        if now < conn.accepted_at + policy.header_timeout:
            conn.arm(conn.accepted_at + policy.header_timeout)
        elif policy.required or self._seen:
            conn.listener.count_header("timeout")
            conn.end(End.PROXY_HEADER_TIMEOUT, f"{len(self._seen)} bytes came")
        else:
            self._absent(b"")


class PrefaceReader(_Reader):
    """Reads the first bytes, or all of a ClientHello, where a candidate route asks for them."""

    __slots__ = ("_began_at", "_begun", "_hello", "_matcher", "deadline")

    def __init__(self, conn: Connection, opening: Opening[Route]) -> None:
        super().__init__(conn)
        self._matcher = conn.listener.matcher  # a reload meanwhile does not change who may win
        self._hello: HelloReader | None = None  # of a ClientHello that has begun
        self._begun = bytearray()  # what is here of it
        self._began_at = 0.0  # where it is not whole at once
        wait = opening.initial_data
        if opening.value is not None:
            wait = min(wait, SHARED_PORT_WAIT_S)
        self.deadline = conn.plane.reactor.now + wait

    def read(self) -> None:
        """Judge by the first byte as soon as it is there, or by the ClientHello that it begins."""
        if self._hello is not None:
            self._read_hello(self._hello)
            return
        if not self._seen:
            count = self._receive()
            if count is None:
                return
            self._seen = bytes(VIEW[:count])
        conn, seen = self._conn, self._seen
        if not seen:
            if self._matcher.awaits_http(conn.network_address) and not self._has_silent_route():
                conn.end(End.CLIENT_GONE)  # it has thought better of it
                return
            self._choose(None)
            conn.ended_early()
            return
        conn.pending = seen
        if seen[0] != TLS_HANDSHAKE and self._is_http(seen):
            begin_http(conn)
            return
        if conn.guard is not None and not guard_preface(conn, conn.guard, seen):
            return
        if seen[0] != TLS_HANDSHAKE:
            self._choose(False)
        elif self._matcher.needs_hello:
            self._begin_hello(seen)
        else:
            self._choose(True)

    def leave(self) -> None:
        """A full stop: who must speak first is waited for no longer than for what is on its way."""
        conn = self._conn
        soon = conn.plane.reactor.now + LAST_S
        if soon < self.deadline and self._hello is None and not self._has_silent_route():
            self.deadline = soon
            conn.arm(soon)

    def _has_silent_route(self) -> bool:
        client = self._conn.network_address
        return self._matcher.with_first_bytes(client, None, None) is not None

    def _is_http(self, seen: bytes) -> bool:
        """Whether these bytes are read as a head: as soon as they may begin one, or else where no
        other route would take them.
        """
        matcher, client = self._matcher, self._conn.network_address
        if not matcher.awaits_http(client):
            return False
        if could_begin_request(seen):
            return True
        may_be_header = self._conn.guard is not None and could_begin(seen)
        return not may_be_header and matcher.with_first_bytes(client, False, None) is None

    def _begin_hello(self, seen: bytes) -> None:
        """Nearly always it is here as a whole."""
        try:
            hello = read_client_hello(seen)
        except ClientHelloError as error:
            self._not_hello(error)
            return
        if hello is not None:
            self._offered(hello)
            return
        conn = self._conn
        self._began_at = conn.plane.reactor.now
        self._hello = reader = HelloReader()
        self._begun += seen
        reader.read(self._begun)
        # A handshake has begun, so its own limit holds from here on.
        limit = conn.plane.reactor.now + self._matcher.longest_handshake
        if limit < self.deadline:
            self.deadline = limit
            conn.arm(limit)
        self._read_hello(reader)

    def _read_hello(self, reader: HelloReader) -> None:
        seen = self._begun
        while count := self._receive():
            seen += VIEW[:count]
            if len(seen) < reader.needed:
                continue
            try:
                hello = reader.read(seen)
            except ClientHelloError as error:
                self._conn.pending = bytes(seen)
                self._not_hello(error)
                return
            if hello is not None:
                self._conn.pending = bytes(seen)
                self._offered(hello)
                return
        if count == 0:
            self._conn.pending = bytes(seen)
            self._not_hello("the client ended within its ClientHello")
            if not self._conn.is_closed:
                self._conn.ended_early()

    def _offered(self, hello: ClientHello) -> None:
        self._conn.tls = ClientTls(hello, self._began_at or self._conn.plane.reactor.now)
        self._choose(True, hello)

    def _not_hello(self, why: object) -> None:
        """Not TLS after all: a route that needs no bytes takes it, or nobody does."""
        conn = self._conn
        route = self._matcher.with_first_bytes(conn.network_address, None, None)
        if route is None or len(conn.pending) > MAX_BYTES:
            conn.end(End.TLS_FAILED, str(why))
        else:
            conn.routed(route)

    def _choose(self, tls: bool | None, hello: ClientHello | None = None) -> None:
        conn = self._conn
        client = conn.network_address
        route = self._matcher.with_first_bytes(client, tls, hello)
        if route is not None:
            conn.routed(route)
        elif tls is False and self._matcher.tls_only(client):
            conn.end(End.PLAIN_ON_TLS, plain_words(conn.pending))
        elif tls and self._matcher.plain_only(client):
            conn.end(End.TLS_ON_PLAIN, "a ClientHello where every route is for others")
        else:
            conn.end(End.NO_ROUTE, _asked_for(hello))

    def on_deadline(self, now: float) -> None:
        """Nothing came: a route that needs no bytes wins."""
        conn = self._conn
        if now < self.deadline:
            conn.arm(self.deadline)
        elif self._hello is None and conn.plane.is_draining and not self._has_silent_route():
            conn.end(End.DRAINED)
        elif self._hello is not None:
            conn.end(End.PREFACE_TIMEOUT, f"{len(self._begun)} bytes of a ClientHello came")
        else:
            self._choose(None)


def plain_words(data: bytes) -> str:
    """What a client says that should have begun TLS."""
    if data.split(b" ", 1)[0] in HTTP_METHODS:
        return "an HTTP request without TLS, where every route is for TLS clients"
    return "no ClientHello, where every route is for TLS clients"


def _asked_for(hello: ClientHello | None) -> str:
    if hello is None:
        return ""
    if not hello.server_name:
        return "the client asked for no name"
    return f"the client asked for {short(hello.server_name)}"
