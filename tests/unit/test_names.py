"""Names to addresses: what lives on while name servers fail."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

from supervisor.names import Resolver

Answer = Callable[[str], list[str]]


class Loop(asyncio.SelectorEventLoop):
    """A real loop whose lookups are answered by a function, as a name server would be."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer
        self.held: asyncio.Event | None = None
        self.lookups = 0

    async def getaddrinfo(self, host: Any, port: Any, **_options: Any) -> Any:
        """Answer like the resolver of the system, once ``held`` is set where there is one."""
        self.lookups += 1
        if self.held is not None:
            await self.held.wait()
        return [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                "",
                (address, 0),
            )
            for address in self.answer(host)
        ]


def unknown(_name: str) -> list[str]:
    """The answer for a name that does not exist."""
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def run(loop: Loop, coroutine: Any) -> Any:
    """Run on this loop and close it."""
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.close()


def test_addresses_are_unique_sorted_and_of_both_families() -> None:
    """IPv4 comes before IPv6, each in numeric order, whatever order the name server chose."""
    loop = Loop(lambda _: ["::2", "10.0.0.10", "10.0.0.9", "10.0.0.10", "::1"])
    found = run(loop, Resolver(lambda *_: None).resolve(["app", "app"], 5))
    assert found == {"app": ("10.0.0.9", "10.0.0.10", "::1", "::2")}
    assert loop.lookups == 1


def test_last_good_addresses_stay_while_lookups_fail() -> None:
    """A failure keeps what was known, warns once, and the recovery is told once."""
    told: list[tuple[str, str]] = []
    resolver = Resolver(lambda level, _, fields: told.append((level, fields["name"])))
    loop = Loop(lambda _: ["10.0.0.1"])

    async def scenario() -> None:
        assert await resolver.resolve(["app"], 5) == {"app": ("10.0.0.1",)}
        loop.answer = unknown
        for _ in range(3):
            assert await resolver.resolve(["app"], 5) == {"app": ("10.0.0.1",)}
        assert told == [("warning", "app")]
        loop.answer = lambda _: ["10.0.0.2"]
        for _ in range(2):
            assert await resolver.resolve(["app"], 5) == {"app": ("10.0.0.2",)}
        assert told == [("warning", "app"), ("info", "app")]

    run(loop, scenario())


@pytest.mark.parametrize("name", ["no-such", "a" * 80 + ".example", "with\0nul", ""])
def test_a_name_that_never_resolved_has_no_addresses(name: str) -> None:
    """Whatever is wrong with a name, the answer is empty and nothing is raised."""
    told: list[str] = []

    def answer(asked: str) -> list[str]:
        if asked == "no-such":
            return unknown(asked)
        if not asked:
            return []
        # What the real resolver does with these: UnicodeError and ValueError.
        if "\0" in asked:
            raise ValueError("embedded null character")
        asked.encode("idna")
        raise AssertionError("the name should not have been encodable")

    resolver = Resolver(lambda level, *_: told.append(level))
    assert run(Loop(answer), resolver.resolve([name], 5)) == {name: ()}
    assert told == ["warning"]


def test_a_hanging_name_server_holds_up_nothing() -> None:
    """After the timeout the rest has its answer, and the lookup under way is not started twice."""
    loop = Loop(lambda _: ["10.0.0.1"])
    told: list[str] = []
    resolver = Resolver(lambda level, *_: told.append(level))

    async def scenario() -> None:
        loop.held = asyncio.Event()
        for _ in range(3):
            assert await resolver.resolve(["slow"], 0.01) == {"slow": ()}
        assert loop.lookups == 1
        assert told == ["warning"]
        loop.held.set()
        assert await resolver.resolve(["slow"], 5) == {"slow": ("10.0.0.1",)}
        assert told == ["warning", "info"]

    run(loop, scenario())


def test_a_name_that_left_is_forgotten() -> None:
    """Addresses of a name that was not asked for meanwhile are not brought back later."""
    loop = Loop(lambda _: ["10.0.0.1"])
    resolver = Resolver(lambda *_: None)

    async def scenario() -> None:
        await resolver.resolve(["app"], 5)
        await resolver.resolve([], 5)
        loop.answer = unknown
        assert await resolver.resolve(["app"], 5) == {"app": ()}

    run(loop, scenario())


def test_the_real_resolver_knows_localhost() -> None:
    """The system's resolver gives loopback addresses, once each."""
    found = asyncio.run(Resolver(lambda *_: None).resolve(["localhost"], 10))["localhost"]
    assert found
    assert set(found) <= {"127.0.0.1", "::1"}
    assert len(set(found)) == len(found)
