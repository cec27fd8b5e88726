"""Reads HTTP messages as a connection does, from pieces; and tests/corpus/http, that is for it.

Each ``NNN-what.http`` is what came on a connection. The ``index.toml`` of its directory says what
is read of it: ``status`` of the error; or ``unfinished``, where more must come; or of the message
``method``, ``path``, ``query``, ``host``, ``authority`` (or ``code`` and ``reason``), ``length``
(or ``chunked``, or ``until_close``), ``body``, ``trailers``, ``rest`` (what follows it),
``keep_alive``, and of its fields ``kept``, ``upgrade``, ``expects_continue``, ``said_length``.
``head_bytes`` is a limit, ``method`` of an answer that of its request.
"""

from __future__ import annotations

import itertools
import random
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from shared.errors import HttpError
from shared.http import request as requests
from shared.http import response as responses
from shared.http.chunks import ChunkReader
from shared.http.fields import find_head
from shared.http.head import CHUNKED, UNTIL_CLOSE, Fields, HeadLimits, Request, Response

CORPUS: Final = Path(__file__).parent.parent / "corpus" / "http"
# Long files are cut at some places only; a prime, so that these are of all kinds.
LONG_BYTES, STEP = 4096, 151


class Reading:
    """One message as far as it came. ``status``: of the HttpError that ended it, or 0."""

    def __init__(self) -> None:
        self.request: Request | None = None
        self.response: Response | None = None
        self.status = 0
        self.why = ""
        self.body = b""
        self.trailers: tuple[tuple[bytes, bytes], ...] = ()
        self.rest = b""
        self.is_whole = False

    @property
    def fields(self) -> Fields:
        """Of the head."""
        head = self.request or self.response
        assert head is not None
        return head.fields

    def facts(self) -> dict[str, Any]:
        """Everything that a corpus file may say of it."""
        if self.status:
            return {"status": self.status}
        if not self.is_whole:
            return {"unfinished": True}
        head = self.request or self.response
        assert head is not None
        found: dict[str, Any] = {
            "length": head.length,
            "chunked": head.length == CHUNKED,
            "until_close": head.length == UNTIL_CLOSE,
            "body": self.body.decode("latin-1"),
            "trailers": [[name.decode("latin-1"), value.decode("latin-1")]
                         for name, value in self.trailers],
            "rest": self.rest.decode("latin-1"),
            "keep_alive": head.keep_alive,
            "kept": head.fields.kept.decode("latin-1"),
            "upgrade": b", ".join(head.fields.offered or [head.fields.upgrade]).decode("latin-1"),
            "said_length": head.fields.length,
            "expects_continue": head.fields.expects_continue,
        }  # fmt: skip
        if self.request is not None:
            for name in ("method", "path", "query", "host", "authority"):
                found[name] = getattr(self.request, name)
        if self.response is not None:
            found["code"] = self.response.status
            found["reason"] = self.response.reason.decode("latin-1")
            found["keep_alive_s"] = self.response.keep_alive_s
        return found


def read(pieces: Iterable[bytes], limits: HeadLimits, answers: str | None = None) -> Reading:
    """Read one message; ``answers``: it is the answer to a request of this method."""
    reading = Reading()
    try:
        _read(reading, iter(pieces), limits, answers)
    except HttpError as error:
        reading.status = error.status
        reading.why = str(error)
    return reading


def _read(
    reading: Reading, pieces: Iterator[bytes], limits: HeadLimits, answers: str | None
) -> None:
    data, end = b"", 0
    for piece in pieces:
        looked, data = len(data), data + piece
        end = find_head(data, looked)
        if end:
            break
        if answers is None:
            requests.check_unfinished(data, looked, limits)
        else:
            responses.check_unfinished(data, looked)
    if not end:
        return
    head: Request | Response
    if answers is None:
        reading.request = head = requests.parse_request(data[:end], limits)
    else:
        reading.response = head = responses.parse_response(data[:end], answers)
    _read_body(reading, head.length, data[end:], pieces)


def _read_body(reading: Reading, length: int, data: bytes, pieces: Iterator[bytes]) -> None:
    if length == UNTIL_CLOSE:
        reading.body = data + b"".join(pieces)
        reading.is_whole = True
    elif length != CHUNKED:
        data += b"".join(pieces)
        reading.body, reading.rest = data[:length], data[length:]
        reading.is_whole = len(data) >= length
    else:
        reader = ChunkReader()
        reading.body = b"".join(reader.feed(data))
        while not reader.is_done:
            piece = next(pieces, None)
            if piece is None:
                return
            data = piece
            reading.body += b"".join(reader.feed(data))
        reading.rest = data[reader.used :] + b"".join(pieces)
        reading.trailers = reader.trailers
        reading.is_whole = True


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """``data`` in pieces that begin at these places."""
    edges = [0, *places, len(data)]
    return [data[begin:end] for begin, end in itertools.pairwise(edges)]


def by_byte(data: bytes) -> list[bytes]:
    """One byte a piece; long ones in larger steps."""
    return cut(data, range(1, len(data), 1 if len(data) <= LONG_BYTES else STEP))


def at_random(data: bytes, chance: random.Random) -> list[bytes]:
    """A few pieces of any size."""
    count = min(len(data), chance.randint(1, 6))
    return cut(data, sorted(chance.sample(range(len(data)), count)))


def corpus(kind: str) -> list[Any]:
    """Every file of ``requests`` or ``responses`` as (bytes, what is read of it)."""
    directory = CORPUS / kind
    index = tomllib.loads((directory / "index.toml").read_text())
    files = {path.stem: path.read_bytes() for path in sorted(directory.glob("*.http"))}
    if not files or files.keys() != index.keys():
        raise FileNotFoundError(f"{directory}: files and index differ")
    return [pytest.param(data, index[stem], id=stem) for stem, data in files.items()]


def corpus_bytes(kind: str) -> list[bytes]:
    """The files alone, without the long ones."""
    files = [path.read_bytes() for path in sorted((CORPUS / kind).glob("*.http"))]
    return [data for data in files if len(data) <= LONG_BYTES]
