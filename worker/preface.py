"""The phases that read the client before a target is dialled. No byte that they read is lost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

from shared.ends import End
from shared.errors import ProxyHeaderError
from shared.proxy_protocol import could_begin, parse
from worker.guarded import guard_preface
from worker.relay import BUFFER, DONTWAIT, VIEW

if TYPE_CHECKING:
    from worker.connection import Connection
    from worker.generation import Route
    from worker.listener import Policy

TLS_HANDSHAKE: Final = 0x16  # first byte of a TLS record with a ClientHello, RFC 8446 section 5.1
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
        try:
            return self._conn.down.sock.recv_into(BUFFER, 0, DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
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
    """Waits for the first byte, where a candidate route is for TLS clients only, or for others."""

    __slots__ = ("_routes", "deadline")

    def __init__(self, conn: Connection, routes: list[Route]) -> None:
        super().__init__(conn)
        self._routes = routes
        wait = max(route.plan.timeouts.initial_data for route in routes if route.needs_bytes)
        if not routes[-1].needs_bytes:
            wait = min(wait, SHARED_PORT_WAIT_S)
        self.deadline = conn.plane.reactor.now + wait

    def read(self) -> None:
        """Judge by the first byte as soon as it is there."""
        if not self._seen:
            count = self._receive()
            if count is None:
                return
            self._seen = bytes(VIEW[:count])
        conn = self._conn
        if self._seen:
            conn.pending = self._seen
            if conn.guard is not None and not guard_preface(conn, conn.guard, self._seen):
                return
            self._choose(self._seen[0] == TLS_HANDSHAKE)
        else:
            self._choose(None)
            conn.ended_early()

    def _choose(self, tls: bool | None) -> None:
        for route in self._routes:
            if not route.needs_bytes or route.plan.tls is tls:
                self._conn.routed(route)
                return
        self._conn.end(End.NO_ROUTE)

    def on_deadline(self, now: float) -> None:
        """Nothing came: a route that needs no bytes wins."""
        if now < self.deadline:
            self._conn.arm(self.deadline)
        else:
            self._choose(None)
