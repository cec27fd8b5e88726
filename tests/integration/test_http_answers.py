"""Answers of our own: errors that really arrive, fixed answers, redirects, and who may ask."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import bcrypt
import pytest

from shared.plan import (
    AccessPlan,
    AnswerPlan,
    AuthPlan,
    FieldMatch,
    FieldRules,
    HttpMatch,
    HttpPlan,
    SecurityPlan,
)
from tests.data_plane_sockets import reset
from tests.helpers.http_talk import HOST, OK, answer, get, post, route, serving
from tests.helpers.waiting import wait_until

MUCH = 200_000  # bytes that a client sends behind a request that is refused
KILO = "x" * 1000


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /%2f HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: y\nZ: 1\r\n\r\n", 400),
        (get("/", "Content-Length: 3", "Transfer-Encoding: chunked"), 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", 400),
        (b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: magic\r\n\r\n", 417),
        (get("/", *(f"X-{number}: y" for number in range(120))), 431),
        (get("/", "X: " + "y" * 40_000), 431),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 405),
        (get("/", "Transfer-Encoding: gzip, chunked"), 501),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    ],
)
def test_a_request_that_is_none(asked: bytes, status: int) -> None:
    """The answer arrives although the client goes on sending, and the connection ends."""
    with serving() as plane:
        client = plane.client(plane.http(plane.target()))
        client.send(asked + bytes(MUCH))
        found = client.message()
        assert (found.status, found.fields["connection"]) == (status, "close")
        assert found.fields["date"]
        assert found.body.startswith(b"%d " % status)
        assert client.is_ended()
        client.close()
        plane.wait_ends({"bad_request": 1})
        counts = next(iter(plane.snapshot().listeners.values()))
        assert counts.requests == {"4xx" if status < 500 else "5xx": 1}


def test_a_bad_request_behind_good_ones() -> None:
    """What came before it is answered first."""
    with serving() as plane:
        target = plane.target()
        client, server = plane.pair(plane.http(target), target)
        client.send(get() + b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" + get())
        server.message()
        server.send(OK)
        assert client.message().body == b"ok"
        assert client.message().status == 400
        assert client.is_ended()
        client.close()
        plane.wait_ends({"bad_request": 1})


def test_a_bad_chunk() -> None:
    """400 as long as nothing was answered; the target sees that the body is not whole."""
    with serving() as plane:
        target = plane.target()
        client = plane.client(plane.http(target))
        client.send(get("/", "Transfer-Encoding: chunked", method="POST") + b"3\r\nabc\r\n")
        server = plane.accepted(target)
        server.head()
        assert server.exactly(8) == b"3\r\nabc\r\n"
        client.send(b"zz\r\n" + bytes(MUCH))
        assert client.message().status == 400
        assert server.is_cut()
        assert client.is_ended()


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_body_over_its_limit(framing: str) -> None:
    """413: before the target is asked where the length is known, else when the limit is met."""
    with serving() as plane:
        target = plane.target()
        client = plane.client(plane.http(target, plan=HttpPlan(body_limit=1000)))
        if framing == "length":
            client.send(post(bytes(MUCH)))
        else:
            client.send(get("/", "Transfer-Encoding: chunked", method="POST"))
            client.send(b"%x\r\n" % MUCH + bytes(MUCH) + b"\r\n")
        found = client.message()
        assert (found.status, found.fields["connection"]) == (413, "close")
        assert client.is_ended()
        if framing == "length":
            assert target.has_none()
        else:
            assert plane.accepted(target).head().fields["transfer-encoding"] == "chunked"


def test_the_limits_of_a_route() -> None:
    """Where routes differ, each has its own."""
    with serving() as plane:
        target, listener = plane.target(), plane.listen()
        plane.commit(
            route("r", listener, target, domains=("a.example",), http=HttpPlan(head_limit=2000)),
            route("s", listener, target, domains=("b.example",), http=HttpPlan(), order=1),
        )
        client = plane.client(listener)
        client.send(get("/", *[f"X: {KILO}"] * 3, host="b.example"))
        server = plane.accepted(target)
        server.message()
        server.send(OK)
        assert client.message().body == b"ok"
        assert client.ask(get("/", *[f"X: {KILO}"] * 3)).status == 431
        assert client.is_ended()


def test_no_route_keeps_the_connection() -> None:
    """404, unless a body follows that nobody reads."""
    with serving() as plane:
        listener = plane.http(plane.target(), domains=("b.example",))
        client = plane.client(listener)
        for _ in range(3):
            found = client.ask(get())
            assert (found.status, found.fields.get("connection")) == (404, None)
            assert found.fields["cache-control"] == "no-store"
        client.send(get("/", f"Content-Length: {MUCH}", method="POST") + bytes(MUCH))
        found = client.message()
        assert (found.status, found.fields["connection"]) == (404, "close")
        assert client.is_ended()
        client.close()
        plane.wait_ends({"no_route": 1})


@pytest.mark.parametrize(
    ("security", "status", "end"),
    [
        (SecurityPlan(block=0), 403, "blocked"),
        (SecurityPlan(max_connections_per_ip=1), 503, "limit"),
    ],
)
def test_who_may_not_use_a_route(security: SecurityPlan, status: int, end: str) -> None:
    """Its rules are asked once the route is chosen, and answered in HTTP."""
    with serving() as plane:
        target, listener = plane.target(), plane.listen()
        plane.commit(
            route("r", listener, target, http=HttpPlan(), security=security), sets=[["127.0.0.1"]]
        )
        if status == 503:
            plane.pair(listener, target)
        client = plane.client(listener)
        found = client.ask(get())
        assert (found.status, found.fields["connection"]) == (status, "close")
        assert client.is_ended()
        client.close()
        wait_until(lambda: plane.ends().get(end) == 1, end)
        plane.wait_codes(
            {"4xx" if status == 403 else "5xx": 1} | ({} if status == 403 else {"2xx": 1})
        )


def test_a_route_that_answers_by_itself() -> None:
    """A fixed answer and a redirect, to HEAD their heads alone; the connection goes on."""
    with serving() as plane:
        listener = plane.listen()
        fixed = AnswerPlan(status=200, headers=(("X-Path", "{path}"),), body=b"fixed")
        moved = AnswerPlan(status=301, location="https://{host}{path_and_query}")
        plane.commit(
            route("r", listener, domains=("a.example",), http=HttpPlan(answer=fixed)),
            route("s", listener, domains=("b.example",), http=HttpPlan(answer=moved), order=1),
        )
        client = plane.client(listener)
        for _ in range(2):
            found = client.ask(get("/x?y"))
            assert (found.status, found.body, found.fields["x-path"]) == (200, b"fixed", "/x")
            found = client.ask(get("/x", method="HEAD"))
            assert (found.status, found.fields["content-length"]) == (200, "5")
            found = client.ask(get("/x?y", host="b.example"))
            assert (found.status, found.fields["location"]) == (301, "https://b.example/x?y")
        assert client.ask(get("/", "Connection: close")).fields["connection"] == "close"
        assert client.is_ended()
        plane.wait_codes({"2xx": 5})
        plane.wait_codes({"3xx": 2}, "s")


def test_pages_of_a_route() -> None:
    """Errors that we answer have the route's page; maintenance stands for targets that are gone."""
    with serving() as plane:
        listener = plane.listen()
        page = AnswerPlan(status=502, headers=(("Content-Type", "text/html"),), body=b"<p>sorry")
        closed = AnswerPlan(status=503, headers=(("Retry-After", "30"),), body=b"closed")
        plane.commit(
            route(
                "r", listener, plane.dead_target(), domains=("a.example",),
                http=HttpPlan(error_pages=((502, page),)),
            ),
            route(
                "s", listener, plane.dead_target(), domains=("b.example",), order=1,
                http=HttpPlan(maintenance=closed),
            ),
        )  # fmt: skip
        client = plane.client(listener)
        found = client.ask(get())
        assert (found.status, found.body, found.fields["content-type"]) == (
            502, b"<p>sorry", "text/html",
        )  # fmt: skip
        found = client.ask(get(host="b.example"))
        assert (found.status, found.body, found.fields["retry-after"]) == (503, b"closed", "30")


