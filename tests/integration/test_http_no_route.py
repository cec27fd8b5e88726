"""Answers to requests for which no route was found: the pages of the config are for them too."""

from __future__ import annotations

import pytest

from shared.plan import AnswerPlan, HttpPlan, Timeouts
from tests.helpers.http_talk import OK, get, route, serving

PAGE = AnswerPlan(status=404, headers=(("Content-Type", "text/html"),), body=b"<p>nothing here")
OWN = AnswerPlan(status=404, headers=(("Content-Type", "text/html"),), body=b"<p>of the route")


def test_a_page_where_no_route_is() -> None:
    """Its status has the global page; others the line of text; a reload changes the page."""
    with serving() as plane:
        target, listener = plane.target(), plane.listen()
        only = route(
            "r", listener, target, domains=("a.example",), http=HttpPlan(error_pages=((404, OWN),))
        )
        plane.commit(only, error_pages=((404, PAGE),))
        client = plane.client(listener)
        found = client.ask(get(host="b.example"))
        assert (found.status, found.body) == (404, b"<p>nothing here")
        assert found.fields["content-type"] == "text/html"
        plane.commit(only)
        found = client.ask(get(host="b.example"))
        assert (found.status, found.body[:4]) == (404, b"404 ")
        client.send(get())
        server = plane.accepted(target)
        server.message()
        server.send(OK)
        assert client.message().body == b"ok"


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a", 408),
        (b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (get("/", "X: " + "y" * 40_000), 431),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    ],
)
def test_a_page_for_what_is_no_request(asked: bytes, status: int) -> None:
    """It has no route either."""
    with serving() as plane:
        listener = plane.listen()
        timeouts = Timeouts(request_head=0.3)
        plane.commit(
            route("r", listener, plane.target(), http=HttpPlan(), timeouts=timeouts),
            error_pages=((status, PAGE),),
        )
        client = plane.client(listener)
        found = client.ask(asked)
        assert (found.status, found.body) == (status, b"<p>nothing here")
        assert client.is_ended()
