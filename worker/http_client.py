"""The client's side of HTTP: heads in, answers out, one request after the other.

It stands in the place of the connection's side from the first head on, and is its phase. What a
client sends ahead waits in the socket while a request is under way: so much for backpressure.
"""

from __future__ import annotations

from collections.abc import Set
from typing import TYPE_CHECKING, Final

from shared.ends import End
from shared.errors import HttpError
from shared.http.fields import find_head
from shared.http.forwarding import Origin
from shared.http.request import check_unfinished, parse_request
from worker.deadlines import LAST_S, NEVER
from worker.http_exchange import Exchange
from worker.http_late import client_deadline, client_late
from worker.http_wire import ENDED, LOST, NOTHING, Wire
from worker.reactor import ENDED as ANY_END
from worker.reactor import ERROR, FIN, IN, OUT
from worker.relay import SIZE
from worker.socket_options import reset_on_close

if TYPE_CHECKING:
    from worker.connection import Connection
    from worker.data_plane import DataPlane
    from worker.gate import Counting
    from worker.generation import Route
    from worker.http_pool import Upstream

STEPS_A_TURN: Final = 16  # then the other connections of the batch come first
LINGER_S: Final = 2.0  # for a client to read our last answer before an RST would destroy it
BLANK: Final = (b"\r", b"\r\n")  # RFC 9112 section 2.2
SCAN_BACK: Final = 3  # bytes of an end of a head that may have come already


