"""The TLS handshakes: with a client before its target is dialled, with a target after that."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

from shared.ends import End
from shared.errors import TlsError
from worker.coded_side import CodedSide
from worker.openssl_form import INCOMING, OUTGOING, reason_of
from worker.reactor import ENDED, RESET
from worker.relay import BUFFER, DONTWAIT, SIZE, VIEW
from worker.syscalls import EMPTY, LOST, give, receive
from worker.tls_contexts import ServerContext, Terminator, wrap_server
from worker.tls_engine import Tls

if TYPE_CHECKING:
    from worker.client_tls import ClientTls
    from worker.connection import Connection
    from worker.dial import Dial
    from worker.identity import IdentityRules
    from worker.sockets import Socket
    from worker.upstream_contexts import UpstreamContext

VERIFY_FAILED: Final = "tls_verify"  # label `reason` of target_connect_failures_total
FAILED: Final = "tls"


def is_let_in(conn: Connection, rules: IdentityRules) -> bool:
    """The second phase of access; where it refuses, the connection is over."""
    ip = conn.client[0]
    sni, identity = "", None
    if conn.tls is not None:
        sni = conn.tls.hello.server_name
        identity = conn.tls.identity()
    if rules.judge(sni, identity, ip):
        return True
    conn.end(End.BLOCKED, rules.why(sni, identity, ip))
    return False


class ClientHandshake:
    """The phase between the choice of a route that ends TLS and the dial.

    It stands in the place of the client's side until the handshake is done.
    """

    __slots__ = ("_context", "_deadline", "_facts", "_out", "_tls", "conn")

    def __init__(self, conn: Connection, facts: ClientTls, timeout_s: float) -> None:
        self.conn = conn
        self._facts = facts
        self._deadline = facts.began_at + timeout_s  # the ClientHello is part of it
        self._out = b""  # has to wait until there is room
        self._context: ServerContext | None = None
        self._tls: Tls | None = None

    def begin(self, terminator: Terminator) -> None:
        """Choose the context by the ClientHello, and answer it."""
        conn = self.conn
        conn.arm(self._deadline)
        try:
            self._context = context = terminator.choose(self._facts.hello)
            self._tls = Tls(wrap_server(context.ctx, INCOMING, OUTGOING))
        except OSError as error:  # no descriptor is left to read the certificate from, or the like
            self._failed(f"no TLS context: {reason_of(error)}")
            return
        conn.plane.reactor.table[conn.down.fd] = self
        hello, conn.pending = conn.pending, b""
        self._feed(hello)

    def client_ready(self, events: int) -> None:
        """As `ready`."""
        self.ready(events)

    def ready(self, events: int) -> None:
        """The client's socket has something, or room."""
        conn = self.conn
        if self._out and not self._send(b""):
            return
        sock = conn.down.sock
        while conn.phase is self:
            count = receive(sock, conn.down.fd)
            if count == EMPTY:
                return
            if count <= 0:
                self._gone()
                return
            self._feed(VIEW[:count])
            if count < SIZE and not events & ENDED:
                return
        is_more = events & ENDED or len(conn.pending) > SIZE // 2
        if is_more and not conn.is_closed:
            conn.early(events)  # the edge is spent: what is left takes hold for the dial too

    def on_deadline(self, now: float) -> None:
        """The handshake takes too long."""
        if now < self._deadline:
            self.conn.arm(self._deadline)
            return
        self._count("timeout")
        self.conn.end(End.TLS_TIMEOUT)

    def _feed(self, data: bytes | memoryview) -> None:
        tls = self._tls
        assert tls is not None
        answer = b""
        try:
            is_done, answer = tls.shake(data)
            if is_done:
                pending = self.conn.pending = tls.rest()
                answer += tls.answer()
                if pending and tls.object.version() == "TLSv1.3":
                    # A ticket is for another connection, RFC 8446 section 4.6.1: it leaves with the
                    # target's first bytes, or a tick later. A packet less, and the client wakes
                    # once less for it. One that has not spoken yet may wait for our ACK to do so.
                    tls.held, answer = answer, b""
        except TlsError as error:
            if self._send(answer + error.alert):  # the alert is read with keys of the flight before
                self._failed(str(error))
            return
        if (not answer or self._send(answer)) and is_done:
            self._done(tls)

    def _done(self, tls: Tls) -> None:
        conn, context = self.conn, self._context
        assert context is not None
        self._facts.shaken(tls.object, context.certificate)
        if context.asks:
            try:
                self._facts.identity()  # asked later by rules and TLVs, which cannot refuse it
            except OSError as error:
                self._failed(str(error))
                return
        self._count("resumed" if self._facts.is_resumed else "new")
        side = CodedSide.in_place_of(conn.down, tls)
        side.outbox = self._out
        side.has_ended = tls.has_ended
        conn.shaken()

    def _failed(self, why: str) -> None:
        self._count("failed")
        self.conn.end(End.TLS_FAILED, why)

    def _gone(self) -> None:
        self._count("failed")
        self.conn.end(End.CLIENT_GONE)

    def _count(self, result: str) -> None:
        results = self.conn.listener.counts.tls_handshakes
        results[result] = results.get(result, 0) + 1

    def _send(self, data: bytes) -> bool:
        """Send what waits and this; what finds no room waits. False where the client is gone."""
        if self._out:
            data = self._out + data
        down = self.conn.down
        sent = give(down.sock, down.fd, data, False)
        if sent == LOST:
            self._gone()
            return False
        self._out = data[sent:]
        if self._out:
            down.ask_writable()
        return True