def test_rules_for_fields() -> None:
    """Request and answer get what the route says, and lose what it says."""
    with serving() as plane:
        target = plane.target()
        plan = HttpPlan(
            request=FieldRules(remove=("X-Secret",), set=(("X-Client", "{client_ip}"),)),
            response=FieldRules(remove=("Server",), add=(("X-Route", "{route}"),)),
            match=HttpMatch(headers=(FieldMatch(name="x-key", values=("1",)),)),
            strip_prefix="/api", add_prefix="/v2", host="inner.example",
        )  # fmt: skip
        client = plane.client(plane.http(target, plan=plan))
        client.send(get("/api/x", "X-Secret: s", "X-Client: forged", "X-Key: 1", "TE: gzip"))
        server = plane.accepted(target)
        found = server.message()
        assert found.target == "/v2/x"
        fields = found.fields
        assert (fields["host"], fields["x-client"]) == ("inner.example", "127.0.0.1")
        assert not {"x-secret", "te"} & set(fields)
        assert fields["x-forwarded-for"] == "127.0.0.1"
        assert (fields["x-forwarded-host"], fields["x-forwarded-proto"]) == (HOST, "http")
        server.send(answer(b"ok", "Server: old", "Keep-Alive: timeout=60"))
        got = client.message().fields
        assert got["x-route"] == "r"
        assert not {"server", "keep-alive"} & set(got)
        assert client.ask(get("/api/x")).status == 404


def test_a_password() -> None:
    """401 with a challenge, then the answer; a wrong one is asked for again."""
    with serving() as plane:
        target = plane.target()
        hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
        auth = AuthPlan(realm="home", users=(("ann", hashed),), allow_plain=True, digest="1")
        client = plane.client(plane.http(target, plan=HttpPlan(auth=auth)))
        found = client.ask(get())
        assert found.status == 401
        assert found.fields["www-authenticate"].startswith('Basic realm="home"')
        wrong, right = (
            "Authorization: Basic " + base64.b64encode(b"ann:" + word).decode()
            for word in (b"wrong", b"secret")
        )
        assert client.ask(get("/", wrong)).status == 401
        for _ in range(2):
            client.send(get("/", right))
            if not plane.upstreams():
                server = plane.accepted(target)
            server.message()
            server.send(OK)
            assert client.message().body == b"ok"
        plane.wait_codes({"4xx": 2, "2xx": 2})


