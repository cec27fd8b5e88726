"""Answers of our own, whole."""

from __future__ import annotations

import h11
import pytest

from shared.http.answers import CONTINUE, OwnAnswers, http_date, reason_of
from shared.plan import AnswerPlan, FieldRules, HttpPlan
from tests.helpers import http_heads as heads
from tests.helpers.http_heads import named

DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"


def split(answer: bytes, method: str = "GET") -> tuple[bytes, bytes]:
    """(head, body), read as a client does: nothing may be missing or left over."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(answer)
    assert isinstance(client.next_event(), h11.Response)
    body = b""
    event = client.next_event()
    while isinstance(event, h11.Data):
        body += event.data
        event = client.next_event()
    assert isinstance(event, h11.EndOfMessage)
    assert client.trailing_data[0] == b""
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert rest == body
    return head + b"\r\n\r\n", body


def redirect(location: str) -> OwnAnswers:
    """A route that redirects."""
    plan = AnswerPlan(status=308, location=location)
    return OwnAnswers("web", HttpPlan(answer=plan))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (784111777, DATE),
        (0, b"Thu, 01 Jan 1970 00:00:00 GMT"),
        (951825599, b"Tue, 29 Feb 2000 11:59:59 GMT"),
    ],
)
def test_dates(seconds: int, text: bytes) -> None:
    """As RFC 9110 section 5.6.7 has them, whatever the locale."""
    assert http_date(seconds) == text


def test_an_error() -> None:
    """A line of text with the status, and one with the id to ask for."""
    answer = OwnAnswers().error(502, heads.about(), DATE)
    body = f"502 Bad Gateway\nrequest {heads.REQUEST_ID}\n"
    assert answer.decode() == (
        "HTTP/1.1 502 Bad Gateway\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n"
        "Cache-Control: no-store\r\n"
        f"Date: {DATE.decode()}\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Connection: close\r\n"
        f"\r\n{body}"
    )


def test_an_error_before_there_is_a_request() -> None:
    """What could not be read has no id."""
    head, body = split(OwnAnswers().error(400, None, DATE))
    assert body == b"400 Bad Request\n"
    assert named(head, "connection") == ["close"]


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, "Unauthorized"), (403, "Forbidden"), (404, "Not Found"), (408, "Request Timeout"),
        (413, "Content Too Large"), (414, "URI Too Long"), (417, "Expectation Failed"),
        (421, "Misdirected Request"), (429, "Too Many Requests"),
        (431, "Request Header Fields Too Large"), (500, "Internal Server Error"),
        (501, "Not Implemented"), (503, "Service Unavailable"), (504, "Gateway Timeout"),
        (505, "HTTP Version Not Supported"), (599, ""),
    ],
)  # fmt: skip
def test_reasons(status: int, reason: str) -> None:
    """As RFC 9110 section 15 and RFC 6585 name them."""
    assert reason_of(status) == reason
    head, body = split(OwnAnswers().error(status, None, DATE))
    assert head.startswith(f"HTTP/1.1 {status} {reason}\r\n".encode())
    assert body.decode() == f"{status} {reason}".rstrip() + "\n"


def test_fields_of_one_error() -> None:
    """A challenge goes with the answer that it is for, and with no later one."""
    answers = OwnAnswers()
    challenge = b'WWW-Authenticate: Basic realm="x"\r\n'
    head, _ = split(answers.error(401, None, DATE, extra=challenge))
    assert named(head, "www-authenticate") == ['Basic realm="x"']
    assert named(split(answers.error(401, None, DATE))[0], "www-authenticate") == []
    assert named(split(answers.error(405, None, DATE))[0], "allow") != []


@pytest.mark.parametrize("is_11", [True, False])
@pytest.mark.parametrize("keep_alive", [True, False])
def test_connection(is_11: bool, keep_alive: bool) -> None:
    """Close where it closes; to 1.0, keep-alive where it goes on."""
    about = heads.about(heads.request(is_11=is_11))
    head, _ = split(OwnAnswers().error(404, about, DATE, keep_alive=keep_alive))
    said = ["close"] if not keep_alive else [] if is_11 else ["keep-alive"]
    assert named(head, "connection") == said


def test_head_gets_no_body() -> None:
    """But the length that GET would get."""
    answers = OwnAnswers("web", HttpPlan(answer=AnswerPlan(status=200, body=b"hello")))
    about = heads.about(heads.request(method="HEAD"))
    for answer, length in (
        (answers.action(about, DATE, keep_alive=True), 5),
        (answers.error(404, about, DATE), len(f"404 Not Found\nrequest {heads.REQUEST_ID}\n")),
    ):
        head, body = split(answer, "HEAD")
        assert body == b""
        assert named(head, "content-length") == [str(length)]


def test_a_redirect() -> None:
    """To https, with path and query as they came."""
    about = heads.about(heads.request("/a%2Cb", query="c=%0d%0a"))
    head, body = split(
        redirect("https://{host}{path_and_query}").action(about, DATE, keep_alive=True)
    )
    assert head.startswith(b"HTTP/1.1 308 Permanent Redirect\r\n")
    assert named(head, "location") == ["https://example.com/a%2Cb?c=%0d%0a"]
    assert body == b"308 Permanent Redirect\n"


def test_a_fixed_answer() -> None:
    """Body and headers as configured; text unless the headers say something else."""
    plan = AnswerPlan(status=200, body=b"{}", headers=(("content-type", "application/json"),))
    head, body = split(
        OwnAnswers("web", HttpPlan(answer=plan)).action(heads.about(), DATE, keep_alive=True)
    )
    assert named(head, "content-type") == ["application/json"]
    assert body == b"{}"
    plan = AnswerPlan(status=200, body=b"hi", headers=(("X-Id", "{request_id}"),))
    head, _ = split(
        OwnAnswers("web", HttpPlan(answer=plan)).action(heads.about(), DATE, keep_alive=True)
    )
    assert named(head, "content-type") == ["text/plain; charset=utf-8"]
    assert named(head, "x-id") == [heads.REQUEST_ID]
    assert named(head, "cache-control") == []


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_a_body(status: int) -> None:
    """No body and no length, whatever the config says."""
    plan = AnswerPlan(status=status, body=b"x")
    answers = OwnAnswers("web", HttpPlan(answer=plan))
    head, body = split(answers.action(heads.about(), DATE, keep_alive=True))
    assert body == b""
    assert named(head, "content-length") == []


def test_error_pages() -> None:
    """The page of its status, under that status; other errors stay as they are."""
    page = AnswerPlan(status=502, headers=(("Content-Type", "text/html"),), body=b"<p>sorry")
    answers = OwnAnswers("web", HttpPlan(error_pages=((502, page), (405, page))))
    head, body = split(answers.error(502, heads.about(), DATE))
    assert (named(head, "content-type"), body) == (["text/html"], b"<p>sorry")
    assert named(head, "cache-control") == ["no-store"]
    head, body = split(answers.error(405, heads.about(), DATE))
    assert head.startswith(b"HTTP/1.1 405 ")
    assert body == b"<p>sorry"
    _, body = split(answers.error(504, heads.about(), DATE))
    assert body.startswith(b"504 Gateway Timeout\n")


def test_a_date_of_the_config() -> None:
    """It is the only one."""
    plan = AnswerPlan(status=200, headers=(("date", "Sun, 06 Nov 1994 08:49:37 GMT"),))
    answers = OwnAnswers("web", HttpPlan(answer=plan))
    head, _ = split(answers.action(heads.about(), DATE, keep_alive=True))
    assert named(head, "date") == ["Sun, 06 Nov 1994 08:49:37 GMT"]


def test_maintenance() -> None:
    """503 with Retry-After and the page."""
    plan = AnswerPlan(status=503, headers=(("Retry-After", "30"),), body=b"back soon")
    answers = OwnAnswers("web", HttpPlan(maintenance=plan))
    assert answers.has_maintenance
    head, body = split(answers.maintenance(heads.about(), DATE, keep_alive=True))
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert (named(head, "retry-after"), body) == (["30"], b"back soon")


def test_what_a_route_does_not_have() -> None:
    """Asking for it is a mistake of the caller's."""
    answers = OwnAnswers("web", HttpPlan())
    assert not answers.has_maintenance
    with pytest.raises(RuntimeError, match="forwards"):
        answers.action(heads.about(), DATE, keep_alive=True)
    with pytest.raises(RuntimeError, match="maintenance"):
        answers.maintenance(heads.about(), DATE, keep_alive=True)


