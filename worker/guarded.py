"""The relay's first steps for a client that may not send a PROXY header (`untrusted: reject`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shared.ends import End
from worker.endings import side_lost
from worker.header_guard import HeaderGuard, Verdict
from worker.relay import DONTWAIT, VIEW
from worker.syscalls import LOST, receive

if TYPE_CHECKING:
    from worker.connection import Connection

HOLD_S: Final = 1.0  # bytes that may begin a header wait this long (design section 4)


def guard_read(conn: Connection, guard: HeaderGuard) -> None:
    """Read what the client says first; the guard decides whether it goes on to the target."""
    down, up = conn.down, conn.up
    assert up is not None
    while not up.outbox:
        count = receive(down.sock, down.fd)
        if count < 0:
            if count == LOST:
                side_lost(conn, down)
            return
        if count == 0:
            if _unguard(conn, guard):
                down.end()
            return
        down.count(count)
        verdict = guard.feed(bytes(VIEW[:count]))
        if verdict is Verdict.REJECT:
            conn.listener.count_header("untrusted")
            conn.end(End.PROXY_HEADER_UNTRUSTED)
            return
        if verdict is Verdict.PASS:
            if _unguard(conn, guard):
                down.settle()
                down.pump()
            return
        conn.arm(conn.plane.reactor.now + HOLD_S)


def guard_preface(conn: Connection, guard: HeaderGuard, data: bytes) -> bool:
    """Judge what was read to choose a route, before it is dialled; False: the connection is over.

    What passes is the connection's ``pending``; what is held back stays with the guard.
    """
    verdict = guard.feed(data)
    if verdict is Verdict.REJECT:
        conn.listener.count_header("untrusted")
        conn.end(End.PROXY_HEADER_UNTRUSTED)
        return False
    if verdict is Verdict.HOLD:
        conn.down.count(len(data))
        conn.pending = b""
    else:
        conn.guard = None
        conn.pending = data
    return True


def _unguard(conn: Connection, guard: HeaderGuard) -> bool:
    """No header can come any more; True while the connection goes on as before."""
    conn.guard = None
    release(conn, guard)
    return not conn.is_over


def release(conn: Connection, guard: HeaderGuard) -> None:
    """Pass on what the guard holds."""
    up = conn.up
    assert up is not None
    held = up.outbox + up.wire(guard.release())
    if not held:
        return
    try:
        sent = up.sock.send(held, DONTWAIT)
    except BlockingIOError:
        sent = 0
    except OSError:
        conn.down.cannot_write(up)
        return
    up.outbox = held[sent:]
    if up.outbox:
        up.settle()
        conn.down.is_fast = False
