"""Peers that are slow, or gone without a word: who works goes on, who does not is cut."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.plan import AccessPlan, AnswerPlan, HttpPlan, Timeouts
from tests.data_plane_sockets import read_to_reset
from tests.helpers.http_talk import OK, Served, Talker, answer, get, post, route, serving
from tests.helpers.waiting import wait_until

LARGE = bytes(8 << 20)  # more than sockets and outboxes take
PIECE = 128 << 10
PAUSE_S = 0.01  # between two pieces: all of it takes longer than the limits below
LIMIT_S = 0.4
HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
def plane() -> Iterator[Served]:
    """A data plane."""
    with serving() as plane:
        yield plane


def slowly(talker: Talker, size: int) -> int:
    """Read so many bytes, never fast and never long without reading any; how many came."""
    pause, count = threading.Event(), len(talker.seen)
    talker.seen = b""
    while count < size:
        part = talker.sock.recv(min(PIECE, size - count))
        if not part:
            break
        count += len(part)
        pause.wait(PAUSE_S * len(part) / PIECE)
    return count


@pytest.mark.parametrize("whose", ["ours", "target's"])
def test_a_client_that_reads_slowly_has_the_whole_answer(plane: Served, whose: str) -> None:
    """http_keep_alive begins when it has it; then there is another request on the connection."""
    timeouts = Timeouts(http_keep_alive=LIMIT_S)
    if whose == "ours":
        plan = HttpPlan(answer=AnswerPlan(status=200, body=LARGE))
        client = plane.client(plane.http(plan=plan, timeouts=timeouts), buffer=1 << 16)
        client.send(get())
    else:
        target = plane.target()
        client = plane.client(plane.http(target, timeouts=timeouts), buffer=1 << 16)
        client.send(get())
        server = plane.accepted(target)
        server.message()
        threading.Thread(target=server.send, args=(answer(LARGE),), daemon=True).start()
    for turn in range(2):
        if turn:
            client.send(get())
            if whose == "target's":
                server.message()
                server.send(OK)
        length = int(client.head().fields["content-length"])
        assert slowly(client, length) == length
    client.close()
    plane.wait_codes({"2xx": 2})


def test_a_client_that_reads_no_more_is_cut_and_told(plane: Served, tmp_path: Path) -> None:
    """Of an answer that only the end of the connection ends: an RST. The log says how it went."""
    file = tmp_path / "access.log"
    target = plane.target()
    timeouts = Timeouts(idle=LIMIT_S)
    listener = plane.http(target, timeouts=timeouts)
    plane.commit(
        route("r", listener, target, http=HttpPlan(), timeouts=timeouts),
        access=AccessPlan(file=str(file)),
    )
    client = plane.client(listener, buffer=1 << 16)
    client.send(b"GET / HTTP/1.0\r\nHost: a.example\r\n\r\n")
    server = plane.accepted(target)
    server.message()
    size = 0
    server.send(HEAD, b"\r\n")
    server.sock.settimeout(0.2)
    try:
        while True:  # until nobody takes more; the rest fits into what the kernel holds
            size += server.sock.send(LARGE[:PIECE])
    except TimeoutError:
        server.close()
    taken = 0
    while not taken:
        taken += slowly(client, 4096)
    plane.wait_ends({"idle_timeout": 1})
    assert len(read_to_reset(client.sock)) + taken < size
    wait_until(lambda: file.exists() and file.read_text().count("\n") == 1, "a line")
    line = json.loads(file.read_text())
    assert (line["status"], line["end"]) == (200, "idle_timeout")
    assert line["sent"] < size


def test_a_target_that_reads_slowly_has_the_whole_body(plane: Served) -> None:
    """Neither side is idle."""
    target = plane.target()
    client = plane.client(plane.http(target, timeouts=Timeouts(idle=LIMIT_S)))
    body = 3 * LARGE
    threading.Thread(target=client.send, args=(post(body),), daemon=True).start()
    server = plane.accepted(target)
    server.head()
    assert slowly(server, len(body)) == len(body)
    server.send(OK)
    assert client.message().body == b"ok"
    plane.wait_codes({"2xx": 1})


def test_a_target_that_reads_nothing_is_what_is_late(plane: Served) -> None:
    """504 and not 408: the client would send on."""
    target = plane.target()
    client = plane.client(plane.http(target, timeouts=Timeouts(idle=LIMIT_S)))
    client.sock.settimeout(0.2)
    client.send(get("/", f"Content-Length: {1 << 30}", method="POST"))
    try:
        while True:
            client.sock.send(LARGE)
    except TimeoutError:
        client.sock.settimeout(20.0)
    assert client.head().status == 504
    plane.wait_codes({"5xx": 1})


@pytest.mark.parametrize("is_early", [True, False])
def test_a_target_that_answers_before_the_request_is_whole(plane: Served, is_early: bool) -> None:
    """Its first byte took no time at all, whether the rest of the request comes or not."""
    target = plane.target()
    client = plane.client(plane.http(target))
    client.send(get("/", "Content-Length: 10", method="POST"), b"abc")
    server = plane.accepted(target)
    server.head()
    assert server.exactly(3) == b"abc"
    server.send(HEAD, b"Content-Length: 5\r\n\r\nab")
    client.head()
    if not is_early:
        client.send(b"defghij")
        assert server.exactly(7) == b"defghij"
    server.send(b"cde")
    assert client.exactly(5) == b"abcde"
    client.close()
    plane.wait_codes({"2xx": 1})
    first_byte = plane.counts("r").first_byte
    assert first_byte is not None
    assert (sum(first_byte.buckets), first_byte.total) == (1, 0.0)


def test_a_client_that_has_ended_is_not_waited_for_long(plane: Served) -> None:
    """Its FIN may be a half-close, so it has half_closed; then the target's connection is free."""
    target = plane.target()
    client = plane.client(plane.http(target, timeouts=Timeouts(half_closed=LIMIT_S)))
    client.send(get())
    server = plane.accepted(target)
    server.message()
    client.sock.shutdown(socket.SHUT_WR)
    assert server.is_cut()
    plane.wait_ends({"half_closed_timeout": 1})
    assert plane.codes() == {"4xx": 1}


