"""Answers of our own: what a route says by itself, and errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shared.ends import End
from shared.errors import HttpError
from shared.http.hops import hops_left

if TYPE_CHECKING:
    from shared.plan import HttpPlan
    from worker.http_exchange import Exchange
    from worker.http_route import HttpRoute

HEAD_END: Final = b"\r\n\r\n"


def act(exchange: Exchange, http: HttpRoute) -> None:
    """The route redirects, or has a fixed answer."""
    about = exchange.about
    assert about is not None
    _begin(exchange, http.status, None, "")
    date, keeps = exchange.plane.http.date, _keeps(exchange)
    _say(exchange, http.own.action(about, date, keep_alive=keeps))


def ends_here(exchange: Exchange) -> bool:
    """Whether Max-Forwards lets a TRACE or OPTIONS go no further: then it is answered by us, the
    former not with an echo, which would show what proxies before us have added.
    """
    try:
        hops = hops_left(exchange.request)
    except HttpError as error:
        fail(exchange, error.status, End.BAD_REQUEST, str(error), is_last=True)
        return True
    if hops > 0:
        exchange.hops = hops - 1
    if hops != 0:
        return False
    if exchange.request.method == "TRACE":
        fail(exchange, 405, End.BAD_REQUEST, "a TRACE with Max-Forwards: 0")
    else:
        http, about = exchange.http, exchange.about
        assert http is not None
        assert about is not None
        _begin(exchange, 204, None, "")
        date, keeps = exchange.plane.http.date, _keeps(exchange)
        _say(exchange, http.own.options(about, date, keep_alive=keeps))
    return True


def is_too_large(exchange: Exchange, plan: HttpPlan) -> bool:
    """Whether the target, or the fields, are over what the route allows; then it is answered."""
    request = exchange.request
    if request.line_bytes > plan.head_limit:
        status, why = 414, "the request target is over the route's head_limit"
    elif request.block_bytes > plan.head_limit:
        status, why = 431, "the fields are over the route's head_limit"
    elif len(request.fields.lines) > plan.field_limit:
        status, why = 431, "there are more fields than the route's field_limit"
    else:
        return False
    fail(exchange, status, End.BAD_REQUEST, why, is_last=True)
    return True


def unreachable(exchange: Exchange, end: End, detail: str) -> None:
    """No endpoint could be dialled: say so, or that there is maintenance."""
    http, about = exchange.http, exchange.about
    assert http is not None
    assert about is not None
    if end is End.OVERLOAD:
        fail(exchange, 503, end, detail)
    elif not http.own.has_maintenance:
        fail(exchange, 504 if end is End.CONNECT_TIMEOUT else 502, end, detail)
    else:
        _begin(exchange, 503, end, detail)
        date, keeps = exchange.plane.http.date, _keeps(exchange)
        _say(exchange, http.own.maintenance(about, date, keep_alive=keeps))


def fail(
    exchange: Exchange, status: int, end: End, detail: str, *, is_last: bool = False,
    extra: bytes = b"",
) -> None:  # fmt: skip
    """As `Exchange.fail`."""
    if exchange.is_over:
        return
    if exchange.has_answered:
        exchange.detail = detail
        exchange.client.why = end
        exchange.over(end)
        exchange.client.close(end, detail)
        return
    if is_last:
        exchange.client.is_last = exchange.client.must_linger = True
    _begin(exchange, status, end, detail)
    http = exchange.http
    own = exchange.plane.http.own if http is None else http.own
    date, keeps = exchange.plane.http.date, _keeps(exchange)
    _say(exchange, own.error(status, exchange.about, date, keep_alive=keeps, extra=extra))


def _begin(exchange: Exchange, status: int, end: End | None, detail: str) -> None:
    """No target has a part in it any more."""
    exchange.status, exchange.end, exchange.detail = status, end, detail
    exchange.give_back()
    if not exchange.is_sent and exchange.body_left:
        # What of the body still comes is not read.
        exchange.client.is_last = exchange.client.must_linger = True


def _keeps(exchange: Exchange) -> bool:
    client = exchange.client
    return exchange.request.keep_alive and not (client.is_last or client.plane.is_draining)


def _say(exchange: Exchange, data: bytes) -> None:
    """The whole answer, and the end of the exchange."""
    client = exchange.client
    if not _keeps(exchange):
        client.is_finishing = True
        if exchange.end is not None:
            client.why, client.detail = exchange.end, exchange.detail
    exchange.has_answered = True
    exchange.sent += len(data) - data.index(HEAD_END) - len(HEAD_END)
    if exchange.route is not None:
        exchange.route.tally.sent += len(data)
    client.wire.send(data)
    if client.wire.is_lost:
        client.gone(End.CLIENT_RESET)
        return
    exchange.answered()
