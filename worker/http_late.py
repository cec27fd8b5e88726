"""What is late in HTTP: when that is, and what becomes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.ends import End
from shared.errors import HttpError
from worker.deadlines import NEVER
from worker.socket_options import unacknowledged

if TYPE_CHECKING:
    from worker.http_client import HttpClient
    from worker.http_exchange import Exchange


def client_deadline(client: HttpClient) -> float:
    """When the next request, or the rest of its head, is late."""
    conn, route = client.conn, client.route or client.conn.route
    timeouts = client.plane.http.timeouts if route is None else route.timeouts
    has_begun = client.has_begun
    if (has_begun or not client.requests) and not client.wire.outbox:
        found = client.head_at + timeouts.request_head
    else:
        found = client.idle_at + timeouts.http_keep_alive
    if client.leaves_at < found and not has_begun:
        found = client.leaves_at
    if timeouts.lifetime:
        found = min(found, conn.accepted_at + timeouts.lifetime)
    return found


def client_late(client: HttpClient, now: float) -> None:
    """The deadline between two exchanges has come, or one that has moved on since."""
    found = client_deadline(client)
    if now < found:
        client.conn.arm(found)
    elif client.wire.outbox:
        client.close(End.IDLE_TIMEOUT)
    elif client.has_begun:
        client.refuse(HttpError(408, "the head is late"), End.HEAD_TIMEOUT, client.inbox)
        client.run()
    elif now >= client.leaves_at:
        client.close(End.DRAINED if client.plane.is_draining else client.conn.cut_reason)
    else:
        client.close(End.IDLE_TIMEOUT if client.requests else End.HEAD_TIMEOUT)


def exchange_deadline(exchange: Exchange) -> tuple[float, End]:
    """When it is late if nothing more happens, and what that is called."""
    client, route = exchange.client, exchange.route
    conn = client.conn
    timeouts = client.plane.http.timeouts if route is None else route.timeouts
    found, end = NEVER, End.IDLE_TIMEOUT
    if timeouts.idle:
        found = conn.active_at + timeouts.idle
    if exchange.is_answered:  # who does not read is waited for no longer than who does not ask
        found = min(found, conn.active_at + timeouts.http_keep_alive)
    if client.has_fin and exchange.is_sent and (route is None or not route.half_open):
        late = conn.active_at + timeouts.half_closed
        if late < found:
            found, end = late, End.HALF_CLOSED_TIMEOUT
    if timeouts.response and exchange.answer is None and not exchange.is_answered:
        late = NEVER
        if exchange.is_sent:
            late = exchange.sent_at + timeouts.response
        elif exchange.up is not None and _awaits_continue(exchange):
            late = exchange.connected_at + timeouts.response
        if late < found:
            found, end = late, End.RESPONSE_TIMEOUT
    if timeouts.lifetime and conn.accepted_at + timeouts.lifetime < found:
        found, end = conn.accepted_at + timeouts.lifetime, End.LIFETIME
    return found, end


def exchange_late(exchange: Exchange, now: float) -> None:
    """The deadline within an exchange has come, or one that has moved on since."""
    client = exchange.client
    found, end = exchange_deadline(exchange)
    if now >= found and end is End.IDLE_TIMEOUT and _is_taken(exchange):
        client.conn.active_at = now
        found, end = exchange_deadline(exchange)
    if now < found:
        if found != NEVER:
            client.conn.arm(found)
    elif exchange.has_answered or end in (End.LIFETIME, End.HALF_CLOSED_TIMEOUT):
        client.close(end)
    else:
        up = exchange.up
        is_targets = exchange.is_sent or end is End.RESPONSE_TIMEOUT
        if is_targets or (up is not None and up.wire.outbox):
            exchange.fail(504, end, "", is_last=True)
        else:
            exchange.fail(408, end, "", is_last=True)


def _awaits_continue(exchange: Exchange) -> bool:
    """The client waits for the target's word before it sends the body, RFC 9110 section 10.1.1."""
    is_asked = exchange.request.fields.expects_continue and not exchange.has_body_begun
    return is_asked and not exchange.informed


def _is_taken(exchange: Exchange) -> bool:
    """Whether a peer has taken some of what waits for it since the last look.

    An event tells only of much room, so slow peers are asked for here.
    """
    was, exchange.unread = exchange.unread, unread(exchange)
    return exchange.unread not in (0, was)


def unread(exchange: Exchange) -> int:
    """Bytes that client and target have still to take, of those for which there was no room."""
    wires = [exchange.client.wire]
    if exchange.up is not None:
        wires.append(exchange.up.wire)
    return sum(len(wire.outbox) + unacknowledged(wire.sock) for wire in wires if wire.outbox)
