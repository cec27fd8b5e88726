"""When a connection's time is over, and what happens then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shared.ends import End
from worker.connection_state import State
from worker.endings import RESET_CAP_S, finish_closing, reset_given_up
from worker.guarded import release
from worker.socket_options import probe_peer, unacknowledged

if TYPE_CHECKING:
    from worker.connection import Connection

NEVER: Final = float("inf")
# For a client whose connection is to end, and who was promised that it may ask: long enough for
# what is on its way, and for a machine that is busy.
LAST_S: Final = 2.0


def on_deadline(conn: Connection, now: float) -> None:
    """The wheel's slot has come; the deadline itself may have moved on since."""
    if conn.state is State.CLOSED:
        return
    if conn.state is State.CLOSING:
        closing_deadline(conn, now)
        return
    if now >= conn.cut_at:
        conn.end(conn.cut_reason)
        return
    if conn.phase is not None:
        conn.phase.on_deadline(now)
        return
    if not conn.has_keep_alive:
        # Only now, so that a short connection pays no system call for it.
        conn.has_keep_alive = True
        for side in (conn.down, conn.up):
            if side is not None:
                probe_peer(side.sock)
    if conn.guard is not None and conn.guard.held:
        release(conn, conn.guard)
    if conn.is_closed:
        return
    found, reason = relay_deadline(conn)
    if now >= found and reason is End.IDLE_TIMEOUT and _is_taken(conn):
        conn.active_at = now
        found, reason = relay_deadline(conn)
    if now >= found and reason in (End.CLIENT_RESET, End.TARGET_RESET):
        reset_given_up(conn, reason)
    elif now >= found:
        conn.end(reason)
    elif found != NEVER:
        conn.arm(found)


def relay_deadline(conn: Connection) -> tuple[float, End]:
    """When the relay is over if nothing more happens, and the reason that it then ends for."""
    route = conn.route
    assert route is not None
    timeouts = route.timeouts
    found, reason = conn.cut_at, conn.cut_reason
    if timeouts.lifetime and conn.accepted_at + timeouts.lifetime < found:
        found, reason = conn.accepted_at + timeouts.lifetime, End.LIFETIME
    if timeouts.idle and conn.active_at + timeouts.idle < found:
        found, reason = conn.active_at + timeouts.idle, End.IDLE_TIMEOUT
    is_half = conn.state is State.HALF_CLOSED and not route.half_open
    if is_half and conn.active_at + timeouts.half_closed < found:
        found, reason = conn.active_at + timeouts.half_closed, End.HALF_CLOSED_TIMEOUT
    is_lost = conn.down.is_reset or (conn.up is not None and conn.up.is_reset)
    if is_lost and conn.active_at + RESET_CAP_S < found:
        found = conn.active_at + RESET_CAP_S
        reason = End.CLIENT_RESET if conn.down.is_reset else End.TARGET_RESET
    return found, reason


def _is_taken(conn: Connection) -> bool:
    """Whether a peer has taken some of what waits for it since the last look: it is slow, not idle.

    An event tells only once a third of the socket's buffer is free.
    """
    was = conn.unread
    conn.unread = sum(
        side.pending() + unacknowledged(side.sock)
        for side in (conn.down, conn.up)
        if side is not None and side.pending()
    )
    return conn.unread not in (0, was)


def closing_deadline(conn: Connection, now: float) -> None:
    """CLOSING, and time has passed: over, or look again."""
    is_pending = conn.down.pending() or (conn.up is not None and conn.up.pending())
    if now < conn.cut_at and is_pending:
        conn.arm(conn.cut_at)
    else:
        finish_closing(conn)
