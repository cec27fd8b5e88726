"""The sides of a connection that has TLS towards the client, towards the target, or both.

What `Side` does with two sockets it does here with what each of them carries: `_take` gives the
payload that was read, `put` sends payload. The outbox holds what goes to the socket as it is, so
what waits is never encrypted twice, and its order is that in which it was encrypted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shared.ends import End
from shared.errors import TlsError
from worker.accounting import CELL_DIALLED
from worker.connection_state import State
from worker.endings import CLOSING, side_ended, side_lost
from worker.openssl import EMPTY, LOST, NO_RECORD, ODD, PARTLY, UNSENT, WAS_FULL
from worker.openssl_form import OUTGOING, PLAIN, failure, found, relay, rest
from worker.reactor import ENDED, FIN
from worker.relay import LAST, READS_A_TURN, SIZE, VIEW, Side
from worker.socket_options import reset_on_close
from worker.syscalls import give
from worker.tls_engine import Tls

if TYPE_CHECKING:
    from worker.connection import Connection

HALF_CLOSED: Final = State.HALF_CLOSED
MOST_ANSWERS_BYTES: Final = 2 * SIZE  # that wait for a peer who does not read


# Ends that are ours: without a close_notify they would look like an attack (RFC 8446 section 6.1).
# What a peer has broken off is passed on as such.
_OURS: Final = frozenset(
    {
        End.BLOCKED,
        End.LIMIT,
        End.RATE,
        End.CONNECT_FAILED,
        End.CONNECT_TIMEOUT,
        End.IDLE_TIMEOUT,
        End.HALF_CLOSED_TIMEOUT,
        End.LIFETIME,
        End.ROUTE_REMOVED,
        End.DRAIN_DEADLINE,
        End.STOPPED,
        End.OVERLOAD,
    }
)


def say_last(side: Side, reason: End) -> None:
    """Send the close_notify of a connection that ends at once, where nothing waits before it."""
    if side.tls is None or side.outbox or side.is_reset or reason not in _OURS:
        return
    side.has_said_goodbye = True
    try:
        side.sock.send(side.tls.close(), LAST)  # the FIN of close(2) follows
    except OSError:
        return  # it is gone, or has no room: the FIN alone


def is_cut_off(side: Side | None) -> bool:
    """Whether it has ended without a close_notify: nobody knows if all has come."""
    tls = None if side is None else side.tls
    return side is not None and side.has_ended and tls is not None and not tls.has_ended


class CodedSide(Side):
    """One socket of such a connection. ``tls`` None: this one carries plain bytes."""

    __slots__ = ()

    @classmethod
    def in_place_of(cls, side: Side, tls: Tls | None) -> CodedSide:
        """Take over a client's socket before the relay has begun."""
        conn = side.conn
        made = cls(conn, side.sock, side.fd, side.wants_out)
        made.tls = tls
        made.has_ended = side.has_ended
        made.received = side.received  # a guard may hold some
        conn.down = made
        conn.plane.reactor.table[side.fd] = made
        del side.conn
        return made

    # -- payload in ------------------------------------------------------------------------

    def ready(self, events: int) -> None:
        """The hot path, as `Side.ready`: read once, send once. Every message comes this way."""
        if not self.is_fast or events & ENDED:
            if self.is_fast and events & ENDED == FIN and self.tls is None:
                self._ready_last()
            else:
                self._ready_slowly(events)
            return
        tls, peer = self.tls, self.peer
        assert isinstance(peer, CodedSide)  # both are, or none is
        to = peer.tls
        if to is not None and to.held:
            self.pump(0)  # a ticket goes ahead of the first bytes
            return
        try:
            passed = relay(
                self.sock,
                self.fd,
                None if tls is None else tls.object,
                peer.sock,
                peer.fd,
                None if to is None else to.object,
            )
        except TlsError as error:
            assert tls is not None
            tls.put_held_before(error)
            self._refuse(error)
            return
        if passed > 0:
            self.received += passed
            if self.is_quiet:
                self.touch()
        elif passed != EMPTY:
            self._passed(passed)

    def _passed(self, how: int) -> None:
        """What is left to do after a `relay` that was not the whole thing."""
        if how == 0:
            self.end()
            return
        if how == LOST:
            side_lost(self.conn, self)
            return
        peer, size = self.peer, found()
        assert isinstance(peer, CodedSide)
        if how == ODD:
            tls = self.tls
            assert tls is not None
            if self._deliver(tls.take_note(size), peer) and size & WAS_FULL:
                self.pump()
            return
        self.count(size)
        if how == NO_RECORD:
            peer._refuse(TlsError(str(failure())))
        elif how == UNSENT:
            self.cannot_write(peer)
        elif how == PARTLY:
            peer.keep(rest())
        else:
            self.pump()  # FULL: more may wait

    def _ready_last(self) -> None:
        """As `ready`, where FIN was seen with the plain bytes: what they become, the close_notify

        and our FIN leave in one packet.
        """
        peer = self.peer
        assert isinstance(peer, CodedSide)
        count = self.take()
        if not count:
            return
        self.count(count)
        if count == SIZE:
            if peer.put(VIEW):
                self.pump()
            return
        # All before a FIN has been read with a short read.
        if peer.put(VIEW[:count], is_last=True) or (peer.outbox and self.peer is not None):
            self.end()

    def pump(self, events: int = ENDED) -> None:
        """As `Side.pump`, without splice."""
        peer = self.peer
        if peer is None or self.has_ended or peer.outbox or peer.is_reset:
            return
        assert isinstance(peer, CodedSide)
        conn = self.conn
        if conn.state is CLOSING:
            return
        if conn.guard is not None and self is conn.down:
            conn.guard_read(conn.guard)
            return
        for _ in range(READS_A_TURN):
            count = self.take()
            if not count:
                return
            if self.tls is None:
                self.count(count)
                is_passed = peer.put(VIEW[:count])
            else:
                try:
                    size = self.tls.decrypt(VIEW[:count])
                except TlsError as error:
                    self._refuse(error)
                    return
                if not size and self.tls.has_ended and not OUTGOING.pending:
                    self.end()
                    return
                is_passed = self._deliver(size, peer)
            if not is_passed or (count < SIZE and not events & ENDED):
                return
        conn.come_back(self)

    def _deliver(self, size: int, peer: CodedSide) -> bool:
        """Pass on what was decrypted, answer a KeyUpdate, end where the end came with it.

        False where no more is to be read now.
        """
        tls = self.tls
        assert tls is not None
        answer = tls.answer()  # taken now: what is passed on may use the BIOs
        is_passed = True
        if size:
            self.count(size)
            is_passed = peer.put(PLAIN[:size])
        if answer and self.peer is not None:
            if len(self.outbox) > MOST_ANSWERS_BYTES:
                self._refuse(TlsError("it asks for key updates and does not read them"))
                return False
            self.send(answer)
        if self.peer is None or self.conn.state is CLOSING:
            return False
        if tls.has_ended:
            self.end()
            return False
        return is_passed

    def _refuse(self, error: TlsError) -> None:
        """Bad records: tell the peer, and let the other side see that this was no proper end."""
        conn, other = self.conn, self.peer
        if is_cut_off(other) and not error.alert:
            self._note_end()  # by its alert it says that it has seen the cut; no more is wrong
            return
        if error.alert:
            self.send(error.alert)
        if conn.is_closed:
            return
        if other is not None:
            reset_on_close(other.sock)
        who = "the client" if self is conn.down else "the target"
        conn.end(End.TLS_FAILED, f"{who}: {error}")

    # -- payload out -----------------------------------------------------------------------

    def put(self, payload: memoryview | bytes, *, is_last: bool = False) -> bool:
        """Send payload; False where not all of it is on its way, or the connection is over.

        ``is_last``: our end follows at once, and close_notify goes with the payload.
        """
        tls = self.tls
        if tls is None:
            return self.send(payload, is_last)
        try:
            data = tls.encrypt(payload)
        except TlsError as error:
            self._refuse(error)
            return False
        if is_last and not self.has_said_goodbye:
            self.has_said_goodbye = True
            data += tls.close()
        return self.send(data, is_last)

    def wire(self, payload: bytes) -> bytes:
        """As `Side.wire`."""
        return payload if self.tls is None else self.tls.encrypt(payload)

    def send(self, data: memoryview | bytes, is_last: bool = False) -> bool:
        """Send these bytes as they are, behind what waits; as `put`."""
        if self.outbox:
            self.outbox += data
            return False
        sent = give(self.sock, self.fd, data, is_last)
        if sent == LOST:
            if self.peer is not None:
                self.peer.cannot_write(self)
            return False
        if sent < len(data):
            self.keep(bytes(data[sent:]))
            return False
        return True

    def keep(self, rest: bytes) -> None:
        """The socket took only part; nothing more is read for it until this is gone."""
        self.outbox = rest
        self.is_fast = False
        if self.peer is not None:
            self.peer.is_fast = False
        self.ask_writable()

    # -- ends ------------------------------------------------------------------------------

    def end(self) -> None:
        """As `Side.end`; where it is the second end, both peers get a close_notify before FIN."""
        if self.is_reset:
            side_lost(self.conn, self)
            return
        self._note_end()

    def _note_end(self) -> None:
        self.has_ended = True
        self.is_fast = False
        peer = self.peer
        if peer is not None and peer.has_ended:
            assert isinstance(peer, CodedSide)
            for side in (peer, self):
                side.say_goodbye()
                if self.peer is None or self.conn.state is CLOSING:
                    return
        side_ended(self.conn, self)

    def shut(self) -> None:
        """Send close_notify, if it is due, then FIN."""
        if not self.is_shut and self.say_goodbye(is_last=True):
            super().shut()

    def say_goodbye(self, *, is_last: bool = False) -> bool:
        """Send our close_notify, once, behind what waits; False where it waits too.

        Where the other side has ended without one it would be a lie, RFC 8446 section 6.1: our FIN
        comes alone then. ``is_last``: it follows at once.
        """
        tls = self.tls
        if tls is not None and not self.has_said_goodbye:
            self.has_said_goodbye = True
            last = tls.take_held() if is_cut_off(self.peer) else tls.close()
            if last:
                self.send(last, is_last)
        return not self.outbox

    def tell_held(self) -> None:
        """Send the ticket that found nothing to go with."""
        tls = self.tls
        if tls is not None and tls.held and not self.has_said_goodbye:
            self.send(tls.take_held())


