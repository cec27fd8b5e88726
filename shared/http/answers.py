"""Answers of our own, whole: redirects, fixed answers, errors, maintenance.

The rules for a route's answers hold for these too. The date is the caller's, who has a clock
(RFC 9110 section 6.6.1).
"""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final

from shared.http.forwarding import About, Forwarders, Origin, describe
from shared.http.head import Request
from shared.http.rules import Lines, Rules, compile_rules
from shared.plan import AnswerPlan, FieldRules, HttpPlan

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_LOCATION: Final = frozenset({"location"})
_NO_BODY: Final = frozenset({204, 304})  # RFC 9110 section 6.4.1
_PLAIN: Final = ("Content-Type", "text/plain; charset=utf-8")
_NO_STORE: Final = ("Cache-Control", "no-store")  # 404, 405, 414 and others could be kept for long
# RFC 9110 section 15.5.6 wants an Allow field; what a target takes besides is not known here.
_ALLOW: Final = ("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
# As RFC 9110 section 15 names them, where the standard library has older names.
_REASONS: Final = {status.value: status.phrase for status in HTTPStatus} | {
    413: "Content Too Large", 414: "URI Too Long", 416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}  # fmt: skip
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip


def http_date(seconds: int) -> bytes:
    """A Unix time as Date has it: ``Sun, 06 Nov 1994 08:49:37 GMT`` (RFC 9110 section 5.6.7)."""
    at = datetime.fromtimestamp(seconds, UTC)
    text = (
        f"{_DAYS[at.weekday()]}, {at.day:02d} {_MONTHS[at.month - 1]} {at.year:04d}"
        f" {at.hour:02d}:{at.minute:02d}:{at.second:02d} GMT"
    )
    return text.encode()


def reason_of(status: int) -> str:
    """The usual reason phrase; "" where there is none."""
    return _REASONS.get(status, "")


def _nobody() -> About:
    """For an answer to what could not be read as a request."""
    request = Request("GET", "/", None, "", "", is_11=True)
    return describe(Origin("", 0, "http", 0), request, Forwarders(), "")


_NOBODY: Final = _nobody()


class _Answer:
    """One answer, with everything made that is the same for every request."""

    __slots__ = ("_begin", "_body", "_has_date", "_length", "_lines", "_rules", "_tells_id")

    def __init__(
        self, status: int, pairs: list[tuple[str, str]], body: bytes, rules: Rules, route: str, *,
        tells_id: bool = False,
    ) -> None:  # fmt: skip
        """``tells_id``: the request's id goes behind the body, on a line of its own."""
        kept = [pair for pair in pairs if pair[0].lower().encode() not in rules.dropped]
        has_own_date = any(name.lower() == "date" for name, _ in kept)
        lines = self._lines = Lines(kept, route, locations=_LOCATION)
        self._rules = rules
        first = f"HTTP/1.1 {status} {reason_of(status)}\r\n".encode()
        self._begin = first + lines.constant + rules.constant
        self._has_date = b"date" not in rules.dropped and not has_own_date
        self._length = status not in _NO_BODY
        self._body = body if self._length else b""
        self._tells_id = tells_id

    def render(self, about: About, date: bytes, extra: bytes, *, keep_alive: bool) -> bytes:
        """Head and body; to HEAD the head alone, with the length that GET would see."""
        body, request = self._body, about.request
        if self._tells_id and about.request_id:
            body += f"request {about.request_id}\n".encode()
        parts = [self._begin]
        if self._has_date:
            parts.append(b"Date: " + date + b"\r\n")
        if not self._lines.is_constant:
            parts.append(self._lines.varying(about))
        if not self._rules.is_constant:
            parts.append(self._rules.varying(about))
        parts.append(extra)
        if self._length:
            parts.append(b"Content-Length: %d\r\n" % len(body))
        if not keep_alive:
            parts.append(b"Connection: close\r\n")
        elif not request.is_11:
            parts.append(b"Connection: keep-alive\r\n")
        parts.append(b"\r\n")
        if request.method != "HEAD":
            parts.append(body)
        return b"".join(parts)


class OwnAnswers:
    """The answers of one route, or of none."""

    __slots__ = ("_action", "_errors", "_maintenance", "_pages", "_route", "_rules")

    def __init__(self, route: str = "", plan: HttpPlan | None = None) -> None:
        """``route``: its name, for templates; ``plan``: None where no route was found."""
        self._route = route
        self._rules = compile_rules(FieldRules() if plan is None else plan.response, route)
        self._pages = {} if plan is None else dict(plan.error_pages)
        self._errors: dict[int, _Answer] = {}  # by status, made at first use
        self._action: _Answer | None = None
        self._maintenance: _Answer | None = None
        if plan is not None and plan.answer is not None:
            self._action = self._configured(plan.answer, plan.answer.status)
        if plan is not None and plan.maintenance is not None:
            self._maintenance = self._configured(plan.maintenance, 503, _NO_STORE)

    @property
    def has_maintenance(self) -> bool:
        """Whether there is something else than 502 to say where no target can be reached."""
        return self._maintenance is not None

    def action(self, about: About, date: bytes, *, keep_alive: bool) -> bytes:
        """What the route answers: its redirect or its fixed answer. RuntimeError: it forwards.

        ``date``: as `http_date` gives it, of this second. ``keep_alive``: another request may come
        on this connection.
        """
        answer = self._action
        if answer is None:
            raise RuntimeError("this route forwards: it has no answer of its own")
        return answer.render(about, date, b"", keep_alive=keep_alive)

    def options(self, about: About, date: bytes, *, keep_alive: bool) -> bytes:
        """204, to an OPTIONS that may go no further (RFC 9110 section 7.6.2)."""
        answer = _Answer(204, [_ALLOW], b"", self._rules, self._route)
        return answer.render(about, date, b"", keep_alive=keep_alive)

    def maintenance(self, about: About, date: bytes, *, keep_alive: bool) -> bytes:
        """503 while no target can be dialled. RuntimeError where the route has no such answer."""
        answer = self._maintenance
        if answer is None:
            raise RuntimeError("this route has no maintenance answer")
        return answer.render(about, date, b"", keep_alive=keep_alive)

    def error(
        self, status: int, about: About | None, date: bytes, *, keep_alive: bool = False,
        extra: bytes = b"",
    ) -> bytes:  # fmt: skip
        """The route's page for this status, else a line of text with the request's id.

        ``about``: None where no request could be read; ``extra``: whole field lines, each with
        its CRLF: WWW-Authenticate of a 401, Retry-After.
        """
        answer = self._errors.get(status)
        if answer is None:
            answer = self._errors[status] = self._error(status)
        return answer.render(about or _NOBODY, date, extra, keep_alive=keep_alive)

    def _error(self, status: int) -> _Answer:
        always = (_NO_STORE, _ALLOW) if status == 405 else (_NO_STORE,)
        page = self._pages.get(status)
        if page is not None:
            return self._configured(page, status, *always)
        body = f"{status} {reason_of(status)}".rstrip() + "\n"
        return _Answer(
            status, [_PLAIN, *always], body.encode(), self._rules, self._route, tells_id=True
        )

    def _configured(self, plan: AnswerPlan, status: int, *always: tuple[str, str]) -> _Answer:
        """``always``: lines that are there unless the config has its own of that name."""
        pairs, body = list(plan.headers), plan.body
        if plan.location:
            pairs.insert(0, ("Location", plan.location))
            body = body or f"{status} {reason_of(status)}\n".encode()  # RFC 9110 section 15.4
        names = {name.lower() for name, _ in pairs}
        if body:
            always = (*always, _PLAIN)
        pairs += [pair for pair in always if pair[0].lower() not in names]
        return _Answer(status, pairs, body, self._rules, self._route)
