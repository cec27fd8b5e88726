"""Requests and answers between a client and targets: one after the other, ahead, and informed."""

from __future__ import annotations

import socket

import pytest

from shared.plan import AnswerPlan, HttpMatch, HttpPlan
from tests.data_plane_sockets import in_thread
from tests.helpers.chain import send_slowly
from tests.helpers.http_talk import HOST, OK, Talker, answer, chunked, get, post, route, serving

AHEAD = 50


def test_many_requests_on_one_connection() -> None:
    """A client and a target keep theirs, and all is counted under the route and the target."""
    with serving() as plane:
        target = plane.target()
        listener = plane.http(target)
        client, server = plane.pair(listener, target)
        size = len(get())
        for number in range(20):
            asked = get(f"/{number}?q={number}", "Accept: */*")
            size += len(asked)
            client.send(asked)
            request = server.message()
            assert request.first == f"GET /{number}?q={number} HTTP/1.1"
            assert request.fields["host"] == HOST
            assert request.fields["accept"] == "*/*"
            assert "connection" not in request.fields
            server.send(answer(b"%d" % number))
            found = client.message()
            assert (found.status, found.body) == (200, b"%d" % number)
            assert "connection" not in found.fields
            assert found.fields["date"]
        assert target.has_none()
        plane.wait_codes({"2xx": 21})
        counts = plane.target_counts(target)
        assert (counts.total, counts.active, counts.requests) == (1, 1, {"2xx": 21})
        route_counts = plane.counts()
        assert (route_counts.total, route_counts.active) == (1, 1)
        assert route_counts.received == size
        assert route_counts.sent > counts.received  # a date is written besides


def test_each_request_finds_its_route() -> None:
    """One connection goes to several routes, by Host and by path."""
    with serving() as plane:
        one, two, three = plane.target(), plane.target(), plane.target()
        listener = plane.listen()
        plane.commit(
            route("one", listener, one, domains=("a.example",), http=HttpPlan()),
            route("two", listener, two, domains=("b.example",), http=HttpPlan(), order=1),
            route(
                "three", listener, three, domains=("a.example",), order=2,
                http=HttpPlan(match=HttpMatch(paths=("/api/*",))),
            ),
        )  # fmt: skip
        client = plane.client(listener)
        servers: dict[str, Talker] = {}
        for host, path, name, target in [
            ("a.example", "/", "one", one),
            ("b.example", "/", "two", two),
            ("a.example", "/api/x", "three", three),
            ("b.example", "/api/x", "two", two),
            ("a.example", "/a%70i/../apis", "one", one),
            ("a.example", "/x/../a%70i/y", "three", three),
        ]:
            client.send(get(path, host=host))
            server = servers.get(name)
            if server is None:
                server = servers[name] = plane.accepted(target)
            assert server.message().fields["host"] == host
            server.send(OK)
            assert client.message().body == b"ok"
        found = client.ask(get(host="c.example"))
        assert found.status == 404
        assert "connection" not in found.fields
        assert client.ask(get(host="c.example")).status == 404
        assert {name: plane.codes(name)["2xx"] for name in servers} == {
            "one": 2, "two": 2, "three": 2,
        }  # fmt: skip
        counts = next(iter(plane.snapshot().listeners.values()))
        assert counts.requests == {"4xx": 2}


@pytest.mark.parametrize("way", ["one segment", "byte by byte"])
def test_pipelined_requests_are_answered_in_order(way: str) -> None:
    """Fifty requests ahead, with bodies among them: each answer stands at its request's place."""
    with serving() as plane:
        target = plane.target()
        client, server = plane.pair(plane.http(target), target)
        asked = []
        for number in range(AHEAD):
            body = b"body %d" % number
            coded = get(f"/{number}", "Transfer-Encoding: chunked", method="POST")
            kinds = (get(f"/{number}"), post(body, f"/{number}"), coded + chunked(body, 3))
            asked.append(kinds[number % 3])
        if way == "one segment":
            client.send(*asked)
        else:
            send_slowly(client.sock, b"".join(asked))
        for number in range(AHEAD):
            request = server.message()
            assert request.target == f"/{number}"
            assert request.body == (b"body %d" % number if number % 3 else b"")
            server.send(answer(b"answer %d" % number))
        for number in range(AHEAD):
            assert client.message().body == b"answer %d" % number
        plane.wait_codes({"2xx": AHEAD + 1})


