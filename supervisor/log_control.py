"""The logs of all processes: reopened after a rotation, changed by a reload."""

from __future__ import annotations

import errno
import os
from typing import Final

from msgspec import Struct, field

from shared.config import Config
from shared.errors import Problem, StartError
from shared.log import Logging, LogSettings, open_for_append
from shared.messages import ReopenLogs
from shared.plan import AccessPlan
from supervisor.worker_pool import WorkerPool
from supervisor.worker_process import WorkerProcess

_ACKNOWLEDGED_S: Final = 2.0
_HINTS: Final = {
    errno.ENXIO: "a FIFO is to be read by someone before proxyctl opens it",
    errno.ENOENT: "create its directory",
    errno.EACCES: "the user that proxyctl runs as must be able to write there",
}


def settings_of(config: Config) -> LogSettings:
    """The log that the config asks for."""
    log = config.log
    return LogSettings(level=log.level, format=log.format, file=log.file or "")


def check_access_file(access: AccessPlan | None) -> None:
    """Open the access log once, as every worker will; makes it where it is not there.

    StartError when it cannot be opened for appending. May wait for a disk.
    """
    if access is not None:
        _check(access.file, "access log", "log.access")


def check_log_file(file: str) -> None:
    """The same of the operational log; "" is standard error."""
    if file:
        _check(file, "log file", "log.file")


def _check(file: str, what: str, key: str) -> None:
    try:
        os.close(open_for_append(file))
    except OSError as error:
        hint = _HINTS.get(error.errno or 0, f"see `{key}`")
        message = f"cannot open the {what} {file}: {error.strerror}"
        raise StartError(message, hint) from error


class Reopened(Struct, frozen=True, kw_only=True):
    """What came of opening the log files again: workers ``asked``, workers that have ``done`` it.

    ``errors`` are texts for the operator, of the supervisor's own log file too.
    """

    asked: int
    done: int
    errors: tuple[str, ...] = ()

    def text(self) -> str:
        """``2/2 workers reopened``."""
        return f"{self.done}/{self.asked} workers reopened"


class _Round(Struct, kw_only=True):
    """One order to every worker, and what they said to it. Workers by incarnation."""

    missing: set[int]
    done: int = 0
    errors: list[str] = field(default_factory=list)


class LogControl:
    """Reopens and changes the logs; each worker says when it has done so."""

    def __init__(self, logging: Logging, pool: WorkerPool) -> None:
        self._logging = logging
        self._log = logging.logger.bind(component="logs")
        self._pool = pool
        self._request = 0
        self._has_reopened = self._has_changed = False  # ever: of interest to a worker that boots
        self._rounds: dict[int, _Round] = {}  # request: what is still waited for

    def reopened(self, worker: WorkerProcess, request: int, error: str) -> None:
        """A worker has done it, or could not."""
        text = f"worker {worker.slot} (pid {worker.pid}): {error}"
        found = self._rounds.get(request)
        if found is None:
            if error:  # late, or of a reload: nobody waits for it
                self._log.error("a worker could not open its logs", errors=[text])
            return
        if worker.incarnation not in found.missing:
            return
        found.missing.discard(worker.incarnation)
        if error:
            found.errors.append(text)
        else:
            found.done += 1
        self._pool.changed.set()

    def greet(self, worker: WorkerProcess) -> None:
        """To be called at a worker's Hello: it may have opened its logs before the last order."""
        if self._has_changed:
            self._pool.send(worker, self._change_order())
        if self._has_reopened:
            self._pool.send(worker, ReopenLogs(request=self._next_request()))

    async def reopen(self) -> Reopened:
        """Open every log file again, by its path; within _ACKNOWLEDGED_S."""
        own = self._logging.reopen()
        self._has_reopened = True
        request = self._next_request()
        workers = [worker for worker in self._pool.workers.values() if worker.has_said_hello]
        waited = self._rounds[request] = _Round(missing={each.incarnation for each in workers})
        try:
            self._pool.send_all(ReopenLogs(request=request))
            await self._pool.wait(
                lambda: not waited.missing & self._pool.workers.keys(), _ACKNOWLEDGED_S
            )
        finally:
            del self._rounds[request]
        silent = [
            f"worker {worker.slot} (pid {worker.pid}): no answer within {_ACKNOWLEDGED_S:g} s"
            for worker in workers
            if worker.incarnation in waited.missing & self._pool.workers.keys()
        ]
        errors = [*([own] if own else []), *waited.errors, *silent]
        # One that has ended meanwhile counts as not asked: its successor opens the files itself.
        asked = waited.done + len(waited.errors) + len(silent)
        result = Reopened(asked=asked, done=waited.done, errors=tuple(errors))
        count = f"{result.done}/{result.asked}"
        if errors:
            self._log.error("log files could not be reopened", workers=count, errors=errors)
        else:
            self._log.info("logs reopened", workers=count)
        return result

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
        self._has_changed = True
        self._pool.send_all(self._change_order())
        return []

    def _change_order(self) -> ReopenLogs:
        settings = self._pool.log_settings
        return ReopenLogs(
            request=self._next_request(),
            log_level=settings.level,
            log_format=settings.format,
            log_file=settings.file,
        )

    def _next_request(self) -> int:
        self._request += 1
        return self._request
