"""Clients and targets that go, or say what cannot be understood, at each point of an exchange."""

from __future__ import annotations

import socket

import pytest
from msgspec.structs import replace

from shared.plan import HttpPlan, Timeouts
from tests.data_plane_sockets import reset
from tests.helpers.http_talk import OK, Talker, answer, get, post, route, serving
from tests.helpers.waiting import wait_until

HEAD = b"HTTP/1.1 200 OK\r\n"
HOW = pytest.mark.parametrize("how", ["fin", "rst"])


def end(talker: Talker, how: str) -> None:
    """Go, one way or the other."""
    if how == "rst":
        reset(talker.sock)
    else:
        talker.close()


def test_a_refused_dial() -> None:
    """502, by us, and the connection goes on."""
    with serving() as plane:
        dead = plane.dead_target()
        client = plane.client(plane.http(dead))
        for _ in range(2):
            found = client.ask(get())
            assert found.status == 502
            assert "connection" not in found.fields
        plane.wait_codes({"5xx": 2})
        assert plane.target_counts(dead).connect_failures == {"refused": 2}
        assert plane.target_counts(dead).requests == {}


def test_the_next_target_is_tried() -> None:
    """A request with a body, which nobody has seen yet, goes to the target that is there."""
    with serving() as plane:
        dead, target = plane.dead_target(), plane.target()
        client = plane.client(plane.http(dead, target))
        client.send(post(b"body"))
        server = plane.accepted(target)
        assert server.message().body == b"body"
        server.send(OK)
        assert client.message().body == b"ok"


def test_a_dial_that_is_late() -> None:
    """504."""
    with serving() as plane:
        client = plane.client(plane.http(plane.black_hole(), timeouts=Timeouts(connect=0.3)))
        assert client.ask(get()).status == 504
        assert client.ask(get()).status == 504


@HOW
@pytest.mark.parametrize(
    "said", [b"", b"H", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 103 Early\r\n\r\n"]
)
def test_a_target_that_goes_before_its_head_is_whole(how: str, said: bytes) -> None:
    """502 on a fresh connection; the client's goes on."""
    with serving() as plane:
        target = plane.target()
        client = plane.client(plane.http(target))
        for _ in range(2):
            client.send(get())
            server = plane.accepted(target)
            server.message()
            if said:
                server.send(said)
                if said.endswith(b"\r\n\r\n"):
                    assert client.head().status == 103
                else:
                    wait_until(
                        lambda: (
                            plane.target_counts(target).received % len(said) == 0
                            and plane.target_counts(target).received > 0
                        ),
                        "it was read",
                    )
            end(server, how)
            found = client.message()
            assert found.status == 502
            assert "connection" not in found.fields
        plane.wait_codes({"5xx": 2})


@HOW
@pytest.mark.parametrize("framing", ["Content-Length: 10", "Transfer-Encoding: chunked"])
def test_a_target_that_goes_within_its_body(how: str, framing: str) -> None:
    """The client's connection is cut, so that it can tell."""
    with serving() as plane:
        target = plane.target()
        client = plane.client(plane.http(target))
        client.send(get())
        server = plane.accepted(target)
        server.message()
        body = b"5\r\nabcde\r\n" if "chunked" in framing else b"abcde"
        server.send(HEAD + framing.encode() + b"\r\n\r\n" + body)
        client.head()
        assert client.exactly(len(body)) == body
        end(server, how)
        assert client.is_cut()
        plane.wait_ends({"target_closed" if how == "fin" else "target_reset": 1})
        plane.wait_codes({"2xx": 1})


def test_an_rst_within_a_body_that_ends_with_the_connection() -> None:
    """To a client of 1.0 a FIN would look like the end of the answer: it gets an RST."""
    with serving() as plane:
        target = plane.target()
        client = plane.client(plane.http(target))
        client.send(b"GET / HTTP/1.0\r\nHost: a.example\r\n\r\n")
        server = plane.accepted(target)
        server.message()
        server.send(HEAD + b"\r\nabcde")
        client.head()
        assert client.exactly(5) == b"abcde"
        end(server, "rst")
        with pytest.raises(ConnectionResetError):
            client.rest()
        plane.wait_ends({"target_reset": 1})


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\0\0\0\0\0",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX y: z\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: y\nZ: 1\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 140_000,
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 40,
    ],
)
def test_an_answer_that_is_none(said: bytes) -> None:
    """502; the target's connection is given up and the client's goes on."""
    with serving() as plane:
        target = plane.target()
        client = plane.client(plane.http(target))
        client.send(get())
        server = plane.accepted(target)
        server.message()
        server.send(said)
        found = client.message()
        while found.status == 103:
            found = client.message()
        assert found.status == 502
        assert server.is_cut()
        client.send(get())
        server = plane.accepted(target)
        server.message()
        server.send(OK)
        assert client.message().body == b"ok"
        plane.wait_codes({"5xx": 1, "2xx": 1})