def test_rules_hold_for_own_answers() -> None:
    """Redirects, fixed answers and errors get the route's response headers too."""
    rules = FieldRules(
        remove=("X-Gone",), add=(("X-Path", "{path}"),),
        set=(("Strict-Transport-Security", "max-age=1"), ("cache-control", "private"),
             ("X-Route", "{route}")),
    )  # fmt: skip
    fixed = AnswerPlan(status=200, headers=(("x-gone", "1"), ("Cache-Control", "public")))
    answers = OwnAnswers("web", HttpPlan(answer=fixed, response=rules, maintenance=fixed))
    about = heads.about(heads.request("/p"))
    for answer in (
        answers.action(about, DATE, keep_alive=True),
        answers.maintenance(about, DATE, keep_alive=True),
        answers.error(404, about, DATE),
    ):
        head, _ = split(answer)
        assert named(head, "strict-transport-security") == ["max-age=1"]
        assert named(head, "cache-control") == ["private"]
        assert named(head, "x-gone") == []
        assert named(head, "x-path") == ["/p"]
        assert named(head, "x-route") == ["web"]
        assert named(head, "date") == [DATE.decode()]


def test_a_date_that_is_removed() -> None:
    """A rule takes away what we write as well."""
    rules = FieldRules(remove=("date",))
    head, _ = split(OwnAnswers("web", HttpPlan(response=rules)).error(404, None, DATE))
    assert named(head, "date") == []


def test_a_body_cannot_be_passed_off_as_fields() -> None:
    """Nothing that a client sends ends a line of an answer."""
    asked = heads.request("/x\r\nSet-Cookie: a=b", query="\r\n\r\n<html>")
    head, _ = split(redirect("{path_and_query}").action(heads.about(asked), DATE, keep_alive=True))
    assert named(head, "set-cookie") == []
    assert len(named(head, "location")) == 1


def test_continue() -> None:
    """The whole of it."""
    assert CONTINUE == b"HTTP/1.1 100 Continue\r\n\r\n"