def test_pipelined_requests_for_a_route_that_answers_by_itself() -> None:
    """Far more than a turn has steps, so much that the socket is read many times."""
    with serving() as plane:
        listener = plane.http(plan=HttpPlan(answer=AnswerPlan(status=200, body=b"x")))
        client = plane.client(listener)
        count = 3000
        client.send(get("/", "X-Fill: " + "y" * 100) * 20)
        for _ in range(20):
            assert client.message().body == b"x"
        with in_thread(lambda: client.send(get("/", "X-Fill: " + "y" * 100) * count)):
            for _ in range(count):
                assert client.message().body == b"x"
        plane.wait_codes({"2xx": count + 20})


def test_http_10_ends_unless_it_asks_to_stay() -> None:
    """RFC 9112 section 9.3: 1.0 closes, unless Connection: keep-alive is said."""
    with serving() as plane:
        target = plane.target()
        listener = plane.http(target)
        client = plane.client(listener)
        client.send(b"GET / HTTP/1.0\r\nHost: a.example\r\nConnection: keep-alive\r\n\r\n")
        server = plane.accepted(target)
        request = server.message()
        assert request.first == "GET / HTTP/1.1"
        assert "connection" not in request.fields
        server.send(OK)
        found = client.message()
        assert found.fields["connection"] == "keep-alive"
        client.send(b"GET / HTTP/1.0\r\nHost: a.example\r\n\r\n")
        server.message()
        server.send(OK)
        assert client.message().fields["connection"] == "close"
        assert client.is_ended()
        plane.wait_ends({"client_closed": 1})


def test_an_answer_in_chunks_for_http_10() -> None:
    """It cannot read chunks: it gets the payload, and the end of the connection as its end."""
    with serving() as plane:
        target = plane.target()
        client = plane.client(plane.http(target))
        client.send(b"GET / HTTP/1.0\r\nHost: a.example\r\nConnection: keep-alive\r\n\r\n")
        server = plane.accepted(target)
        server.message()
        server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n")
        server.send(b"0\r\n\r\n")
        found = client.message()
        assert found.body == b"abcde"
        assert "transfer-encoding" not in found.fields
        assert found.fields["connection"] == "close"


def test_close_is_honoured_on_either_side() -> None:
    """Connection: close of the client ends hers, that of the target only its own."""
    with serving() as plane:
        target = plane.target()
        listener = plane.http(target)
        client, server = plane.pair(listener, target)
        client.send(get())
        server.message()
        server.send(answer(b"1", "Connection: close"))
        found = client.message()
        assert "connection" not in found.fields
        assert server.is_ended()
        client.send(get("/", "Connection: close"))
        server = plane.accepted(target)
        assert "connection" not in server.message().fields
        server.send(OK)
        assert client.message().fields["connection"] == "close"
        assert client.is_ended()
        plane.wait_ends({"client_closed": 1})
        assert plane.target_counts(target).active == 1


def test_a_request_behind_the_last_one() -> None:
    """It is not answered, and does not destroy the answer of the one before it."""
    with serving() as plane:
        target = plane.target()
        client = plane.client(plane.http(target))
        client.send(get("/", "Connection: close"), get("/never") * 1000)
        server = plane.accepted(target)
        assert server.message().target == "/"
        server.send(OK)
        assert client.message().fields["connection"] == "close"
        assert client.is_ended()
        client.close()
        plane.wait_codes({"2xx": 1})
        assert target.has_none()


