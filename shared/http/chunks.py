"""Bodies in chunks (RFC 9112 section 7.1), read strictly and written plainly.

`ChunkReader` gives the payload as slices of what it is fed, never copies. Extensions are checked
and dropped: they mean nothing to anybody but the neighbour (section 7.1.1).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from shared.errors import HttpError
from shared.http.fields import (
    HOP_BY_HOP,
    MAX_LENGTH,
    TOKEN,
    field_lines,
    find_head,
    has_lone_line_end,
)
from shared.http.head import FORWARDING, HeadLimits

# Between two bytes of payload. Long ones are how a few bytes of payload cost much reading; Go
# stops at 16 KiB in all, Node at 16 KiB.
MAX_EXTENSION_BYTES: Final = 4096
MAX_TRAILER_BYTES: Final = 16384
MAX_TRAILERS: Final = 100
CHUNK_END: Final = b"\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"  # with no trailers

_SIZE_DIGITS: Final = 16
_MAX_LINE_BYTES: Final = _SIZE_DIGITS + MAX_EXTENSION_BYTES
_QUOTED: Final = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
# No blanks, though the grammar lets them stand (BWS): some parsers end the number at one.
_SIZE_LINE: Final = re.compile(
    rb"([0-9A-Fa-f]{1,16})(?:;" + TOKEN + rb"++(?:=(?:" + TOKEN + rb"++|" + _QUOTED + rb"))?)*\r\n"
)
_BARE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})\r\n")
_BEGUN_LINE: Final = re.compile(rb"[0-9A-Fa-f]{1,16}(?:;[^\r]*)?\r?")
_LF: Final = re.compile(rb"\n")
_NO_SIZE: Final = "the line before a chunk has no valid size or extension"

# RFC 9110 section 6.5.1: what frames, routes, changes the meaning of the request, says who asks or
# how to read the content has no business behind it; nor has what a trailer could forge.
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})
_NO_TRAILERS: Final = HOP_BY_HOP | FORWARDING | {
    b"host", b"trailer", b"cache-control", b"expect", b"max-forwards", b"pragma", b"range",
    b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since", b"if-range",
    b"authorization", b"cookie", b"set-cookie", b"www-authenticate", b"authentication-info",
    b"age", b"expires", b"date", b"location", b"retry-after", b"vary", b"warning",
    b"content-encoding", b"content-type", b"content-range", b"traceparent", b"tracestate",
}  # fmt: skip

_ANY_TRAILERS: Final = HeadLimits(MAX_TRAILER_BYTES, MAX_TRAILERS)

# What comes next.
_SIZE: Final = 0
_PAYLOAD: Final = 1
_PAYLOAD_END: Final = 2
_TRAILERS: Final = 3
_DONE: Final = 4


class ChunkReader:
    """Reads one chunked body, however it is split.

    ``is_done``: the body has ended. ``used``: how many bytes of the last `feed` belong to it; the
    rest is the next message. ``trailers``: name as sent and value, once it is done; without those
    that may not be trailers, and without names with an underscore unless they pass. ``limits``: of
    their block, as `trailer_limits` makes them; set before the first `feed`, where they are others.
    """

    __slots__ = (
        "_left", "_line", "_passes_underscores", "_state", "is_done", "limits", "trailers", "used",
    )  # fmt: skip

    def __init__(self, *, passes_underscores: bool = False) -> None:
        self.is_done = False
        self.used = 0
        self.trailers: tuple[tuple[bytes, bytes], ...] = ()
        self.limits = _ANY_TRAILERS
        self._passes_underscores = passes_underscores
        self._state = _SIZE
        self._left = 0  # bytes of payload of this chunk that are still to come
        self._line = b""  # what has come of a line, of the CRLF behind a chunk, or of the trailers

    def feed(self, data: bytes | memoryview) -> list[bytes | memoryview]:
        """The slices of ``data`` that are payload, none of them empty.

        Raises HttpError: 400 for anything that is not strictly a chunked body, 431 for trailers
        over their limits; the reader is of no use then.
        """
        found: list[bytes | memoryview] = []
        at, size = 0, len(data)
        while at < size and not self.is_done:
            if self._state == _PAYLOAD:
                end = at + self._left
                if end <= size:
                    self._state = _PAYLOAD_END
                else:
                    end = size
                self._left -= end - at
                found.append(data[at:end] if at or end < size else data)
                at = end
            elif self._state == _SIZE:
                at = self._read_size(data, at)
            elif self._state == _PAYLOAD_END:
                at = self._read_payload_end(data, at)
            else:
                at = self._read_trailers(data, at)
        self.used = at
        return found

    def _read_size(self, data: bytes | memoryview, at: int) -> int:
        """Read (more of) the line before a chunk; the index behind what was read."""
        if not self._line:
            whole = _BARE_LINE.match(data, at)
            if whole is not None:
                self._begin_chunk(bytes(whole[1]))
                return whole.end()
        stop = _LF.search(data, at, at + _MAX_LINE_BYTES + 2)
        end = len(data) if stop is None else stop.end()
        line = self._line + bytes(data[at:end])
        if len(line) > _MAX_LINE_BYTES + 2:
            raise HttpError(400, "the line before a chunk is too long")
        if stop is None:
            if _BEGUN_LINE.fullmatch(line[: _SIZE_DIGITS + 2]) is None:
                raise HttpError(400, _NO_SIZE)
            self._line = line
            return end
        parsed = _SIZE_LINE.fullmatch(line)
        if parsed is None:
            raise HttpError(400, _NO_SIZE)
        self._line = b""
        self._begin_chunk(parsed[1])
        return end

    def _begin_chunk(self, digits: bytes) -> None:
        """Go on with the payload of a chunk, or behind the last one with the trailers."""
        self._left = int(digits, 16)
        if self._left > MAX_LENGTH:
            raise HttpError(400, "a chunk is too large")
        self._state = _PAYLOAD if self._left else _TRAILERS

    def _read_payload_end(self, data: bytes | memoryview, at: int) -> int:
        """Read (more of) the CRLF behind a chunk."""
        end = at + 2 - len(self._line)
        self._line += bytes(data[at:end])
        if self._line == b"\r\n":
            self._line = b""
            self._state = _SIZE
            return end
        if self._line != b"\r":
            raise HttpError(400, "a chunk does not end in CRLF where its size says")
        return len(data)

    def _read_trailers(self, data: bytes | memoryview, at: int) -> int:
        """Read (more of) the lines behind the last chunk, up to their empty line."""
        before, most = len(self._line), self.limits.head_bytes
        upto = at + most + 1 - before
        lines = self._line + bytes(data[at:upto])
        end = 2 if lines.startswith(b"\r\n") else find_head(lines, before)
        if not end:
            if has_lone_line_end(lines, before):
                raise HttpError(400, "a CR or LF stands alone in the trailers")
            if len(lines) > most:
                raise HttpError(431, "the trailers are too long")
            self._line = lines
            return len(data) if upto > len(data) else upto
        if end > most:
            raise HttpError(431, "the trailers are too long")
        if end > 2:
            self._keep_trailers(lines[:end])
        self._line = b""
        self._state = _DONE
        self.is_done = True
        return at + end - before

    def _keep_trailers(self, block: bytes) -> None:
        """Set ``trailers`` from lines with their empty line."""
        if block.count(b"\r\n") - 1 > self.limits.fields:
            raise HttpError(431, "too many trailers")
        kept = []
        for name, value in field_lines(block):
            # Whoever reads "_" as "-" must not find a name here that was left out.
            meant = name.lower().replace(b"_", b"-")
            if meant in _FRAMING:
                raise HttpError(400, "a trailer says where a body ends")
            if meant not in _NO_TRAILERS and (self._passes_underscores or b"_" not in name):
                kept.append((name, value))
        self.trailers = tuple(kept)


def trailer_limits(head_bytes: int, fields: int) -> HeadLimits:
    """Those of a head, which trailers have too, as far as a `ChunkReader` keeps so much."""
    return HeadLimits(min(head_bytes, MAX_TRAILER_BYTES), min(fields, MAX_TRAILERS))


def encode_chunk(size: int) -> bytes:
    """The line before ``size`` bytes of payload; behind them goes `CHUNK_END`.

    ValueError for a size under 1: a chunk of 0 bytes would end the body.
    """
    if size < 1:
        raise ValueError(f"a chunk of {size} bytes")
    return b"%x\r\n" % size


def encode_end(trailers: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
    """The last chunk with (name, value) trailers, as a `ChunkReader` gives them."""
    lines = [b"0\r\n"]
    for name, value in trailers:
        lines += (name, b": ", value, b"\r\n")
    lines.append(b"\r\n")
    return b"".join(lines)
