"""A worker process: its loop, its signals, its life from the fork to the exit status.

The only module that knows all the others. It does what the supervisor says (`shared/messages.py`)
and owns no decision about traffic; that is the data plane's.
"""

from __future__ import annotations

import asyncio
import gc
import mmap
import os
import signal
import socket
from collections.abc import Coroutine
from typing import Any, Final, NamedTuple

import uvloop

from shared import core_dumps
from shared.errors import InternalError
from shared.limit_rows import hold
from shared.log import Logging, LogSettings
from shared.messages import (
    HEARTBEAT_S,
    ROUTES_PER_MESSAGE,
    Abort,
    Assign,
    Assigned,
    Commit,
    Committed,
    Drain,
    Drained,
    Event,
    Heartbeat,
    Hello,
    Leaving,
    LogsReopened,
    Prepare,
    PrepareBodies,
    PrepareCertificates,
    PrepareRoutes,
    PrepareSet,
    ReopenLogs,
    Resolve,
    Retire,
    Retired,
    Spawn,
    Stop,
    SupervisorMessage,
    TicketSecret,
    WorkerMessage,
)
from shared.stats import COUNT_CELLS, COUNT_ROW_CELLS
from worker import data_plane, openssl_form
from worker.build import Build
from worker.control_client import ControlClient
from worker.data_plane import DataPlane
from worker.descriptors import DescriptorChannel
from worker.limits import Limits
from worker.orphan import Orphan
from worker.reporter import Reporter

# Blocked from before the fork until the handlers stand: an early TERM must not kill a worker.
SIGNALS: Final = (
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2,
    signal.SIGTTIN, signal.SIGTTOU,
)  # fmt: skip
# These mean the supervisor; sent to a whole group of processes they reach workers as well.
_NOT_OURS: Final = (
    signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU,
)  # fmt: skip

EXIT_OK: Final = 0
EXIT_CRASHED: Final = 70  # EX_SOFTWARE of sysexits.h
EXIT_UNUSED: Final = 75  # EX_TEMPFAIL: the supervisor was gone before there was anything to serve


def run(spawn: Spawn, channel: socket.socket, counts_fd: int, limits_fd: int) -> int:
    """Be a worker until told to end; returns the exit status. Called in the forked process."""
    settings = LogSettings(level=spawn.log_level, format=spawn.log_format, file=spawn.log_file)
    fields = {"component": "worker", "slot": spawn.slot, "pid": os.getpid()}
    try:
        logging = Logging(settings, **fields)
    except OSError as error:
        logging = Logging(LogSettings(level=spawn.log_level, format=spawn.log_format), **fields)
        logging.logger.warning("cannot open the log file", file=spawn.log_file, error=str(error))
    counts = mmap.mmap(counts_fd, 0)
    cells = memoryview(counts).cast("Q")
    first = spawn.counts_row * COUNT_ROW_CELLS
    shared = Shared(
        counts=cells[first : first + COUNT_CELLS],
        limits=Limits(mmap.mmap(limits_fd, 0), spawn.counts_row),
        limits_fd=limits_fd,
    )
    os.close(counts_fd)
    hold(limits_fd, spawn.counts_row)  # and so that one stays open
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_main(spawn, channel, shared, logging))


async def _main(spawn: Spawn, channel: socket.socket, shared: Shared, logging: Logging) -> int:
    return await _Worker(spawn, channel, shared, logging).run()


class Shared(NamedTuple):
    """What this worker has of the memory that all share: its row of counts, and the limits."""

    counts: memoryview
    limits: Limits
    limits_fd: int


