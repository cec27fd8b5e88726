"""From an exchange to a relay: the target has switched protocols (RFC 9110 section 7.8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.ends import End
from worker.coded_side import CodedSide, set_peers
from worker.connection_state import Event
from worker.endings import side_ended

if TYPE_CHECKING:
    from shared.http.head import Response
    from worker.http_exchange import Exchange
    from worker.http_pool import Upstream


def switch(exchange: Exchange, up: Upstream, answer: Response, behind: bytes) -> None:
    """The answer is 101: pass it on, then every byte either way.

    ``behind``: what the target has said behind it; what the client has sent ahead is in its inbox.
    """
    client, http, about, route = exchange.client, exchange.http, exchange.about, exchange.route
    assert http is not None
    assert about is not None
    assert route is not None
    exchange.status = answer.status
    exchange.first_byte_at = client.plane.reactor.now
    head = http.answers.informational(answer, about)
    route.tally.sent += len(head)
    client.wire.send(head)
    if client.wire.is_lost:
        client.gone(End.CLIENT_RESET)
        return
    exchange.up = None
    exchange.over(None)
    client.exchange = None
    up.endpoint.tally.received -= len(behind)  # the relay counts them
    up_side = up.hand_over(client.conn)
    _relay(exchange, up_side, behind)


def _relay(exchange: Exchange, up: CodedSide, behind: bytes) -> None:
    client, route = exchange.client, exchange.route
    assert route is not None
    conn, wire, plane = client.conn, client.wire, client.plane
    conn.move(Event.CONNECTED)
    conn.phase = None
    # It goes on as this route says, and counts under the one of its first request to its end.
    conn.counted_at = conn.route
    conn.route, conn.endpoint = route, exchange.endpoint
    conn.routed_at, conn.connected_at = exchange.routed_at, exchange.connected_at
    conn.active_at = plane.reactor.now
    conn.header_at = conn.tls_at = 0.0  # the line of its first request has them
    conn.has_told = False  # a relay has one again
    down = CodedSide.in_place_of(conn.down, wire.tls)
    down.outbox = wire.outbox
    down.wants_out = wire.wants_out
    down.has_ended = wire.has_ended
    conn.up = up
    set_peers(up, down)
    plane.reactor.table[up.fd] = up
    conn.is_quiet = down.is_quiet = up.is_quiet = False
    plane.touched.add(conn)
    pending, client.inbox = client.inbox, b""
    if pending:
        down.count(len(pending))
        up.put(pending)
    if behind and up.peer is not None:
        up.count(len(behind))
        down.put(behind)
    if conn.is_over:
        return
    for side in (up, down):  # an end that came along with what was read before
        if side.has_ended and side.peer is not None and not conn.is_over:
            side_ended(conn, side)
    if conn.is_over:
        return
    up.settle()
    down.settle()
    conn.rearm()
    # The edges are spent: what is there, ends too, is asked for once.
    down.pump()
    if not conn.is_over:
        up.pump()
