"""The field block of a head: bytes to lines, and what the lines say of framing and connection.

Two parsers read every block that was not seen before: the grammar of RFC 9110 section 5.5, written
here as one expression, and llhttp by way of httptools. Where they do not read the same lines, the
block is refused: what two parsers read differently is how requests are smuggled (RFC 9112 section
11.2). llhttp alone is not enough; `request.py` and `response.py` say what it lets through.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final

import httptools

from shared.errors import HttpError
from shared.http.head import CHUNKED, FORWARDING, Fields

Buffer = bytes | bytearray | memoryview  # memoryview: of single bytes
Lines = list[tuple[bytes, bytes]]

TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"  # RFC 9110 section 5.6.2
MAX_LENGTH: Final = (1 << 63) - 1  # of a body in bytes: what every target can count to

# RFC 9112 section 5: no blank before the colon, none at the start of a line (an obs-fold), every
# line ends in CRLF; values are printable, blanks, TABs or obs-text (RFC 9110 section 5.5). Each
# repetition ends at the first byte that it does not take, so nothing is tried twice.
_BLOCK: Final = re.compile(rb"(?:" + TOKEN + rb"++:[\t -~\x80-\xff]*+\r\n)*\r\n")
_LINE: Final = re.compile(rb"([^:]++):([^\r]*+)\r\n")  # of a block that is right
_LONE: Final = re.compile(rb"\r(?=[^\n])|(?<!\r)\n")
_HEAD_END: Final = re.compile(rb"\r\n\r\n")
_LENGTH: Final = re.compile(rb"[0-9]{1,19}")
_CODINGS: Final = re.compile(TOKEN + rb"+(?:[ \t]*,[ \t]*" + TOKEN + rb"+)*")
_TIMEOUT: Final = re.compile(rb"(?:^|[,; \t])timeout[ \t]*=[ \t]*\"?([0-9]{1,9})(?![0-9.])")

# Between two neighbours only: RFC 9110 section 7.6.1, and what belongs to an h2c upgrade (RFC 7540
# section 3.2.1) or to a proxy that asks for a password (RFC 9110 section 11.7). Trailer is not
# among them: it announces what does cross (RFC 9110 section 6.6.2).
HOP_BY_HOP: Final = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"te", b"transfer-encoding", b"upgrade",
     b"http2-settings", b"proxy-authenticate", b"proxy-authorization",
     b"proxy-authentication-info"}
)  # fmt: skip
# What a request's target gets in our words, or only from a trusted forwarder.
REQUEST_DROPPED: Final = HOP_BY_HOP | FORWARDING | {b"host", b"content-length", b"expect"}
RESPONSE_DROPPED: Final = HOP_BY_HOP | {b"content-length"}


def find_head(data: Buffer, start: int = 0) -> int:
    """Index just behind the empty line that ends the first head in ``data``; 0: not there yet.

    ``start``: how many bytes an earlier call has looked at. A head that can never end is found by
    `check_unfinished` of the module that parses it.
    """
    begin = start - 3 if start > 3 else 0
    if isinstance(data, memoryview):
        found = _HEAD_END.search(data, begin)
        return 0 if found is None else found.end()
    at = data.find(b"\r\n\r\n", begin)
    return at + 4 if at >= 0 else 0


def has_lone_line_end(data: bytes, start: int) -> bool:
    """Whether a CR or LF stands alone (RFC 9112 section 2.2), from the byte before ``start`` on.

    A CR at the very end may still get its LF.
    """
    begin = start - 1 if start > 0 else 0
    return _LONE.search(data, begin) is not None


def field_lines(block: bytes) -> Lines:
    """The lines of a block that ends in its empty line: names as sent, values without blanks.

    Raises HttpError(400) for everything that is not strictly RFC 9112 section 5.
    """
    if _BLOCK.fullmatch(block) is None:
        raise HttpError(400, _what_is_wrong(block))
    return [(name, value.strip(b" \t")) for name, value in _LINE.findall(block)]


def _what_is_wrong(block: bytes) -> str:
    """Why `_BLOCK` does not match. Names no value: there may be a password in it."""
    if has_lone_line_end(block, 0):
        return "a CR or LF stands alone in the fields (RFC 9112 section 2.2)"
    if b"\n " in block or b"\n\t" in block or block[:1] in (b" ", b"\t"):
        return "a field line begins with a blank (RFC 9112 section 5.2)"
    if re.search(rb"[\0-\x08\x0b\x0c\x0e-\x1f\x7f]", block) is not None:
        return "the fields have a control character (RFC 9110 section 5.5)"
    if re.search(rb"(?:^|\n)[^:\r\n]*[ \t]:", block) is not None:
        return "a blank stands before the colon of a field (RFC 9112 section 5.1)"
    return "a field line has no valid name (RFC 9110 section 5.1)"


class _Seen:
    """What httptools calls back."""

    __slots__ = ("is_whole", "lines")

    def __init__(self) -> None:
        self.lines: Lines = []
        self.is_whole = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field line; llhttp leaves the blanks behind a value."""
        self.lines.append((name, value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        """The empty line."""
        self.is_whole = True


def check_agreement(lines: Lines, block: bytes, *, is_answer: bool) -> None:
    """HttpError(400) where llhttp refuses the block, or reads other lines in it than ``lines``.

    The first line is always the same one, so that the outcome depends on the block alone.
    """
    seen = _Seen()
    try:
        if is_answer:
            httptools.HttpResponseParser(seen).feed_data(b"HTTP/1.1 200 OK\r\n" + block)
        else:
            httptools.HttpRequestParser(seen).feed_data(b"GET / HTTP/1.1\r\n" + block)
    except httptools.HttpParserUpgrade:
        pass  # it stops behind the head then, which is all that is read here
    except httptools.HttpParserError as exc:
        raise HttpError(400, f"llhttp refuses the fields: {exc}") from None
    if not seen.is_whole or seen.lines != lines:
        raise HttpError(400, "two parsers read the fields differently")


def tokens(values: Iterable[bytes]) -> list[bytes]:
    """The members of a list, in lower case, whatever fields they stand in (RFC 9110 5.6.1)."""
    found = []
    for value in values:
        for part in value.lower().split(b","):
            member = part.strip(b" \t")
            if member:
                found.append(member)
    return found


def read_connection(fields: Fields) -> None:
    """Set ``connection``. Proxy-Connection counts where it says close, and for nothing else."""
    named = fields.named
    if b"connection" in named:
        fields.connection = frozenset(tokens(named[b"connection"]))
    if b"proxy-connection" in named and b"close" in tokens(named[b"proxy-connection"]):
        fields.connection = fields.connection | {b"close"}


def read_framing(fields: Fields, *, is_11: bool, without: int) -> None:
    """Set ``length`` and ``is_chunked`` (RFC 9112 section 6.3); ``without``: the length if unsaid.

    HttpError(400) for what is said twice or in two ways, 501 for a coding under chunked.
    """
    codings = fields.named.get(b"transfer-encoding")
    lengths = fields.named.get(b"content-length")
    if codings is not None:
        if lengths is not None:
            raise HttpError(400, "Content-Length and Transfer-Encoding together")
        if not is_11:
            raise HttpError(400, "Transfer-Encoding in HTTP/1.0 (RFC 9112 section 6.1)")
        if len(codings) > 1 or codings[0].lower() != b"chunked":
            raise _coding_error(codings)
        fields.is_chunked = True
        fields.length = CHUNKED
    elif lengths is None:
        fields.length = without
    else:
        # RFC 9110 section 8.6 lets us refuse a list of equal numbers too.
        if len(lengths) > 1 or _LENGTH.fullmatch(lengths[0]) is None:
            raise HttpError(400, "Content-Length is not one number")
        fields.length = int(lengths[0])
        if fields.length > MAX_LENGTH:
            raise HttpError(400, "Content-Length is too large")


def _coding_error(codings: list[bytes]) -> HttpError:
    """501 for codings that end in one chunked; 400 where the body's end is open to guessing.

    RFC 9112 section 6.3, item 4, and section 6.1.
    """
    if len(codings) > 1:
        return HttpError(400, "more than one Transfer-Encoding")
    names = [name.strip(b" \t") for name in codings[0].lower().split(b",")]
    is_list = _CODINGS.fullmatch(codings[0]) is not None
    if is_list and names.index(names[-1]) == len(names) - 1 and names[-1] == b"chunked":
        return HttpError(501, "a Transfer-Encoding other than chunked")
    return HttpError(400, "Transfer-Encoding is not chunked")


def kept_lines(lines: Lines, dropped: Collection[bytes], named: Collection[bytes]) -> bytes:
    """The lines written out that are in neither of the two sets of lower-case names."""
    parts: list[bytes] = []
    for name, value in lines:
        lower = name.lower()
        if lower not in dropped and lower not in named:
            parts += (name, b": ", value, b"\r\n")
    return b"".join(parts)


def keep_alive_s(fields: Fields) -> float | None:
    """Seconds for which the sender keeps an idle connection, of Keep-Alive: timeout=N."""
    for value in fields.named.get(b"keep-alive", ()):
        found = _TIMEOUT.search(value.lower())
        if found is not None:
            return float(found[1])
    return None
