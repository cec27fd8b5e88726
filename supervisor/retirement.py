"""How a port goes away without losing a connection (design section 2).

New SYNs are dropped, handshakes in flight get time to complete, the workers accept what waits and
close their copies, and only then are ours closed. A port that comes back meanwhile keeps its
sockets. One that a reload wanted back, and that was refused then, goes on where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from typing import Final

from msgspec import Struct

from shared import syn_filter
from shared.log import Logger
from supervisor.listeners import Listeners, overlap
from supervisor.worker_pool import WorkerPool

# Whoever dials before the reload has returned is to be served. After the answer has been read, it
# is a while on a busy machine until the command has said it and ended, and a SYN that another
# listener has dropped comes again after a second. With a handshake and what the workers get, the
# port is closed within 4 s (design section 2).
_ANSWER_S: Final = 1.25
_CLOSED_S: Final = 4.0
_EMPTY_S: Final = 0.3  # until nothing waits any more, on a busy machine
# A client sends a SYN that was dropped again after a second. Where SYNs are dropped for so long
# that this one may be lost too, the third follows two seconds later (TCP_TIMEOUT_INIT).
_SYN_FIRST_S: Final = 0.8
_SYN_AGAIN_S: Final = 1.1
_SYN_LATER_S: Final = 2.1
_ACCEPT_S: Final = 1.3  # for the workers to say that nothing waits; one that hangs is known by then
_LOOK_S: Final = 0.02


class _Leaving(Struct):
    """A port on its way out. Times are of the loop's clock."""

    number: int  # of the retirement that has it
    left_at: float
    filtered_at: float | None = None  # since then new SYNs are dropped
    is_closing: bool = False  # workers were told to close it