class TargetHandshake:
    """What stands in a dialled socket's place until TLS with the target is there.

    The PROXY header goes out before TLS begins. The dial keeps the deadline, and the socket.
    """

    __slots__ = ("_dial", "_host", "_out", "_sock", "_tls", "_upstream", "conn")

    def __init__(self, dial: Dial, sock: Socket, upstream: UpstreamContext, host: str):
        self.conn = dial.conn
        self._dial = dial
        self._sock = sock
        self._upstream = upstream
        self._host = host
        self._out = b""
        self._tls: Tls | None = None

    def begin(self) -> None:
        """Send header and ClientHello."""
        route = self._dial.route
        header = route.send_header(self.conn) if route.send_header is not None else b""
        try:
            object_ = self._upstream.wrap(INCOMING, OUTGOING, self._host)
        except OSError as error:
            self._failed(error)
            return
        self._tls = Tls(object_)
        self._out = header
        self._feed(b"")

    def ready(self, events: int) -> None:
        """The target's socket has something, or room."""
        if self._out and not self._send():
            return
        while self._dial.is_shaking(self):
            try:
                count = self._sock.recv_into(BUFFER, 0, DONTWAIT)
            except BlockingIOError:
                if events & RESET:
                    self._dial.tls_failed(FAILED, "the target has closed the connection")
                return
            except OSError as error:
                self._failed(error)
                return
            if count == 0:
                self._dial.tls_failed(FAILED, "the target has closed the connection")
                return
            self._feed(VIEW[:count])
            if count < SIZE and not events & ENDED:
                return
        up = self.conn.up
        if up is not None:
            up.pump()  # the edge is spent: an end, or more, may wait behind the handshake

    def _feed(self, data: bytes | memoryview) -> None:
        tls = self._tls
        assert tls is not None
        try:
            is_done, answer = tls.shake(data)
            self._out += answer
            # At once, whatever becomes of this connection: nothing of it may stay in the BIOs.
            behind = tls.rest() if is_done else b""
            self._out += tls.answer()
            if self._out:
                self._send()
            if is_done and self._dial.is_shaking(self):
                self._dial.shaken(tls, behind, self._out)  # what is left leaves with the relay
        except TlsError as error:
            self._out += error.alert
            is_verify = str(error).startswith("certificate verify")
            if self._send() or self._dial.is_shaking(self):
                self._dial.tls_failed(VERIFY_FAILED if is_verify else FAILED, str(error))

    def _send(self) -> bool:
        """Send what waits; False where some of it still does, or the dial has failed."""
        try:
            sent = self._sock.send(self._out, DONTWAIT)
        except BlockingIOError:
            return False  # the dial's socket asks for room anyway
        except OSError as error:
            self._failed(error)
            return False
        self._out = self._out[sent:]
        return not self._out

    def _failed(self, error: OSError) -> None:
        is_tls = isinstance(error, ssl.SSLError)
        self._dial.tls_failed(FAILED, reason_of(error) if is_tls else error.strerror or str(error))