class _Worker:
    """Glue between the supervisor's messages and the data plane."""

    def __init__(
        self, spawn: Spawn, channel: socket.socket, shared: Shared, logging: Logging
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._spawn = spawn
        self._logging = logging
        self._log = logging.logger
        self._done: asyncio.Future[int] = self._loop.create_future()
        self._loop.set_exception_handler(self._on_loop_error)
        self._plane = DataPlane(
            self._loop,
            slot=spawn.slot,
            incarnation=spawn.incarnation,
            counts=shared.counts,
            limits=shared.limits,
            log=self._log_event,
        )
        if (data_plane.__file__ or "").endswith(".py"):
            self._log.info("the hot path runs from source: it was not compiled, or not wanted")
        elif openssl_form.REASON:
            self._log.info("TLS is slower than it could be", reason=openssl_form.REASON)
        self._client = ControlClient(spawn, os.getpid())
        self._reporter = Reporter(spawn, self._plane, self._client, logging)
        self._build = Build(self._plane, self._say, self._loop.call_soon)
        self._channel = DescriptorChannel(
            self._loop, channel, self._on_socket, self._on_supervisor_lost
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._indexes = 0  # sockets per listener, as far as any have come
        self._limits_fd = shared.limits_fd
        self._orphan: Orphan | None = None
        self._is_draining = False
        self._has_term = False  # as an orphan
        self._lag_s = 0.0

    async def run(self) -> int:
        """Serve until told to end; returns the exit status."""
        self._take_signals()
        self._client.say(Hello())
        for duty in (self._receive(), self._beat(), self._reporter.run()):
            self._start(duty)
        code = await self._done
        for task in self._tasks:
            task.cancel()
        await self._say_goodbye(code)
        return code

    def _say(self, body: WorkerMessage) -> None:
        if isinstance(body, Committed):
            self._reporter.report_then(body)  # so that `status` shows at once what drains
        else:
            self._client.say(body)

    # Ends

    def _end(self, code: int) -> None:
        if not self._done.done():
            self._done.set_result(code)

    def _crash(self, what: str, error: BaseException) -> None:
        """Our own bug: say so and end, for a fresh worker is better than a broken one."""
        self._log.error(what, exc_info=error)
        if self._done.done():
            return
        if not self._orphan:
            message = f"{what}: {type(error).__name__}: {error}"
            self._client.say(Event(level="error", message=message))
        self._end(EXIT_CRASHED)

    async def _say_goodbye(self, code: int) -> None:
        self._channel.close()
        self._plane.last_words()  # they are counted in the last snapshot
        if self._orphan:
            self._orphan.close()
            return
        await self._reporter.report(is_last=code == EXIT_OK)
        self._client.close(flush=True)

    def _on_loop_error(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, BaseException):
            self._crash(f"crashed: {context.get('message', '')}", error)
        else:
            self._log.error("event loop", message=context.get("message", ""))

    def _start(self, duty: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(self._loop.create_task(self._guarded(duty)))

    async def _guarded(self, duty: Coroutine[Any, Any, None]) -> None:
        try:
            await duty
        except Exception as error:
            self._crash("crashed", error)

    # Signals

    def _take_signals(self) -> None:
        for number in _NOT_OURS:
            signal.signal(number, signal.SIG_IGN)
        self._loop.add_signal_handler(signal.SIGTERM, self._on_terminate)
        self._loop.add_signal_handler(signal.SIGQUIT, self._stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _on_terminate(self) -> None:
        if not self._orphan:
            self._client.say(Leaving())  # it hands our listeners over first
        elif self._has_term:
            self._stop()
        else:
            self._has_term = True
            self._start(self._leave_alone(self._orphan))

    async def _leave_alone(self, orphan: Orphan) -> None:
        await orphan.leave()
        orphan.drains()
        self._drain(Drain(deadline_s=self._build.drain_s, close_listeners=True))

    def _stop(self) -> None:
        cut = self._plane.connections
        self._plane.stop()
        if self._orphan:
            self._on_drained(0, cut)  # unless a drain that this ended has just said so
        self._end(EXIT_OK)

    def _drain(self, order: Drain) -> None:
        self._is_draining = True
        self._plane.drain(order.deadline_s, order.close_listeners, self._on_drained)

    def _on_drained(self, drained: int, cut: int) -> None:
        if self._done.done():
            return
        if self._orphan:
            self._orphan.ended(drained, cut)
        else:
            self._client.say(Drained(drained=drained, cut=cut))
        self._log.debug("drained", drained=drained, cut=cut)
        self._end(EXIT_OK)

    # From the supervisor

    def _on_socket(self, listener: int, index: int, fd: int, generation: int) -> None:
        self._indexes = max(self._indexes, index + 1)
        self._plane.add_socket(listener, index, fd, generation)
        self._build.sockets_came()

    def _on_supervisor_lost(self) -> None:
        """Go on alone: serve what is there and what comes (design section 2)."""
        if self._done.done():
            return
        for task in self._tasks:
            task.cancel()
        self._client.close(flush=False)  # or it would look for the next supervisor
        self._build.forget()
        self._orphan = Orphan(self._plane, self._limits_fd, self._spawn, self._log)
        if self._plane.generation == 0:
            self._end(EXIT_UNUSED)
            return
        self._orphan.appear()
        self._start(self._orphan.watch())
        self._log.warning("the supervisor is gone; serving on without it, TERM drains")
        self._orphan.let_in()
        if not self._is_draining:
            self._plane.assign(list(range(self._indexes)))

    async def _receive(self) -> None:
        while True:
            message = await self._client.receive()
            self._obey(message)
            # Received in a burst, they would else be one long step; traffic goes in between.
            await asyncio.sleep(0)

    def _obey(self, message: SupervisorMessage) -> None:
        match message:
            case Prepare():
                self._build.begin(message)
            case PrepareSet():
                self._build.add_set(message)
            case PrepareBodies():
                self._build.add_bodies(message)
            case PrepareRoutes():
                self._build.add_routes(message)
                if self._build.routes >= ROUTES_PER_MESSAGE:
                    # Many routes are no garbage, and to walk thousands takes 100 ms, again and
                    # again. With few it is not worth it: garbage of the moment is frozen too.
                    gc.freeze()
            case Commit(generation=generation):
                self._build.commit(generation)
            case Abort(generation=generation):
                self._build.abort(generation)
            case Assign(epoch=epoch, indexes=indexes):
                self._plane.assign(indexes)
                self._client.say(Assigned(epoch=epoch))
            case Retire(listeners=listeners):
                self._plane.retire(listeners)
                self._client.say(Retired(listeners=listeners))
            case Resolve(endpoints=endpoints):
                self._plane.resolve(endpoints)
            case Drain():
                self._drain(message)
            case Stop():
                cut = self._plane.connections
                self._plane.stop()
                self._on_drained(0, cut)  # unless a drain that this ended has just said so
            case ReopenLogs():
                self._reopen_logs(message)
            case TicketSecret(secret=secret):
                self._plane.contexts.set_secret(secret)
            case PrepareCertificates():
                core_dumps.forbid()
                self._build.add_certificates(message)
            case _:
                raise InternalError(f"no rule for {message!r}")

    def _reopen_logs(self, order: ReopenLogs) -> None:
        error = ""
        if order.log_level:
            settings = LogSettings(
                level=order.log_level, format=order.log_format, file=order.log_file
            )
            try:
                self._logging.apply(settings)
            except OSError as failure:
                error = f"{order.log_file}: {failure.strerror}"
        else:
            errors = (self._logging.reopen(), self._plane.access.reopen())
            error = "; ".join(text for text in errors if text)
        self._client.say(LogsReopened(request=order.request, error=error))

    # To the supervisor

    async def _beat(self) -> None:
        due = self._loop.time()
        while True:
            self._client.say(
                Heartbeat(
                    lag_s=self._lag_s,
                    connections=self._plane.connections,
                    generation=self._plane.generation,
                )
            )
            due = self._loop.time() + HEARTBEAT_S
            await asyncio.sleep(HEARTBEAT_S)
            self._lag_s = max(0.0, self._loop.time() - due)

    def _log_event(self, level: str, message: str, fields: dict[str, str]) -> None:
        getattr(self._log, level)(message, **fields)
