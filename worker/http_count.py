"""What an exchange leaves behind when it is over: counters, and a line of the access log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shared.ends import End

if TYPE_CHECKING:
    from shared.access_entry import Entry, RequestEntry
    from worker.http_exchange import Exchange

CLASSES: Final = ("", "1xx", "2xx", "3xx", "4xx", "5xx", "6xx", "7xx", "8xx", "9xx")
CLIENT_GONE_STATUS: Final = 499  # as nginx has it: nobody was there for an answer


def observe_connect(exchange: Exchange, now: float) -> None:
    """A target was dialled for it: how long that took."""
    route = exchange.route
    assert route is not None
    route.tally.connected(now - exchange.routed_at)


def tell(exchange: Exchange, end: End | None) -> None:
    """Count the request under its route and target, by the class of its answer."""
    plane, route, endpoint = exchange.plane, exchange.route, exchange.endpoint
    now = plane.reactor.now
    if not exchange.status:
        exchange.status = CLIENT_GONE_STATUS
    exchange.end = end
    code = CLASSES[exchange.status // 100]
    if route is None:
        requests = exchange.client.conn.listener.counts.requests
    else:
        counts = route.tally.counts
        requests = counts.requests if endpoint is None else endpoint.tally.counts.requests
        whole, first_byte = counts.request, counts.first_byte
        if whole is None or first_byte is None:
            whole, first_byte = route.tally.had_request()
            plane.has_requests = True
        whole.observe(now - exchange.began_at)
        if endpoint is not None and exchange.first_byte_at:
            first_byte.observe(exchange.first_byte_at - exchange.sent_at)
    requests[code] = requests.get(code, 0) + 1
    if exchange.detail and exchange.client.why is not end:  # else the connection's end tells it
        plane.refused_request(exchange.client.conn, end, exchange.detail)
    if plane.access.is_on:
        exchange.client.conn.has_told = True
        plane.access.request(entry_of(exchange, now), now)


def entry_of(exchange: Exchange, now: float) -> RequestEntry:
    """What its line in the access log is made of."""
    client, about, endpoint, route = (
        exchange.client, exchange.about, exchange.endpoint, exchange.route,
    )  # fmt: skip
    conn = client.conn
    is_first = client.requests <= 1
    connected = exchange.connected_at
    was_dialled = exchange.dialled_at > 0.0
    address = conn.client
    if about is not None and about.client_ip != address[0]:
        address = (about.client_ip, about.client_port)
    entry: Entry = (
        conn.number,
        conn.peer_address,
        address,
        client.destination,
        conn.listener.name,
        None if route is None else route.name,
        None if endpoint is None else endpoint.target.name,
        exchange.end,
        exchange.received,
        exchange.sent,
        conn.header_at - conn.accepted_at if is_first and conn.header_at else None,
        conn.tls_at - (conn.header_at or conn.accepted_at) if is_first and conn.tls_at else None,
        connected - exchange.dialled_at if was_dialled and connected else None,
        exchange.first_byte_at - exchange.sent_at
        if exchange.first_byte_at and exchange.sent_at
        else None,
        now - exchange.began_at,
    )
    return (
        entry,
        exchange.request,
        exchange.status,
        None if about is None else about.request_id,
        exchange.user,
    )