def test_bad_chunks_of_a_target() -> None:
    """Bytes have gone out: the connection is cut, before anything that could end the body."""
    with serving() as plane:
        target = plane.target()
        client = plane.client(plane.http(target))
        client.send(get())
        server = plane.accepted(target)
        server.message()
        server.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        client.head()
        assert client.exactly(8) == b"3\r\nabc\r\n"
        server.send(b"zz\r\n")
        assert client.is_cut()
        assert server.is_cut()
        plane.wait_ends({"bad_answer": 1})


def test_more_than_the_answer() -> None:
    """Bytes behind an answer are nobody's: the connection is not kept."""
    with serving() as plane:
        target = plane.target()
        client = plane.client(plane.http(target))
        in_chunks = HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        for said in (OK + HEAD, answer() + b"x", in_chunks + b"x"):
            client.send(get())
            server = plane.accepted(target)
            server.message()
            server.send(said)
            assert client.message().status == 200
            assert server.is_cut()


@HOW
def test_an_answer_that_nobody_asked_for(how: str) -> None:
    """What a kept connection says while it waits closes it; so does its end."""
    with serving() as plane:
        target = plane.target()
        client, server = plane.pair(plane.http(target), target)
        if how == "fin":
            server.send(OK)
        else:
            end(server, "rst")
        wait_until(lambda: plane.target_counts(target).active == 0, "it is closed")
        client.send(get())
        server = plane.accepted(target)
        server.message()
        server.send(answer(b"new"))
        assert client.message().body == b"new"


# -- the client goes ---------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before the head", "within the body", "within its own body"])
def test_a_client_that_resets(when: str) -> None:
    """The target's connection is closed, and the request is counted as nobody's answer."""
    with serving() as plane:
        target = plane.target()
        client = plane.client(plane.http(target))
        is_upload = when == "within its own body"
        client.send(get("/", "Content-Length: 10", method="POST") + b"abc" if is_upload else get())
        server = plane.accepted(target)
        server.head()
        if is_upload:
            assert server.exactly(3) == b"abc"
        if when == "within the body":
            server.send(HEAD + b"Content-Length: 10\r\n\r\nabc")
            client.head()
            assert client.exactly(3) == b"abc"
        end(client, "rst")
        assert server.is_cut()
        plane.wait_ends({"client_reset": 1})
        plane.wait_codes({"2xx": 1} if when == "within the body" else {"4xx": 1})
        assert plane.target_counts(target).active == 0


def test_a_client_that_ends_within_its_body() -> None:
    """The target never gets what would look like a whole request."""
    with serving() as plane:
        target = plane.target()
        client = plane.client(plane.http(target))
        client.send(get("/", "Content-Length: 10", method="POST") + b"abc")
        server = plane.accepted(target)
        server.head()
        assert server.exactly(3) == b"abc"
        client.sock.shutdown(socket.SHUT_WR)
        assert server.is_cut()
        plane.wait_codes({"4xx": 1})


def test_a_client_that_goes_while_the_target_sends() -> None:
    """Sending to it fails sooner or later: the target is let go, in the middle of its answer."""
    with serving() as plane:
        target = plane.target()
        client = plane.client(plane.http(target))
        client.send(get())
        server = plane.accepted(target)
        server.message()
        server.send(HEAD + b"Content-Length: 100000000\r\n\r\n")
        client.head()
        client.close()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            server.send(bytes(99_999_999))
        wait_until(lambda: plane.target_counts(target).active == 0, "it is let go")
        plane.wait_ends({"client_reset": 1})


# -- too late ----------------------------------------------------------------------------------


