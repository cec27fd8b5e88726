"""The soak over HTTP: what excuses a lost request, and users that notice what is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Final

import pytest

from loadtests.http_users import Echo, Loss, Target, User
from loadtests.soak_http import Site, is_excused
from shared.proxy_protocol import encode_v2
from shared.proxy_protocol.tlv import TlvType

ASKED_S: Final = 0.5
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def loss(incarnation: int | None, idle_since: float, ended_at: float) -> Loss:
    """A request that failed."""
    return Loss(
        what="request 1 to /s/1",
        why="reset",
        incarnation=incarnation,
        idle_since=idle_since,
        ended_at=ended_at,
    )


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (loss(3, 9.0, 10.5), True),  # its worker was killed before that
        (loss(3, 9.0, 9.9), False),  # but not yet
        (loss(4, 9.0, 10.5), False),  # another one was
        (loss(None, 9.9, 10.1), True),
        (loss(None, 10.5, 11.0), False),  # good after the kill
        (loss(None, 9.0, 9.9), False),
    ],
)
def test_excuses(one: Loss, expected: bool) -> None:
    """A killed worker excuses what it held, or may have held, and nothing else."""
    assert is_excused(one, {3: 10.0}) == expected


def test_routes() -> None:
    """One stays as it is, one changes each time, one is in every other config."""
    site = Site(ports={"http": 1, "https": 2}, plain=3, named=4)
    first, second = (
        {route["name"]: route for route in site.document(version)["routes"]} for version in (1, 2)
    )
    assert first["stays-http"] == second["stays-http"]
    assert first["changes-https"] != second["changes-https"]
    assert first.keys() - second.keys() == {"comes-http", "comes-https"}
    assert "tls" not in first["stays-http"]["action"]
    assert first["stays-https"]["action"]["send_proxy"] == "v2"


def outcome(serve: Serve) -> User:
    """What a user makes of a server, who asks for a moment."""

    async def ask() -> User:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        user = User("http", port, Path("/nowhere"), Random(1))
        asyncio.get_running_loop().call_later(ASKED_S, setattr, user, "is_over", True)
        await user.run()
        server.close()
        return user

    return asyncio.run(ask())


def test_a_good_server() -> None:
    """Every body came back: there is nothing to complain of."""
    user = outcome(Echo().serve)
    assert user.losses == []
    assert user.counts["http answers"] > 0


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "ended after 0 bytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "IncompleteRead"),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", "502"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad", "3 of"),
    ],
)
def test_a_bad_server(answer: bytes, why: str) -> None:
    """An end, half an answer, an error and other bytes are losses, each by its name."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.write_eof()
        await reader.read()
        writer.close()

    assert why in outcome(serve).losses[0].why


def test_target_says_which_worker() -> None:
    """Behind a PROXY header it tells the incarnation in the id; without one it is silent."""

    async def ask() -> bytes:
        target = Target(Echo(has_header=True))
        reader, writer = await asyncio.open_connection("127.0.0.1", await target.start())
        header = encode_v2(b"\x7f\0\0\1", 1, b"\x7f\0\0\1", 2, [(TlvType.UNIQUE_ID, b"0-7-12")])
        writer.write(header + b"GET /s HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        await target.close()
        return answer

    assert b"x-worker: 7\r\n" in asyncio.run(ask())
