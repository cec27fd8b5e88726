"""Clients that end early, do not read, or must be told that an answer is not whole."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from shared.plan import AnswerPlan, HttpPlan, Timeouts
from tests.data_plane_sockets import read_to_reset
from tests.helpers.http_talk import Served, Talker, get, serving
from tests.helpers.waiting import wait_until

ANSWER = AnswerPlan(status=200, body=bytes(1 << 20))
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\nabc"
WITH_LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc"
OLD = b"GET / HTTP/1.0\r\nHost: a.example\r\n\r\n"


@pytest.fixture
def plane() -> Iterator[Served]:
    """A data plane."""
    with serving() as plane:
        yield plane


def refused(plane: Served) -> dict[str, int]:
    """Answers to what has found no route, by class."""
    (counts,) = plane.snapshot().listeners.values()
    return counts.requests


def read_all(client: Talker) -> bytes:
    """Whatever came, up to an end of any kind."""
    parts = []
    with suppress(ConnectionError):
        while part := client.sock.recv(1 << 18):
            parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("behind", [b"", b"GET /next HTTP/1.1\r\nHo"])
def test_a_client_that_pipelines_and_does_not_read(plane: Served, behind: bytes) -> None:
    """Its answers wait for it as long as a kept connection does; no head of it is late."""
    timeouts = Timeouts(request_head=0.2, http_keep_alive=0.6)
    listener = plane.http(plan=HttpPlan(answer=ANSWER), timeouts=timeouts)
    client = plane.client(listener, buffer=4096)
    client.send(get() * 20 + behind)
    plane.wait_ends({"idle_timeout": 1})
    codes = plane.codes()
    assert codes.keys() == {"2xx"}
    assert codes["2xx"] < 20
    assert refused(plane) == {}
    found = read_all(client)
    assert found.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"HTTP/1.1 4" not in found
    assert found.count(b"HTTP/1.1 200 OK\r\n") <= codes["2xx"]


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("head", [b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\n", b"G"])
def test_a_fin_within_a_head(plane: Served, head: bytes, is_first: bool) -> None:
    """One answer, 400, and the end of the connection: nothing more is waited for."""
    listener = plane.http(plan=HttpPlan(answer=AnswerPlan(status=200, body=b"ok")))
    client = plane.client(listener)
    if not is_first:
        assert client.ask(get()).body == b"ok"
    client.send(head)
    client.sock.shutdown(socket.SHUT_WR)
    found = client.message()
    assert (found.status, found.fields["connection"]) == (400, "close")
    assert client.is_ended()
    wait_until(lambda: plane.plane.connections == 0, "it has ended")
    assert refused(plane) == {"4xx": 1}


def _idle(_: Served, __: Talker) -> None:
    """The target says no more."""


def _end(_: Served, server: Talker) -> None:
    server.close()


def _drain(plane: Served, _: Talker) -> None:
    plane.call(lambda: plane.plane.drain(0.2, False, lambda *_: None))


def _bad(_: Served, server: Talker) -> None:
    server.send(b"zz\r\n")


@pytest.mark.parametrize(
    ("said", "then", "end"),
    [
        (CHUNKED, _idle, "idle_timeout"),
        (UNTIL_CLOSE, _idle, "idle_timeout"),
        (CHUNKED, _drain, "drain_deadline"),
        (UNTIL_CLOSE, _drain, "drain_deadline"),
        (CHUNKED, _end, "target_closed"),
        (CHUNKED, _bad, "bad_answer"),
    ],
)
def test_an_answer_that_is_cut_for_http_10(
    plane: Served, said: bytes, then: Callable[[Served, Talker], None], end: str
) -> None:
    """Only the end of the connection ends it, and a FIN would say that it is whole: an RST."""
    target = plane.target()
    timeouts = Timeouts(idle=0.5 if then is _idle else 60.0)
    client = plane.client(plane.http(target, timeouts=timeouts))
    client.send(OLD)
    server = plane.accepted(target)
    server.message()
    server.send(said)
    head = client.head()
    assert head.status == 200
    assert "transfer-encoding" not in head.fields
    assert client.exactly(3) == b"abc"
    then(plane, server)
    assert read_to_reset(client.sock) == b""
    plane.wait_ends({end: 1})


@pytest.mark.parametrize("said", [UNTIL_CLOSE, CHUNKED + b"0\r\n\r\n"])
def test_an_answer_that_is_whole_for_http_10(plane: Served, said: bytes) -> None:
    """It ends by a FIN."""
    target = plane.target()
    client = plane.client(plane.http(target))
    client.send(OLD)
    server = plane.accepted(target)
    server.message()
    server.send(said)
    server.close()
    assert client.message().body == b"abc"
    plane.wait_ends({"client_closed": 1})


def test_an_answer_with_a_length_that_is_cut(plane: Served) -> None:
    """Its length says that it is not whole: however the connection ends, nothing is added."""
    target = plane.target()
    client = plane.client(plane.http(target, timeouts=Timeouts(idle=0.5)))
    client.send(OLD)
    server = plane.accepted(target)
    server.message()
    server.send(WITH_LENGTH)
    assert client.head().fields["content-length"] == "6"
    assert client.exactly(3) == b"abc"
    assert client.is_cut()
    plane.wait_ends({"idle_timeout": 1})
