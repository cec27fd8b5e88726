"""Requests' heads: what the corpus does not say of them."""

from __future__ import annotations

import pytest

from shared.errors import HttpError
from shared.http import request as requests
from shared.http.fields import find_head, has_lone_line_end
from shared.http.head import CHUNKED, HeadLimits
from shared.http.remembered import MAX_KEY_BYTES, MAX_TOTAL_BYTES, Remembered
from shared.http.request import METHODS, check_unfinished, could_begin_request, parse_request

LIMITS = HeadLimits()
HEAD = b"GET /a?b HTTP/1.1\r\nHost: a.example\r\nX-A: 1\r\n\r\n"


def status_of(head: bytes, limits: HeadLimits = LIMITS) -> int:
    """Of the error; 0 where the head is accepted."""
    try:
        parse_request(head, limits)
    except HttpError as error:
        return error.status
    return 0


def test_find_head_from_anywhere() -> None:
    """The end of a head is found whatever was looked at before, in every kind of buffer."""
    for size in range(len(HEAD)):
        assert find_head(HEAD[:size], 0) == 0
        for data in (HEAD + b"body\r\n\r\n", bytearray(HEAD), memoryview(HEAD + b"x")):
            assert find_head(data, size) == len(HEAD)
    assert find_head(b"", 0) == 0


def test_lone_line_ends_from_anywhere() -> None:
    """A CR or LF that stands alone is found at every split, and a CRLF never taken for one."""
    for data, expected in (
        (HEAD, False),
        (b"a\r\nb\nc", True),
        (b"a\r\nb\rc", True),
        (b"\n", True),
    ):
        for size in range(len(data) + 1):
            found = has_lone_line_end(data[:size], 0) or has_lone_line_end(data, size)
            assert found is expected, (data, size)


def test_equal_blocks_share_their_fields() -> None:
    """The fields are read once for all heads with the same block, but not across versions."""
    first = parse_request(HEAD, LIMITS)
    other = parse_request(HEAD.replace(b"GET /a?b", b"POST /other"), LIMITS)
    old = parse_request(HEAD.replace(b"HTTP/1.1", b"HTTP/1.0"), LIMITS)
    assert other.fields is first.fields
    assert old.fields is not first.fields
    assert (other.method, other.path, other.query) == ("POST", "/other", None)
    assert (first.method, first.path, first.query) == ("GET", "/a", "b")
    assert first.fields.lines == ((b"host", b"a.example"), (b"x-a", b"1"))
    assert first.fields.named == {b"host": [b"a.example"], b"x-a": [b"1"]}
    assert first.line_bytes == len("/a?b")


@pytest.mark.parametrize("order", [1, -1])
def test_a_known_block_does_not_pass_another_version(order: int) -> None:
    """Chunks are refused in HTTP/1.0 also when the same fields came with 1.1, and the reverse."""
    block = b"Host: a\r\nTransfer-Encoding: chunked\r\nX-Order: %d\r\n\r\n" % order
    outcomes = [(b"1.1", 0), (b"1.0", 400)][::order]
    for version, status in outcomes + outcomes:
        assert status_of(b"POST / HTTP/" + version + b"\r\n" + block) == status


def test_a_known_block_meets_the_limits_of_its_own() -> None:
    """What was accepted under wider limits is refused under narrower ones, line and fields."""
    head = b"GET /0123456789 HTTP/1.1\r\nHost: a.example\r\nX-B: 1\r\nX-C: 2\r\n\r\n"
    assert status_of(head) == 0
    assert status_of(head, HeadLimits(fields=2)) == 431
    assert status_of(head, HeadLimits(head_bytes=20)) == 431
    assert status_of(head, HeadLimits(head_bytes=8)) == 414
    assert status_of(head) == 0


