"""Bytes of a connection into the counters: once a tick for connections that were touched.

So a message pays for two integers and not for six. The last activity is as coarse as the timeouts
that it serves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.stats import COUNT_CELLS

if TYPE_CHECKING:
    from worker.connection import Connection
    from worker.generation import Route
    from worker.relay import Side
    from worker.tally import TargetTally

# Cells of a worker's counts that outlive a kill.
CELL_ACCEPTED, CELL_DIALLED, CELL_ENDED = range(COUNT_CELLS)


def account(conn: Connection, now: float) -> bool:
    """Put the bytes since the last account into the counters; False: nothing to come back for."""
    route, up, down = conn.route, conn.up, conn.down
    if route is None or up is None or conn.endpoint is None:
        return False
    came, went = down.received - down.counted, up.received - up.counted
    is_idle = not (came or went)
    tally, target = route.tally, conn.endpoint.tally
    if not is_idle:
        conn.active_at = now
        tally.received += came
        down.counted = down.received
        target.received += went
        up.counted = up.received
    is_waiting = down.outbox or up.outbox or conn.guard is not None
    if is_waiting or down.pipe is not None or up.pipe is not None:
        _account_passed(conn, route, down, up, target, now)
    else:
        target.sent += down.received - down.passed
        down.passed = down.received
        tally.sent += up.received - up.passed
        up.passed = up.received
        return not is_idle
    if is_idle:  # a pipe is for those who use it
        for side in (down, up):
            if side.pipe is not None and not side.pipe.held:
                side.release_pipe()
    return not is_idle or down.pipe is not None or up.pipe is not None


def _account_passed(
    conn: Connection, route: Route, down: Side, up: Side, target: TargetTally, now: float
) -> None:
    """Count as sent what does not wait here; a slow reader is not idle."""
    held = 0 if conn.guard is None else conn.guard.held
    passed = max(down.passed, down.received - up.pending() - held)
    if passed != down.passed:
        conn.active_at = now
        target.sent += passed - down.passed
        down.passed = passed
    passed = max(up.passed, up.received - down.pending())
    if passed != up.passed:
        conn.active_at = now
        route.tally.sent += passed - up.passed
        up.passed = passed
