"""What was read of a request or of an answer: its first line, its fields, how long its body is.

`shared/http/request.py` and `shared/http/response.py` make these. Most heads of one client differ
in their first line alone, so the fields are read once for each block of bytes and shared by all
heads that have the same block: nobody changes a `Fields`, and what can be worked out of one alone
may be remembered by it.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

CHUNKED: Final = -1  # as the length of a body
UNTIL_CLOSE: Final = -2  # of an answer: its body ends with the connection
# What llhttp knows of HTTP (the registry of RFC 9110 section 16.1.1 and a few in use), but CONNECT:
# a reverse proxy opens no tunnels.
METHODS: Final = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "ACL", "BIND",
     "CHECKOUT", "COPY", "LINK", "LOCK", "M-SEARCH", "MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL",
     "MOVE", "NOTIFY", "PROPFIND", "PROPPATCH", "PURGE", "QUERY", "REBIND", "REPORT", "SEARCH",
     "SUBSCRIBE", "UNBIND", "UNLINK", "UNLOCK", "UNSUBSCRIBE"}
)  # fmt: skip


class Fields:
    """The field block of one head. Names are as `bytes.lower` gives them, values without blanks
    around them (RFC 9110 section 5.5).

    ``lines``: every field line in order, hop-by-hop and forwarding fields included; ``named``:
    the same by name. ``kept``: the lines that cross by default, written out: all but hop-by-hop
    ones (RFC 9110 section 7.6.1, with those that Connection names), Host, Content-Length,
    Transfer-Encoding, Expect and the forwarding fields that only a trusted forwarder may send
    (FORWARDING), and in a request those whose name has an underscore.
    """

    __slots__ = (
        "connection", "expects_continue", "has_underscores", "host", "is_chunked", "kept", "length",
        "lines", "logged", "memo", "name", "named", "offered", "upgrade",
    )  # fmt: skip

    def __init__(self, lines: tuple[tuple[bytes, bytes], ...]) -> None:
        self.lines = lines
        named: dict[bytes, list[bytes]] = {}
        for name, value in lines:
            named.setdefault(name, []).append(value)
        self.named = named
        self.memo: dict[int, object] = {}  # `shared/http/memo.py`
        self.kept = b""
        self.host = ""  # of the Host field as it was sent; "" where there is none
        self.name = ""  # the same as names are compared (`plain_domain`)
        self.length = 0  # Content-Length; UNTIL_CLOSE where an answer has none
        self.is_chunked = False
        self.connection: frozenset[bytes] = frozenset()  # options of Connection, lower case
        # The protocols of Upgrade, lower case, where Connection names it: of an answer the first,
        # of a request all but h2c, the one that is liked best first.
        self.upgrade = b""
        self.offered: tuple[bytes, ...] = ()
        self.expects_continue = False
        self.has_underscores = False
        self.logged = ""  # what a JSON line of the access log says of it, once one was made


# Fields that say who asks, and how: dropped unless the source is trusted (design section 5). These
# we never write: from a trusted forwarder they cross as they came, since targets believe them too.
FORWARDING_OF_OTHERS: Final = frozenset(
    {b"x-forwarded", b"x-forwarded-by", b"x-forwarded-prefix", b"x-forwarded-protocol",
     b"x-forwarded-scheme", b"x-forwarded-server", b"x-forwarded-ssl", b"x-client-ip",
     b"x-cluster-client-ip", b"x-url-scheme", b"front-end-https", b"true-client-ip",
     b"x-original-forwarded-for"}
)  # fmt: skip
FORWARDING: Final = FORWARDING_OF_OTHERS | frozenset(
    {b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port",
     b"x-real-ip", b"forwarded", b"x-request-id"}
)  # fmt: skip


class Request:
    """One request. ``host`` is how names are compared (`plain_domain`), ``authority`` as sent.

    ``path``: what is matched and forwarded: begins with "/" (or is "*"), dot segments removed,
    unreserved escapes decoded; ``query``: behind the "?", raw; None where there is no "?".
    """

    __slots__ = (
        "authority", "block_bytes", "fields", "host", "is_11", "keep_alive", "length",
        "line_bytes", "method", "path", "query",
    )  # fmt: skip

    def __init__(
        self, method: str, path: str, query: str | None, authority: str, host: str, *, is_11: bool
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.authority = authority
        self.host = host
        self.is_11 = is_11
        self.fields = NO_FIELDS
        self.length = 0  # of the body in bytes; CHUNKED
        self.keep_alive = is_11  # the client would send another one on this connection
        self.line_bytes = 0  # of the request target, for its limit
        self.block_bytes = 0  # of the fields, likewise


class Response:
    """One answer's head; 1xx ones are heads of their own.

    ``length``: of the body that follows, for the request that it answers: 0 where the status or
    HEAD says that none does; CHUNKED, UNTIL_CLOSE.
    """

    __slots__ = ("fields", "is_11", "keep_alive", "keep_alive_s", "length", "reason", "status")

    def __init__(self, status: int, reason: bytes, *, is_11: bool) -> None:
        self.status = status
        self.reason = reason
        self.is_11 = is_11
        self.fields = NO_FIELDS
        self.length = 0
        self.keep_alive = is_11  # the target takes another request on this connection
        self.keep_alive_s: float | None = None  # of Keep-Alive: timeout=N, seconds


NO_FIELDS: Final = Fields(())


class HeadLimits(Struct, frozen=True):
    """What a head may be: bytes of the field block, number of lines, bytes of the target."""

    head_bytes: int = 32 * 1024
    fields: int = 100