@pytest.mark.parametrize(
    ("method", "status", "lines"),
    [
        ("HEAD", "200 OK", "Content-Length: 5\r\n"),
        ("HEAD", "200 OK", "Transfer-Encoding: chunked\r\n"),
        ("HEAD", "200 OK", ""),
        ("GET", "204 No Content", ""),
        ("GET", "304 Not Modified", "Content-Length: 5\r\nETag: x\r\n"),
    ],
)
def test_answers_without_a_body(method: str, status: str, lines: str) -> None:
    """Nothing is waited for behind their heads, and both connections go on."""
    with serving() as plane:
        target = plane.target()
        client, server = plane.pair(plane.http(target), target)
        for _ in range(3):
            client.send(get(method=method))
            assert server.message().first == f"{method} / HTTP/1.1"
            server.send(f"HTTP/1.1 {status}\r\n{lines}\r\n".encode())
            found = client.message(method)
            assert found.first == f"HTTP/1.1 {status}"
            if "Content-Length: 5" in lines:
                assert found.fields["content-length"] == "5"
        client.send(get())
        server.message()
        server.send(OK)
        assert client.message().body == b"ok"


def test_informational_answers_pass() -> None:
    """100 and 103 reach a client of 1.1 as they come, and Expect reaches the target."""
    with serving() as plane:
        target = plane.target()
        client, server = plane.pair(plane.http(target), target)
        client.send(get("/", "Expect: 100-continue", "Content-Length: 4", method="POST"))
        assert server.head().fields["expect"] == "100-continue"
        server.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
        found = client.head()
        assert (found.status, found.fields) == (103, {"link": "</a.css>"})
        server.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert client.head().status == 100
        client.send(b"body")
        assert server.exactly(4) == b"body"
        server.send(b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK)
        assert client.head().status == 103
        assert client.message().body == b"ok"
        assert _goes_on(client, server)


def _goes_on(client: Talker, server: Talker) -> bool:
    client.send(get())
    server.message()
    server.send(OK)
    return client.message().body == b"ok"


def test_an_expectation_that_is_refused() -> None:
    """A final answer instead of 100: it arrives whole, and the connection ends behind it."""
    with serving() as plane:
        target = plane.target()
        client = plane.client(plane.http(target))
        client.send(get("/", "Expect: 100-continue", "Content-Length: 4", method="POST"))
        server = plane.accepted(target)
        server.head()
        server.send(answer(b"no", status="417 Expectation Failed"))
        found = client.message()
        assert (found.status, found.body) == (417, b"no")
        assert found.fields["connection"] == "close"
        assert client.is_ended()
        assert server.is_cut()


def test_http_10_gets_no_informational_answer() -> None:
    """RFC 9110 section 15.2."""
    with serving() as plane:
        target = plane.target()
        client = plane.client(plane.http(target))
        client.send(b"GET / HTTP/1.0\r\nHost: a.example\r\n\r\n")
        server = plane.accepted(target)
        server.message()
        server.send(b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK)
        assert client.message().body == b"ok"


def test_a_head_byte_by_byte_either_way() -> None:
    """Wherever a head is split, it is read as one."""
    with serving() as plane:
        target = plane.target()
        client = plane.client(plane.http(target))
        send_slowly(client.sock, post(b"body", "/x"))
        server = plane.accepted(target)
        request = server.message()
        assert (request.target, request.body) == ("/x", b"body")
        send_slowly(server.sock, OK)
        assert client.message().body == b"ok"


def test_a_client_that_ends_behind_its_request() -> None:
    """Its FIN says that it sends no more, not that it reads no more."""
    with serving() as plane:
        target = plane.target()
        client = plane.client(plane.http(target))
        client.send(get())
        client.sock.shutdown(socket.SHUT_WR)
        server = plane.accepted(target)
        server.message()
        server.send(OK)
        assert client.message().body == b"ok"
        assert client.is_ended()
        plane.wait_ends({"client_closed": 1})
