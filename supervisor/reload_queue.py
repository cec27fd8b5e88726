"""One reload or resize at a time, in the order in which they were asked for (design section 2).

Reloads that are asked for while one is under way become one more. A resize is counted from what
is wanted when its turn comes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from msgspec import structs

from shared.config import Config
from shared.errors import Problem
from shared.log import Logger
from supervisor import compile as compiler
from supervisor.log_control import LogControl, settings_of
from supervisor.reload import Outcome, Reloader
from supervisor.resize import RESIZE_S, Resized, Resizer
from supervisor.service import Service
from supervisor.worker_pool import WorkerPool

_LOGGED_NAMES: Final = 20  # of routes, in one line of the log


class ReloadQueue:
    """Counts reloads by outcome; ``last`` None: there was none yet."""

    def __init__(
        self,
        reloader: Reloader,
        pool: WorkerPool,
        logs: LogControl,
        service: Service,
        log: Logger,
        *,
        is_fixed: bool,
    ) -> None:
        """``is_fixed``: the command line says how many workers, so the file does not."""
        self.ok = 0
        self.refused = 0
        self.last: Outcome | None = None
        self.is_busy = False  # with a reload
        self._reloader = reloader
        self._pool = pool
        self._logs = logs
        self._service = service
        self._log = log
        self._is_fixed = is_fixed
        self._started = reloader.served.config  # what cannot change meanwhile is as it says
        self._resizer = Resizer(pool, log)
        self._loop = asyncio.get_running_loop()
        self._jobs: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue()
        self._next: asyncio.Future[Outcome] | None = None
        self._readers: list[asyncio.Future[None]] = []  # of the answer to that
        self._waited_for: set[asyncio.Future[Any]] = set()

    def request(self, read: asyncio.Future[None] | None = None) -> asyncio.Future[Outcome]:
        """Ask for a reload, after the one under way; all who ask meanwhile share its outcome.

        ``read``: done when whoever asks has read the answer, and at the latest some time after it.
        """
        if self._next is None:
            self._next, self._readers = self._future(), []
            self._jobs.put_nowait(self._serve_reload)
        if read is not None:
            self._readers.append(read)
        return self._next

    def request_resize(self, change: int, timeout_s: float = RESIZE_S) -> asyncio.Future[Resized]:
        """Ask for so many workers more (or less); within ``timeout_s`` from when it begins."""
        future: asyncio.Future[Resized] = self._future()

        async def serve() -> None:
            await _settle(future, self._resizer.resize(change, timeout_s))

        self._jobs.put_nowait(serve)
        return future

    def cancel(self) -> None:
        """Whoever still waits, waits in vain."""
        for future in list(self._waited_for):
            future.cancel()

    async def run(self) -> None:
        """Carry out what is asked for, for ever."""
        while True:
            job = await self._jobs.get()
            await job()

    def _future(self) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waited_for.add(future)
        future.add_done_callback(self._waited_for.discard)
        return future

    async def _serve_reload(self) -> None:
        future, self._next = self._next, None
        readers = self._readers
        self.is_busy = True
        try:
            assert future is not None
            await _settle(future, self._reload(readers))
        finally:
            self.is_busy = False

    async def _reload(self, readers: list[asyncio.Future[None]]) -> Outcome:
        old = self._reloader.served.config
        outcome = None
        self._service.reloading()
        try:
            try:
                outcome = await self._reloader.reload(readers)
            except Exception as error:
                # Our bug; but whoever waits must hear of it, and nothing was committed.
                self._log.exception("reload failed")
                outcome = self._failed(error)
            if outcome.is_ok:
                warnings = [*outcome.warnings, *self._adopt(old, self._reloader.served.config)]
                outcome = structs.replace(outcome, warnings=warnings)
        finally:
            # Before anyone has the answer: the manager must know first that we are ready again.
            self._service.reloaded(self._reloader.served.plan.generation, outcome)
        if outcome.is_ok:
            self.ok += 1
        else:
            self.refused += 1
        self.last = outcome
        self._report(outcome)
        return outcome

    def _failed(self, error: Exception) -> Outcome:
        problem = Problem(message=f"{type(error).__name__}: {error}", code="internal")
        generation = self._reloader.served.plan.generation
        return Outcome(
            is_ok=False, generation=generation, seconds=0.0, time=time.time(), errors=[problem]
        )

    def _report(self, outcome: Outcome) -> None:
        for problem in outcome.warnings:
            self._log.warning("reload", warning=problem.text("warning"))
        if outcome.is_ok:
            names = {
                "added": outcome.added,
                "changed": outcome.changed,
                "removed": outcome.removed,
            }
            self._log.info(
                "reload ok",
                generation=outcome.generation,
                changes=outcome.summary,
                seconds=outcome.seconds,
                kept=outcome.kept,
                draining=outcome.draining,
                **{key: found[:_LOGGED_NAMES] for key, found in names.items() if found},
            )
        else:
            errors = [problem.text() for problem in outcome.errors]
            self._log.error("reload refused", kept=outcome.generation, errors=errors)

    def _adopt(self, old: Config, new: Config) -> list[Problem]:
        """Take over what is not the workers'; returns what has to wait for the next start."""
        self._pool.watchdog_s = float(new.timeouts.watchdog)
        warnings = self._logs.apply(settings_of(new))
        later = "takes effect at the next start"
        # With what runs, not with the last file: each reload says what still waits.
        if new.max_workers not in (self._started.max_workers, self._pool.slots):
            warnings.append(Problem(message=f"a changed max_workers {later}", path="max_workers"))
        if _admin_address(new) != _admin_address(self._started):
            warnings.append(Problem(message=f"a changed address {later}", path="admin.listen"))
        if self._is_fixed:
            return warnings
        wanted = compiler.resolve_workers(new)
        if new.workers != self._started.workers and wanted > self._pool.slots:
            message = f"there is room for {self._pool.slots} workers; more {later}"
            warnings.append(Problem(message=message, path="workers"))
        if new.workers != old.workers:  # else what was resized by hand stays
            self._pool.resize(wanted)
        return warnings


async def _settle(future: asyncio.Future[Any], work: Awaitable[Any]) -> None:
    """Give whoever waits the result of ``work``, or the error that it failed with."""
    try:
        result = await work
    except Exception as error:
        if future.done():
            raise
        future.set_exception(error)
    else:
        if not future.done():
            future.set_result(result)


def _admin_address(config: Config) -> str:
    """Where the admin listener of this config listens; "" for none."""
    admin = config.admin
    return "" if admin is None or admin.listen is None else str(admin.listen)
