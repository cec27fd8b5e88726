"""How the sides of a relayed connection end, and what is still delivered then.

FIN is passed on as FIN once what was read before it is out; the other side may send on. RST is
passed on as RST, once what was read before it has reached the peer or a short cap is over:
SO_LINGER 0 would throw away what is still queued.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shared.ends import End
from worker.connection_state import Event, State, step
from worker.reactor import TICK_S
from worker.socket_options import reset_on_close, unacknowledged

if TYPE_CHECKING:
    from worker.connection import Connection
    from worker.relay import Side

RESET_CAP_S: Final = 1.0  # an RST waits this long for what was read before it
CLOSING_CAP_S: Final = 30.0  # queued bytes of a connection that is over get this long

CLOSING: Final = State.CLOSING
CLOSED: Final = State.CLOSED
SIDE_ENDED: Final = Event.SIDE_ENDED


def side_ended(conn: Connection, side: Side) -> None:
    """FIN was read from ``side``."""
    if conn.end_reason is None:
        conn.end_reason = End.CLIENT_CLOSED if side is conn.down else End.TARGET_CLOSED
    other = side.peer
    assert other is not None
    conn.active_at = conn.plane.reactor.now  # an end counts as a sign of life, as a byte does
    is_flushed = not other.outbox and (side.pipe is None or not side.pipe.held)
    if other.has_ended:
        if is_flushed and not side.pending():
            conn.end(conn.end_reason)
        else:
            _linger(conn, CLOSING_CAP_S)
        return
    if is_flushed:
        other.shut()
        if conn.state is CLOSING or conn.state is CLOSED:
            return  # close_notify met an RST
    conn.state = step(conn.state, SIDE_ENDED)
    route = conn.route
    assert route is not None
    if not route.half_open:
        plane = conn.plane
        plane.wheel.arm(conn, plane.reactor.now + route.timeouts.half_closed)


def side_lost(conn: Connection, side: Side) -> None:
    """An RST (or a dead path) was read from ``side``; what it said before has been read."""
    side.is_reset = True
    other = side.peer
    assert other is not None
    reason = End.CLIENT_RESET if side is conn.down else End.TARGET_RESET
    if conn.state is CLOSING:
        conn.end(conn.end_reason or reason)
        return
    conn.end_reason = reason
    side.outbox = b""
    other.release_pipe()
    conn.must_reset = other
    _linger(conn, RESET_CAP_S)
    if not other.pending():
        finish_closing(conn)


def reset_waits(conn: Connection, side: Side) -> None:
    """RST has come from ``side``, but what it said before cannot be delivered yet.

    The peer reads slowly, or not at all: `relay_deadline` gives it RESET_CAP_S from now or
    from the last bytes that it took.
    """
    side.is_reset = True
    if side.has_ended:
        side_lost(conn, side)
        return
    side.is_fast = False
    if side.peer is not None:
        side.peer.is_fast = False
    conn.active_at = conn.plane.reactor.now
    conn.arm(conn.active_at + RESET_CAP_S)


def reset_given_up(conn: Connection, reason: End) -> None:
    """The peer took nothing for too long: it gets the RST now."""
    other = conn.up if reason is End.CLIENT_RESET else conn.down
    if other is not None:
        reset_on_close(other.sock)
    conn.end(reason)


def flushed(conn: Connection, side: Side) -> None:
    """Nothing waits for ``side`` any more."""
    other = side.peer
    assert other is not None
    if conn.state is CLOSING:
        if not other.pending():
            finish_closing(conn)
    elif other.has_ended:
        side.shut()


def _linger(conn: Connection, cap_s: float) -> None:
    """It is over, but bytes may be queued: deliver them, for a limited time."""
    conn.state = step(conn.state, Event.LINGER)
    conn.down.is_fast = False
    if conn.up is not None:
        conn.up.is_fast = False
    conn.cut_at = min(conn.cut_at, conn.plane.reactor.now + cap_s)
    conn.arm(conn.cut_at)


def finish_closing(conn: Connection) -> None:
    """All queued bytes are with the kernel. An RST must wait until they are with the peer."""
    side = conn.must_reset
    now = conn.plane.reactor.now
    if side is not None:
        if now < conn.cut_at and unacknowledged(side.sock):
            conn.arm(now + TICK_S)
            return
        reset_on_close(side.sock)
    assert conn.end_reason is not None
    conn.end(conn.end_reason)
