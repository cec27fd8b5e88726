"""An answer's head: bytes in, a `Response` out (RFC 9112 sections 4 to 6, strictly).

A target is trusted more than a client, and still where two parsers could see different ends of an
answer, the next one on the connection might be somebody else's: so it is refused, as a 502.
"""

from __future__ import annotations

import re
from typing import Final

from shared.errors import HttpError
from shared.http.fields import (
    RESPONSE_DROPPED,
    Buffer,
    check_agreement,
    field_lines,
    find_head,
    has_lone_line_end,
    keep_alive_s,
    kept_lines,
    read_connection,
    read_framing,
    tokens,
)
from shared.http.head import UNTIL_CLOSE, Fields, HeadLimits, Response
from shared.http.remembered import Remembered

__all__ = ["RESPONSE_LIMITS", "check_unfinished", "find_head", "parse_response"]

# Wider than for requests: Set-Cookie and policies make long heads, and 502 is no help. Envoy takes
# 60 KiB, Node 16 KiB, HAProxy 16 KiB.
RESPONSE_LIMITS: Final = HeadLimits(head_bytes=128 * 1024, fields=1000)

# The reason may be empty; the blank before it, which must be there then, is often left out.
_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t -~\x80-\xff]*+))?")
_LINE_MAX_BYTES: Final = 8192
_MAX_HEADS: Final = 256

_WITH_BODY: Final[Remembered[Response]] = Remembered(_MAX_HEADS)
_OF_HEAD: Final[Remembered[Response]] = Remembered(_MAX_HEADS)


def check_unfinished(data: Buffer, start: int, limits: HeadLimits = RESPONSE_LIMITS) -> None:
    """Refuse the begin of a head, as early as it is known that it will never be a good one.

    To be called where `find_head` gave 0; ``start``: how many bytes an earlier call has looked at.
    Raises HttpError(502) for a CR or LF that stands alone, a bad status line, and for sizes.
    """
    head = bytes(data)
    if has_lone_line_end(head, start):
        raise HttpError(502, "a CR or LF stands alone in the answer (RFC 9112 section 2.2)")
    end = head.find(b"\r\n")
    if end < 0:
        if len(head) > _LINE_MAX_BYTES:
            raise HttpError(502, "the status line is too long")
    elif len(head) - end - 2 > limits.head_bytes or head.count(b"\r\n") - 1 > limits.fields:
        raise HttpError(502, "the fields of the answer are too many or too long")
    else:
        _status_line(head[:end])


def parse_response(head: bytes, method: str, limits: HeadLimits = RESPONSE_LIMITS) -> Response:
    """The answer of a whole head, its empty line included; ``method``: of the request.

    Answers are shared between requests that got the same head: nobody may change one. ``length``
    is 0 for HEAD, 1xx, 204 and 304 (RFC 9112 section 6.3), whatever the fields say; what they say
    is in ``fields.length``. ``keep_alive`` is False where the body ends with the connection, for
    101, and where an answer that has no body announces one nevertheless.

    Raises HttpError(502), and nothing else, whatever the bytes are.
    """
    remembered = _OF_HEAD if method == "HEAD" else _WITH_BODY
    response = remembered.by_bytes.get(head)
    if response is None:
        try:
            response = _new_response(head, method, limits)
        except HttpError as exc:
            raise HttpError(502, f"in the answer: {exc}") from None
        remembered.keep(head, response)
    return response


def _status_line(text: bytes) -> Response:
    """A status line without its CRLF (RFC 9112 section 4)."""
    found = _LINE.fullmatch(text)
    if found is None or len(text) > _LINE_MAX_BYTES:
        raise HttpError(502, "the status line is not: HTTP/1.1, three digits, a reason")
    return Response(int(found[2]), found[3] or b"", is_11=found[1] == b"1")


def _new_response(head: bytes, method: str, limits: HeadLimits) -> Response:
    """The answer of a head that is not remembered; HttpError of any status."""
    end = head.find(b"\r\n")
    if end < 0:
        raise HttpError(502, "the head has no whole line")
    response = _status_line(head[:end])
    begin = end + 2
    block = head[begin:]
    if len(block) > limits.head_bytes or block.count(b"\r\n") - 1 > limits.fields:
        raise HttpError(502, "the fields are too many or too long")
    lines = field_lines(block)
    fields = Fields(tuple([(name.lower(), value) for name, value in lines]))
    is_11 = response.is_11
    read_connection(fields)
    read_framing(fields, is_11=is_11, without=UNTIL_CLOSE)
    if b"upgrade" in fields.named and b"upgrade" in fields.connection:
        protocols = tokens(fields.named[b"upgrade"])
        fields.upgrade = protocols[0] if protocols else b""
    check_agreement(lines, block, is_answer=True)
    fields.kept = kept_lines(lines, RESPONSE_DROPPED, fields.connection)
    response.fields = fields
    response.keep_alive_s = keep_alive_s(fields)
    connection = fields.connection
    keeps = b"close" not in connection and (is_11 or b"keep-alive" in connection)
    status = response.status
    if status < 200 or status == 204:
        # They cannot have a body: one that is announced might be sent all the same.
        response.length = 0
        response.keep_alive = keeps and status != 101 and fields.length in (0, UNTIL_CLOSE)
    elif status == 304 or method == "HEAD":
        response.length = 0
        response.keep_alive = keeps
    else:
        response.length = fields.length
        response.keep_alive = keeps and fields.length != UNTIL_CLOSE
    return response
