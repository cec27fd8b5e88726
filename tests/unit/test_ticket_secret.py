"""The secret of session tickets: who gets it, when it changes, and that nobody else sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from shared.messages import FromWorker, Hello, TicketSecret
from supervisor.inbox import Inbox
from supervisor.ticket_secret import RENEW_S, TicketSecrets

NEVER_S = 3600.0
DEADLINE_S = 20.0


class Worker:
    """What of a worker counts here."""

    def __init__(self, incarnation: int, has_said_hello: bool = True) -> None:
        self.incarnation = incarnation
        self.has_said_hello = has_said_hello


class Control:
    """Keeps the secrets that each worker was sent, or takes none."""

    def __init__(self) -> None:
        self.sent: dict[int, list[bytes]] = {}
        self.full_for: set[int] = set()
        self.changed = asyncio.Event()

    def send(self, incarnation: int, message: TicketSecret) -> bool:
        if incarnation in self.full_for:
            return False
        self.sent.setdefault(incarnation, []).append(message.secret)
        self.changed.set()
        return True


class Log:
    """Keeps everything that is logged."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, message: str, **fields: Any) -> None:
        self.lines.append(f"{message} {fields}")


class Site:
    """Workers 1 and 2; 2 has not said Hello."""

    def __init__(self, renew_s: float = NEVER_S) -> None:
        self.control = Control()
        self.log = Log()
        self.workers: Any = {1: Worker(1), 2: Worker(2, has_said_hello=False)}
        control: Any = self.control
        log: Any = self.log
        self.tickets = TicketSecrets(self.workers, control, log, renew_s)

    async def run_until(self, is_so: Callable[[], bool]) -> None:
        """Run its duty until then."""
        task = asyncio.ensure_future(self.tickets.run())
        try:
            async with asyncio.timeout(DEADLINE_S):
                await asyncio.sleep(0)  # its first step
                while not is_so():
                    self.control.changed.clear()
                    await self.control.changed.wait()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def test_all_workers_have_the_same_secret() -> None:
    """32 random bytes, sent at Hello and only once; another run has another secret."""

    async def scenario() -> bytes:
        site = Site()
        for worker in site.workers.values():
            site.tickets.greet(worker)
        await site.run_until(lambda: True)
        (secret,) = site.control.sent[1]
        assert site.control.sent == {1: [secret], 2: [secret]}
        assert len(secret) == 32
        return secret

    assert asyncio.run(scenario()) != asyncio.run(scenario())


def test_a_new_one_goes_to_all_at_once() -> None:
    """A worker that comes later has it too, and never the old one."""

    async def scenario() -> None:
        site = Site()
        site.tickets.greet(site.workers[1])
        site.tickets.renew()
        old, new = site.control.sent[1]
        assert old != new
        assert 2 not in site.control.sent
        site.workers[2].has_said_hello = True
        site.tickets.greet(site.workers[2])
        assert site.control.sent[2] == [new]

    asyncio.run(scenario())


def test_it_is_renewed_when_it_is_time() -> None:
    """Again and again, each time another; a day is the time where no other is given."""

    async def scenario() -> None:
        site = Site(renew_s=0.02)
        site.tickets.greet(site.workers[1])
        await site.run_until(lambda: len(site.control.sent[1]) >= 4)
        assert len(set(site.control.sent[1])) == len(site.control.sent[1])

    asyncio.run(scenario())
    assert RENEW_S == 24 * 3600


def test_a_worker_that_takes_nothing_gets_it_later() -> None:
    """It must not go on under the old secret; one that is gone is forgotten."""

    async def scenario() -> None:
        site = Site()
        site.tickets.greet(site.workers[1])
        site.control.full_for = {1}
        site.tickets.renew()
        assert len(site.control.sent[1]) == 1
        site.control.full_for = set()
        await site.run_until(lambda: len(site.control.sent[1]) == 2)
        del site.workers[1]
        await site.run_until(lambda: True)

    asyncio.run(scenario())


def test_a_worker_has_it_before_its_first_generation() -> None:
    """Hello is answered with the secret, then with whatever is to be prepared."""

    async def scenario() -> None:
        order: list[str] = []
        worker: Any = SimpleNamespace(pid=9)
        pool: Any = SimpleNamespace(
            find=lambda incarnation: worker,
            heard=lambda worker: None,
            generations=SimpleNamespace(hello=lambda worker: order.append("generation")),
        )
        tickets: Any = SimpleNamespace(greet=lambda worker: order.append("secret"))
        logs: Any = SimpleNamespace(greet=lambda worker: order.append("logs"))
        log: Any = Log()
        hello = FromWorker(run="r", slot=0, pid=9, incarnation=1, body=Hello())
        Inbox(pool, logs, tickets, log).take(hello)
        assert order == ["secret", "generation", "logs"]

    asyncio.run(scenario())


def test_it_is_in_no_log_and_no_repr() -> None:
    """Neither as text nor in hexadecimal digits."""

    async def scenario() -> None:
        site = Site()
        site.tickets.greet(site.workers[1])
        site.tickets.renew()
        said = f"{site.log.lines} {TicketSecret(secret=b'known by name')!r}"
        assert len(site.log.lines) == 1
        assert "known" not in said
        for secret in site.control.sent[1]:
            assert secret.hex() not in said
            assert repr(secret) not in said

    asyncio.run(scenario())
