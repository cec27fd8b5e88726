"""The heads that go out: of a request to the target, of an answer to the client.

Nothing is passed on as a whole: a head is written anew from what was read of it, so what framed or
routed it on one side never crosses (RFC 9110 section 7.6). The usual one is a first line, the block
of fields that cross, and what the connection adds, each of them made before; rules without fields
in their templates are worked out once for each block.
"""

from __future__ import annotations

import re
from typing import Final

from shared.http.forwarding import About, Origin
from shared.http.head import (
    CHUNKED,
    FORWARDING,
    FORWARDING_OF_OTHERS,
    Fields,
    Request,
    Response,
)  # fmt: skip
from shared.http.hops import NO_LIMIT
from shared.http.memo import new_key, remember
from shared.http.rules import compile_rules, without
from shared.plan import HttpPlan

_CHUNKED_END: Final = b"Transfer-Encoding: chunked\r\n\r\n"
_CLOSE: Final = b"Connection: close\r\n"
_NO_LENGTH_END: Final = b"Content-Length: 0\r\n\r\n"
_HAVE_BODIES: Final = frozenset({"POST", "PUT", "PATCH"})
_TRACES: Final = frozenset({b"traceparent", b"tracestate"})
# W3C Trace Context section 3.2.2: of version 00 just this; of a later one more may follow.
_TRACEPARENT: Final = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]*)?"
)
_TRACEPARENT_00_BYTES: Final = 55
# Names that are dangerous with an underscore: gateways read X_Real_IP as X-Real-IP.
_NEVER_UNDERSCORED: Final = FORWARDING | frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"expect",
     b"keep-alive", b"te", b"trailer", b"proxy-connection"}
)  # fmt: skip
_STATUS_LINES: Final = 512  # remembered; 60 bytes each


Trailers = tuple[tuple[bytes, bytes], ...]


class _Crossing:
    """What of a request's field block goes on, and whether it has a trace of its own."""

    __slots__ = ("block", "has_trace")

    def __init__(self, block: bytes, *, has_trace: bool) -> None:
        self.block = block
        self.has_trace = has_trace


