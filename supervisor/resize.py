"""One worker more or less while it runs; nobody's connection is touched (design section 2)."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from shared.errors import Problem
from shared.log import Logger
from supervisor.output import plural
from supervisor.worker_pool import WorkerPool
from supervisor.worker_process import Status

RESIZE_S: Final = 30.0  # a worker is ready within half a second; a loaded machine takes longer


class Resized(Struct, frozen=True, kw_only=True):
    """Of one resize. ``problem`` None: all that was wanted came about.

    ``is_refused``: nothing was changed. ``is_late``: it is still under way.
    """

    problem: Problem | None = None
    is_refused: bool = False
    is_late: bool = False


class Resizer:
    """Carries out resizes; the caller sees to it that there is one at a time."""

    def __init__(self, pool: WorkerPool, log: Logger) -> None:
        self._pool = pool
        self._log = log

    async def resize(self, change: int, timeout_s: float) -> Resized:
        """Want ``change`` workers more (or less), and wait until it is so, or cannot be.

        New workers are ready then; leaving ones have handed over their listeners, and drain.
        """
        refusal = self._refusal(change)
        if refusal is not None:
            self._log.warning("number of workers not changed", reason=refusal.message)
            return Resized(problem=refusal, is_refused=True)
        self._pool.resize(self._pool.wanted + change)
        is_done = await self._pool.wait(self._is_done, timeout_s)
        if self._pool.is_stopping:
            return Resized(problem=_stopping(), is_refused=True)
        if not is_done:
            message = f"the workers are not there within {timeout_s:g} s"
            hint = "it goes on; see `proxyctl workers`"
            return Resized(
                problem=Problem(message=message, code="timed_out", hint=hint), is_late=True
            )
        failed = self._pool.counts_by_state()["failed"]
        if failed:
            reason = self._pool.failure()
            message = f"{plural(failed, 'worker')} cannot start: {reason}"
            hint = "it is tried again every 30 s; see the log"
            return Resized(problem=Problem(message=message, code="failed", hint=hint))
        return Resized()

    def _refusal(self, change: int) -> Problem | None:
        pool = self._pool
        if pool.is_stopping:
            return _stopping()
        wanted = pool.wanted + change
        if wanted > pool.slots:
            message = f"there is room for {plural(pool.slots, 'worker')}"
            hint = "raise max_workers and start anew"
            return Problem(message=message, code="room", hint=hint)
        if wanted < 1:
            message = f"at least one worker stays, and {pool.wanted} {_are(pool.wanted)} wanted now"
            return Problem(message=message, code="room", hint="`proxyctl stop` ends them all")
        return None

    def _is_done(self) -> bool:
        pool = self._pool
        if pool.is_stopping:
            return True
        have_left = all(
            worker.status is Status.DRAINING or not self._is_leaving(worker.slot, worker.status)
            for worker in pool.workers.values()
        )
        return have_left and pool.is_settled()

    def _is_leaving(self, slot: int, status: Status) -> bool:
        return slot >= self._pool.wanted or status is Status.LEAVING


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _stopping() -> Problem:
    return Problem(message="proxyctl stops", code="stopping")
