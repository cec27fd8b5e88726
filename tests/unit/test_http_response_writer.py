"""The heads of targets' answers, as they go out to clients."""

from __future__ import annotations

import pytest

from shared.http.head import CHUNKED, UNTIL_CLOSE
from shared.http.writer import ResponseWriter
from shared.plan import FieldRules, HttpPlan
from tests.helpers import http_heads as heads
from tests.helpers.http_heads import named


def test_the_usual_answer() -> None:
    """Status line, what crosses, how long the body is."""
    answer = heads.response(200, ("Server", "x"), ("Content-Length", "5"), ("Connection", "close"))
    writer = ResponseWriter("web", HttpPlan())
    head = writer.head(answer, heads.about(), is_11=True, keep_alive=True, length=5)
    assert head == b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 5\r\n\r\n"


@pytest.mark.parametrize("reason", [b"", b"All good", b"\xfc"])
def test_reasons_are_kept(reason: bytes) -> None:
    """Whatever the target calls it."""
    answer = heads.response(299, reason=reason)
    head = ResponseWriter("web", HttpPlan()).head(
        answer, heads.about(), is_11=True, keep_alive=True, length=0
    )
    assert head.startswith(b"HTTP/1.1 299 " + reason + b"\r\n")


@pytest.mark.parametrize("is_11", [True, False])
@pytest.mark.parametrize("keep_alive", [True, False])
@pytest.mark.parametrize("length", [0, 7, CHUNKED, UNTIL_CLOSE])
def test_framing_of_answers(is_11: bool, keep_alive: bool, length: int) -> None:
    """Chunks for 1.1 alone; a body that ends with the connection says that it closes."""
    head = ResponseWriter("web", HttpPlan()).head(
        heads.response(), heads.about(), is_11=is_11, keep_alive=keep_alive, length=length
    )
    assert named(head, "content-length") == ([str(length)] if length >= 0 else [])
    assert named(head, "transfer-encoding") == (["chunked"] if length < 0 and is_11 else [])
    keeps = keep_alive and (is_11 or length >= 0)
    said = ["close"] if not keeps else [] if is_11 else ["keep-alive"]
    assert named(head, "connection") == said


@pytest.mark.parametrize(
    ("method", "status", "lengths"),
    [("HEAD", 200, ["5"]), ("GET", 304, ["5"]), ("GET", 204, []), ("HEAD", 204, [])],
)
@pytest.mark.parametrize("is_11", [True, False])
def test_answers_without_a_body(method: str, status: int, lengths: list[str], is_11: bool) -> None:
    """They tell the length that a body would have, and keep the connection; 204 tells none."""
    asked = heads.request(method=method)
    writer = ResponseWriter("web", HttpPlan())
    for fields in ([("Content-Length", "5")], []):
        head = writer.head(
            heads.response(status, *fields), heads.about(asked), is_11=is_11, keep_alive=True,
            length=0,
        )  # fmt: skip
        assert named(head, "content-length") == (lengths if fields else [])
        assert named(head, "transfer-encoding") == []
        assert named(head, "connection") == ([] if is_11 else ["keep-alive"])


def test_rules_for_answers() -> None:
    """Remembered where they are the same for all; rendered where not."""
    rules = FieldRules(
        remove=("server",), set=(("Strict-Transport-Security", "max-age=1"), ("X-P", "{path}")),
        add=(("Vary", "x"),),
    )  # fmt: skip
    writer = ResponseWriter("web", HttpPlan(response=rules))
    answer = heads.response(200, ("Server", "s"), ("Vary", "y"), ("x-p", "old"))
    for path in ("/1", "/2"):
        head = writer.head(
            answer, heads.about(heads.request(path)), is_11=True, keep_alive=True, length=0
        )
        assert named(head, "server") == []
        assert named(head, "vary") == ["y", "x"]
        assert named(head, "x-p") == [path]
        assert named(head, "strict-transport-security") == ["max-age=1"]


def test_date() -> None:
    """Written where the target sent none, unless a rule takes it away."""
    date = b"Sun, 06 Nov 1994 08:49:37 GMT"
    about = heads.about()
    plain = ResponseWriter("web", HttpPlan())
    without = ResponseWriter("web", HttpPlan(response=FieldRules(remove=("Date",))))
    for writer, answer, dates in (
        (plain, heads.response(), [date.decode()]),
        (plain, heads.response(200, ("Date", "theirs")), ["theirs"]),
        (without, heads.response(), []),
        (without, heads.response(200, ("Date", "theirs")), []),
    ):
        head = writer.head(answer, about, is_11=True, keep_alive=True, length=0, date=date)
        assert named(head, "date") == dates


def test_informational_answers() -> None:
    """As they are: no framing and no rules."""
    rules = FieldRules(set=(("X-A", "b"),))
    writer = ResponseWriter("web", HttpPlan(response=rules))
    hints = heads.response(103, ("Link", "</a.css>"), reason=b"Early Hints")
    head = writer.informational(hints, heads.about())
    assert head == b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"


def test_switching_protocols() -> None:
    """101 is the last answer of its connection: the rules hold, and the protocol is named."""
    rules = FieldRules(set=(("X-A", "b"),), remove=("Server",))
    writer = ResponseWriter("web", HttpPlan(response=rules))
    switch = heads.response(
        101, ("Server", "x"), ("Upgrade", "WebSocket"), ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", "y"), reason=b"Switching Protocols",
    )  # fmt: skip
    assert heads.lines_of(writer.informational(switch, heads.about())) == [
        "HTTP/1.1 101 Switching Protocols", "Sec-WebSocket-Accept: y", "X-A: b",
        "Connection: upgrade", "Upgrade: WebSocket",
    ]  # fmt: skip
