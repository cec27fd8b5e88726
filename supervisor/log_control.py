"""The log of all processes: reopened after a rotation, changed by a reload."""

from __future__ import annotations

from typing import Final

from shared.config import Config
from shared.errors import Problem
from shared.log import Logging, LogSettings
from shared.messages import ReopenLogs
from supervisor.worker_pool import WorkerPool
from supervisor.worker_process import WorkerProcess

_ACKNOWLEDGED_S: Final = 2.0


def settings_of(config: Config) -> LogSettings:
    """The log that the config asks for."""
    log = config.log
    return LogSettings(level=log.level, format=log.format, file=log.file or "")


class LogControl:
    """Reopens and changes the logs; each worker says when it has done so."""

    def __init__(self, logging: Logging, pool: WorkerPool) -> None:
        self._logging = logging
        self._pool = pool
        self._request = 0
        self._missing: set[int] = set()
        self._errors: list[str] = []

    def reopened(self, worker: WorkerProcess, request: int, error: str) -> None:
        """A worker has done it, or could not."""
        if request != self._request:
            return
        self._missing.discard(worker.incarnation)
        if error:
            self._errors.append(error)
        self._pool.changed.set()

    async def reopen(self) -> None:
        """Open every log file again, by its path."""
        error = self._logging.reopen()
        asked = self._ask(ReopenLogs(request=self._request + 1))
        if error:
            self._errors.append(error)
        await self._pool.wait(self._is_done, _ACKNOWLEDGED_S)
        done = asked - len(self._waited_for())
        log = self._logging.logger
        if self._errors:
            log.error("log files could not be reopened", errors=self._errors)
        log.info("logs reopened", workers=f"{done}/{asked}")

    def apply(self, settings: LogSettings) -> list[Problem]:
        """Log as the new config says, in every process; the warnings that this gives."""
        if settings == self._logging.settings:
            return []
        try:
            self._logging.apply(settings)
        except OSError as error:
            message = f"cannot open the log file {settings.file}: {error.strerror}"
            return [Problem(message=message, path="log.file", hint="the old log stays in use")]
        self._pool.log_settings = settings
        self._ask(
            ReopenLogs(
                request=self._request + 1,
                log_level=settings.level,
                log_format=settings.format,
                log_file=settings.file,
            )
        )
        return []

    def _ask(self, order: ReopenLogs) -> int:
        self._request = order.request
        self._errors = []
        workers = self._pool.workers.values()
        self._missing = {worker.incarnation for worker in workers if worker.has_said_hello}
        self._pool.send_all(order)
        return len(self._missing)

    def _waited_for(self) -> set[int]:
        return self._missing & self._pool.workers.keys()

    def _is_done(self) -> bool:
        return not self._waited_for()