class Retirement:
    """Ports on their way out.

    A port may leave, return and leave again before its first retirement has come to an end: each
    retirement has a number, and one that finds another number has nothing more to do there.
    """

    def __init__(self, pool: WorkerPool, listeners: Listeners, log: Logger) -> None:
        self._pool = pool
        self._listeners = listeners
        self._log = log
        self._leaving: dict[int, _Leaving] = {}
        self._returning: dict[int, _Leaving] = {}  # a reload under way wants them back
        self._number = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, ids: Iterable[int], readers: Iterable[asyncio.Future[None]] = ()) -> None:
        """These ports left the config; returns at once.

        ``readers``: they do not leave before these are done (`supervisor/receipts.py`).
        """
        self._start(
            {
                listener: _Leaving(0, self._left_at(listener))
                for listener in ids
                if listener in self._listeners.held
            },
            list(readers),
        )

    async def take_back(self, ids: Iterable[int]) -> list[int]:
        """Those of ``ids`` that were on their way out; from now on they are only held.

        `Listeners.listen` lets connections in again, once the generation that wants them is final.
        Until then workers may hold no copy, and what they would let in, nobody would accept.
        """
        wanted = {listener for listener in ids if listener in self._leaving}
        for listener in wanted:
            self._returning[listener] = self._leaving[listener]
            if not self._leaving[listener].is_closing:
                del self._leaving[listener]
        while self._tasks and wanted & self._leaving.keys():
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for listener in wanted:
            self._listeners.held[listener].is_returning = True
        return sorted(wanted)

    def returned(self) -> None:
        """The reload that wanted ports back is final."""
        self._returning.clear()

    def resume(self) -> None:
        """The reload that wanted ports back was refused: they go, from where they were."""
        returning, self._returning = self._returning, {}
        self._start(returning)

    def cancel(self) -> None:
        """A full stop takes over what is under way."""
        for task in self._tasks:
            task.cancel()

    async def accept_what_waits(self, ids: set[int], timeout_s: float) -> None:
        """Have the workers accept all that waits at these listeners and close their copies.

        Over once nothing waits: any worker accepts for all, and who holds copies still, perhaps
        because it hangs, holds nothing up. SYNs are dropped meanwhile, and a client sends its own
        again after a second: by then whoever takes the port over is to have it.
        """
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

        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        while not await pool.wait(are_all_done, _LOOK_S):
            if not self._listeners.wait_in(ids):
                return
            if loop.time() >= end:
                self._log.warning("a worker has not closed its listeners in time")
                return

    def _left_at(self, listener: int) -> float:
        """Now; later where another one that overlaps drops SYNs, which are then sent again here."""
        held = self._listeners.held
        left_at = now = asyncio.get_running_loop().time()
        for other, one in self._leaving.items():
            if one.filtered_at is not None and overlap(held[other].plan, held[listener].plan):
                dropped_s = handshake_s(self._listeners, [other])
                again_s = _SYN_AGAIN_S if dropped_s < _SYN_FIRST_S else _SYN_LATER_S
                left_at = max(left_at, one.filtered_at + dropped_s + again_s - _ANSWER_S)
        latest = now + _CLOSED_S - _ANSWER_S - handshake_s(self._listeners, [listener]) - _EMPTY_S
        return min(left_at, latest)

    def _start(
        self, leaving: dict[int, _Leaving], readers: Collection[asyncio.Future[None]] = ()
    ) -> None:
        """Unix sockets go by themselves: no filter keeps dials from them, and one that nobody
        accepts any more would hold up ports that drop SYNs."""
        held = self._listeners.held
        for is_unix in (False, True):
            gone = {
                id_: one
                for id_, one in leaving.items()
                if id_ in held and bool(held[id_].plan.path) is is_unix
            }
            if gone:
                self._start_together(gone, readers)

    def _start_together(
        self, gone: dict[int, _Leaving], readers: Collection[asyncio.Future[None]]
    ) -> None:
        self._number += 1
        for listener, one in gone.items():
            held = self._listeners.held[listener]
            held.is_retiring, held.is_returning = True, False
            one.number, one.is_closing = self._number, False
            self._leaving[listener] = one
        task = asyncio.get_running_loop().create_task(
            self._retire(set(gone), self._number, readers)
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _retire(
        self, gone: set[int], number: int, readers: Collection[asyncio.Future[None]]
    ) -> None:
        loop = asyncio.get_running_loop()
        if readers:
            await asyncio.wait(readers)
            for one in self._left(gone, number).values():
                one.left_at = max(one.left_at, loop.time())
        await asyncio.sleep(self._due(gone, number, _ANSWER_S) - loop.time())
        left = self._left(gone, number)
        if problem := self._listeners.stop_accepting(left):
            self._log.warning("a port closes without dropping new SYNs first", reason=problem)
        for one in left.values():
            one.filtered_at = one.filtered_at or loop.time()
        await asyncio.sleep(self._filtered_until(left) - loop.time())
        left = self._left(gone, number)
        if not left:
            return
        for one in left.values():
            one.is_closing = True
        ids = set(left)
        await self.accept_what_waits(ids, _ACCEPT_S)
        for listener in ids:
            del self._leaving[listener]
        gone = ids - self._returning.keys()
        if self._listeners.wait_in(gone):
            self._log.warning("connections wait at ports that close; they are reset")
        names = [self._listeners.held[listener].plan.name for listener in sorted(gone)]
        self._listeners.close(gone)
        if names:
            self._log.info("listeners closed", listeners=names)

    def _left(self, gone: set[int], number: int) -> dict[int, _Leaving]:
        """Those that have not returned since this retirement began."""
        found = {id_: self._leaving[id_] for id_ in gone if id_ in self._leaving}
        return {id_: one for id_, one in found.items() if one.number == number}

    def _due(self, gone: set[int], number: int, after_s: float) -> float:
        left = self._left(gone, number).values()
        return max((one.left_at + after_s for one in left), default=0.0)

    def _filtered_until(self, left: dict[int, _Leaving]) -> float:
        times = [
            (one.filtered_at or 0.0) + handshake_s(self._listeners, [listener])
            for listener, one in left.items()
        ]
        return max(times, default=0.0)


def handshake_s(listeners: Listeners, ids: Iterable[int]) -> float:
    """How long handshakes in flight at these listeners may take, in seconds."""
    held = (listeners.held.get(listener) for listener in ids)
    return max((syn_filter.handshake_s(one.plan.host) for one in held if one), default=0.0)
