"""The full stop: nothing that was dialled before it is lost, what stays too long is cut."""

from __future__ import annotations

import asyncio
from typing import Final

from msgspec import Struct

from shared.log import Logger
from shared.messages import Drain, Stop
from supervisor.listeners import Listeners
from supervisor.retirement import Retirement, handshake_s
from supervisor.worker_pool import WorkerPool
from supervisor.worker_process import Status

_ACCEPT_S: Final = 1.0
_GRACE_S: Final = 2.0  # beyond the deadline, for a worker to count and to end
_LOOK_S: Final = 0.5  # how soon a deadline that was brought nearer is seen
_STOP_S: Final = 1.0  # for a worker that is told to end at once
_KILL_S: Final = 5.0


class StopOrder(Struct):
    """How to stop; times in seconds. ``hurry`` set: at once, whatever the times say.

    ``cut_at``, of the loop's clock: what is open is cut then; None until the drain has begun.
    """

    delay_s: float
    drain_s: float
    hurry: asyncio.Event
    cut_at: float | None = None


class Stopped(Struct, frozen=True):
    """Connections that ended by themselves after the stop, and that were cut."""

    drained: int
    cut: int

    def text(self) -> str:
        """``stopped: 214 connections drained, 3 cut at the deadline``."""
        noun = "connection" if self.drained == 1 else "connections"
        return f"stopped: {self.drained} {noun} drained, {self.cut} cut at the deadline"


class Shutdown:
    """Ends all workers and closes all listeners."""

    def __init__(
        self, pool: WorkerPool, listeners: Listeners, retirement: Retirement, log: Logger
    ) -> None:
        self._pool = pool
        self._listeners = listeners
        self._retirement = retirement
        self._log = log
        self._loop = asyncio.get_running_loop()

    def shorten(self, order: StopOrder, drain_s: float) -> None:
        """A stop was asked for again: what is open may be cut sooner by that, never later."""
        if order.cut_at is None:
            order.drain_s = min(order.drain_s, drain_s)
            return
        cut_at = self._loop.time() + drain_s
        if cut_at < order.cut_at:
            order.cut_at = cut_at
            self._pool.send_all(Drain(deadline_s=drain_s, close_listeners=True))

    async def run(self, order: StopOrder) -> Stopped:
        """Design section 2, "Full stop". Returns when no worker is left."""
        pool = self._pool
        await self._sleep(order.delay_s, order.hurry)
        pool.is_stopping = True
        self._retirement.cancel()
        pool.generations.close("proxyctl stops")
        for worker in list(pool.workers.values()):
            if worker.status is Status.STARTING:
                worker.is_unwanted = True
                worker.kill("proxyctl stops")  # it serves nothing yet
        if not order.hurry.is_set():
            await self._retire_all(order)
            for worker in pool.workers.values():
                worker.ended_before = pool.counts.read(worker.counts_row).ended
                worker.status = Status.DRAINING
            order.cut_at = self._loop.time() + order.drain_s
            pool.send_all(Drain(deadline_s=order.drain_s, close_listeners=True))
            await self._until_empty(order)
        self._listeners.close(list(self._listeners.held))
        await self._end_the_rest()
        return Stopped(drained=pool.drained, cut=pool.cut)

    async def _retire_all(self, order: StopOrder) -> None:
        ids = set(self._listeners.held)
        if problem := self._listeners.stop_accepting(ids):
            self._log.warning("ports close without dropping new SYNs first", reason=problem)
        await self._sleep(handshake_s(self._listeners, ids), order.hurry)
        await self._retirement.accept_what_waits(ids, _ACCEPT_S)
        self._listeners.close(ids)

    async def _end_the_rest(self) -> None:
        """Stop, then kill."""
        pool = self._pool
        if pool.is_empty():
            return
        pool.send_all(Stop())
        if await pool.wait(pool.is_empty, _STOP_S):
            return
        for worker in list(pool.workers.values()):
            worker.kill("it did not stop")
        if not await pool.wait(pool.is_empty, _KILL_S):
            pids = [worker.pid for worker in pool.workers.values()]
            self._log.error("workers are still there", workers=pids)

    async def _until_empty(self, order: StopOrder) -> None:
        pool = self._pool

        def is_over() -> bool:
            return pool.is_empty() or order.hurry.is_set()

        while order.cut_at is not None and not is_over():
            left_s = order.cut_at + _GRACE_S - self._loop.time()
            if left_s <= 0.0:
                return
            await pool.wait(is_over, min(left_s, _LOOK_S))

    async def _sleep(self, seconds: float, hurry: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(seconds):
                await hurry.wait()
        except TimeoutError:
            return
