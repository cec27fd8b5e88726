"""What we accept, and what we would send on, is read by h11 and llhttp as the same one request."""

from __future__ import annotations

import h11
import httptools
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.http.chunks import CHUNK_END, encode_chunk, encode_end
from shared.http.head import CHUNKED, HeadLimits
from tests.helpers.http_corpus import Reading, by_byte, corpus_bytes, read

LIMITS = HeadLimits()
WIDE_LIMITS = HeadLimits(fields=200)  # our own line for the length may be one more
FILES = corpus_bytes("requests")
# What smuggling is made of.
PIECES = (
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b";", b"\x0b", b"\xff", b"0\r\n\r\n",
    b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n", b"transfer-encoding : chunked\r\n", b"Host: b\r\n",
    b"Connection: close\r\n", b"Connection: upgrade\r\nUpgrade: websocket\r\n", b" folded\r\n",
    b"GET /2 HTTP/1.1\r\nHost: b\r\n\r\n", b"HTTP/1.0", b"http://c/", b"%2f", b"/../", b"chunked",
    b"Expect: 100-continue\r\n", b"Content-Length", b"3", b"-", b"+", b"_",
)  # fmt: skip

Message = tuple[str, str, bytes]  # method, target, body


def target_of(reading: Reading) -> str:
    """What stands in the request line that we write."""
    request = reading.request
    assert request is not None
    return request.path if request.query is None else f"{request.path}?{request.query}"


def written(reading: Reading) -> bytes:
    """The request as a target gets it without any rules."""
    request = reading.request
    assert request is not None
    head = [f"{request.method} {target_of(reading)} HTTP/1.1\r\n".encode("ascii")]
    head += [b"Host: ", request.authority.encode("ascii"), b"\r\n", request.fields.kept]
    body = reading.body
    if request.length == CHUNKED:
        head.append(b"Transfer-Encoding: chunked\r\n\r\n")
        if body:
            head += [encode_chunk(len(body)), body, CHUNK_END]
        head.append(encode_end(reading.trailers))
    else:
        head += [b"Content-Length: %d\r\n\r\n" % request.length, body]
    return b"".join(head)


def read_by_h11(data: bytes) -> list[Message]:
    """Every request in ``data``; the last must be whole and nothing may stand behind it."""
    messages: list[Message] = []
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data)
    connection.receive_data(b"")
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            messages.append((event.method.decode(), event.target.decode(), b""))
        elif isinstance(event, h11.Data):
            method, target, body = messages[-1]
            messages[-1] = method, target, body + event.data
        elif isinstance(event, h11.EndOfMessage):
            answer = h11.Response(status_code=200, headers=[("Content-Length", "0")])
            connection.send(answer)
            connection.send(h11.EndOfMessage())
            if connection.our_state is h11.MUST_CLOSE:
                assert connection.trailing_data[0] == b""
                return messages
            connection.start_next_cycle()
        elif isinstance(event, h11.ConnectionClosed):
            return messages
        else:
            raise AssertionError(f"{event!r} for {data!r}")


class LlhttpMessages:
    """What httptools calls back."""

    def __init__(self) -> None:
        self.targets: list[bytes] = []
        self.bodies: list[bytes] = []
        self.ended = 0

    def on_message_begin(self) -> None:
        """A request line."""
        self.targets.append(b"")
        self.bodies.append(b"")

    def on_url(self, url: bytes) -> None:
        """Comes in pieces."""
        self.targets[-1] += url

    def on_body(self, body: bytes) -> None:
        """Comes in pieces."""
        self.bodies[-1] += body

    def on_message_complete(self) -> None:
        """The end of the body."""
        self.ended += 1


def read_by_llhttp(data: bytes) -> list[tuple[str, str, bytes]]:
    """Every request in ``data``; all of them must be whole."""
    seen = LlhttpMessages()
    parser = httptools.HttpRequestParser(seen)
    parser.feed_data(data)
    assert seen.ended == len(seen.targets)
    return [
        (parser.get_method().decode(), target.decode(), body)
        for target, body in zip(seen.targets, seen.bodies, strict=True)
    ]


def check_accepted(reading: Reading, data: bytes) -> None:
    """Others see the same message in what came, and one message in what goes out."""
    request = reading.request
    assert request is not None
    sent = written(reading)
    expected = [(request.method, target_of(reading), reading.body)]
    if request.authority:  # in HTTP/1.0 there may be none; the writer then says which it is
        assert read_by_h11(sent) == expected
        assert read_by_llhttp(sent) == expected
        again = read([sent], WIDE_LIMITS)
        assert again.rest == b""
        assert again.facts()["path"] == request.path
    if b"upgrade" not in request.fields.named and not reading.rest:
        (came,) = read_by_llhttp(data)
        assert (came[0], came[2]) == (request.method, reading.body)


def test_the_corpus_is_read_alike() -> None:
    """Every file that is accepted is one request, as it came and as it goes out."""
    accepted = 0
    for data in FILES:
        reading = read([data], LIMITS)
        if reading.is_whole:
            accepted += 1
            check_accepted(reading, data)
    assert accepted > 90


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A file of the corpus with a few changes."""
    data = draw(st.sampled_from(FILES))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(data)))
        taken = draw(st.sampled_from((0, 0, 1, 2, 9)))
        new = draw(st.sampled_from(PIECES) | st.binary(max_size=2))
        data = data[:place] + new + data[place + taken :]
    return data


@settings(deadline=None, max_examples=1500)
@given(mutated())
def test_mutations_are_read_alike_or_refused(data: bytes) -> None:
    """Nothing but HttpError comes out, and what is accepted is one request to everybody."""
    reading = read([data], LIMITS)
    if reading.is_whole and not reading.status:
        check_accepted(reading, data)


@settings(deadline=None, max_examples=400)
@given(mutated())
def test_a_split_changes_nothing(data: bytes) -> None:
    """What is accepted whole is accepted byte by byte as the same, and what is refused, refused."""
    whole, split = read([data], LIMITS), read(by_byte(data), LIMITS)
    assert bool(whole.status) == bool(split.status)
    if not whole.status:
        assert whole.facts() == split.facts()


LINE_PARTS = st.sampled_from((b"GET", b"POST", b" ", b"/", b"*", b"HTTP/1.1", b"a", b"\t", b"//"))


@settings(deadline=None, max_examples=300)
@given(st.lists(LINE_PARTS | st.sampled_from(PIECES), max_size=8), st.binary(max_size=30))
def test_any_bytes(parts: list[bytes], more: bytes) -> None:
    """Soup gives HttpError, or more must come, or it is a request to everybody."""
    data = b"".join(parts) + more + b"\r\nHost: a\r\n\r\n"
    reading = read([data], LIMITS)
    assert reading.status or not reading.is_whole or reading.request is not None
    if reading.is_whole and not reading.status:
        check_accepted(reading, data)
