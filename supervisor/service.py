"""What the service manager is told, and when: ready, reloading, stopping, and how the workers are.

The watchdog is pinged for as long as the loop turns and one worker at least answers: a supervisor
whose workers all hang serves nobody, and is to be started anew.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from supervisor.output import plural
from supervisor.reload import Outcome
from supervisor.sd_notify import Notifier
from supervisor.worker_pool import WorkerPool

_LOOK_S: Final = 1.0  # at the latest; a worker that gets ready or ends is told of at once
_STOP_MARGIN_S: Final = 15.0  # beyond the drain: ports retire, and workers end


class Service:
    """The supervisor as the service manager sees it. ``generation`` is the one that is served."""

    def __init__(self, notifier: Notifier, pool: WorkerPool, generation: int) -> None:
        self._notifier = notifier
        self._pool = pool
        self._generation = generation
        self._is_up = False
        self._is_reloading = False
        self._is_stopping = False
        self._refusal = ""
        self._said = ""
        self._loop = asyncio.get_running_loop()
        self._ping_at = self._loop.time()

    @property
    def is_on(self) -> bool:
        """There is a service manager that listens."""
        return self._notifier.is_on

    def ready(self) -> None:
        """The start is over."""
        self._is_up = True
        self._say_ready()

    def reloading(self) -> None:
        """A reload begins; `reloaded` follows, whatever happens."""
        self._is_reloading = True
        if not self._is_stopping:
            self._said = self._text()
            self._notifier.reloading(self._said)

    def reloaded(self, generation: int, outcome: Outcome | None) -> None:
        """The reload is over; ``outcome`` None: it was given up."""
        self._is_reloading = False
        self._generation = generation
        if outcome is not None:
            self._refusal = "" if outcome.is_ok else _refusal(outcome)
        if not self._is_stopping:
            self._say_ready()

    def stopping(self, drain_s: float) -> None:
        """A stop begins, which lets connections finish for so many seconds."""
        self._is_stopping = True
        self._said = self._text()
        self._notifier.stopping(self._said, drain_s + _STOP_MARGIN_S)

    async def run(self) -> None:
        """Tell of changes, and ping, for ever."""
        while True:
            self.update()
            wait_s = _LOOK_S
            if self._notifier.watchdog_s is not None:
                wait_s = min(wait_s, max(0.0, self._ping_at - self._loop.time()))
            await self._pool.wait(lambda: self._text() != self._said, wait_s)

    def update(self) -> None:
        """Say what has changed, and ping if it is time."""
        text = self._text()
        if text != self._said:
            self._said = text
            self._notifier.status(text)
        else:
            self._notifier.flush()
        watchdog_s, now = self._notifier.watchdog_s, self._loop.time()
        if watchdog_s is not None and now >= self._ping_at:
            # Half of it: so says sd_watchdog_enabled(3).
            self._ping_at = now + watchdog_s / 2
            if self._is_well():
                self._notifier.ping()

    def _is_well(self) -> bool:
        if not self._is_up or self._is_stopping:
            return True  # the limits for start and stop hold then
        workers = self._pool.workers.values()
        return any(worker.has_said_hello and not worker.is_silent for worker in workers)

    def _say_ready(self) -> None:
        self._said = self._text()
        self._notifier.ready(self._said)

    def _text(self) -> str:
        counts = self._pool.counts_by_state()
        if self._is_stopping:
            left = sum(worker.connections for worker in self._pool.workers.values())
            return f"stopping, {plural(left, 'connection')} left"
        workers = f"{counts['ready']}/{self._pool.wanted} workers"
        if not self._is_up:
            return f"starting, {workers}"
        if self._is_reloading:
            return f"reloading, {workers}, generation {self._generation}"
        if self._refusal:
            return f"{workers}, {self._refusal}"
        return f"{workers}, generation {self._generation}"


def _refusal(outcome: Outcome) -> str:
    at = time.strftime("%H:%M:%S", time.localtime(outcome.time))
    first = outcome.errors[0].text() if outcome.errors else "no reason is known"
    kept = f"kept generation {outcome.generation}"
    return f"generation {outcome.generation}, reload refused {at}, {kept}: {first}"
