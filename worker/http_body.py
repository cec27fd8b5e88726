"""A request's body on its way to the target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.ends import End
from shared.errors import HttpError
from shared.http.chunks import ChunkReader, encode_chunk, encode_end
from worker.http_wire import ENDED, LOST

if TYPE_CHECKING:
    from worker.http_exchange import Exchange
    from worker.http_pool import Upstream


def take_body(exchange: Exchange, up: Upstream) -> bool:
    """Read some of the body and pass it on; False: there is none now."""
    client = exchange.client
    if client.inbox:
        data, client.inbox = client.inbox, b""
        _pass_on(exchange, up, data)
        return not exchange.is_over
    if not client.is_readable:
        return False
    wire = client.wire
    count = wire.receive()
    if count > 0:
        if wire.is_drained and not client.has_end:
            client.is_readable = False
        client.conn.active_at = exchange.plane.reactor.now
        _pass_on(exchange, up, wire.view[:count])
        return not exchange.is_over
    client.is_readable = False
    if count == LOST:
        client.gone(End.CLIENT_RESET, wire.why)
    elif count == ENDED:
        client.gone(End.CLIENT_CLOSED, "the client ended within a body")
    return False


def _pass_on(exchange: Exchange, up: Upstream, data: bytes | memoryview) -> None:
    """Some of the body, and perhaps what is behind it."""
    exchange.has_body_begun = True
    reader = exchange.reader
    if reader is not None:
        _chunks(exchange, up, reader, data)
        return
    left = exchange.body_left
    size = len(data)
    if size > left:
        exchange.client.inbox = bytes(data[left:])
        data = data[:left]
        size = left
    exchange.body_left = left - size
    _count(exchange, up, size)
    up.wire.send(data)
    _sent(exchange, up, is_all=exchange.body_left == 0)


def _chunks(
    exchange: Exchange, up: Upstream, reader: ChunkReader, data: bytes | memoryview
) -> None:
    if exchange.http is not None:
        reader.limits = exchange.http.trailer_limits
    try:
        parts = reader.feed(data)
    except HttpError as error:
        exchange.fail(error.status, End.BAD_REQUEST, str(error), is_last=True)
        return
    size = sum(map(len, parts))
    used = reader.used
    _count(exchange, up, size)
    limit = 0 if exchange.http is None else exchange.http.plan.body_limit
    if limit and exchange.received > limit:
        exchange.fail(413, End.BAD_REQUEST, "the body is over body_limit", is_last=True)
        return
    if reader.is_done:
        exchange.client.inbox = bytes(data[used:])
    out: list[bytes | memoryview] = []
    if size:
        out = [encode_chunk(size), *parts, b"\r\n"]
    if reader.is_done:
        trailers = reader.trailers
        if exchange.http is not None:
            trailers = exchange.http.writer.trailers(trailers)
        out.append(encode_end(trailers))
    if out:
        up.wire.send(b"".join(out))
    _sent(exchange, up, is_all=reader.is_done)


def _count(exchange: Exchange, up: Upstream, size: int) -> None:
    exchange.received += size
    up.endpoint.tally.sent += size
    if exchange.route is not None:
        exchange.route.tally.received += size


def _sent(exchange: Exchange, up: Upstream, *, is_all: bool) -> None:
    if is_all:
        exchange.is_sent = True
        if exchange.answer is None:
            exchange.sent_at = exchange.plane.reactor.now
        exchange.arm()
    if up.wire.is_lost:
        exchange.cannot_write(up)