@pytest.mark.parametrize("when", ["before its body", "while it is checked"])
def test_a_password_of_a_client_that_goes(when: str) -> None:
    """A refused upload is answered and not read; for one who has gone nobody is dialled."""
    with serving() as plane:
        target = plane.target()
        hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(8)).decode()
        auth = AuthPlan(realm="home", users=(("ann", hashed),), allow_plain=True, digest="3")
        client = plane.client(plane.http(target, plan=HttpPlan(auth=auth)))
        if when == "before its body":
            client.send(post(bytes(MUCH)))
            found = client.message()
            assert (found.status, found.fields["connection"]) == (401, "close")
            assert client.is_ended()
        else:
            word = base64.b64encode(b"ann:secret").decode()
            client.send(get("/", f"Authorization: Basic {word}"))
            reset(client.sock)
            wait_until(lambda: plane.plane.connections == 0 and plane.cells[2] == 1, "it is gone")
        client.close()
        assert target.has_none()


def test_a_password_only_over_tls() -> None:
    """421 for a client whose password anybody could read."""
    with serving() as plane:
        auth = AuthPlan(realm="home", users=(), digest="2")
        client = plane.client(plane.http(plane.target(), plan=HttpPlan(auth=auth)))
        assert client.ask(get()).status == 421


def test_a_line_per_request(tmp_path: Path) -> None:
    """The access log has each request, those that we answer too, and none for the connection."""
    path = tmp_path / "access.log"
    with serving() as plane:
        target, listener = plane.target(), plane.listen()
        plane.commit(
            route("r", listener, target, domains=("a.example",), http=HttpPlan()),
            access=AccessPlan(file=str(path)),
        )
        client, server = plane.pair(listener, target)
        client.send(post(b"body", "/x?secret"))
        server.message()
        server.send(answer(b"created", status="201 Created"))
        assert client.message().status == 201
        assert client.ask(get(host="c.example")).status == 404
        client.send(b"nonsense\r\n\r\n")
        assert client.message().status == 400
        assert client.is_ended()
        client.close()
        wait_until(lambda: path.exists() and len(path.read_text().splitlines()) == 4, "four lines")
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert [line["status"] for line in lines] == [200, 201, 404, 400]
        assert [line["end"] for line in lines] == [None, None, "no_route", "bad_request"]
        first, second, third, fourth = lines
        assert (fourth["method"], fourth["path"], fourth["host"]) == (None, None, None)
        assert (second["method"], second["path"], second["host"]) == ("POST", "/x?secret", HOST)
        assert (second["received"], second["sent"]) == (4, 7)
        assert (second["route"], second["target"]) == ("r", target.name)
        assert (third["route"], third["target"]) == (None, None)
        assert first["t_connect"] is not None
        assert second["t_connect"] is None
        assert second["t_first_byte"] >= 0
        assert len({line["request_id"] for line in lines}) == 4


@pytest.mark.parametrize(
    ("head", "status", "told"),
    [
        (b"GET /a%2fb?x=1 HTTP/1.1\r\nHost: a.test:80\r\n\r\n", 400,
         ("GET", "/a%2fb?x=1", "a.test:80", "HTTP/1.1")),
        (b"POST /x HTTP/1.0\r\nHost: a.test\r\nContent-Length: 1, 2\r\n\r\n", 400,
         ("POST", "/x", "a.test", "HTTP/1.0")),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: b\r\n\r\n", 405, ("CONNECT", "a:1", "b", "HTTP/1.1")),
        (b"GET /" + b"y" * 70_000, 414, ("GET", "/" + "y" * 1023, None, "HTTP/1.1")),
        (b"GET / HTTP/1.1\r\nHo st: a\r\n\r\n", 400, ("GET", "/", None, "HTTP/1.1")),
        (b"\x01\x02 / HTTP/1.1\r\nHost: a\r\n\r\n", 400, (None, None, None, None)),
    ],
)  # fmt: skip
def test_a_line_tells_what_was_refused(
    tmp_path: Path, head: bytes, status: int, told: tuple[str | None, ...]
) -> None:
    """As the client wrote it, as far as that can be read; with the id that the answer has."""
    path = tmp_path / "access.log"
    with serving() as plane:
        target, listener = plane.target(), plane.listen()
        plane.commit(
            route("r", listener, target, http=HttpPlan()), access=AccessPlan(file=str(path))
        )
        client = plane.client(listener)
        client.send(head)
        answer = client.message()
        client.close()
        wait_until(lambda: path.exists() and path.read_text().endswith("\n"), "a line")
        line = json.loads(path.read_text())
        assert (answer.status, line["status"]) == (status, status)
        assert tuple(line[name] for name in ("method", "path", "host", "protocol")) == told
        assert line["request_id"].encode() in answer.body
        assert target.has_none()