@pytest.mark.parametrize("half_open", [True, False])
def test_a_client_that_has_ended_has_its_answer(plane: Served, half_open: bool) -> None:
    """Within half_closed; with half_open whenever it comes."""
    target = plane.target()
    timeouts = Timeouts(half_closed=0.0 if half_open else 60.0)
    client = plane.client(plane.http(target, timeouts=timeouts, half_open=half_open))
    client.send(get())
    client.sock.shutdown(socket.SHUT_WR)
    server = plane.accepted(target)
    server.message()
    threading.Event().wait(0.3 if half_open else 0.0)  # some ticks
    server.send(OK)
    assert client.message().body == b"ok"
    assert client.is_ended()
    plane.wait_ends({"client_closed": 1})


def test_a_kept_connection_has_the_limits_of_a_reload(plane: Served) -> None:
    """Those of heads too."""
    target = plane.target()
    listener = plane.http(target, plan=HttpPlan(head_limit=2048))
    client, server = plane.pair(listener, target)
    plane.commit(route("r", listener, target, http=HttpPlan(head_limit=16384)))
    client.send(get("/", "X-Long: " + "a" * 4096))
    server.message()
    server.send(OK)
    assert client.message().body == b"ok"


def test_an_empty_line_behind_a_body_begins_no_head(plane: Served) -> None:
    """RFC 9112 section 2.2: it is skipped, so the client is late with nothing."""
    target = plane.target()
    timeouts = Timeouts(request_head=0.1, http_keep_alive=3 * LIMIT_S)
    client = plane.client(plane.http(target, timeouts=timeouts))
    client.send(post(b"ab"), b"\r\n")
    server = plane.accepted(target)
    server.message()
    server.send(OK)
    assert client.message().body == b"ok"
    threading.Event().wait(LIMIT_S)
    client.send(get())
    server.message()
    server.send(OK)
    assert client.message().body == b"ok"
    client.send(b"\r\n")
    assert client.is_ended()
    plane.wait_ends({"idle_timeout": 1})
    assert plane.codes() == {"2xx": 2}


def test_a_target_that_says_nothing_to_an_expectation(plane: Served) -> None:
    """The client waits for its word, so the wait for an answer has begun."""
    target = plane.target()
    client = plane.client(plane.http(target, timeouts=Timeouts(response=LIMIT_S)))
    client.send(get("/", "Content-Length: 10", "Expect: 100-continue", method="POST"))
    server = plane.accepted(target)
    server.head()
    assert client.message().status == 504
    assert client.is_ended()
    plane.wait_codes({"5xx": 1})
