"""Ports that leave, return and leave again, with real sockets and no workers."""

from __future__ import annotations

import asyncio
import select
import socket
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shared.log import Logging, LogSettings
from shared.plan import ListenerPlan
from supervisor import retirement as module
from supervisor.listeners import Listeners
from supervisor.retirement import Retirement
from tests.helpers.ports import free_port
from tests.helpers.sockets import is_refused
from tests.helpers.waiting import wait_until

ID = 1
UNIX = 2
SYN_AGAIN_S = 3.0  # a SYN that was dropped is sent again after one second
CLOSED_S = 4.0  # design section 2


class NoWorkers:
    """A pool in which nobody holds anything; ``may_close`` lets its wait come to an end."""

    def __init__(self) -> None:
        self.workers: dict[int, object] = {}
        self.is_asked = asyncio.Event()
        self.may_close = asyncio.Event()
        self.may_close.set()

        self.generations = self

    def hangs(self) -> None:
        """From now on there is a worker that takes no order."""
        self.workers[1] = SimpleNamespace(
            has_said_hello=True, is_silent=False, incarnation=1, retiring=set()
        )

    def retire(self, worker: Any, ids: set[int]) -> None:
        """As `Generations.retire`."""
        worker.retiring |= ids

    async def wait(self, is_so: Callable[[], bool], timeout_s: float | None) -> bool:
        """As the real one."""
        self.is_asked.set()
        await self.may_close.wait()
        if not is_so() and timeout_s is not None:
            await asyncio.sleep(timeout_s)
        return is_so()


class Site:
    """A TCP port and a Unix socket that may leave."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.path = str(directory / "socket")
        self.listeners = Listeners()
        names = f"127.0.0.1:{self.port}", f"unix:{self.path}"
        self.listeners.open(
            [
                ListenerPlan(id=ID, name=names[0], host="127.0.0.1", port=self.port, sockets=2),
                ListenerPlan(id=UNIX, name=names[1], host="", port=0, path=self.path),
            ]
        )
        self.listeners.listen()
        self.pool = NoWorkers()
        pool: Any = self.pool
        log = Logging(LogSettings(level="error")).logger
        self.retirement = Retirement(pool, self.listeners, log)

    async def closed_after(self, listener: int = ID) -> float:
        """Wait until it is closed and refuses; returns how long that took, in seconds."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        held = self.listeners.held
        await asyncio.to_thread(wait_until, lambda: listener not in held, "it is closed", CLOSED_S)
        after = loop.time() - begun
        assert self.is_refused(listener)
        return after

    def is_refused(self, listener: int) -> bool:
        """Whether nobody listens there; a Unix socket leaves no file behind."""
        return is_refused(self.port) if listener == ID else not Path(self.path).exists()

    def dial(self, listener: int = ID) -> socket.socket:
        """Begin a connection."""
        one = socket.socket(socket.AF_UNIX if listener == UNIX else socket.AF_INET)
        one.setblocking(False)
        one.connect_ex(self.path if listener == UNIX else ("127.0.0.1", self.port))
        return one


def run(scenario: Callable[[Site], Coroutine[Any, Any, None]]) -> None:
    """Run it, and close what is left."""

    async def main() -> None:
        with tempfile.TemporaryDirectory() as directory:
            site = Site(Path(directory))
            try:
                await scenario(site)
            finally:
                site.retirement.cancel()
                site.listeners.close(list(site.listeners.held))

    asyncio.run(main())


def is_readable(listener: socket.socket) -> bool:
    """Whether somebody waits to be accepted."""
    return bool(select.select([listener], [], [], 0)[0])


def is_through(dial: socket.socket, timeout_s: float) -> bool:
    """Whether the handshake completes within that time."""
    return bool(select.select([], [dial], [], timeout_s)[1])


def test_a_port_that_leaves_again_has_its_full_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The retirement before does not close it early."""
    monkeypatch.setattr(module, "_ANSWER_S", 0.4)

    async def scenario(site: Site) -> None:
        for _ in range(2):
            site.retirement.begin([ID])
            await asyncio.sleep(0.15)
            assert await site.retirement.take_back([ID]) == [ID]
            site.listeners.listen()
            site.retirement.returned()
        site.retirement.begin([ID])
        assert await site.closed_after() >= 0.4

    run(scenario)


def test_a_port_leaves_once_all_who_asked_have_read_the_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Until then it serves, however long that takes."""
    monkeypatch.setattr(module, "_ANSWER_S", 0.1)

    async def scenario(site: Site) -> None:
        loop = asyncio.get_running_loop()
        readers: list[asyncio.Future[None]] = [loop.create_future(), loop.create_future()]
        site.retirement.begin([ID], readers)
        for reader in readers:
            end = loop.time() + 0.3
            while loop.time() < end:
                with site.dial() as dial:
                    assert await asyncio.to_thread(is_through, dial, 0.2)
            reader.set_result(None)
        await site.closed_after()

    run(scenario)


@pytest.mark.parametrize(("waits", "empty"), [(ID, UNIX), (UNIX, ID)])
def test_a_port_closes_once_nothing_waits_there_though_a_worker_hangs(
    monkeypatch: pytest.MonkeyPatch, waits: int, empty: int
) -> None:
    """Who waits is accepted first, and holds up no port of the other kind."""
    monkeypatch.setattr(module, "_ANSWER_S", 0.0)
    monkeypatch.setattr(module, "_ACCEPT_S", 60.0)  # a worker that hangs would hold it so long

    async def scenario(site: Site) -> None:
        site.pool.hangs()
        with site.dial(waits) as dial:
            assert await asyncio.to_thread(is_through, dial, 1.0)
            site.retirement.begin([ID, UNIX])
            await site.closed_after(empty)
            for _ in range(20):
                assert waits in site.listeners.held
                await site.pool.wait(lambda: False, 0.02)
            waiting = [one for one in site.listeners.held[waits].sockets if is_readable(one)]
            waiting[0].accept()[0].close()
            await site.closed_after(waits)

    run(scenario)


def test_a_port_lets_nobody_in_for_a_generation_that_may_be_refused() -> None:
    """Its workers may hold it no more: SYNs are dropped until it is final, or it is closed."""

    async def scenario(site: Site) -> None:
        site.pool.may_close.clear()
        site.retirement.begin([ID])
        await site.pool.is_asked.wait()
        back = asyncio.create_task(site.retirement.take_back([ID]))
        await asyncio.sleep(0)
        site.pool.may_close.set()
        assert await back == [ID]
        with site.dial() as dial:
            assert not await asyncio.to_thread(is_through, dial, 0.2)
            site.retirement.resume()
            await site.closed_after()

    run(scenario)


def test_a_port_that_is_back_serves_whose_syn_was_dropped() -> None:
    """The client sends it again after a second, and is let in."""

    async def scenario(site: Site) -> None:
        site.pool.may_close.clear()
        site.retirement.begin([ID])
        await site.pool.is_asked.wait()
        with site.dial() as dial:
            back = asyncio.create_task(site.retirement.take_back([ID]))
            await asyncio.sleep(0)
            site.pool.may_close.set()
            await back
            assert site.listeners.names() == [f"unix:{site.path}"]
            assert site.listeners.listen() == []
            site.retirement.returned()
            assert await asyncio.to_thread(is_through, dial, SYN_AGAIN_S)
        assert site.listeners.names() == [f"127.0.0.1:{site.port}", f"unix:{site.path}"]

    run(scenario)