class HttpClient:
    """The phase of a connection that speaks HTTP.

    ``is_last``: the next head of an answer says that the connection ends behind it;
    ``is_finishing``: it has said so. ``why`` is the end that the connection then has, ``detail``
    what the log says of it. ``must_linger``: the client may be sending still what nobody reads.
    """

    __slots__ = (
        "_is_running", "_is_scanned", "_scanned", "conn", "counted_by", "destination", "detail",
        "exchange", "has_dialled", "has_end", "has_fin", "head", "head_at", "idle_at", "inbox",
        "is_finishing", "is_last", "is_lingering", "is_readable", "leaves_at",
        "must_linger", "network", "origin", "own", "plane", "policy", "requests", "route", "until",
        "why", "wire",
    )  # fmt: skip

    def __init__(self, conn: Connection) -> None:
        plane, down = conn.plane, conn.down
        tls = down.tls
        self.conn = conn
        self.plane: DataPlane = plane
        self.wire = Wire(plane.reactor, down.sock, down.fd, tls, wants_out=down.wants_out)
        self.wire.outbox, down.outbox = down.outbox, b""
        self.wire.has_ended = down.has_ended
        down.has_said_goodbye = True  # what goes to the socket goes by the wire from now on
        self.inbox = conn.pending
        conn.pending = b""
        self._scanned = 0
        self._is_scanned = False
        self._is_running = False
        self.exchange: Exchange | None = None
        # A short read has emptied the socket; behind a long one no edge tells of what is left.
        self.is_readable = not 0 < len(self.inbox) < SIZE // 2 or down.has_ended or tls is not None
        self.has_end = down.has_ended  # an end was announced that is not read yet
        self.has_fin = down.has_ended  # it sends no more than what is here
        self.idle_at: float = plane.reactor.now
        self.head_at: float = self.idle_at
        self.until = 0.0  # of lingering
        self.leaves_at = NEVER  # where no request has begun by then
        self.requests = 0
        self.counted_by: tuple[Counting, ...] = ()  # the limits of routes it has had a request for
        self.is_last = self.is_finishing = self.is_lingering = False
        self.has_dialled = False  # a target has been sent a request of it
        self.must_linger = False
        self.why = End.CLIENT_CLOSED
        self.detail = ""
        self.head = b""
        self.network = conn.network_address
        self.route: Route | None = None  # of the latest request
        self.own: Upstream | None = None  # to whom a PROXY header names this client
        self.destination = conn.destination
        client, port = conn.client, self.destination[1]
        facts = conn.tls
        self.policy = None if facts is None or tls is None else facts.plan
        self.origin = Origin(
            client[0],
            client[1],
            "http" if tls is None else "https",
            port,
            "" if facts is None else facts.hello.server_name,
            self.destination[0],
        )

    def begin(self) -> None:
        """Take the connection over; what came before is in ``inbox``."""
        self.plane.reactor.table[self.wire.fd] = self
        if self.plane.has_drain_deadline:
            self.leave(at_once=True)
        self.arm()
        self.run()

    # -- events ----------------------------------------------------------------------------

    def client_ready(self, events: int) -> None:
        """As `ready`."""
        self.ready(events)

    def ready(self, events: int) -> None:
        """The client's socket has something, or room."""
        wire = self.wire
        if wire.outbox:
            wire.flush()
            self.conn.active_at = self.plane.reactor.now
            if wire.is_lost:
                self.gone(End.CLIENT_RESET)
                return
            if not wire.outbox:
                self.flushed()
                if self.conn.is_closed:
                    return
        if events == OUT:
            return
        self.is_readable = True
        if events & ANY_END:
            self.has_end = True
            if events & ERROR:
                self.lost()
                return
            if events & FIN and not self.has_fin:
                self.has_fin = True
                if self.exchange is not None:  # from here on it counts who sends nothing more
                    self.conn.active_at = self.plane.reactor.now
                    self.exchange.arm()
        self.run()

    def lost(self) -> None:
        """An RST has come; a request that came before it may be finished, for nobody."""
        self.gone(End.CLIENT_RESET)

    def run(self) -> None:
        """Go on as far as what is here allows, without recursion over pipelined requests."""
        if self._is_running:
            return
        self._is_running = True
        try:
            for _ in range(STEPS_A_TURN):
                if not self._step():
                    return
        finally:
            self._is_running = False
        self.plane.reactor.again.append(self.run)

    def _step(self) -> bool:
        """One step; False: wait for the next event."""
        if self.conn.phase is not self:
            return False  # it has ended, or is a relay now, whose bytes these are
        if self.is_lingering:
            return self._discard()
        exchange = self.exchange
        if exchange is not None:
            return exchange.take_body() or self.exchange is not exchange
        if self.wire.outbox:
            return False  # it does not read its answers
        if self.is_finishing:
            self.finish()
            return False
        if self.inbox and not self._is_scanned:
            return self._head()
        return self._read_head()

    def _read_head(self) -> bool:
        if not self.is_readable:
            return False
        wire = self.wire
        count = wire.receive()
        if count > 0:
            if wire.is_drained and not self.has_end:
                self.is_readable = False  # a short read emptied the socket
            self._is_scanned = False
            if not self.has_begun:
                self.head_at = self.conn.active_at = self.plane.reactor.now
            if self.inbox:
                self.inbox += bytes(wire.view[:count])
            else:
                self.inbox = bytes(wire.view[:count])
            return True
        self.is_readable = False
        if count == LOST:
            self.gone(End.TLS_FAILED if wire.why else End.CLIENT_RESET, wire.why)
        elif count == ENDED:
            self._ended()
            return True
        return False

    @property
    def has_begun(self) -> bool:
        """Some of a head is here, more than the empty line that may stand before one."""
        return bool(self.inbox) and self.inbox not in BLANK

    def _ended(self) -> None:
        """FIN where a head is awaited."""
        if self.has_begun:
            error = HttpError(400, "the client ended within a head")
            self.refuse(error, End.BAD_REQUEST, self.inbox)
        else:
            self.close(End.CLIENT_CLOSED)

    def _head(self) -> bool:
        """Look for a whole head in what is here."""
        inbox = self.inbox
        start = self._scanned
        end = find_head(inbox, start)
        if end == 0:
            self._scanned = max(0, len(inbox) - SCAN_BACK)
            self._is_scanned = True
            try:
                check_unfinished(inbox, start, self.plane.http.limits)
            except HttpError as error:
                self.refuse(error, End.BAD_REQUEST, inbox)
                return True
            if start == 0:
                self.arm()  # from its first byte on
            return True
        self._scanned = 0
        size, limits = len(inbox), self.plane.http.limits
        try:
            if end == size:
                request = parse_request(inbox, limits)
                self.inbox = b""
            else:
                request = parse_request(inbox[:end], limits)
                self.inbox = inbox[end:]
        except HttpError as error:
            self.refuse(error, End.BAD_REQUEST, inbox[:end])
            return True
        self.requests += 1
        self.head = inbox[:end] if self.conn.route is None else b""  # one may be for a relay
        self.exchange = exchange = Exchange(self, request, end)
        exchange.begin()
        return True

    # -- answers ---------------------------------------------------------------------------

    def refuse(self, error: HttpError, end: End, head: bytes) -> None:
        """Answer a request that is none, and end. ``head``: what there is of it."""
        self.inbox = b""  # nothing behind it can be read
        self.must_linger = True
        exchange = Exchange.refused(self, head)
        self.exchange = exchange
        exchange.fail(error.status, end, str(error), is_last=True)

    def done(self) -> None:
        """The exchange is over: the next request, or the end."""
        self.exchange = None
        now = self.plane.reactor.now
        self.idle_at = self.head_at = self.conn.active_at = now
        if self.plane.has_drain_deadline:
            self.is_finishing = True
        elif self.plane.is_draining:
            self.is_last = True  # where this one promised another, a request may be on its way
        elif self.is_last and self.conn.cut_reason is End.ROUTE_REMOVED:
            self.leaves_at = now + LAST_S  # the same, of a removed route
        self.arm()
        self.run()

    def flushed(self) -> None:
        """All that waited for the client is with the kernel."""
        exchange = self.exchange
        if exchange is not None:
            exchange.client_flushed()
        self.run()

    def finish(self) -> None:
        """The last answer is out: end, so that the client can read it."""
        if self.why is End.CLIENT_CLOSED and self.plane.is_draining:
            self.why = End.DRAINED
        if self.inbox or self.must_linger or (self.is_readable and self.wire.receive() > 0):
            self._linger()
        else:
            self.close(self.why, self.detail)

    def _linger(self) -> None:
        """To close now would destroy the answer by an RST, RFC 9112 section 9.6."""
        self.is_lingering = True
        self.is_readable = True
        self.inbox = b""
        self.wire.shut()
        self.until = self.plane.reactor.now + LINGER_S
        self.conn.arm(self.until)

    def _discard(self) -> bool:
        count = self.wire.receive()
        if count > 0:
            return True
        if count != NOTHING:
            self.close(self.why, self.detail)
        return False

    def close(self, end: End, detail: str = "") -> None:
        """End the connection, properly."""
        self.conn.end(end, detail)

    def gone(self, end: End, detail: str = "") -> None:
        """The client is not there any more."""
        exchange = self.exchange
        if exchange is not None:
            exchange.client_gone(end)
        self.conn.end(end, detail)

    # -- routes ----------------------------------------------------------------------------

    def takes(self, route: Route) -> None:
        """This route has the request that begins."""
        self.route = route
        conn = self.conn
        if route.lasting.has_removed(route):
            self.is_last = True
        elif conn.cut_reason is End.ROUTE_REMOVED:
            conn.cut_at = NEVER  # that was of another one

    # -- what the plane asks ---------------------------------------------------------------

    def removed(self, names: Set[str], now: float) -> None:
        """These routes are served no more: with one of them the next answer is the last."""
        route = self.route
        if route is not None and route.name in names:
            self.is_last = True
            self.conn.cut(now + route.timeouts.drain, End.ROUTE_REMOVED)

    def returned(self, names: Set[str]) -> None:
        """These routes were removed and are served again: no answer is the last for that."""
        route = self.route
        if route is None or route.name not in names:
            return
        self.conn.cut_at = NEVER
        # What else makes an answer the last one has said so at once, or is a drain.
        if not (self.is_finishing or self.must_linger or self.plane.is_draining):
            self.is_last = False
            self.leaves_at = NEVER

    def reset(self) -> None:
        """End by an RST: a proper end would look like the end of the answer."""
        reset_on_close(self.wire.sock)
        self.wire.is_lost = True

    def leave(self, *, at_once: bool) -> None:
        """Take one more request at the most. ``at_once``: none where the client waits between two,
        and the first one only if it comes soon; else one that is on its way already would be lost.
        """
        is_between = self.exchange is None and not self.has_begun
        if not (at_once and is_between and self.requests):
            self.is_last = True
            if at_once and is_between:
                self.leaves_at = self.plane.reactor.now + LAST_S
                self.arm()
        elif self.wire.outbox or self.is_lingering:
            self.is_finishing = True  # once its last answer is out
        else:
            self.close(End.DRAINED if self.plane.is_draining else self.why)

    def abandon(self, reason: End) -> None:
        """The connection has ended."""
        exchange = self.exchange
        if exchange is not None:
            exchange.abandon(reason)
            self.exchange = None
        wire = self.wire
        if wire.tls is not None and not (wire.outbox or wire.is_lost or self.is_lingering):
            wire.say_last()
        own = self.own
        if own is not None:
            self.own = None
            own.close()

    # -- time ------------------------------------------------------------------------------

    def arm(self) -> None:
        """Have `on_deadline` called when what is awaited now is late."""
        self.conn.arm(client_deadline(self))

    def on_deadline(self, now: float) -> None:
        """Something may be late."""
        if self.is_lingering:
            if now >= self.until:
                self.close(self.why, self.detail)
            else:
                self.conn.arm(self.until)
        elif self.exchange is not None:
            self.exchange.on_deadline(now)
        else:
            client_late(self, now)

    def relay(self, route: Route) -> None:
        """The first request is for a route that does not speak HTTP."""
        conn = self.conn
        self.exchange = None
        conn.pending = self.head + self.inbox
        self.inbox = b""
        conn.plane.reactor.table[self.wire.fd] = conn.down
        conn.phase = None
        conn.routed(route)
        if self.is_readable or self.has_end:
            # The edges are spent: what is there, an end too, is asked for once there is a target.
            conn.early(IN | FIN if self.has_end else IN)
