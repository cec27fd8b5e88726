"""The soak over HTTP: what excuses a lost request, and users that notice what is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any, Final

import pytest

from loadtests.http_books import Account, Loss, is_excused, judge_books, judge_losses, requests_in
from loadtests.http_echo import Echo, Target
from loadtests.http_users import Stage, User
from loadtests.soak_http import Site
from loadtests.soak_verdict import Killed
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
    """Two stay as they are, one changes each time, one is in every other config."""
    site = Site(ports={"http": 1, "https": 2}, plain=3, named=4, log="/nowhere")
    first, second = (
        {route["name"]: route for route in site.document(version)["routes"]} for version in (1, 2)
    )
    assert first["stays-http"] == second["stays-http"]
    assert first["changes-https"] != second["changes-https"]
    assert first.keys() - second.keys() == {"comes-http", "comes-https"}
    assert "tls" not in first["stays-http"]["action"]
    assert first["tells-http"]["action"]["send_proxy"] == "v2"
    assert first["stays-https"]["action"]["targets"] == ["127.0.0.1:3"]


def outcome(serve: Serve, stage: Stage | None = None) -> Account:
    """What a user makes of a server, who asks for a moment."""
    account = Account()

    async def ask() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        found = stage or Stage()
        user = User("http", (port, Path("/nowhere")), Random(1), account, found)
        asyncio.get_running_loop().call_later(ASKED_S, setattr, found, "is_over", True)
        await user.run()
        server.close()

    asyncio.run(ask())
    return account


class Named(Echo):
    """Says that all came through the worker 7."""

    async def _worker(self, reader: asyncio.StreamReader) -> str:
        return "7"


def test_a_good_server() -> None:
    """Every body came back, and both sides have counted the same bytes."""
    echo = Named(has_header=True)
    account = outcome(echo.serve)
    total = account.sums().total
    assert account.losses == []
    assert total.count > 0
    assert (total.received, total.sent) == (echo.received, echo.sent)
    assert account.established == account.named == echo.connections


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "ended after 0 bytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "ended after 27 bytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "ended within a body"),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", "502"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad", "3 of"),
    ],
)
def test_a_bad_server(answer: bytes, why: str) -> None:
    """An end, half an answer, an error and other bytes are losses, each by its name."""
    account = outcome(one_answer(answer))
    assert why in account.losses[0].why
    assert account.unnamed == len(account.losses) <= account.established


def one_answer(answer: bytes) -> Serve:
    """A server that says this to the first request, and ends."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.write_eof()
        await reader.read()
        writer.close()

    return serve


def test_a_stop_excuses_no_first_request() -> None:
    """A connection that is closed under its first request is a loss while proxyctl stops, too."""
    stage = Stage()
    stage.stop_at = 0.0
    account = outcome(one_answer(b""), stage)
    assert account.losses
    assert account.closed_by_stop == 0


def book(account: Account, echo: Echo) -> dict[str, Any]:
    """What `status` says where all that one user of one route has done is counted."""
    row = account.sums().of("stays-http")
    target = {
        "active": echo.open,
        "total": echo.connections,
        "sent": echo.received,
        "received": echo.sent,
        "requests": {"2xx": row.count},
    }
    route = {
        "received": row.received,
        "sent": row.sent,
        "requests": {},
        "targets": {"127.0.0.1:3": target},
    }
    totals = {
        "accepted": account.established,
        "ended": account.established - 1,
        "dialled": account.named,
        "ends": {"client_closed": account.established - 1},
        "routes": {"stays-http": route},
        "listeners": {"127.0.0.1:1": {"requests": {}}},
        "access_lines_dropped": 0,
    }
    return {"connections": 1, "totals": totals}


