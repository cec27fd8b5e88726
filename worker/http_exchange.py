"""One request and its answer: who gets it, both bodies, and what becomes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shared.ends import End
from shared.http.chunks import ChunkReader
from shared.http.forwarding import About, describe
from shared.http.head import CHUNKED, Request, Response
from shared.http.hops import HOPS_ARE_LIMITED, NO_LIMIT
from shared.http.refused_head import refused_request
from worker.accounting import CELL_DIALLED
from worker.deadlines import NEVER
from worker.http_answer import take_answer
from worker.http_body import take_body
from worker.http_checks import (
    NOBODY,
    admit,
    authenticated,
    check,
    find_route,
    has_policy_of,
    no_route,
)
from worker.http_count import tell
from worker.http_dial import HttpDial
from worker.http_late import exchange_deadline, exchange_late, unread
from worker.http_own import act, ends_here, fail, is_too_large, unreachable
from worker.http_pool import Upstream, place_of, take_kept
from worker.http_wire import LOST
from worker.reactor import ENDED as ANY_END
from worker.reactor import OUT

if TYPE_CHECKING:
    from worker.balancer import Endpoint
    from worker.generation import Route
    from worker.http_client import HttpClient
    from worker.http_route import HttpRoute

IDEMPOTENT: Final = frozenset(
    {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"}
)  # RFC 9110 9.2.2


class Exchange:
    """From a request's head to the last byte of its answer.

    ``body_left``: bytes of the request's body that the client has still to send, or CHUNKED.
    """

    __slots__ = (
        "about", "answer", "answer_left", "answer_reader", "before", "began_at", "body_left",
        "client", "connected_at", "detail", "dial", "dialled_at", "end", "endpoint",
        "first_byte_at", "frames_chunks", "has_answered", "has_body_begun", "head_size", "hops",
        "http", "informed", "is_answered", "is_over", "is_sent", "plane", "reader", "received",
        "request", "retried", "route", "routed_at", "sent", "sent_at", "status", "unread", "up",
        "upgrade", "user",
    )  # fmt: skip

    def __init__(self, client: HttpClient, request: Request, head_size: int) -> None:
        self.client = client
        self.plane = client.plane
        self.request = request
        self.head_size = head_size
        self.began_at = client.head_at
        self.routed_at = self.dialled_at = self.connected_at = self.sent_at = self.first_byte_at = (
            0.0
        )
        self.route: Route | None = None
        self.http: HttpRoute | None = None
        self.about: About | None = None
        self.user = ""
        self.endpoint: Endpoint | None = None
        self.dial: HttpDial | None = None
        self.up: Upstream | None = None
        self.before = b""  # of the answer: its head, where it waits for the first of the body
        self.upgrade = b""  # the protocol that the target is asked to switch to
        self.retried = False
        self.hops = NO_LIMIT  # for the target: Max-Forwards
        self.body_left = request.length
        self.reader = ChunkReader() if request.length == CHUNKED else None
        self.has_body_begun = False
        self.is_sent = False  # the whole request
        self.received = self.sent = 0  # bytes of bodies: from the client, to it
        self.answer: Response | None = None
        self.answer_left = 0
        self.answer_reader: ChunkReader | None = None
        self.frames_chunks = False  # the answer's body goes to the client in chunks
        self.has_answered = False  # bytes of the final answer went to the client
        self.informed = 0
        self.is_answered = False  # all of the answer is here; some of it waits for the client
        self.is_over = False
        self.unread = -1  # bytes that had not been taken when this was last looked at
        self.status = 0
        self.end: End | None = None
        self.detail = ""

    @classmethod
    def refused(cls, client: HttpClient, head: bytes) -> Exchange:
        """For a head that could not be read."""
        exchange = cls(client, refused_request(head), 0)
        make_id = client.plane.http.make_id
        exchange.about = describe(client.origin, exchange.request, NOBODY, make_id())
        return exchange

    # -- who gets it -----------------------------------------------------------------------

    def begin(self) -> None:
        """Find the route, and what it says about this request."""
        client, request = self.client, self.request
        conn = client.conn
        found = find_route(self)
        self.routed_at = self.plane.reactor.now
        if found is None:
            no_route(self)
            return
        route = found.value
        http = route.http
        if http is None:
            if conn.route is None and conn.tls is None:
                self.is_over = True
                client.relay(route)
            else:
                no_route(self)
            return
        self.route, self.http = route, http
        route.tally.received += self.head_size
        self.about = about = describe(
            client.origin, request, http.forwarders, self.plane.http.make_id(), found.params,
            route.name,
        )  # fmt: skip
        if conn.route is None or route.gate is not None:
            refusal = admit(client, route, about.client_ip)
        else:
            refusal = None
        if refusal is not None:
            self.fail(refusal.status, refusal.end, refusal.why, is_last=True)
            return
        client.takes(route)
        if route.plan.terminate is not client.policy and not has_policy_of(client, route):
            self.fail(421, End.NO_ROUTE, "the route has another TLS policy")
            return
        plan = http.plan
        if (
            self.head_size > plan.head_limit or len(request.fields.lines) > plan.field_limit
        ) and is_too_large(self, plan):
            return
        if http.is_plain and route.rules is None:
            self.go_on(http, route)
        else:
            check(self, http, route)

    def authenticated(self, user: str | None, is_busy: bool) -> None:
        """What the check of a password has come to."""
        authenticated(self, user, is_busy)

    def go_on(self, http: HttpRoute, route: Route) -> None:
        """Everybody is content: answer by ourselves, or forward."""
        if http.status:
            act(self, http)
            return
        if self.request.method in HOPS_ARE_LIMITED and ends_here(self):
            return
        endpoint = route.pick(self.plane.reactor.now)
        if endpoint is None:
            for target in route.balancer.targets:
                failures = target.tally.counts.connect_failures
                failures["unresolved"] = failures.get("unresolved", 0) + 1
            self.unreachable(End.CONNECT_FAILED, "no target has an address")
            return
        self._forward(http, route, endpoint)

    def _forward(self, http: HttpRoute, route: Route, endpoint: Endpoint) -> None:
        request, now = self.request, self.plane.reactor.now
        offered = request.fields.offered
        self.upgrade = http.upgrade(offered) if offered and _may_upgrade(request) else b""
        may_repeat = request.length == 0 and request.method in IDEMPOTENT
        port = self.client.conn.listener.port
        if route.send_header is not None:
            own = self.client.own
            if own is not None:
                self.client.own = None
                if own.is_good_for(route, port, now, only_fresh=not may_repeat):
                    self.use(own)
                    return
                own.close()
        else:
            pools, place = self.plane.http.pools, place_of(route, endpoint, port)
            kept = take_kept(pools, place, endpoint, now, only_fresh=not may_repeat)
            if kept is not None:
                self.use(kept)
                return
        self._dial(route, endpoint)

    def _dial(self, route: Route, endpoint: Endpoint) -> None:
        self.dialled_at = self.plane.reactor.now
        self.dial = dial = HttpDial(self.client.conn, route, self)
        dial.start_with(endpoint)

    # -- the target is there ---------------------------------------------------------------

    def use(self, up: Upstream, header: bytes = b"") -> None:
        """Send the request to this target, behind a PROXY header where it is to have one."""
        self.dial = None
        self.up = up
        up.exchange = self
        self.endpoint = up.endpoint
        wire = up.wire
        self.connected_at = self.plane.reactor.now
        client = self.client
        if not client.has_dialled:
            client.has_dialled = True
            self.plane.cells[CELL_DIALLED] += 1
        http, about = self.http, self.about
        assert http is not None
        assert about is not None
        head = http.writer.head(
            self.request, about, client.origin, up.endpoint.target.name, upgrade=self.upgrade,
            expects_continue=self.request.fields.expects_continue, hops=self.hops,
        )  # fmt: skip
        up.endpoint.tally.sent += len(head)
        wire.send(header + head if header else head)
        if self.request.length == 0:
            self.is_sent = True
            self.sent_at = self.connected_at
        elif not wire.is_lost:
            client.run()
            if self.is_over or self.up is not up:
                return
        if wire.is_lost:
            self.cannot_write(up)
            return
        self.arm()

    @property
    def is_framed(self) -> bool:
        """The client can tell that an answer which ends now is not whole."""
        answer = self.answer  # None: one of ours, with its length
        return answer is None or self.frames_chunks or answer.length >= 0

    def cannot_write(self, up: Upstream) -> None:
        """The target takes no more; what it has said before that may be an answer."""
        up.is_readable = up.has_end = True
        take_answer(self, up)
        if self.up is up and not up.is_readable:
            self.target_lost(LOST)

    def take_body(self) -> bool:
        """Pass some of the body on; False: nothing to be done now."""
        up = self.up
        if self.is_sent or self.is_over or up is None or up.wire.outbox or up.wire.is_lost:
            return False
        return take_body(self, up)

    # -- the answer ------------------------------------------------------------------------

    def target_ready(self, events: int) -> None:
        """The target's socket has something, or room."""
        up = self.up
        if up is None:
            return
        wire = up.wire
        if wire.outbox:
            wire.flush()
            self.client.conn.active_at = self.plane.reactor.now
            if wire.is_lost:
                self.cannot_write(up)
                return
            if not wire.outbox:
                self.client.run()
                if self.is_over:
                    return
        if events == OUT:
            return
        up.is_readable = True
        up.has_end = up.has_end or bool(events & ANY_END)
        take_answer(self, up)

    def client_flushed(self) -> None:
        """The client takes more."""
        if self.is_answered:
            self.over(self.end)
            self.client.done()
            return
        up = self.up
        if up is not None and up.is_readable:
            take_answer(self, up)

    def target_lost(self, how: int) -> None:
        """The target has ended the connection, before the answer was whole."""
        up = self.up
        assert up is not None
        is_idle = self.answer is None and not up.inbox
        was_kept, self.up = up.is_kept, None
        why = up.wire.why
        up.close()
        route, endpoint = self.route, self.endpoint
        may_repeat = self.request.method in IDEMPOTENT and not self.has_body_begun
        if is_idle and was_kept and may_repeat and not self.retried and not self.informed:
            assert route is not None
            assert endpoint is not None
            self.retried = True
            self.endpoint = None
            self.is_sent = False
            self._dial(route, endpoint)
            return
        end = End.TARGET_RESET if how == LOST else End.TARGET_CLOSED
        if not self.has_answered:
            self.fail(
                502, end, why or "the target ended within its answer", is_last=not self.is_sent
            )
            return
        client = self.client
        if not self.is_framed:
            client.reset()
        self.over(end)
        client.close(end, "the target ended within its answer")

    # -- answers of our own ----------------------------------------------------------------

    def unreachable(self, end: End, detail: str) -> None:
        """No endpoint could be dialled."""
        unreachable(self, end, detail)

    def fail(
        self, status: int, end: End, detail: str, *, is_last: bool = False, extra: bytes = b""
    ) -> None:
        """Answer with an error; where the answer has begun, cut the connection.

        ``extra``: lines for the answer's head.
        """
        fail(self, status, end, detail, is_last=is_last, extra=extra)

    # -- the end ---------------------------------------------------------------------------

    def answered(self) -> None:
        """The whole answer was sent; it is over once the kernel has taken it."""
        client = self.client
        if client.wire.outbox:
            self.is_answered = True
            self.unread = unread(self)
            self.arm()
        else:
            self.over(self.end)
            client.done()

    def over(self, end: End | None) -> None:
        """Count it, once; ``end``: why it is not as it should be."""
        if self.is_over:
            return
        self.is_over = True
        tell(self, end)

    def client_gone(self, end: End) -> None:
        """Nobody waits for the answer any more."""
        self.over(end)

    def abandon(self, reason: End) -> None:
        """The connection has ended: give everything back."""
        if not self.is_over and self.has_answered:
            self.sent = max(0, self.sent - len(self.client.wire.outbox))
            if not self.is_framed:
                self.client.reset()
        self.over(reason)
        self.give_back()

    def give_back(self) -> None:
        """No target is needed any more."""
        up, self.up = self.up, None
        if up is not None:
            up.close()
        dial, self.dial = self.dial, None
        if dial is not None:
            dial.abandon()

    # -- time ------------------------------------------------------------------------------

    def arm(self) -> None:
        """Have `on_deadline` called when this exchange is late."""
        found, _ = exchange_deadline(self)
        if found != NEVER:
            self.client.conn.arm(found)

    def on_deadline(self, now: float) -> None:
        """Something may be late."""
        if self.dial is not None:
            self.dial.on_deadline(now)
        elif not self.is_over:
            exchange_late(self, now)


def _may_upgrade(request: Request) -> bool:
    """Not for a 1.0 client, RFC 9110 section 7.8, nor where a body would be in the relay's way."""
    return request.is_11 and request.length == 0 and request.method == "GET"