def set_peers(up: Side, down: Side) -> None:
    """Each is the other's peer from now on.

    In a function of its own: what is assigned here would be taken for what is still there after any
    number of calls, and compiled code would stumble over the None of a connection that has ended.
    """
    up.peer, down.peer = down, up


def relay_coded(conn: Connection, up: CodedSide, waiting: int, behind: bytes) -> None:
    """Begin the relay: header, what the client has said, what the target has.

    ``behind``: payload that came with the end of the target's handshake. With TLS towards the
    target its PROXY header is out already.
    """
    plane, route = conn.plane, conn.route
    assert route is not None
    down = conn.down
    if not isinstance(down, CodedSide):
        down = CodedSide.in_place_of(down, None)
    conn.up = up
    set_peers(up, down)
    plane.reactor.table[up.fd] = up
    # Bytes will follow at once: the next account looks, and neither side needs to ask for it.
    conn.is_quiet = down.is_quiet = False
    plane.touched.add(conn)
    up.is_quiet = plane.access.is_on  # whose first bytes have an instant
    pending, conn.pending = conn.pending, b""
    down.received += len(pending)
    if route.send_header is not None and up.tls is None:
        up.send(route.send_header(conn) + pending)
    elif pending:
        up.put(pending)
    if behind and up.peer is not None:
        up.count(len(behind))
        down.put(behind)
    plane.cells[CELL_DIALLED] += 1  # the target has what belongs before the payload
    if up.peer is None or conn.state is CLOSING:
        return
    if up.tls is not None and up.tls.has_ended:
        up.end()
        if conn.is_over:
            return
    if down.has_ended:
        side_ended(conn, down)
        if conn.is_over:
            return
    if conn.state is HALF_CLOSED or up.outbox or down.outbox or up.is_reset or down.is_reset:
        up.settle()
        down.settle()
    else:
        up.is_fast = down.is_fast = True
    conn.relaying(waiting)
