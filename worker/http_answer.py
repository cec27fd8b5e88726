"""The target's answer on its way to the client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shared.ends import End
from shared.errors import HttpError
from shared.http.chunks import ChunkReader, encode_chunk, encode_end
from shared.http.fields import find_head
from shared.http.head import CHUNKED, UNTIL_CLOSE, Response
from shared.http.response import check_unfinished, parse_response
from worker.http_upgrade import switch
from worker.http_wire import ENDED, LOST, NOTHING

if TYPE_CHECKING:
    from worker.http_exchange import Exchange
    from worker.http_pool import Upstream

BEGINNING: Final = b"HTTP/1."
SCAN_BACK: Final = 3  # bytes of an end of a head that may have come already
MOST_INFORMED: Final = 32  # answers 1xx before the final one
READS_A_TURN: Final = 4  # then the other connections of the batch come first
SWITCHING: Final = 101
BAD_ANSWER: Final = "the target's answer: "


def take_answer(exchange: Exchange, up: Upstream) -> None:
    """Read what the target says, as long as the client takes it."""
    client_wire, wire = exchange.client.wire, up.wire
    for _ in range(READS_A_TURN):
        if exchange.up is not up or client_wire.outbox or not up.is_readable:
            return
        count = wire.receive()
        if count <= 0:
            up.is_readable = False
            if count == ENDED:
                _ended(exchange, up)
            elif count == LOST:
                exchange.target_lost(LOST)
            return
        if wire.is_drained and not up.has_end:
            up.is_readable = False  # a short read emptied the socket
        conn = exchange.client.conn
        conn.active_at = exchange.plane.reactor.now
        up.endpoint.tally.received += count
        if exchange.answer is None:
            _head(exchange, up, count)
        else:
            body(exchange, up, wire.view[:count])
    if exchange.up is up and up.is_readable:
        exchange.plane.reactor.again.append(up.come_back)


def _head(exchange: Exchange, up: Upstream, count: int) -> None:
    """More of the answer's head, and perhaps all of it."""
    data = bytes(up.wire.view[:count])
    start = 0
    if up.inbox:
        start = max(0, len(up.inbox) - SCAN_BACK)
        data = up.inbox + data
        up.inbox = b""
    while True:
        end = find_head(data, start)
        if end == 0:
            up.inbox = data
            try:
                if not BEGINNING.startswith(data[:7]):
                    raise HttpError(502, "it is not HTTP/1")
                check_unfinished(data, start)
            except HttpError as error:
                bad(exchange, str(error))
            return
        start = 0
        is_all = end == len(data)
        head = data if is_all else data[:end]
        try:
            answer = parse_response(head, exchange.request.method)
        except HttpError as error:
            bad(exchange, str(error))
            return
        data = b"" if is_all else data[end:]
        if answer.status >= 200:
            _begin(exchange, up, answer, data)
            return
        if answer.status == SWITCHING:
            if exchange.upgrade and answer.fields.upgrade == exchange.upgrade:
                switch(exchange, up, answer, data)
            else:
                bad(exchange, "it switches to a protocol that nobody asked for")
            return
        if not _inform(exchange, answer):
            return
        if not data:
            return


def _inform(exchange: Exchange, answer: Response) -> bool:
    """Pass a 1xx on; False where the exchange has come to an end by it."""
    exchange.informed += 1
    if exchange.informed > MOST_INFORMED:
        bad(exchange, f"more than {MOST_INFORMED} answers 1xx")
        return False
    http, about, request = exchange.http, exchange.about, exchange.request
    assert http is not None
    assert about is not None
    if request.is_11:  # RFC 9110 section 15.2: never to a 1.0 client
        _to_client(exchange, http.answers.informational(answer, about))
    return exchange.up is not None


def _begin(exchange: Exchange, up: Upstream, answer: Response, rest: bytes) -> None:
    """The final head is here, with ``rest`` behind it: it leaves with what of the body came."""
    exchange.answer = answer
    exchange.status = answer.status
    now = exchange.plane.reactor.now
    exchange.first_byte_at = now
    if not exchange.is_sent:
        exchange.sent_at = now  # it did not wait for the whole request
    request, client, http, about = exchange.request, exchange.client, exchange.http, exchange.about
    assert http is not None
    assert about is not None
    length = answer.length
    if not exchange.is_sent or exchange.plane.is_draining:
        client.is_last = True
        client.must_linger = not exchange.is_sent  # what of the body still comes is not read
    if length < 0:
        exchange.answer_reader = ChunkReader(passes_underscores=True) if length == CHUNKED else None
        exchange.frames_chunks = request.is_11
        if not request.is_11:
            client.is_last = True
    keeps = request.keep_alive and not client.is_last
    if not keeps:
        client.is_finishing = True
    head = http.answers.head(
        answer, about, is_11=request.is_11, keep_alive=keeps,
        length=CHUNKED if length == UNTIL_CLOSE and request.is_11 else length,
        date=exchange.plane.http.date,
    )  # fmt: skip
    exchange.has_answered = True
    if length == 0:
        _to_client(exchange, head)
        if exchange.up is up:
            complete(exchange, up, is_clean=not rest)
    elif length > 0 and rest:
        size = len(rest)
        extra = size > length
        if extra:
            rest = rest[:length]
            size = length
        exchange.answer_left = length - size
        _to_client(exchange, head + rest, size)
        if exchange.up is up and exchange.answer_left == 0:
            complete(exchange, up, is_clean=not extra)
    else:
        exchange.answer_left = max(0, length)
        if rest:
            exchange.before = head
            body(exchange, up, rest)
        else:
            _to_client(exchange, head)


