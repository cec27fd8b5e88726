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
_STOP_S: Final = 1.0  # for a worker that is told to end at once
_KILL_S: Final = 5.0


class StopOrder(Struct):
    """How to stop; times in seconds. ``hurry`` set: at once, whatever the times say."""

    delay_s: float
    drain_s: float
    hurry: asyncio.Event


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

    async def run(self, order: StopOrder) -> Stopped:
        """Design section 2, "Full stop". Returns when no worker is left."""
        pool = self._pool
        await self._sleep(order.delay_s, order.hurry)
        pool.is_stopping = True
        self._retirement.cancel()
        pool.generations.close("proxyctl stops")
        if not order.hurry.is_set():
            await self._retire_all(order)
            for worker in pool.workers.values():
                worker.ended_before = pool.counts.read(worker.counts_row).ended
                worker.status = Status.DRAINING
            pool.send_all(Drain(deadline_s=order.drain_s, close_listeners=True))
            await self._until_empty(order.drain_s + _GRACE_S, order.hurry)
        self._listeners.close(list(self._listeners.held))
        await self._end_the_rest()
        return Stopped(drained=pool.drained, cut=pool.cut)

    async def _retire_all(self, order: StopOrder) -> None:
        for worker in list(self._pool.workers.values()):
            if worker.status is Status.STARTING:
                worker.is_unwanted = True
                worker.kill("proxyctl stops")  # it serves nothing yet
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

    async def _until_empty(self, timeout_s: float, hurry: asyncio.Event) -> None:
        create = asyncio.get_running_loop().create_task
        gone = create(self._pool.wait(self._pool.is_empty, timeout_s))
        hurried = create(hurry.wait())
        await asyncio.wait({gone, hurried}, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        hurried.cancel()

    async def _sleep(self, seconds: float, hurry: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(seconds):
                await hurry.wait()
        except TimeoutError:
            return
