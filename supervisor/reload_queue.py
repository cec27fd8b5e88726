"""One reload at a time; those asked for meanwhile become one more (design section 2)."""

from __future__ import annotations

import asyncio
import time

from msgspec import structs

from shared.config import Config
from shared.errors import Problem
from shared.log import Logger
from supervisor import compile as compiler
from supervisor.log_control import LogControl, settings_of
from supervisor.reload import Outcome, Reloader
from supervisor.worker_pool import WorkerPool


class ReloadQueue:
    """Counts reloads by outcome; ``last`` None: there was none yet."""

    def __init__(
        self,
        reloader: Reloader,
        pool: WorkerPool,
        logs: LogControl,
        log: Logger,
        *,
        is_fixed: bool,
    ) -> None:
        """``is_fixed``: the command line says how many workers, so the file does not."""
        self.ok = 0
        self.refused = 0
        self.last: Outcome | None = None
        self.is_busy = False
        self._reloader = reloader
        self._pool = pool
        self._logs = logs
        self._log = log
        self._is_fixed = is_fixed
        self._loop = asyncio.get_running_loop()
        self._asked = asyncio.Event()
        self._next: asyncio.Future[Outcome] | None = None
        self._current: asyncio.Future[Outcome] | None = None

    def request(self) -> asyncio.Future[Outcome]:
        """Ask for a reload, after the one under way; all who ask meanwhile share its outcome."""
        if self._next is None:
            self._next = self._loop.create_future()
            self._asked.set()
        return self._next

    def cancel(self) -> None:
        """Whoever waits for a reload waits in vain."""
        for waiting in (self._current, self._next):
            if waiting is not None:
                waiting.cancel()

    async def run(self) -> None:
        """Carry out reloads, for ever."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            self._current, self._next = self._next, None
            self.is_busy = True
            try:
                outcome = await self._reload()
            finally:
                self.is_busy = False
            if self._current is not None and not self._current.done():
                self._current.set_result(outcome)

    async def _reload(self) -> Outcome:
        old = self._reloader.served.config
        try:
            outcome = await self._reloader.reload()
        except Exception as error:
            # Our bug; but whoever waits must hear of it, and nothing was committed.
            self._log.exception("reload failed")
            outcome = self._failed(error)
        if outcome.is_ok:
            warnings = [*outcome.warnings, *self._adopt(old, self._reloader.served.config)]
            outcome = structs.replace(outcome, warnings=warnings)
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
            self._log.warning("reload", warning=problem.text())
        if outcome.is_ok:
            self._log.info(
                "reload ok",
                generation=outcome.generation,
                changes=outcome.summary,
                seconds=outcome.seconds,
            )
        else:
            errors = [problem.text() for problem in outcome.errors]
            self._log.error("reload refused", kept=outcome.generation, errors=errors)

    def _adopt(self, old: Config, new: Config) -> list[Problem]:
        """Take over what is not the workers'; returns what has to wait for the next start."""
        self._pool.watchdog_s = float(new.timeouts.watchdog)
        warnings = self._logs.apply(settings_of(new))
        later = "takes effect at the next start"
        if new.max_workers != old.max_workers:
            warnings.append(Problem(message=f"a changed max_workers {later}", path="max_workers"))
        if new.admin != old.admin:
            warnings.append(Problem(message=f"a changed address {later}", path="admin.listen"))
        if new.workers != old.workers and not self._is_fixed:
            wanted = compiler.resolve_workers(new)
            if wanted > self._pool.slots:
                message = f"there is room for {self._pool.slots} workers; more {later}"
                warnings.append(Problem(message=message, path="workers"))
            self._pool.resize(wanted)
        return warnings