class RequestWriter:
    """Writes the requests of one route."""

    __slots__ = (
        "_adds", "_forwarding", "_host", "_is_plain", "_keeps_host", "_key", "_overridden",
        "_overrides_own", "_prefix", "_rewrites", "_rules", "_strip", "_usual_ids",
        "_with_underscores",
    )  # fmt: skip

    def __init__(self, route: str, plan: HttpPlan) -> None:
        """``route``: its name, for templates."""
        rules = self._rules = compile_rules(plan.request, route)
        self._key = new_key()
        self._with_underscores = plan.underscores == "pass"
        self._is_plain = not (rules.dropped or rules.constant or self._with_underscores)
        self._adds = not rules.is_constant
        self._overridden = rules.dropped & (FORWARDING | _TRACES)
        self._overrides_own = bool(self._overridden - FORWARDING_OF_OTHERS)
        self._usual_ids = not self._overridden & {b"x-request-id", b"traceparent"}
        self._forwarding: dict[bytes, bytes] = {}
        self._strip = plan.strip_prefix.rstrip("/")
        self._prefix = plan.add_prefix.rstrip("/")
        self._rewrites = bool(self._strip or self._prefix)
        self._keeps_host = plan.host == "preserve"
        self._host = "" if plan.host in ("preserve", "target") else plan.host

    def head(
        self, request: Request, about: About, origin: Origin, target: str, *, upgrade: bytes = b"",
        length: int | None = None, expects_continue: bool = False, hops: int = NO_LIMIT,
    ) -> bytes:  # fmt: skip
        """The whole head, for the target of this name (``host:port``, ``unix:/path``).

        ``upgrade``: the protocol to ask for; ``length``: of the body that will be sent, where it is
        another than the client's: bytes, or CHUNKED. ``hops``: Max-Forwards, where it is limited;
        a rule of the route for this field comes before it.
        """
        fields = request.fields
        named = fields.named
        path = self.path(request.path) if self._rewrites else request.path
        if request.query is not None:
            path = f"{path}?{request.query}"
        authority = request.authority
        host = authority if self._keeps_host and authority else self._other_host(target)
        if self._is_plain and b"traceparent" not in named and b"tracestate" not in named:
            block, has_trace = fields.kept, False
        else:
            crossing = self._crossing(fields)
            block, has_trace = crossing.block, crossing.has_trace
        if has_trace or not self._usual_ids:
            first = f"{request.method} {path} HTTP/1.1\r\nHost: {host}\r\n" + self._ids(
                about, has_trace
            )
        else:
            trace = about.trace_id
            first = (
                f"{request.method} {path} HTTP/1.1\r\nHost: {host}\r\n"
                f"X-Request-ID: {about.request_id}\r\n"
                f"traceparent: 00-{trace}-{trace[16:]}-01\r\n"
            )
        believed = about.believed
        forwarding = origin.lines(authority) if believed is None else believed.lines
        if self._overrides_own or (believed is not None and self._overridden):
            forwarding = self._without_overridden(forwarding)
        if self._adds:
            block += self._rules.varying(about)
        if hops != NO_LIMIT and b"max-forwards" not in self._rules.dropped:
            block = without(block, (b"max-forwards",)) + b"Max-Forwards: %d\r\n" % hops
        if upgrade:
            block += b"Connection: upgrade\r\nUpgrade: " + upgrade + b"\r\n"
        if expects_continue:
            block += b"Expect: 100-continue\r\n"
        return b"".join((first.encode(), block, forwarding, _framing(request, length)))

    def path(self, path: str) -> str:
        """The path as the target gets it: ``/api`` of strip_prefix is whole segments."""
        if not path.startswith("/"):
            return path  # OPTIONS *
        strip = self._strip
        if strip and path.startswith(strip):
            rest = path[len(strip) :]
            if not rest:
                path = "/"
            elif rest.startswith("/"):
                path = rest
        return self._prefix + path

    def trailers(self, trailers: Trailers) -> Trailers:
        """Those of a body that a rule neither sets nor removes."""
        return _allowed(trailers, self._rules.dropped)

    def _other_host(self, target: str) -> str:
        """A fixed one, or the target's; a socket in the file system is this machine."""
        return self._host or ("localhost" if target.startswith("unix:") else target)

    def _ids(self, about: About, has_trace: bool) -> str:
        overridden = self._overridden
        lines = ""
        if b"x-request-id" not in overridden:
            lines = f"X-Request-ID: {about.request_id}\r\n"
        if not has_trace and b"traceparent" not in overridden:
            trace = about.trace_id
            lines += f"traceparent: 00-{trace}-{trace[16:]}-01\r\n"
        return lines

    def _without_overridden(self, forwarding: bytes) -> bytes:
        """The forwarding fields that no rule takes away; remembered, for connections repeat."""
        found = self._forwarding.get(forwarding)
        if found is None:
            found = without(forwarding, self._overridden)
            if len(self._forwarding) >= 64:  # 700 bytes each
                self._forwarding.clear()
            self._forwarding[forwarding] = found
        return found

    def _crossing(self, fields: Fields) -> _Crossing:
        found = fields.memo.get(self._key)
        if not isinstance(found, _Crossing):
            found = self._work_out(fields)
            remember(fields, self._key, found)
        return found

    def _work_out(self, fields: Fields) -> _Crossing:
        rules, named = self._rules, fields.named
        block = fields.kept
        traces = named.get(b"traceparent", [])
        has_trace = len(traces) == 1 and _is_traceparent(traces[0])
        has_trace = has_trace and b"\ntraceparent:" in b"\n" + block.lower()
        dropped = rules.dropped
        if not has_trace:
            dropped |= _TRACES  # section 4.3: a state without a trace is nobody's
        if not dropped.isdisjoint(named):
            block = without(block, dropped)
        if self._with_underscores:
            block += _underscored(fields, dropped)
        return _Crossing(block + rules.constant, has_trace=has_trace)


def _allowed(trailers: Trailers, dropped: frozenset[bytes]) -> Trailers:
    if not dropped or not trailers:
        return trailers
    return tuple([one for one in trailers if one[0].lower() not in dropped])


def _is_traceparent(value: bytes) -> bool:
    if _TRACEPARENT.fullmatch(value) is None:
        return False
    return len(value) == _TRACEPARENT_00_BYTES or not value.startswith(b"00")


def _underscored(fields: Fields, dropped: frozenset[bytes]) -> bytes:
    """The lines whose name has an underscore, as far as they can be mistaken for no other field
    that is dropped or that we write.
    """
    lines = []
    for name, value in fields.lines:
        if b"_" in name and name not in fields.connection and name not in dropped:
            read_as = name.replace(b"_", b"-")
            if read_as not in dropped and read_as not in _NEVER_UNDERSCORED:
                lines.append(name + b": " + value + b"\r\n")
    return b"".join(lines)


