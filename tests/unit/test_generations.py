"""Generations on their way to workers that sleep, miss messages and come back."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from shared.errors import ControlError
from shared.log import Logging, LogSettings
from shared.messages import (
    Commit,
    Prepare,
    PrepareRoutes,
    PrepareSet,
    Retire,
    SupervisorMessage,
    decode_supervisor_message,
    encode,
)
from shared.plan import AddressSet, Endpoints, ListenerPlan, Plan, RoutePlan
from supervisor.encoded_plan import encode_plan
from supervisor.generations import Duties, Generations, RolloutResult
from supervisor.listeners import HeldListener, Listeners
from supervisor.worker_process import Status, WorkerProcess

PORT = ListenerPlan(id=1, name="127.0.0.1:1", host="127.0.0.1", port=1)


class Queue:
    """What a control server does with messages to workers: keeps them, or says that it is full."""

    def __init__(self) -> None:
        self.sent: dict[int, list[SupervisorMessage]] = {}
        self.full_for: set[int] = set()

    def send(self, incarnation: int, message: SupervisorMessage) -> bool:
        return self.send_raw(incarnation, encode(message))

    def send_raw(self, incarnation: int, raw: bytes) -> bool:
        if incarnation in self.full_for:
            return False
        self.sent.setdefault(incarnation, []).append(decode_supervisor_message(raw))
        return True

    def take(self, incarnation: int) -> list[tuple[str, int]]:
        """Kind and generation of what went there since the last time."""
        taken = self.sent.pop(incarnation, [])
        return [(type(one).__name__, getattr(one, "generation", 0)) for one in taken]


class Site:
    """Ready workers 1 and 2 on generation 1, without processes."""

    def __init__(self) -> None:
        self.queue = Queue()
        self.workers: dict[int, WorkerProcess] = {}
        self.listeners = Listeners()
        self.serving: list[int] = []
        self.replaced: list[tuple[int, str]] = []
        self.sockets: list[socket.socket] = []
        duties = Duties(
            on_serving=lambda worker: self.serving.append(worker.incarnation),
            on_replace=lambda worker, why: self.replaced.append((worker.incarnation, why)),
        )
        log = Logging(LogSettings(level="error")).logger
        control: Any = self.queue
        self.generations = Generations(self.workers, control, self.listeners, log, duties)
        for incarnation in (1, 2):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self.sockets += [ours, theirs]
            worker = WorkerProcess(0, incarnation, 0, ours, 0.0)
            worker.status, worker.has_said_hello, worker.generation = Status.READY, True, 1
            self.workers[incarnation] = worker

    async def reload(self, number: int, *listeners: ListenerPlan) -> asyncio.Task[RolloutResult]:
        """Begin a rollout of a plan with one route and one address set."""
        plan = Plan(
            generation=number,
            listeners=listeners,
            routes=(RoutePlan(name="a", order=0, listeners=()),),
            endpoints=Endpoints(addresses={}),
            address_sets=(AddressSet(),),
        )
        task = asyncio.ensure_future(self.generations.roll_out(await encode_plan(plan)))
        await asyncio.sleep(0)
        return task

    def fall_silent(self, incarnation: int, is_silent: bool = True) -> None:
        """Or beat again."""
        self.workers[incarnation].is_silent = is_silent
        self.generations.silent(self.workers[incarnation])

    def commit(self, incarnation: int, number: int, kept: int = 0, draining: int = 0) -> None:
        """It does what it was told."""
        self.generations.has_committed(self.workers[incarnation], number, kept, draining)

    def follow(self, incarnation: int, number: int) -> None:
        """It prepares a generation and commits it, without delay."""
        self.generations.prepared(self.workers[incarnation], number)
        self.commit(incarnation, number)

    async def reload_past_the_second(self) -> None:
        """Generation 2, while worker 2 is silent."""
        task = await self.reload(2)
        self.fall_silent(2)
        self.follow(1, 2)
        await task


def whole(number: int) -> list[tuple[str, int]]:
    """All messages that carry a generation of such a plan."""
    return [(kind.__name__, number) for kind in (Prepare, PrepareSet, PrepareRoutes)]


@pytest.fixture
def run() -> Callable[[Callable[[Site], Coroutine[Any, Any, None]]], None]:
    """Run a scenario on a loop of its own."""

    def run_it(scenario: Callable[[Site], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            site = Site()
            try:
                await scenario(site)
            finally:
                for one in site.sockets:
                    one.close()

        asyncio.run(main())

    return run_it


Run = Callable[[Callable[[Site], Coroutine[Any, Any, None]]], None]


def test_the_result_adds_up_what_workers_say(run: Run) -> None:
    """Kept and draining connections are those of all that committed."""

    async def scenario(site: Site) -> None:
        task = await site.reload(2)
        for worker in (1, 2):
            assert site.queue.take(worker) == whole(2)
            site.generations.prepared(site.workers[worker], 2)
        assert site.queue.take(1) == site.queue.take(2) == [("Commit", 2)]
        site.commit(1, 2, kept=5, draining=1)
        site.commit(2, 2, kept=7, draining=2)
        assert await task == RolloutResult(kept=12, draining=3)
        assert site.serving == []  # nobody had been taken out of service

    run(scenario)


def test_a_worker_that_slept_through_catches_up(run: Run) -> None:
    """It is behind until it has committed what it was once asked to prepare."""

    async def scenario(site: Site) -> None:
        await site.reload_past_the_second()
        assert site.queue.take(2) == whole(2)
        assert site.workers[2].is_behind
        site.fall_silent(2, False)
        site.generations.prepared(site.workers[2], 2)
        assert site.queue.take(2) == [("Commit", 2)]
        assert not site.workers[2].is_answering
        site.commit(2, 2)
        assert site.workers[2].is_answering
        assert site.serving == [2]

    run(scenario)


def test_late_words_of_an_older_generation_lead_to_the_newest(run: Run) -> None:
    """Prepared of a generation that another has followed is answered with that other one."""

    async def scenario(site: Site) -> None:
        for number in (2, 3):
            task = await site.reload(number)
            if number == 2:
                site.fall_silent(2)
            site.follow(1, number)
            await task
        assert site.queue.take(2) == whole(2)  # a silent one is sent nothing more
        site.fall_silent(2, False)
        assert site.queue.take(2) == whole(3)
        site.generations.prepared(site.workers[2], 2)
        assert site.queue.take(2) == []
        site.generations.prepared(site.workers[2], 3)
        assert site.queue.take(2) == [("Commit", 3)]

    run(scenario)


def test_a_full_queue_is_told_anew(run: Run) -> None:
    """Whoever takes no messages holds nobody up, and gets all of it once it says something."""

    async def scenario(site: Site) -> None:
        site.queue.full_for = {2}
        task = await site.reload(2)
        site.follow(1, 2)
        await task
        assert site.workers[2].is_silent
        site.queue.full_for = set()
        site.fall_silent(2, False)
        assert site.queue.take(2) == whole(2)

    run(scenario)


def test_a_commit_that_was_dropped_is_made_up_for(run: Run) -> None:
    """A worker whose Commit did not fit builds the generation once more and commits it."""

    async def scenario(site: Site) -> None:
        task = await site.reload(2)
        site.generations.prepared(site.workers[2], 2)
        site.queue.take(2)
        site.queue.full_for = {2}
        site.follow(1, 2)
        await task
        site.queue.full_for = set()
        site.fall_silent(2, False)
        assert site.queue.take(2) == whole(2)

    run(scenario)


def test_a_committed_that_was_dropped_is_seen_in_the_heartbeat(run: Run) -> None:
    """The rollout does not wait for a message that will not come."""

    async def scenario(site: Site) -> None:
        task = await site.reload(2)
        for worker in (1, 2):
            site.generations.prepared(site.workers[worker], 2)
        site.commit(1, 2)
        site.generations.serves(site.workers[2], 1)
        await asyncio.sleep(0)
        assert not task.done()
        site.generations.serves(site.workers[2], 2)
        await task

    run(scenario)


def test_who_cannot_follow_what_is_committed_is_replaced(run: Run) -> None:
    """Its refusal comes too late to be a veto, and later generations do not ask it."""

    async def scenario(site: Site) -> None:
        await site.reload_past_the_second()
        site.fall_silent(2, False)
        site.generations.refused(site.workers[2], 2, "cannot")
        assert site.replaced == [(2, "cannot follow generation 2")]
        site.queue.take(2)
        site.queue.take(1)
        task = await site.reload(3)
        assert site.queue.take(2) == []
        site.generations.refused(site.workers[1], 3, "neither can I")
        with pytest.raises(ControlError, match="neither can I"):
            await task
        assert site.workers[1].generation == 2

    run(scenario)


def test_who_could_not_obey_a_commit_is_replaced(run: Run) -> None:
    """What it holds is not known any more: the reload that is under way goes on without it."""

    async def scenario(site: Site) -> None:
        task = await site.reload(2)
        site.generations.refused(site.workers[2], 1, "nothing is prepared", is_final=True)
        assert site.replaced == [(2, "cannot follow generation 1")]
        site.follow(1, 2)
        await task
        assert site.workers[2].is_outdated
        assert site.queue.take(2) == whole(2)

    run(scenario)


def test_a_listener_is_not_given_before_the_old_one_is_given_back(run: Run) -> None:
    """A port that left and returns: its sockets come after Retired, or Retire would close them."""

    async def scenario(site: Site) -> None:
        with socket.socket() as one:
            site.listeners.held[1] = HeldListener(plan=PORT, sockets=[one])
            worker = site.workers[2]
            worker.given = {1}
            site.generations.retire(worker, {1})
            assert worker.given == set()
            task = await site.reload(2, PORT)
            assert worker.given == set()
            assert site.workers[1].given == {1}
            kinds = [type(sent) for sent in site.queue.sent[2]]
            assert kinds == [Retire, Prepare, PrepareSet, PrepareRoutes]
            site.generations.retired(worker, [1])
            assert worker.given == worker.lent == {1}
            for incarnation in (1, 2):
                site.generations.prepared(site.workers[incarnation], 2)
            assert Commit(generation=2) in site.queue.sent[2]
            for incarnation in (1, 2):
                site.commit(incarnation, 2)
            await task
            assert worker.lent == set()

    run(scenario)


def test_nobody_is_given_a_port_once_a_stop_has_begun(run: Run) -> None:
    """Neither a new worker, nor one that closes its ports while it prepares: they are gone."""

    async def scenario(site: Site) -> None:
        with socket.socket() as one:
            site.listeners.held[1] = HeldListener(plan=PORT, sockets=[one])
            task = await site.reload(2, PORT)
            for incarnation in (1, 2):
                site.generations.prepared(site.workers[incarnation], 2)
            worker = site.workers[2]
            site.commit(1, 2)
            site.generations.retire(worker, {1})
            site.generations.close("proxyctl stops")
            site.listeners.held.clear()
            site.generations.retired(worker, [1])
            assert worker.given == set()
            site.commit(2, 2)
            await task
        new = WorkerProcess(0, 3, 0, socket.socket(), 0.0)
        site.workers[3] = new
        site.generations.hello(new)
        assert site.queue.take(3) == []
        new.close()

    run(scenario)