def body(exchange: Exchange, up: Upstream, data: bytes | memoryview) -> None:
    """Some of the answer's body."""
    reader = exchange.answer_reader
    if reader is not None:
        _chunks(exchange, up, reader, data)
        return
    before, exchange.before = exchange.before, b""
    answer = exchange.answer
    assert answer is not None
    if answer.length == UNTIL_CLOSE:
        if exchange.frames_chunks:
            size = len(data)
            _to_client(exchange, b"".join((before, encode_chunk(size), data, b"\r\n")), size)
        else:
            _to_client(exchange, before + data if before else data, len(data))
        return
    left, size = exchange.answer_left, len(data)
    is_clean = size <= left
    if not is_clean:
        data = data[:left]
        size = left
    exchange.answer_left = left - size
    _to_client(exchange, data, size)
    if left == size and exchange.up is up:
        complete(exchange, up, is_clean=is_clean)


def _chunks(
    exchange: Exchange, up: Upstream, reader: ChunkReader, data: bytes | memoryview
) -> None:
    before, exchange.before = exchange.before, b""
    http = exchange.http
    assert http is not None
    try:
        parts = reader.feed(data)
    except HttpError as error:
        if before:  # nothing of it has been sent
            exchange.has_answered = exchange.frames_chunks = False
        bad(exchange, str(error))
        return
    size = sum(map(len, parts))
    out: list[bytes | memoryview] = [before] if before else []
    if size:
        if exchange.frames_chunks:
            out += (encode_chunk(size), *parts, b"\r\n")
        else:
            out += parts
    if reader.is_done and exchange.frames_chunks:
        out.append(encode_end(http.answers.trailers(reader.trailers)))
    is_clean = reader.used == len(data)
    if out:
        _to_client(exchange, b"".join(out), size)
    if reader.is_done and exchange.up is up:
        complete(exchange, up, is_clean=is_clean)


def _to_client(exchange: Exchange, data: bytes | memoryview, size: int = 0) -> None:
    """Send; ``size`` of it are the answer's body."""
    client, route = exchange.client, exchange.route
    assert route is not None
    exchange.sent += size
    route.tally.sent += len(data)
    client.wire.send(data)
    if client.wire.is_lost:
        client.gone(End.CLIENT_RESET)


def complete(exchange: Exchange, up: Upstream, *, is_clean: bool) -> None:
    """The whole answer is on its way. ``is_clean``: the target said nothing behind it."""
    answer, http, route = exchange.answer, exchange.http, exchange.route
    assert answer is not None
    assert http is not None
    assert route is not None
    exchange.up = None
    client = exchange.client
    up.inbox = b""
    if not (answer.keep_alive and is_clean and exchange.is_sent) or up.has_end:
        up.close()
    elif up.is_readable and up.wire.receive() != NOTHING:
        up.close()  # it says more than it should: the next client must not get that
    else:
        idle_s = http.plan.upstream_idle
        said = answer.keep_alive_s
        if said is not None:
            # A second less than it says: it must not be closing when the next request arrives.
            idle_s = min(idle_s, said - 1.0)
        if route.send_header is not None:
            client.own = up
            up.stay(idle_s)
        else:
            up.keep(idle_s)
    exchange.answered()


def _ended(exchange: Exchange, up: Upstream) -> None:
    """The target's FIN: the end of an answer without a length, else too early."""
    answer = exchange.answer
    if answer is None or answer.length != UNTIL_CLOSE:
        exchange.target_lost(ENDED)
        return
    if exchange.frames_chunks:
        _to_client(exchange, b"0\r\n\r\n")
    if exchange.up is up:
        complete(exchange, up, is_clean=False)


def bad(exchange: Exchange, why: str) -> None:
    """What the target says cannot be passed on."""
    up, exchange.up = exchange.up, None
    if up is not None:
        up.close()
    if exchange.has_answered and not exchange.is_framed:
        exchange.client.reset()
    exchange.fail(502, End.BAD_ANSWER, BAD_ANSWER + why, is_last=not exchange.is_sent)
