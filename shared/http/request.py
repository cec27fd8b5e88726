"""A request's head: bytes in, a `Request` out (RFC 9112 sections 2, 3 and 5, strictly).

What is read in one way by us and may be read in another by a target is refused. Beyond what llhttp
refuses that is: versions other than 1.0 and 1.1 (it takes 0.9, 2.0, RTSP), more than one blank in
the request line, methods of other protocols, targets with a fragment, a transfer coding with 1.0 or
besides chunked, no Host or two or one that is none, and an Upgrade with a body.

A request line and a field block that came before are not read again (`remembered.py`).
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import Final

from shared.errors import HttpError
from shared.http.fields import (
    REQUEST_DROPPED,
    TOKEN,
    Buffer,
    check_agreement,
    field_lines,
    find_head,
    has_lone_line_end,
    kept_lines,
    read_connection,
    read_framing,
    tokens,
)
from shared.http.head import METHODS, Fields, HeadLimits, Request
from shared.http.paths import normalise
from shared.http.remembered import Remembered
from shared.match_criteria import plain_domain

__all__ = ["METHODS", "check_unfinished", "could_begin_request", "find_head", "parse_request"]

_FIRST_WORDS: Final = frozenset(f"{method} ".encode() for method in METHODS | {"CONNECT"})
_LONGEST_WORD: Final = max(len(word) for word in _FIRST_WORDS)
_BEGINNINGS: Final = frozenset(word[:size] for word in _FIRST_WORDS for size in range(len(word)))
# A line that was meant as a request, whatever is wrong with it.
_MEANT_AS_REQUEST: Final = re.compile(rb"[^\r\n]{1,8192}[ \t]HTTP/[0-9.]{1,8}\r?\n")

_LINE: Final = re.compile(rb"(" + TOKEN + rb"++) ([\x21-\x7e]++) HTTP/([0-9])\.([0-9])")
# A line is longer than its target by this much at most: both blanks, method, version.
_LINE_ROOM: Final = 64
_ABSOLUTE: Final = re.compile(r"https?://([^/?]*)(.*)", re.IGNORECASE)
# RFC 9110 section 7.2, RFC 3986 section 3.2.2. A reg-name may have escapes and commas by that
# grammar; nobody has a host with them, and a target might decode the one and split at the other.
_HOST: Final = re.compile(
    r"(?:([A-Za-z0-9\-._~!$&'()*+;=]+)|\[([0-9A-Fa-f:.]{2,45})\])(?::([0-9]{0,5}))?"
)
_MAX_PORT: Final = 65535

_MAX_LINES: Final = 1024
_MAX_BLOCKS: Final = 1024
_MAX_OLD_BLOCKS: Final = 128  # HTTP/1.0 is rare


class _Line:
    """A request line. ``authority`` and ``host`` are those of an absolute-form; "" in others."""

    __slots__ = ("authority", "host", "is_11", "method", "path", "query", "target_bytes")

    def __init__(self, method: str, path: str, query: str | None, *, is_11: bool) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.is_11 = is_11
        self.authority = ""
        self.host = ""
        self.target_bytes = 0


_LINES: Final[Remembered[_Line]] = Remembered(_MAX_LINES)
_BLOCKS: Final[Remembered[Fields]] = Remembered(_MAX_BLOCKS)
_OLD_BLOCKS: Final[Remembered[Fields]] = Remembered(_MAX_OLD_BLOCKS)


def could_begin_request(data: Buffer) -> bool:
    """Whether bytes are, or may become, a request: to tell HTTP from other protocols.

    They begin with a method and a blank, or with a part of that, behind at most one empty line
    (RFC 9112 section 2.2); or with a whole line that names HTTP, which is then refused as a bad
    request rather than taken for another protocol. True also for no bytes at all.
    """
    start = bytes(data[: _LONGEST_WORD + 2])
    skipped = 0
    if start.startswith(b"\r"):
        if start == b"\r":
            return True
        if start[1:2] != b"\n":
            return False
        skipped = 2
        start = start[2:]
    if start in _BEGINNINGS:
        return True
    space = start.find(b" ") + 1
    if space > 0 and start[:space] in _FIRST_WORDS:
        return True
    return _MEANT_AS_REQUEST.match(data, skipped) is not None


def check_unfinished(data: Buffer, start: int, limits: HeadLimits) -> None:
    """Refuse the begin of a head, as early as it is known that it will never be a good one.

    To be called where `find_head` gave 0; ``start``: how many bytes an earlier call has looked at.
    Without this a client that ends its lines in LF would wait for its answer until the deadline.
    Raises HttpError: 400 for a CR or LF that stands alone, what `parse_request` raises for a whole
    request line, 414 and 431 for sizes.
    """
    head = bytes(data)
    if has_lone_line_end(head, start):
        raise HttpError(400, "a CR or LF stands alone (RFC 9112 section 2.2)")
    if head.startswith(b"\r\n"):
        head = head[2:]
    end = head.find(b"\r\n")
    if end < 0:
        if len(head) > limits.head_bytes + _LINE_ROOM:
            raise HttpError(414, "the request target is too long")
        return
    _request_line(head[:end], limits)
    if len(head) - end - 2 > limits.head_bytes:
        raise HttpError(431, "the fields are too long")
    if head.count(b"\r\n") - 1 > limits.fields:
        raise HttpError(431, "too many fields")


def parse_request(head: bytes, limits: HeadLimits) -> Request:
    """The request of a whole head, its empty line included, as `find_head` cuts it off.

    One empty line in front is skipped (RFC 9112 section 2.2). ``keep_alive`` and ``length`` are
    worked out; the `Fields` are shared between requests: nobody may change them. In HTTP/1.0
    ``fields.offered`` is empty and ``fields.expects_continue`` false (RFC 9110 sections 7.8 and
    10.1.1), and ``host`` is "" where no Host came.

    Raises HttpError: 400 for what two parsers could read differently; 405 for CONNECT; 414 and 431
    for sizes; 417 for an Expect other than 100-continue; 501 for an unknown method or a transfer
    coding under chunked; 505 for a version other than 1.0 and 1.1.
    """
    if head.startswith(b"\r\n"):
        head = head[2:]
    end = head.find(b"\r\n")
    if end < 0:
        raise HttpError(400, "the head has no whole line")
    line = _request_line(head[:end], limits)
    begin = end + 2
    block = head[begin:]
    if len(block) > limits.head_bytes:
        raise HttpError(431, "the fields are too long")
    is_11 = line.is_11
    fields = (_BLOCKS if is_11 else _OLD_BLOCKS).by_bytes.get(block)
    if fields is None:
        fields = _new_fields(block, limits, is_11)
    elif len(fields.lines) > limits.fields:
        raise HttpError(431, "too many fields")
    if line.authority:  # RFC 9112 section 3.2.2: it wins, and Host is ignored
        request = Request(
            line.method, line.path, line.query, line.authority, line.host, is_11=is_11
        )
    else:
        request = Request(line.method, line.path, line.query, fields.host, fields.name, is_11=is_11)
    request.fields = fields
    request.length = fields.length
    request.line_bytes = line.target_bytes
    request.block_bytes = len(block)
    connection = fields.connection
    if connection:
        # RFC 9112 section 9.3: close beats keep-alive; 1.0 goes on only where it asks for it.
        request.keep_alive = b"close" not in connection and (is_11 or b"keep-alive" in connection)
    return request


def _request_line(text: bytes, limits: HeadLimits) -> _Line:
    """A request line without its CRLF (RFC 9112 section 3)."""
    line = _LINES.by_bytes.get(text)
    if line is None:
        if len(text) > limits.head_bytes + _LINE_ROOM:
            raise HttpError(414, "the request target is too long")
        line = _new_line(text)
        _LINES.keep(text, line)
    if line.target_bytes > limits.head_bytes:
        raise HttpError(414, "the request target is too long")
    return line


def _new_line(text: bytes) -> _Line:
    """The same for one that is not remembered."""
    found = _LINE.fullmatch(text)
    if found is None:
        raise HttpError(400, "the request line is not: method, target, HTTP/1.1, one blank between")
    method, target = found[1].decode("ascii"), found[2].decode("ascii")
    if found[3] != b"1" or found[4] not in b"01":
        raise HttpError(505, "the version is neither HTTP/1.0 nor HTTP/1.1")
    if method == "CONNECT":
        raise HttpError(405, "CONNECT: no tunnels are opened here")
    if method not in METHODS:
        raise HttpError(501, "the method is not known")
    if "#" in target:
        raise HttpError(400, "the request target has a fragment (RFC 9112 section 3.2)")
    is_11 = found[4] == b"1"
    authority = ""
    if target.startswith("/"):
        line = _line_of(method, target, is_11)
    elif target == "*":
        if method != "OPTIONS":
            raise HttpError(400, "the request target * is for OPTIONS only")
        line = _Line(method, "*", None, is_11=is_11)
    else:
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None:
            raise HttpError(400, "the request target is neither a path nor an http URI")
        authority, rest = _checked_host(absolute[1]), absolute[2]
        if not rest and method == "OPTIONS":  # RFC 9112 section 3.2.4
            line = _Line(method, "*", None, is_11=is_11)
        else:
            line = _line_of(method, rest if rest.startswith("/") else "/" + rest, is_11)
    line.authority = authority
    line.host = plain_domain(authority)
    line.target_bytes = len(found[2])
    return line


def _line_of(method: str, target: str, is_11: bool) -> _Line:
    """Of a path and perhaps a query (RFC 9112 section 3.2.1)."""
    path, mark, query = target.partition("?")
    return _Line(method, normalise(path), query if mark else None, is_11=is_11)


def _checked_host(text: str) -> str:
    """A Host, or the authority of a target, without an empty port behind it; HttpError(400).

    An http URI has a host (RFC 9110 section 4.2.1) and no user (section 4.2.4), so neither an empty
    one nor an "@" is taken.
    """
    found = _HOST.fullmatch(text)
    if found is None:
        raise HttpError(400, "Host is no host name or address with at most a port")
    if found[2] is not None:
        try:
            IPv6Address(found[2])
        except ValueError:
            raise HttpError(400, "Host has something in brackets that is no IPv6 address") from None
    if found[3] and int(found[3]) > _MAX_PORT:
        raise HttpError(400, "Host has a port over 65535")
    if not plain_domain(text):
        raise HttpError(400, "Host is a dot")
    return text.removesuffix(":")


def _new_fields(block: bytes, limits: HeadLimits, is_11: bool) -> Fields:
    """What a field block says that is not remembered; HttpError."""
    if block.count(b"\r\n") - 1 > limits.fields:
        raise HttpError(431, "too many fields")
    lines = field_lines(block)
    fields = Fields(tuple([(name.lower(), value) for name, value in lines]))
    named = fields.named
    _read_host(fields, is_11)
    read_connection(fields)
    read_framing(fields, is_11=is_11, without=0)
    _read_expect(fields, is_11)
    if b"upgrade" in named and b"upgrade" in fields.connection:
        # An h2c is never followed (RFC 9113 section 3.1 has done away with it): there is only HTTP.
        offered = tuple([one for one in tokens(named[b"upgrade"]) if one != b"h2c"])
        # Where the body ends and the other protocol begins, two parsers may see differently.
        if fields.length != 0 and offered:
            raise HttpError(400, "an Upgrade together with a body")
        if is_11:
            fields.offered = offered
    check_agreement(lines, block, is_answer=False)
    underscored = {name for name in named if b"_" in name}
    fields.has_underscores = bool(underscored)
    fields.kept = kept_lines(lines, REQUEST_DROPPED, fields.connection | underscored)
    (_BLOCKS if is_11 else _OLD_BLOCKS).keep(block, fields)
    return fields


def _read_host(fields: Fields, is_11: bool) -> None:
    """Set ``host`` and ``name``: exactly one in HTTP/1.1, at most one in 1.0 (section 3.2)."""
    hosts = fields.named.get(b"host")
    if hosts is None:
        if is_11:
            raise HttpError(400, "HTTP/1.1 without Host (RFC 9112 section 3.2)")
        return
    if len(hosts) > 1:
        raise HttpError(400, "more than one Host (RFC 9112 section 3.2)")
    fields.host = _checked_host(hosts[0].decode("latin-1"))
    fields.name = plain_domain(fields.host)


def _read_expect(fields: Fields, is_11: bool) -> None:
    """Set ``expects_continue``; HttpError(417) for any other expectation (RFC 9110 10.1.1)."""
    if b"expect" not in fields.named:
        return
    if any(member != b"100-continue" for member in tokens(fields.named[b"expect"])):
        raise HttpError(417, "an expectation other than 100-continue")
    # Without a body there is nothing to wait for; a 1.0 client does not know the interim answer.
    fields.expects_continue = is_11 and fields.length != 0
