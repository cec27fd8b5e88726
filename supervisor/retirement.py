"""How a port goes away without losing a connection (design section 2).

New SYNs are dropped, handshakes in flight get time to complete, the workers accept what waits and
close their copies, and only then are ours closed. A port that comes back meanwhile keeps its
sockets.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable
from typing import Final

from shared.log import Logger
from shared.messages import Retire
from supervisor.listeners import HeldListener, Listeners
from supervisor.worker_pool import WorkerPool

# A round trip, and one more SYN-ACK, which is sent after a second (tcp_synack_retries in tcp(7)).
HANDSHAKE_S: Final = 1.2
LOOPBACK_HANDSHAKE_S: Final = 0.05
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
        for worker in pool.workers.values():
            worker.retired -= ids
        pool.send_all(Retire(listeners=sorted(ids)))
        asked = [worker for worker in pool.workers.values() if worker.has_said_hello]

        def are_all_done() -> bool:
            return all(
                ids <= worker.retired or worker.is_silent or worker.incarnation not in pool.workers
                for worker in asked
            )

        if not await pool.wait(are_all_done, timeout_s):
            self._log.warning("a worker has not closed its listeners in time")
        pool.generations.forget_listeners(ids)

    async def _retire(self, gone: set[int]) -> None:
        self._listeners.stop_accepting(gone)
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
    return max((_handshake_s(one) for one in held if one is not None), default=0.0)


def _handshake_s(held: HeldListener) -> float:
    if held.plan.path:
        return 0.0
    address = ipaddress.ip_address(held.plan.host.partition("%")[0])
    return LOOPBACK_HANDSHAKE_S if address.is_loopback else HANDSHAKE_S
