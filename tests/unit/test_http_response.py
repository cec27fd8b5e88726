"""Answers' heads: what the corpus does not say of them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import HttpError
from shared.http import response as responses
from shared.http.head import CHUNKED, UNTIL_CLOSE, HeadLimits
from shared.http.response import check_unfinished, parse_response
from tests.helpers.http_corpus import corpus_bytes

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nServer: x\r\n\r\n"
FILES = corpus_bytes("responses")


def test_the_same_head_is_read_once() -> None:
    """An answer that is known is the same object, and HEAD has one of its own."""
    first = parse_response(HEAD, "GET")
    assert parse_response(bytes(bytearray(HEAD)), "POST") is first
    of_head = parse_response(HEAD, "HEAD")
    assert (first.length, of_head.length, of_head.fields.length) == (5, 0, 5)


def test_what_is_remembered_is_bounded() -> None:
    """Neither many heads nor long ones are all kept."""
    for number in range(1000):
        parse_response(b"HTTP/1.1 200 OK\r\nETag: %d\r\n\r\n" % number, "GET")
    assert 0 < len(responses._WITH_BODY.by_bytes) <= 256
    long = b"HTTP/1.1 200 OK\r\nX: " + b"y" * 5000 + b"\r\n\r\n"
    assert parse_response(long, "GET").length == UNTIL_CLOSE
    assert long not in responses._WITH_BODY.by_bytes


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "DELETE"])
def test_only_head_takes_the_body_away(method: str) -> None:
    """RFC 9112 section 6.3, item 1."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert parse_response(head, method).length == CHUNKED
    assert parse_response(head, "HEAD").length == 0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"timeout=5", 5.0), (b"max=3,timeout=0", 0.0), (b'timeout="7"', 7.0), (b"TIMEOUT = 9", 9.0),
     (b"timeout", None), (b"timeout=-1", None), (b"xtimeout=5", None), (b"", None)],
)  # fmt: skip
def test_keep_alive_timeout(value: bytes, seconds: float | None) -> None:
    """Only a plain number of seconds counts."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nKeep-Alive: " + value + b"\r\n\r\n"
    assert parse_response(head, "GET").keep_alive_s == seconds


def test_limits() -> None:
    """A head over the limits is a bad answer, whole and unfinished."""
    limits = HeadLimits(head_bytes=60, fields=2)
    fields = b"X: y\r\n" * 3
    long = b"X: " + b"y" * 80 + b"\r\n"
    for block in (fields, long):
        with pytest.raises(HttpError) as caught:
            parse_response(b"HTTP/1.1 201 Made\r\n" + block + b"\r\n", "GET", limits)
        assert caught.value.status == 502
        with pytest.raises(HttpError) as caught:
            check_unfinished(b"HTTP/1.1 201 Made\r\n" + block, 0, limits)
        assert caught.value.status == 502


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK", b"\r\n\r\n", b"HTTP/1.1 200 OK\r\n"])
def test_no_head_at_all(head: bytes) -> None:
    """Not even bytes without a line end give anything but HttpError."""
    with pytest.raises(HttpError) as caught:
        parse_response(head, "GET")
    assert caught.value.status == 502


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(FILES), st.data())
def test_mutated_answers(data: bytes, draw: st.DataObject) -> None:
    """HttpError or a Response that makes sense, whatever is in the bytes."""
    place = draw.draw(st.integers(0, len(data)))
    taken = draw.draw(st.integers(0, 4))
    new = draw.draw(
        st.sampled_from([b"", b"\r", b"\n", b"\0", b" ", b"Content-Length: 1\r\n", b":", b"\xff"])
    )
    head = data[:place] + new + data[place + taken :]
    try:
        response = parse_response(head, "GET")
    except HttpError:
        return
    assert 100 <= response.status <= 999
    assert response.length >= UNTIL_CLOSE
    assert not response.keep_alive or response.length != UNTIL_CLOSE
