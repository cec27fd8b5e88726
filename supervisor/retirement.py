"""How a port goes away without losing a connection (design section 2).

New SYNs are dropped, handshakes in flight get time to complete, the workers accept what waits and
close their copies, and only then are ours closed. A port that comes back meanwhile keeps its
sockets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from shared import syn_filter
from shared.log import Logger
from supervisor.listeners import Listeners
from supervisor.worker_pool import WorkerPool

# Whoever dials before the answer to the reload has come to who asked for it is to be served.
_ANSWER_S: Final = 0.3
_ACCEPT_S: Final = 2.0  # for the workers to say that nothing waits any more


class Retirement:
    """Ports on their way out."""

    def __init__(self, pool: WorkerPool, listeners: Listeners, log: Logger) -> None:
        self._pool = pool
        self._listeners = listeners
        self._log = log
        self._waiting: set[int] = set()  # handshakes complete; workers still hold them
        self._closing: set[int] = set()  # workers were told to close them
        self._wanted_back: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, ids: Iterable[int]) -> None:
        """These ports left the config; returns at once."""
        gone = {listener for listener in ids if listener in self._listeners.held}
        if not gone:
            return
        for listener in gone:
            self._listeners.held[listener].is_retiring = True
        self._waiting |= gone
        task = asyncio.get_running_loop().create_task(self._retire(gone))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def take_back(self, ids: Iterable[int]) -> list[int]:
        """Those of ``ids`` that were on their way out; they are held as before now."""
        wanted = set(ids)
        returned = sorted(wanted & (self._waiting | self._closing))
        self._waiting -= wanted
        self._wanted_back |= wanted & self._closing
        while self._tasks and wanted & self._closing:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        self._listeners.accept_again(returned)
        for listener in returned:
            self._listeners.held[listener].is_retiring = False
        return returned

    def cancel(self) -> None:
        """A full stop takes over what is under way."""
        for task in self._tasks:
            task.cancel()

    async def accept_what_waits(self, ids: set[int], timeout_s: float) -> None:
        """Have the workers accept all that waits at these listeners and close their copies."""
        pool = self._pool
        asked = [worker for worker in pool.workers.values() if worker.has_said_hello]
        for worker in asked:
            pool.generations.retire(worker, ids)

        def are_all_done() -> bool:
            return all(
                worker.is_silent
                or worker.incarnation not in pool.workers
                or not ids & worker.retiring
                for worker in asked
            )

        if not await pool.wait(are_all_done, timeout_s):
            self._log.warning("a worker has not closed its listeners in time")

    async def _retire(self, gone: set[int]) -> None:
        await asyncio.sleep(_ANSWER_S)
        self._listeners.stop_accepting(gone & self._waiting)
        await asyncio.sleep(handshake_s(self._listeners, gone))
        left = gone & self._waiting
        if not left:
            return
        self._waiting -= left
        self._closing |= left
        await self.accept_what_waits(left, _ACCEPT_S)
        self._closing -= left
        back = left & self._wanted_back
        self._wanted_back -= back
        names = [self._listeners.held[listener].plan.name for listener in sorted(left - back)]
        self._listeners.close(left - back)
        if names:
            self._log.info("listeners closed", listeners=names)


def handshake_s(listeners: Listeners, ids: Iterable[int]) -> float:
    """How long handshakes in flight at these listeners may take, in seconds."""
    held = (listeners.held.get(listener) for listener in ids)
    return max((syn_filter.handshake_s(one.plan.host) for one in held if one), default=0.0)