def _framing(request: Request, length: int | None) -> bytes:
    """How long the body is, and the end of the head (RFC 9112 section 6)."""
    size = request.length if length is None else length
    if size == 0:
        # RFC 9110 section 8.6: some targets answer 411 to a POST that does not say so.
        if request.method in _HAVE_BODIES:
            return _NO_LENGTH_END
        return b"\r\n"
    return _CHUNKED_END if size == CHUNKED else b"Content-Length: %d\r\n\r\n" % size


class ResponseWriter:
    """Writes the heads of the answers that targets give on one route."""

    __slots__ = ("_adds", "_has_rules", "_key", "_rules", "_writes_date")

    def __init__(self, route: str, plan: HttpPlan) -> None:
        """``route``: its name, for templates."""
        rules = self._rules = compile_rules(plan.response, route)
        self._key = new_key()
        self._has_rules = bool(rules.dropped or rules.constant)
        self._adds = not rules.is_constant
        self._writes_date = b"date" not in rules.dropped

    def head(
        self, response: Response, about: About, *, is_11: bool, keep_alive: bool, length: int,
        date: bytes = b"",
    ) -> bytes:  # fmt: skip
        """The whole head, for a client that speaks 1.1 or (``is_11`` false) 1.0.

        ``length``: of the body in bytes; any below 0 (CHUNKED, UNTIL_CLOSE) goes in chunks to a
        client of 1.1, and until the connection is closed to one of 1.0. ``date``: written where
        the target sent none. 1xx heads: `informational`.
        """
        status = response.status
        fields = response.fields
        block = self._block(fields, about)
        if date and b"date" not in fields.named and self._writes_date:
            block += b"Date: " + date + b"\r\n"  # RFC 9110 section 6.6.1
        if status == 204 or status == 304 or about.request.method == "HEAD":
            end = _lengths(fields) if status != 204 else b"\r\n"
        elif length >= 0:
            end = b"Content-Length: %d\r\n\r\n" % length
        elif is_11:
            end = _CHUNKED_END
        else:
            keep_alive = False
            end = b"\r\n"
        if not keep_alive:
            block += _CLOSE
        elif not is_11:
            block += b"Connection: keep-alive\r\n"
        return b"".join((_status_line(status, response.reason), block, end))

    def trailers(self, trailers: Trailers) -> Trailers:
        """As `RequestWriter.trailers`."""
        return _allowed(trailers, self._rules.dropped)

    def informational(self, response: Response, about: About) -> bytes:
        """A 1xx head as it is; of 101, which ends the exchange, with the rules and its Upgrade."""
        fields = response.fields
        first = _status_line(response.status, response.reason)
        if response.status != 101:
            return b"".join((first, fields.kept, b"\r\n"))
        values = fields.named.get(b"upgrade")
        protocol = values[0] if values else fields.upgrade
        switch = b"Connection: upgrade\r\nUpgrade: " + protocol + b"\r\n\r\n"
        return b"".join((first, self._block(fields, about), switch))

    def _block(self, fields: Fields, about: About) -> bytes:
        """The fields that cross, and what the rules make of them."""
        block = self._fixed(fields) if self._has_rules else fields.kept
        return block + self._rules.varying(about) if self._adds else block

    def _fixed(self, fields: Fields) -> bytes:
        """The same where no request makes a difference."""
        found = fields.memo.get(self._key)
        if not isinstance(found, bytes):
            rules = self._rules
            kept = fields.kept
            if not rules.dropped.isdisjoint(fields.named):
                kept = without(kept, rules.dropped)
            found = kept + rules.constant
            remember(fields, self._key, found)
        return found


def _lengths(fields: Fields) -> bytes:
    """Of an answer without a body: how long it would be, RFC 9110 section 8.6."""
    values = fields.named.get(b"content-length")
    if not values:
        return b"\r\n"
    return b"Content-Length: " + values[0] + b"\r\n\r\n"


_status_lines: dict[tuple[int, bytes], bytes] = {}


def _status_line(status: int, reason: bytes) -> bytes:
    found = _status_lines.get((status, reason))
    if found is None:
        found = b"HTTP/1.1 %d %s\r\n" % (status, reason)
        if len(_status_lines) >= _STATUS_LINES:
            _status_lines.clear()
        if len(reason) <= 64:
            _status_lines[status, reason] = found
    return found
