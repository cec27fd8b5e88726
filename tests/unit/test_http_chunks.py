"""Chunked bodies: at every split, without copies, and strictly."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import HttpError
from shared.http.chunks import (
    CHUNK_END,
    LAST_CHUNK,
    MAX_EXTENSION_BYTES,
    MAX_TRAILER_BYTES,
    MAX_TRAILERS,
    ChunkReader,
    encode_chunk,
    encode_end,
    trailer_limits,
)
from shared.http.head import HeadLimits

BODY = (
    b'5;a="x\\"y"\r\nhello\r\n1\r\n \r\n00A\r\nworld\r\n\r\n!\r\n0;last\r\nX-Sum: 7\r\nx-b:\r\n\r\n'
)
PAYLOAD = b"hello world\r\n\r\n!"
SOUP = (b"3", b"0", b"\r\n", b"\r", b"\n", b"abc", b";", b"=", b'"', b" ", b"X: y", b"\0", b"F")
TRAILERS = ((b"X-Sum", b"7"), (b"x-b", b""))


def read(reader: ChunkReader, pieces: list[bytes]) -> bytes:
    """The payload of a body in pieces."""
    return b"".join(b"".join(reader.feed(piece)) for piece in pieces)


def bytes_until_refused(before: bytes, piece: bytes) -> int:
    """How much a reader takes of the same piece again and again."""
    reader = ChunkReader()
    reader.feed(before)
    taken = 0
    while taken < 1 << 20:
        try:
            reader.feed(piece)
        except HttpError:
            break
        taken += len(piece)
    return taken


def test_one_piece() -> None:
    """Payload, trailers, and where the body ends in what was fed."""
    reader = ChunkReader()
    assert read(reader, [BODY + b"GET /"]) == PAYLOAD
    assert reader.is_done
    assert reader.used == len(BODY)
    assert reader.trailers == TRAILERS


def test_every_split_in_three() -> None:
    """Wherever a body is cut, the same comes out, and the end is found at its place."""
    for first in range(len(BODY) + 1):
        for second in range(first, len(BODY) + 1):
            reader = ChunkReader()
            data = BODY[:first], BODY[first:second]
            assert not reader.is_done
            payload = read(reader, [*data, BODY[second:] + b"rest"])
            assert (payload, reader.trailers, reader.is_done) == (PAYLOAD, TRAILERS, True)
            if second < len(BODY):
                assert reader.used == len(BODY) - second


def test_byte_by_byte() -> None:
    """Each byte is used until the body is done, and none after that."""
    reader = ChunkReader()
    payload = b""
    for at in range(len(BODY)):
        assert not reader.is_done
        payload += b"".join(reader.feed(BODY[at : at + 1]))
        assert reader.used == 1
    assert reader.is_done
    assert payload == PAYLOAD
    assert reader.feed(b"more") == []
    assert reader.used == 0


def test_no_payload_is_copied() -> None:
    """Slices of a view are views of the same buffer."""
    buffer = bytearray(BODY)
    slices = ChunkReader().feed(memoryview(buffer))
    assert [bytes(part) for part in slices] == [b"hello", b" ", b"world\r\n\r\n!"]
    assert all(isinstance(part, memoryview) and part.obj is buffer for part in slices)


def test_nothing_but_payload_is_passed_through_as_it_is() -> None:
    """In the middle of a long chunk the piece itself is the slice."""
    reader = ChunkReader()
    reader.feed(b"ffff\r\n")
    piece = b"x" * 1000
    assert reader.feed(piece)[0] is piece
    assert reader.feed(b"") == []


def test_other_views_do() -> None:
    """A view into the middle of a shared buffer is read like bytes."""
    shared = memoryview(bytearray(b"##" + BODY + b"##"))[2:-2]
    reader = ChunkReader()
    assert b"".join(reader.feed(shared)) == PAYLOAD
    assert reader.is_done


@pytest.mark.parametrize(
    "body",
    [b"g", b"\r", b"\n", b" 3", b"3 ", b"3\r\nabcd", b"3\r\nabc\n", b"3\r\nabc\rx", b"3\n",
     b"3;\rx", b"0\r\n\n", b"0\r\nX: y\n", b"0\r\nX: y\rZ", b"-1", b"+1", b"0x1", b"1_0"],
)  # fmt: skip
def test_a_bad_body_is_refused_at_once(body: bytes) -> None:
    """As soon as the wrong byte is there, whole and by byte: nobody waits for more."""
    for pieces in ([body], [body[at : at + 1] for at in range(len(body))]):
        reader = ChunkReader()
        with pytest.raises(HttpError) as caught:
            read(reader, pieces)
        assert caught.value.status == 400
        assert not reader.is_done


@pytest.mark.parametrize(
    ("before", "byte"),
    [(b"3;", b"a"), (b"1\r\nx\r\n2;", b"a"), (b'3;a="', b"b"), (b"0;", b"a")],
)
def test_extensions_end_somewhere(before: bytes, byte: bytes) -> None:
    """4 KiB between two bytes of payload, whether they come at once or byte by byte."""
    taken = bytes_until_refused(before, byte)
    assert MAX_EXTENSION_BYTES - 8 < taken < MAX_EXTENSION_BYTES + 32
    with pytest.raises(HttpError):
        ChunkReader().feed(before + byte * 2 * MAX_EXTENSION_BYTES)


def test_trailers_end_somewhere() -> None:
    """16 KiB of trailers, whether they come at once or in pieces."""
    taken = bytes_until_refused(b"0\r\n", b"X: " + b"y" * 95 + b"\r\n")
    assert MAX_TRAILER_BYTES - 200 < taken <= MAX_TRAILER_BYTES
    with pytest.raises(HttpError):
        ChunkReader().feed(b"0\r\nX: " + b"y" * MAX_TRAILER_BYTES + b"\r\n\r\n")


@pytest.mark.parametrize(("size", "lines", "status"), [(64, 3, 0), (65, 3, 431), (64, 4, 431)])
def test_trailers_have_limits(size: int, lines: int, status: int) -> None:
    """Bytes, their empty line included, and lines: whole, and byte by byte."""
    block = b"X: y\r\n" * (lines - 1) + b"Z: "
    block += b"z" * (size - len(block) - 4) + b"\r\n\r\n"
    body = b"0\r\n" + block
    for pieces in ([body], [body[at : at + 1] for at in range(len(body))]):
        reader = ChunkReader()
        reader.limits = trailer_limits(64, 3)
        seen = 0
        try:
            read(reader, pieces)
        except HttpError as error:
            seen = error.status
        assert (seen, reader.is_done) == (status, status == 0)
    assert trailer_limits(1 << 20, 1000) == HeadLimits(MAX_TRAILER_BYTES, MAX_TRAILERS)


def test_underscores_pass_where_they_may() -> None:
    """A trailer whose name has an underscore is kept on demand, unless it forges another."""
    body = b"0\r\nmy_key: 1\r\nX_Forwarded_For: 1.2.3.4\r\n\r\n"
    reader = ChunkReader(passes_underscores=True)
    reader.feed(body)
    assert reader.trailers == ((b"my_key", b"1"),)
    strict = ChunkReader()
    strict.feed(body)
    assert strict.trailers == ()


def test_written_forms() -> None:
    """The line before a chunk, and the end with and without trailers."""
    assert encode_chunk(1) == b"1\r\n"
    assert encode_chunk(65535) == b"ffff\r\n"
    assert encode_end() == LAST_CHUNK
    assert encode_end(((b"X-Sum", b"7"),)) == b"0\r\nX-Sum: 7\r\n\r\n"
    for size in (0, -1):
        with pytest.raises(ValueError, match="a chunk of"):
            encode_chunk(size)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.data())
def test_round_trip(parts: list[bytes], draw: st.DataObject) -> None:
    """What is written is read again, however it is cut."""
    written = b"".join(encode_chunk(len(part)) + part + CHUNK_END for part in parts)
    written += encode_end(TRAILERS)
    place = draw.draw(st.integers(0, len(written)))
    reader = ChunkReader()
    assert read(reader, [written[:place], written[place:]]) == b"".join(parts)
    assert reader.is_done
    assert reader.trailers == TRAILERS


@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from(SOUP) | st.binary(max_size=2), max_size=14))
def test_any_bytes(parts: list[bytes]) -> None:
    """HttpError or a result, and the same one whole and byte by byte."""

    def outcome(pieces: list[bytes]) -> tuple[bool, bytes, bool]:
        reader = ChunkReader()
        try:
            return False, read(reader, pieces), reader.is_done
        except HttpError:
            return True, b"", False

    data = b"".join(parts)
    assert outcome([data]) == outcome([data[at : at + 1] for at in range(len(data))])