def test_a_refused_head_is_refused_again() -> None:
    """An error is not remembered as something else."""
    for _ in range(3):
        assert status_of(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n") == 400
        assert status_of(b"GET /%2f HTTP/1.1\r\nHost: a\r\n\r\n") == 400


def test_offered_protocols() -> None:
    """In their order and without h2c; together with a body any of them is refused."""
    upgrade = b"Connection: upgrade\r\nUpgrade: h2c, Foo/1\r\nUpgrade: websocket\r\n"
    head = b"GET / HTTP/1.1\r\nHost: a\r\n" + upgrade
    assert parse_request(head + b"\r\n", LIMITS).fields.offered == (b"foo/1", b"websocket")
    assert status_of(head + b"Content-Length: 2\r\n\r\n") == 400
    old = head.replace(b"HTTP/1.1", b"HTTP/1.0") + b"\r\n"
    assert parse_request(old, LIMITS).fields.offered == ()


def test_what_is_remembered_is_bounded() -> None:
    """In number, in the size of one, and in all."""
    few: Remembered[int] = Remembered(3)
    for number in range(10):
        few.keep(b"%d" % number, number)
    assert few.by_bytes == {b"9": 9}
    large: Remembered[int] = Remembered(10_000)
    for number in range(1000):
        large.keep(b"%04d" % number + b"x" * 4000, number)
        assert sum(map(len, large.by_bytes)) <= MAX_TOTAL_BYTES
    large.keep(b"x" * (MAX_KEY_BYTES + 1), 1)
    assert b"x" * (MAX_KEY_BYTES + 1) not in large.by_bytes


def test_many_different_requests_keep_little() -> None:
    """Requests that never repeat fill no memory."""
    for number in range(3000):
        assert status_of(b"GET /%d HTTP/1.1\r\nHost: a\r\nX-N: %d\r\n\r\n" % (number, number)) == 0
    assert len(requests._LINES.by_bytes) <= 1024
    assert len(requests._BLOCKS.by_bytes) <= 1024


@pytest.mark.parametrize("method", sorted(METHODS))
def test_methods(method: str) -> None:
    """Every method that is known is accepted, and recognised by its first bytes."""
    head = method.encode() + b" / HTTP/1.1\r\nHost: a\r\n\r\n"
    assert parse_request(head, LIMITS).method == method
    assert all(could_begin_request(head[:size]) for size in range(len(head)))


@pytest.mark.parametrize(
    "data",
    [b"", b"G", b"GET ", b"\r", b"\r\n", b"\r\nGE", b"CONNECT a:443", b"get / HTTP/1.1\r\n",
     b"FOO /x HTTP/1.1\r\n", b"GET\t/\tHTTP/1.1\n", b"\r\nFOO / HTTP/1.1\r\n",
     b" GET / HTTP/1.1\r\n", b"GET / RTSP"],
)  # fmt: skip
def test_could_begin_a_request(data: bytes) -> None:
    """A beginning of one, or a line that was meant as one."""
    assert could_begin_request(data)
    assert could_begin_request(bytearray(data))
    assert could_begin_request(memoryview(data))


@pytest.mark.parametrize(
    "data",
    [b"\x16\x03\x01\x02\0", b"SSH-2.0-OpenSSH_9.6\r\n", b"\n", b"\r\n\r\nGET", b"\rG", b"GETX",
     b"get key\r\n", b"EHLO a.example\r\n", b"*1\r\n$4\r\nPING\r\n", b"\0\0\0\x08\x04\xd2\x16\x2f",
     b"FOO /x HTT", b"GE T"],
)  # fmt: skip
def test_cannot_begin_a_request(data: bytes) -> None:
    """Other protocols, and what is not yet enough for a method that is not known."""
    assert not could_begin_request(data)
    assert not could_begin_request(memoryview(data))


def test_nothing_secret_is_in_an_error() -> None:
    """What is said of a bad head has no value of it."""
    for wrong in (
        b"Authorization: Basic c2VjcmV0\x01",
        b"Authorization c2VjcmV0",
        b"X: c2VjcmV0\n",
    ):
        head = b"GET /c2VjcmV0%zz?c2VjcmV0 HTTP/1.1\r\nHost: a\r\n\r\n"
        for bad in (head, b"GET / HTTP/1.1\r\nHost: a\r\n" + wrong + b"\r\n\r\n"):
            with pytest.raises(HttpError) as caught:
                parse_request(bad, LIMITS)
            assert "c2VjcmV0" not in str(caught.value)


@pytest.mark.parametrize(
    "head", [b"", b"GET / HTTP/1.1", b"\r\n", b"\r\n\r\n", b"GET / HTTP/1.1\r\n"]
)
def test_no_head_at_all(head: bytes) -> None:
    """Not even bytes without an empty line give anything but a bad request."""
    assert status_of(head) == 400


def test_a_head_that_cannot_end_well_is_refused_early() -> None:
    """At the first line end that is wrong, or with the first line, not at a deadline."""
    for data, status in (
        (b"GET / HTTP/1.1\n", 400),
        (b"GET / HTTP/1.1\rH", 400),
        (b"GET /\r\n", 400),
        (b"GET / HTTP/3.0\r\n", 505),
        (b"\r\nNO / HTTP/1.1\r\nHo", 501),
    ):
        with pytest.raises(HttpError) as caught:
            check_unfinished(data, 0, LIMITS)
        assert caught.value.status == status
    for size in range(len(HEAD)):
        check_unfinished(HEAD[:size], 0, LIMITS)
        check_unfinished(b"\r\n" + HEAD[:size], max(0, size - 1), LIMITS)


def test_a_body_of_chunks() -> None:
    """Its length is CHUNKED, in the request and in its fields."""
    request = parse_request(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", LIMITS
    )
    assert (request.length, request.fields.length, request.fields.is_chunked) == (
        CHUNKED,
        CHUNKED,
        True,
    )
