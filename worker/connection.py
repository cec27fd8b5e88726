"""One connection from accept to close: both sockets, every deadline, the state, the one end.

The phases before the relay are here (whose address, which route), the dial is in `dial.py`, the
bytes are in `relay.py`. Every path out of here goes through `Connection.end`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from shared.ends import End
from shared.networks import split_ip
from worker.accounting import CELL_DIALLED, account
from worker.coded_side import CodedSide, relay_coded, say_last
from worker.connection_state import Event, State, step
from worker.deadlines import NEVER, on_deadline, relay_deadline
from worker.dial import Dial
from worker.endings import side_ended
from worker.gate import ENDS
from worker.guarded import HOLD_S, guard_read
from worker.handshake import ClientHandshake, is_let_in
from worker.header_guard import HeaderGuard
from worker.http_client import HttpClient
from worker.http_start import begin_http, shake_for_http
from worker.preface import HeaderReader, PrefaceReader
from worker.proxy_out import send_first
from worker.reactor import ENDED, ERROR, READING
from worker.relay import SIZE, Side
from worker.timer_wheel import NO_SLOT

if TYPE_CHECKING:
    from shared.proxy_protocol import ProxyHeader
    from worker.balancer import Endpoint
    from worker.client_tls import ClientTls
    from worker.data_plane import DataPlane
    from worker.gate import Gate
    from worker.generation import Route
    from worker.listener import Listener
    from worker.sockets import Socket

# Bound once: an attribute of an Enum class costs more than the move itself.
RELAYING: Final = State.RELAYING
HALF_CLOSED: Final = State.HALF_CLOSED
CLOSED: Final = State.CLOSED
CLOSING: Final = State.CLOSING
END: Final = Event.END
ROUTED: Final = Event.ROUTED
CONNECTED: Final = Event.CONNECTED

FIRST_LOOK_S: Final = 5.0  # at a connection whose first bytes are awaited

Address = tuple[str, int]
Phase: TypeAlias = HeaderReader | PrefaceReader | ClientHandshake | Dial | HttpClient


class Connection:
    """Owned by the data plane's set from accept to `end`, and by nothing after it."""

    __slots__ = (
        "accepted_at", "active_at", "admitted_by", "client", "connected_at", "counted_at",
        "counted_in", "cut_at", "cut_reason", "down", "end_reason", "endpoint", "first_byte_at",
        "guard", "has_keep_alive", "has_told", "header", "header_at", "is_quiet", "listener",
        "must_reset", "number", "peer_address", "pending", "phase", "plane", "route", "routed_at",
        "slot", "state", "tls", "tls_at", "unread", "up",
    )  # fmt: skip

    def __init__(
        self, plane: DataPlane, listener: Listener, sock: Socket, fd: int, peer: Address
    ) -> None:
        now = plane.reactor.now
        self.plane = plane
        self.listener = listener
        plane.number += 1
        self.number: int = plane.number
        self.peer_address = peer  # as the socket says; ("", 0) on a Unix socket
        self.client = peer  # whom all counts for: the PROXY header's word where believed
        self.header: ProxyHeader | None = None
        self.down = Side(self, sock, fd, wants_out=False)
        self.up: Side | None = None
        self.state = State.ACCEPTED
        self.phase: Phase | None = None  # of the current state
        self.pending: bytes = b""  # read from the client, not yet sent to the target
        self.guard: HeaderGuard | None = None
        self.route: Route | None = None
        self.counted_at: Route | None = None  # where it counts, if not under `route`
        self.endpoint: Endpoint | None = None
        self.slot = NO_SLOT  # of the timer wheel
        self.accepted_at = self.routed_at = self.active_at = now
        # 0: it did not happen
        self.header_at = self.tls_at = self.connected_at = self.first_byte_at = 0.0
        self.tls: ClientTls | None = None
        self.admitted_by: Gate | None = None  # at accept, see `worker/door.py`
        self.counted_in: tuple[int, ...] = ()  # cells of limits, see `worker/limits.py`
        self.cut_at = NEVER  # drain deadline
        self.cut_reason = End.DRAIN_DEADLINE
        self.end_reason: End | None = None  # who ended first, while the rest is delivered
        self.must_reset: Side | None = None  # CLOSING: this side gets an RST, not a FIN
        self.has_keep_alive = False
        self.has_told = False  # its requests have their own lines in the access log
        self.is_quiet = True  # nothing happened since the last account
        self.unread = -1  # bytes that peers had not taken when it was about to be called idle

    # -- before the relay ------------------------------------------------------------------

    def begin(self) -> None:
        """Called once, right after accept."""
        down, reactor = self.down, self.plane.reactor
        reactor.table[down.fd] = down
        reactor.register(down.fd, READING)
        policy = self.listener.policy
        if policy.reads_headers:
            if policy.trusts(self.peer_address[0]):
                self.move(Event.NEEDS_HEADER)
                self.phase = HeaderReader(self, policy)
                self.arm(self.accepted_at + policy.header_timeout)
                return  # what is there already has its edge, like all that comes
            self.listener.count_header("untrusted" if policy.closes_others else "none")
            if policy.closes_others:
                self.end(End.PROXY_HEADER_UNTRUSTED)
                return
            if policy.guards:
                self.guard = HeaderGuard()
        self.choose()

    def header_done(self, header: ProxyHeader | None, rest: bytes) -> None:
        """The PROXY header was read, or there is none; ``rest`` is what came behind it."""
        self.header = header
        self.header_at = now = self.plane.reactor.now
        self.pending = rest
        if header is not None and header.has_addresses:
            self.client = header.source_text, header.source_port
        gate, door = self.plane.gates.first, self.listener.inner_door
        if door is not None and self.has_own_address:
            counted = door.enter(self.client[0], now)
            if counted is not None:
                self.counted_in, self.admitted_by = counted, door.gate
                gate = None
        if gate is not None:
            refusal = gate.admit(self, now)
            if refusal:
                self.end(ENDS[refusal], gate.why(refusal, self.client[0]))
                return
        self.choose()

    def choose(self) -> None:
        """Find the route, or the bytes that are needed to find it."""
        only = self.listener.only_route
        if only is not None:
            self.routed(only)
            return
        opening = self.listener.matcher.at_accept(self.network_address)
        if opening.wait:
            self.move(Event.NEEDS_BYTES)
            self.phase = reader = PrefaceReader(self, opening)
            # A first look soon: what is armed after it for later costs next to nothing.
            self.arm(min(reader.deadline, self.accepted_at + FIRST_LOOK_S))
            # Nearly always they are here: whoever speaks first does it at once.
            reader.read()
        elif opening.value is None:
            self.end(End.NO_ROUTE)
        else:
            self.routed(opening.value)

    def routed(self, route: Route) -> None:
        """The route is chosen: dial, after the handshake if TLS ends here."""
        if route.http is not None and route.terminator is not None:
            shake_for_http(self, route)
            return
        self.route, self.routed_at = route, self.plane.reactor.now
        tally = route.tally
        tally.total += 1
        tally.active += 1
        gate = route.gate
        if gate is not self.admitted_by and gate is not None:
            refusal = gate.admit(self, self.routed_at)
            if refusal:
                self.end(ENDS[refusal], gate.why(refusal, self.client[0]))
                return
        if route.lasting.has_removed(route):  # by a reload while its first bytes were awaited
            self.cut(self.plane.reactor.now + route.timeouts.drain, End.ROUTE_REMOVED)
        if route.terminator is not None:
            assert self.tls is not None  # such a route is found by a ClientHello alone
            self.move(Event.NEEDS_TLS)
            self.phase = shaking = ClientHandshake(self, self.tls, route.tls_handshake_s)
            shaking.begin(route.terminator)
        elif route.rules is None or is_let_in(self, route.rules):
            self.state = step(self.state, ROUTED)
            self.phase = dial = Dial(self, route)
            dial.start()

    def shaken(self) -> None:
        """The client's handshake is done: dial."""
        route = self.route
        # The dial is measured from here on, and so is what the client does.
        self.tls_at = self.active_at = self.plane.reactor.now
        if route is None:
            begin_http(self)
        elif route.rules is None or is_let_in(self, route.rules):
            self.state = step(self.state, ROUTED)
            self.phase = dial = Dial(self, route)
            dial.start()

    def ended_early(self) -> None:
        """The client's FIN was read before there is a target: a half-close like any other."""
        self.down.has_ended = True

    def early(self, events: int) -> None:
        """The client's socket is ready before there is a target."""
        phase = self.phase
        if phase is None:
            return
        if events & ERROR and self.state is State.CONNECTING:
            self.end(End.CLIENT_GONE)
            return
        phase.client_ready(events)
        # The edge is spent: an end or more bytes than one read takes hold for the next phase too.
        is_more = events & ENDED or len(self.pending) > SIZE // 2
        if is_more and self.phase is not phase:
            self.early(events)

    def connected(
        self,
        sock: Socket,
        fd: int,
        endpoint: Endpoint,
        waiting: int,
        coded: CodedSide | None = None,
        behind: bytes = b"",
    ) -> None:
        """The target is there. ``waiting``: events of the client's socket since accept.

        ``coded``: its side, where TLS is spoken with it; ``behind``: what it has said already.
        """
        route = self.route
        assert route is not None
        self.state = step(self.state, CONNECTED)
        self.phase = None
        plane = self.plane
        self.endpoint = endpoint
        self.connected_at = self.active_at = plane.reactor.now
        tally = endpoint.tally
        tally.total += 1
        tally.active += 1
        route.tally.connected(self.connected_at - (self.tls_at or self.routed_at))
        if route.is_coded:
            coded = coded or CodedSide(self, sock, fd, True)
            relay_coded(self, coded, waiting, behind)
            return
        down = self.down
        self.up = up = Side(self, sock, fd, wants_out=True)
        up.peer, down.peer = down, up
        plane.reactor.table[fd] = up
        # Bytes will follow at once: the next account looks, and neither side needs to ask for it.
        self.is_quiet = down.is_quiet = False
        plane.touched.add(self)
        up.is_quiet = plane.access.is_on  # whose first bytes have an instant
        if route.send_header is not None or self.pending:
            send_first(self, up, route.send_header(self) if route.send_header else b"", waiting)
        plane.cells[CELL_DIALLED] += 1  # the target has what belongs before the payload
        if down.has_ended and self.state is RELAYING:
            side_ended(self, down)
        if self.state is not RELAYING and self.state is not HALF_CLOSED:
            return
        up.is_fast = not (up.outbox or up.is_reset)
        down.is_fast = up.is_fast and not down.has_ended and self.guard is None
        self.relaying(waiting)

    def relaying(self, waiting: int) -> None:
        """The relay has begun; ``waiting`` as `connected` has it."""
        plane, route, guard = self.plane, self.route, self.guard
        assert route is not None
        if plane.access.wants_connect:
            plane.access.line(self, None, self.connected_at)
        # The dial's deadline still stands in the wheel; its slot works out the next one.
        if route.has_short_timeouts:
            self.rearm()
        if guard is not None and guard.held:
            self.arm(self.active_at + HOLD_S)
        if waiting:
            self.down.ready(waiting)

    def guard_read(self, guard: HeaderGuard) -> None:
        """The client may not send a PROXY header: its first bytes are looked at."""
        guard_read(self, guard)

    # -- deadlines -------------------------------------------------------------------------

    def arm(self, deadline: float) -> None:
        """Have `on_deadline` called at the first tick after ``deadline``, or before."""
        cut_at = self.cut_at
        self.plane.wheel.arm(self, deadline if deadline < cut_at else cut_at)

    def rearm(self) -> None:
        """Arm for the deadline of the current state."""
        deadline, _ = relay_deadline(self)
        if deadline != NEVER:
            self.arm(deadline)

    def on_deadline(self, now: float) -> None:
        """The wheel's slot has come."""
        on_deadline(self, now)

    def cut(self, at: float, reason: End) -> None:
        """End at the instant ``at`` for ``reason``, if it still lives then."""
        if at < self.cut_at:
            self.cut_at, self.cut_reason = at, reason
            self.arm(at)

    def touch(self) -> None:
        """Something happened: the next account will look at this connection."""
        if self.is_quiet:
            self.is_quiet = False
            self.plane.touched.add(self)

    def rest(self) -> None:
        """All that happened is accounted for."""
        down = self.down
        if self.tls_at and isinstance(down, CodedSide):
            down.tell_held()
        self.is_quiet = down.is_quiet = True
        if self.up is not None:
            self.up.is_quiet = True

    def come_back(self, side: Side) -> None:
        """Let ``side`` read on after the others of this batch."""
        self.plane.reactor.again.append(side.pump)

    def end(self, reason: End, detail: str = "") -> None:
        """Close both sockets and leave every table; the first reason counts, once.

        ``detail`` goes to the log, where the reason is one that is logged.
        """
        if self.state is CLOSED:
            return
        self.state = step(self.state, END)
        plane, down, up = self.plane, self.down, self.up
        if down.tls is not None and not down.has_said_goodbye:
            say_last(down, reason)
        if up is not None:
            if up.tls is not None and not up.has_said_goodbye:
                say_last(up, reason)
            account(self, plane.reactor.now)
        elif isinstance(self.phase, Dial):
            self.phase.abandon()
        elif isinstance(self.phase, HttpClient):
            self.phase.abandon(reason)
        self.phase = None
        table, closing = plane.reactor.table, plane.reactor.closing
        table.pop(down.fd, None)
        closing.append(down.sock)
        down.is_fast = False
        down.peer = None
        if down.pipe is not None:
            down.release_pipe()
        if up is not None:
            table.pop(up.fd, None)
            closing.append(up.sock)
            up.is_fast = False
            up.peer = None
            if up.pipe is not None:
                up.release_pipe()
            del up.conn
        # The cycle is broken by hand, so that the garbage collector finds nothing to do.
        del down.conn
        if self.slot != NO_SLOT:
            plane.wheel.discard(self)
        plane.touched.discard(self)  # or it would be freed a tick later, out of the cache by then
        if self.counted_in:
            plane.limits.leave(self.counted_in)
        plane.ended(self, reason, detail)

    def move(self, event: Event) -> None:
        """The only place where the state changes, but for `end`."""
        self.state = step(self.state, event)

    @property
    def has_own_address(self) -> bool:
        """False for a balancer's own connection (LOCAL, UNKNOWN): it meets no limit per address."""
        return self.header is None or self.header.has_addresses

    @property
    def is_over(self) -> bool:
        """Nothing more is read, or it has ended."""
        return self.state is CLOSING or self.state is CLOSED

    @property
    def is_closed(self) -> bool:
        """It has ended."""
        return self.state is CLOSED

    @property
    def network_address(self) -> tuple[int, int] | None:
        """The client as matching takes it; None on a Unix socket."""
        ip = self.client[0]
        return split_ip(ip) if ip else None

    @property
    def destination(self) -> Address:
        """Where the client meant to go: the header's word where believed, else the socket's."""
        header = self.header
        if header is not None and header.has_addresses:
            return header.destination_text, header.destination_port
        return self.listener.destination(self.down.sock)
