"""Requests, answers and what is known of them, made by hand: no parser takes part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from shared.http.forwarding import NO_PARAMS, About, Forwarders, Origin, describe
from shared.http.head import FORWARDING, UNTIL_CLOSE, Fields, Request, Response
from shared.http.rules import without

Line = tuple[str, str]

REQUEST_ID: Final = "0123456789abcdef0123456789abcdef"
_NEVER_CROSS: Final = {b"host", b"content-length", b"transfer-encoding", b"connection", b"upgrade"}


def fields(*lines: Line, is_request: bool = True) -> Fields:
    """A block of these lines."""
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in lines]
    made = Fields(tuple([(name.lower(), value) for name, value in raw]))
    block = b"".join([name + b": " + value + b"\r\n" for name, value in raw])
    dropped = _NEVER_CROSS | FORWARDING if is_request else _NEVER_CROSS
    if is_request:
        dropped = dropped | {name.lower() for name, _ in raw if b"_" in name}
    made.kept = without(block, dropped)
    return made


def request(
    path: str = "/", *lines: Line, method: str = "GET", query: str | None = None,
    authority: str = "example.com", is_11: bool = True, length: int = 0,
) -> Request:  # fmt: skip
    """A request of these field lines; the host is the authority without its port."""
    host = authority if authority.endswith("]") else authority.rpartition(":")[0] or authority
    made = Request(method, path, query, authority, host, is_11=is_11)
    made.fields = fields(*lines)
    made.length = length
    return made


def response(status: int = 200, *lines: Line, reason: bytes = b"OK") -> Response:
    """An answer of these field lines."""
    made = Response(status, reason, is_11=True)
    made.fields = fields(*lines, is_request=False)
    made.length = UNTIL_CLOSE
    return made


def origin(ip: str = "203.0.113.5", *, scheme: str = "http", sni: str = "") -> Origin:
    """A client's connection, from port 4000 to port 8080."""
    return Origin(ip, 4000, scheme, 8080, sni)


def about(
    asked: Request | None = None, *, came: Origin | None = None, trusted: tuple[str, ...] = (),
    params: Mapping[str, str] = NO_PARAMS, route: str = "web",
) -> About:  # fmt: skip
    """What is known of a request."""
    asked = request() if asked is None else asked
    came = origin() if came is None else came
    return describe(came, asked, Forwarders(trusted), REQUEST_ID, params, route)


def lines_of(head: bytes) -> list[str]:
    """The lines of a whole head, which must end in one empty line."""
    assert head.endswith(b"\r\n\r\n")
    lines = head[:-4].decode("latin-1").split("\r\n")
    assert not any("\r" in line or "\n" in line or not line for line in lines)
    return lines


def named(head: bytes, name: str) -> list[str]:
    """All values of a field of a head."""
    found = []
    for line in lines_of(head)[1:]:
        key, _, value = line.partition(": ")
        if key.lower() == name.lower():
            found.append(value)
    return found
