"""Targets that say too much, or what cannot be passed on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helpers.held_loop import held
from tests.helpers.http_talk import OK, Served, answer, get, serving
from tests.helpers.waiting import wait_until
from worker.http_wire import MOST_READ

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def plane() -> Iterator[Served]:
    """A data plane."""
    with serving() as plane:
        yield plane


def long_answer(size: int) -> bytes:
    """An answer of just this many bytes, its head included."""
    head_size = len(answer(bytes(size))) - size
    return answer(bytes(size - head_size))


@pytest.mark.parametrize("behind", [b"", answer(b"for nobody"), b"x", b"\r\n"])
def test_an_answer_that_fills_one_read(plane: Served, behind: bytes) -> None:
    """What stands behind it in the socket is never the answer to the next client's request."""
    target = plane.target(path=str(plane.directory() / "target"))  # whose buffer takes it at once
    listener = plane.http(target)
    first = plane.client(listener)
    first.send(get())
    server = plane.accepted(target)
    server.message()
    said = long_answer(MOST_READ)
    assert len(said) == MOST_READ
    with held(plane):
        server.send(said + behind)
    assert first.message().status == 200
    second = plane.client(listener)
    second.send(get("/second"))
    if behind:
        assert server.is_cut()
        server = plane.accepted(target)
    assert server.message().target == "/second"
    server.send(answer(b"for the second"))
    assert second.message().body == b"for the second"
    wait_until(lambda: plane.target_counts(target).active == 1, "one connection is left")
    plane.wait_codes({"2xx": 2})


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("bad", [b"zz\r\n", b"-1\r\n", b"\r\n", b"3\r\nabcd\r\n", b"1;\x00\r\n"])
def test_a_first_chunk_that_is_none(plane: Served, bad: bytes, version: str) -> None:
    """Nothing of the answer has been sent: the client gets 502, and its connection goes on."""
    target = plane.target()
    listener = plane.http(target)
    client = plane.client(listener)
    asked = get("/", "Connection: keep-alive").replace(b"HTTP/1.1", b"HTTP/" + version.encode())
    client.send(asked)
    server = plane.accepted(target)
    server.message()
    server.send(CHUNKED + bad)
    found = client.message()
    assert found.status == 502
    assert "transfer-encoding" not in found.fields
    assert server.is_cut()
    plane.wait_codes({"5xx": 1})
    if version == "1.1":
        client.send(get())
        server = plane.accepted(target)
        server.message()
        server.send(OK)
        assert client.message().body == b"ok"


def test_a_later_chunk_that_is_none(plane: Served) -> None:
    """The answer has begun: it is cut within its chunks, so that nobody takes it for whole."""
    target = plane.target()
    client = plane.client(plane.http(target))
    client.send(get())
    server = plane.accepted(target)
    server.message()
    server.send(CHUNKED + b"3\r\nabc\r\n")
    assert client.head().fields["transfer-encoding"] == "chunked"
    assert client.exactly(8) == b"3\r\nabc\r\n"
    server.send(b"zz\r\n")
    assert client.is_cut()
    assert server.is_cut()