def test_an_answer_that_is_late() -> None:
    """504 from the end of the request on."""
    with serving() as plane:
        target = plane.target()
        client = plane.client(plane.http(target, timeouts=Timeouts(response=0.3)))
        client.send(post(b"body"))
        server = plane.accepted(target)
        server.message()
        found = client.message()
        assert (found.status, found.fields["connection"]) == (504, "close")
        assert server.is_cut()
        assert client.is_ended()
        plane.wait_ends({"response_timeout": 1})


@pytest.mark.parametrize("when", ["upload", "answer", "body"])
def test_nothing_moves(when: str) -> None:
    """idle: 408 for an upload that stands still, 504 for a target; a cut once bytes went out."""
    with serving() as plane:
        target = plane.target()
        client = plane.client(plane.http(target, timeouts=Timeouts(idle=0.4)))
        client.send(get("/", "Content-Length: 10", method="POST") if when == "upload" else get())
        server = plane.accepted(target)
        server.head()
        if when == "body":
            server.send(HEAD + b"Content-Length: 10\r\n\r\nabc")
            client.head()
            assert client.exactly(3) == b"abc"
            assert client.is_cut()
        else:
            assert client.message().status == (408 if when == "upload" else 504)
            assert client.is_ended()
        assert server.is_cut()
        client.close()
        plane.wait_ends({"idle_timeout": 1})


def test_a_life_that_is_over() -> None:
    """lifetime cuts a connection, whatever it is doing."""
    with serving() as plane:
        target = plane.target()
        client = plane.client(plane.http(target, timeouts=Timeouts(lifetime=0.5)))
        client.send(get())
        server = plane.accepted(target)
        server.message()
        server.send(HEAD + b"Content-Length: 10\r\n\r\nabc")
        client.head()
        assert client.exactly(3) == b"abc"
        assert client.is_cut()
        plane.wait_ends({"lifetime": 1})


@pytest.mark.parametrize("said", ["", "G", "GET / HTTP/1.1\r\nHost: a.exam"])
def test_a_head_that_is_late(said: str) -> None:
    """408 for one that has begun; who says nothing at all is closed, as on any port that waits."""
    with serving() as plane:
        listener = plane.http(plane.target(), timeouts=Timeouts(request_head=0.4, initial_data=0.4))
        client = plane.client(listener)
        if said:
            client.send(said.encode())
            found = client.message()
            assert (found.status, found.fields["connection"]) == (408, "close")
        assert client.is_ended()
        client.close()
        plane.wait_ends({"head_timeout" if said else "no_route": 1})


def test_a_second_head_that_is_late() -> None:
    """From its first byte on, however slowly the rest comes."""
    with serving() as plane:
        target = plane.target()
        client, _ = plane.pair(plane.http(target, timeouts=Timeouts(request_head=0.4)), target)
        client.send(b"GET / HT")
        assert client.message().status == 408
        assert client.is_ended()


def test_the_latest_route_says_how_long_the_next_request_may_take() -> None:
    """Not that of the connection's first request; after a reload, by the new settings."""
    with serving() as plane:
        target, listener = plane.target(), plane.listen()
        first = route("r", listener, target, domains=("a.example",), http=HttpPlan())
        brief = Timeouts(http_keep_alive=0.4)
        other = route("s", listener, target, order=1, http=HttpPlan(), timeouts=brief)
        plane.commit(first, other)
        client, server = plane.pair(listener, target)
        for renewed, host in [(first, "b.example"), (replace(first, timeouts=brief), "a.example")]:
            plane.commit(renewed, other)
            client.send(get(host=host))
            server.message()
            server.send(OK)
            assert client.message().body == b"ok"
            assert client.is_ended()
            client = plane.client(listener)
            client.send(get())
            server.message()
            server.send(OK)
            assert client.message().body == b"ok"


def test_a_next_request_that_never_comes() -> None:
    """http_keep_alive: closed without a word."""
    with serving() as plane:
        target = plane.target()
        listener = plane.http(
            target, timeouts=Timeouts(http_keep_alive=0.4), plan=HttpPlan(upstream_idle=30.0)
        )
        client, _ = plane.pair(listener, target)
        assert client.is_ended()
        plane.wait_ends({"idle_timeout": 1})