def account_of(losses: int = 0) -> tuple[Account, Echo]:
    """Four connections with an answer each, one of them open, and their target."""
    account, echo = Account(), Echo()
    for _ in range(4):
        account.established += 1
        account.name(7, monotonic())
        account.answer(7, "stays-http", "2xx", 100, 200)
    account.losses += [loss(7, monotonic() - 1, monotonic())] * losses
    echo.connections, echo.open = 3, 1
    echo.received, echo.sent = 800, 700
    return account, echo


def test_books_that_agree() -> None:
    """What was done once is counted once."""
    account, echo = account_of()
    assert judge_books(account, book(account, echo), Killed(), 1, [echo]) == []


@pytest.mark.parametrize(
    ("path", "by", "named"),
    [
        (("connections",), 1, "connections now"),
        (("totals", "accepted"), 1, "accepted: 5"),
        (("totals", "ended"), -1, "ended + active: 3"),
        (("totals", "dialled"), -1, "dialled: 3"),
        (("totals", "ends", "client_closed"), -1, "ends + active: 3"),
        (("totals", "routes", "stays-http", "received"), 1, "bytes received by stays-http"),
        (("totals", "routes", "stays-http", "sent"), -1, "bytes sent by stays-http"),
        (("totals", "routes", "stays-http", "targets", "127.0.0.1:3", "sent"), 1, "to targets"),
        (("totals", "routes", "stays-http", "targets", "127.0.0.1:3", "total"), 1, "to targets: 4"),
        (
            ("totals", "routes", "stays-http", "targets", "127.0.0.1:3", "requests", "2xx"),
            -1,
            "counter: 2xx of stays-http: 3, not 4",
        ),
        (("totals", "routes", "stays-http", "requests", "4xx"), 1, "without a target: 1, not 0"),
        (("totals", "listeners", "127.0.0.1:1", "requests", "4xx"), 1, "no route: 1, not 0"),
        (("totals", "ends", "internal_error"), 1, "internal_error"),
        (("totals", "access_lines_dropped"), 1, "access_lines_dropped"),
    ],
)
def test_books_that_do_not_agree(path: tuple[str, ...], by: int, named: str) -> None:
    """Any number that is off by one is named."""
    account, echo = account_of()
    status = inner = book(account, echo)
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = inner.get(path[-1], 0) + by
    assert any(named in one for one in judge_books(account, status, Killed(), 1, [echo]))


def test_what_a_killed_worker_had_not_reported() -> None:
    """Its last answers may be missing, those long before its end may not."""
    account, echo = account_of()
    status = book(account, echo)
    status["totals"]["routes"]["stays-http"]["targets"]["127.0.0.1:3"]["requests"] = {}
    killed = Killed(at={7: monotonic()}, workers=1, accepted=4, dialled=4, ended=3)
    assert judge_books(account, status, killed, 1, [echo]) == []
    later = Killed(at={7: monotonic() + 9}, workers=1, accepted=4, dialled=4, ended=3)
    found = judge_books(account, status, later, 1, [echo])
    assert found == ["counter: 2xx of stays-http: 0, not 4 (-4)"]


def test_more_lost_than_the_killed_held() -> None:
    """The shared counts of the killed bound what they excuse."""
    killed = Killed(at={7: 0.0}, workers=1, accepted=4, dialled=4, ended=3)
    assert judge_losses(account_of(losses=2)[0], killed) == []
    assert judge_losses(account_of(losses=3)[0], killed) == [
        "3 requests were lost with the killed, who held 2 connections"
    ]
    assert "lost: " in judge_losses(account_of(losses=1)[0], Killed())[0]


def test_access_log() -> None:
    """Requests by route and class; a relay has no status, an answer of our own no target."""
    lines = [
        '{"route": "a", "target": "t", "status": 101}',
        '{"route": "a", "target": "t", "end": "client_closed"}',
        '{"route": "a", "target": null, "status": 503}',
        '{"route": null, "target": null, "status": 404}',
    ]
    assert requests_in(lines) == {
        ("a", "1xx"): 1,
        ("a, without a target", "5xx"): 1,
        ("", "4xx"): 1,
    }


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
