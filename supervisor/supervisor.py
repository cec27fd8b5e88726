"""The supervisor: starts everything in order, then does what signals and commands ask.

It never touches traffic. Each part has a module of its own; this one knows them all.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

import uvloop
from msgspec import Struct

from shared.config import Config
from shared.errors import StartError
from shared.log import Logger, Logging
from shared.plan import Plan
from supervisor import compile as compiler
from supervisor import early_signals, fork_client, output, signals
from supervisor.admin import AdminServer
from supervisor.commands import Commands
from supervisor.config_source import ConfigSource, raise_descriptor_limit
from supervisor.control_server import ControlServer
from supervisor.encoded_plan import encode_plan
from supervisor.example import ExampleProcess
from supervisor.expiry import ExpiryWatch
from supervisor.inbox import Inbox
from supervisor.ledger import Ledger
from supervisor.listeners import Listeners
from supervisor.log_control import LogControl, check_access_file, settings_of
from supervisor.overview import Life, Overview
from supervisor.reload import Outcome, Reloader, Served
from supervisor.reload_queue import ReloadQueue
from supervisor.request_rates import RequestRates
from supervisor.resize import RESIZE_S, Resized
from supervisor.retirement import Retirement
from supervisor.runtime_dir import RuntimeDir
from supervisor.sd_notify import Notifier
from supervisor.service import Service
from supervisor.shutdown import Shutdown, StopOrder, Stopped
from supervisor.socket_watch import SocketWatch
from supervisor.ticket_secret import TicketSecrets
from supervisor.worker_pool import WorkerPool

_RETRY_S: Final = 1.0  # a duty that failed by a bug of ours is taken up again after this


class StartOptions(Struct, frozen=True, kw_only=True):
    """``config_path`` None: the built-in example. ``workers`` None: as the config says."""

    config_path: Path | None
    workers: int | None
    runtime_dir: Path


class Setup(Struct, frozen=True, kw_only=True):
    """What stands before the first process is started. ``started`` is of time.monotonic."""

    started: float
    workers_option: int | None
    wanted: int
    slots: int
    runtime_dir: RuntimeDir
    source: ConfigSource
    logging: Logging
    listeners: Listeners
    served: Served
    is_example: bool
    notifier: Notifier


def start(options: StartOptions) -> int:
    """Run until stopped; returns the exit code. StartError and ConfigError when it cannot start."""
    started = time.monotonic()
    notifier = Notifier.from_environment()  # before there is any child
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_start(options, notifier, started))
    except early_signals.StoppedEarlyError:
        output.say(["stopped before it was ready"])
        return 0
    finally:
        notifier.close()


async def _start(options: StartOptions, notifier: Notifier, started: float) -> int:
    """Design section 2, "Start, in this order". StoppedEarlyError after a signal to stop."""
    early_signals.check()
    log_later: list[Logger] = []  # names are resolved before there is a log

    def log_name(level: str, message: str, fields: dict[str, str]) -> None:
        for log in log_later:
            getattr(log, level)(message, **fields)

    source = ConfigSource(options.config_path, options.runtime_dir, log_name)
    checked = await source.check()
    early_signals.check()  # large files take seconds
    config = checked.config
    wanted = compiler.resolve_workers(config, options.workers)
    slots = compiler.resolve_slots(config, wanted)
    runtime_dir = RuntimeDir(options.runtime_dir)
    runtime_dir.open()
    listeners = Listeners()
    try:
        raise_descriptor_limit()
        fork_client.become_subreaper()
        logging = _open_log(config)
        log_later.append(logging.logger.bind(component="names"))
        plan = await source.compile(config, generation=1, slots=slots)
        early_signals.check()
        await asyncio.to_thread(check_access_file, plan.access)
        try:
            opened = await asyncio.to_thread(listeners.open, plan.listeners)
        except StartError as error:
            raise runtime_dir.with_orphans(error) from error
        for problem in listeners.listen():
            raise StartError(f"cannot listen on {problem}")
        found = [problem.text("warning") for problem in checked.warnings]
        for text in [*found, *opened.warnings, *runtime_dir.warnings()]:
            logging.logger.warning(text)
        setup = Setup(
            started=started,
            workers_option=options.workers,
            wanted=wanted,
            slots=slots,
            runtime_dir=runtime_dir,
            source=source,
            logging=logging,
            listeners=listeners,
            served=Served(config, listeners.fit(plan, opened)),
            is_example=options.config_path is None,
            notifier=notifier,
        )
        return await Supervisor(setup).run()
    finally:
        listeners.close(list(listeners.held))
        runtime_dir.close()


def _open_log(config: Config) -> Logging:
    settings = settings_of(config)
    try:
        return Logging(settings, component="supervisor", pid=os.getpid())
    except OSError as error:
        raise StartError(
            f"cannot open the log file {settings.file}: {error.strerror}", "see `log.file`"
        ) from error


class Supervisor:
    """Runs everything; the admin listener and the commands read `overview`."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._loop = asyncio.get_running_loop()
        self._log = log = setup.logging.logger
        self._listeners = listeners = setup.listeners
        self._ledger = Ledger(setup.runtime_dir.run)
        self._control = ControlServer(
            setup.runtime_dir,
            log.bind(component="control"),
            on_message=lambda message: self._inbox.take(message),
            on_snapshot=self._ledger.take,
            on_request=lambda request: self._commands.answer(request),
        )
        self._watch = SocketWatch(setup.runtime_dir, self._control, log.bind(component="control"))
        self._pool = pool = WorkerPool(
            run=setup.runtime_dir.run,
            runtime_dir=str(setup.runtime_dir.path),
            slots=setup.slots,
            wanted=setup.wanted,
            control=self._control,
            listeners=listeners,
            ledger=self._ledger,
            log_settings=setup.logging.settings,
            log=log.bind(component="workers"),
        )
        pool.watchdog_s = float(setup.served.config.timeouts.watchdog)
        self._logs = LogControl(setup.logging, pool)
        self._tickets = TicketSecrets(pool.workers, self._control, log.bind(component="tls"))
        self._inbox = Inbox(pool, self._logs, self._tickets, log.bind(component="workers"))
        self._retirement = Retirement(pool, listeners, log.bind(component="listeners"))
        self._reloader = Reloader(setup.source, listeners, pool, self._retirement, setup.served)
        self._service = Service(setup.notifier, pool, setup.served.plan.generation)
        self._reloads = ReloadQueue(
            self._reloader,
            pool,
            self._logs,
            self._service,
            log.bind(component="reload"),
            is_fixed=setup.workers_option is not None,
        )
        self._expiry = ExpiryWatch(self._read_served, log.bind(component="tls"))
        self._rates = RequestRates(self._ledger)
        self._life = Life(started_at=time.time())
        self.overview = self._overview()
        self._commands = Commands(self, self.overview)
        self._admin = AdminServer(self.overview)
        self._example = ExampleProcess(setup.runtime_dir.path, self._log_event)
        self._events: asyncio.Queue[signals.Event] = asyncio.Queue()
        self._tasks: set[asyncio.Task[object]] = set()
        self._hurry = asyncio.Event()
        self._order: StopOrder | None = None  # once a stop has begun
        self._shutdown = Shutdown(pool, listeners, self._retirement, log)
        self._stopped: asyncio.Future[Stopped] = self._loop.create_future()

    def _overview(self) -> Overview:
        return Overview(
            runtime_dir=self._setup.runtime_dir,
            config=self._setup.source.describe(),
            life=self._life,
            pool=self._pool,
            ledger=self._ledger,
            listeners=self._listeners,
            logging=self._setup.logging,
            reloader=self._reloader,
            reloads=self._reloads,
            rates=self._rates,
        )

    async def run(self) -> int:
        """Start, serve until told to stop, end; returns the exit code. StartError at the start."""
        self._loop.set_exception_handler(self._on_loop_error)
        signals.install(self._loop, self._events)
        try:
            early_signals.check()
            await self._start()
            stopped = await self._stopped
            output.say([stopped.text()])
        finally:
            await self._close()
        return 0

    async def _start(self) -> None:
        self._control.start()
        output.say(f"listening on {name}" for name in self._listeners.names())
        self._pool.generations.committed = await encode_plan(self._reloader.served.plan)
        for duty in (
            self._obey_signals,
            self._pool.run,
            self._pool.assigner.run,
            self._refresh,
            self._tickets.run,
            self._expiry.run,
            self._rates.run,
            self._watch.run,
        ):
            self._begin(self._for_ever(duty))
        if self._service.is_on:
            self._begin(self._for_ever(self._service.run))
        if self._setup.is_example:
            await self._example.start()
        await self._pool.wait(lambda: self._life.is_stopping or self._pool.is_settled(), None)
        if self._life.is_stopping:
            return
        ready = len(self._pool.ready())
        if not ready:
            hint = "see the log above; `proxyctl validate` checks the config"
            raise StartError(f"no worker got ready: {self._pool.failure()}", hint)
        admin = self._reloader.served.config.admin
        if admin is not None and admin.listen is not None:
            await self._admin.start(str(admin.listen))
            self._life.admin_address = self._admin.address
        self._life.up_at = time.time()
        self._begin(self._for_ever(self._reloads.run))
        self._say_ready(ready)
        self._service.ready()

    def _say_ready(self, ready: int) -> None:
        listeners = len(self._listeners.names())
        generation = self._reloader.served.plan.generation
        seconds = time.monotonic() - self._setup.started
        what = f"{output.plural(ready, 'worker')}, {output.plural(listeners, 'listener')}"
        output.say([f"ready: {what}, generation {generation} ({seconds:.2f} s)"])
        self._log.info("ready", workers=ready, listeners=listeners, generation=generation)

    async def _close(self) -> None:
        signals.remove(self._loop)
        await self._admin.stop()
        if not self._pool.is_empty():
            # The start failed half way: nobody is served yet.
            self._hurry.set()
            await self._stop(StopOrder(delay_s=0.0, drain_s=0.0, hurry=self._hurry))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._example.stop()
        await self._pool.close()
        self._reloads.cancel()
        await self._control.close()

    # Duties

    def _begin(self, duty: Coroutine[Any, Any, object]) -> None:
        task = self._loop.create_task(duty)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _for_ever(self, duty: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Workers must not be left alone because one step of ours had a bug."""
        while True:
            try:
                await duty()
            except Exception:
                self._log.exception("a duty of the supervisor failed and is begun anew")
            await asyncio.sleep(_RETRY_S)

    async def _obey_signals(self) -> None:
        while True:
            match await self._events.get():
                case signals.Event.RELOAD:
                    self.request_reload()
                case signals.Event.DRAIN if not self._life.is_stopping:
                    self.request_stop(None, at_once=False)
                case signals.Event.DRAIN | signals.Event.STOP:
                    self.request_stop(None, at_once=True)
                case signals.Event.REOPEN_LOGS:
                    self._begin(self._logs.reopen())
                case signals.Event.MORE:
                    self.request_resize(1)
                case signals.Event.FEWER:
                    self.request_resize(-1)

    def _read_served(self) -> tuple[Plan, float]:
        return self._reloader.served.plan, self._reloader.served.read_at

    async def _refresh(self) -> None:
        """Resolve names again, every ``dns_refresh``."""
        while True:
            await asyncio.sleep(float(self._reloader.served.config.dns_refresh))
            committed = self._pool.generations.committed
            if self._reloads.is_busy or committed is None:
                continue
            known = committed.plan.endpoints
            config = self._reloader.served.config
            found = await self._setup.source.resolve(config, known.addresses)
            if found != known and config is self._reloader.served.config:
                self._pool.generations.resolve(found)

    # Reload, resize and stop

    def request_reload(self, read: asyncio.Future[None] | None = None) -> asyncio.Future[Outcome]:
        """See `ReloadQueue.request`."""
        return self._reloads.request(read)

    def request_resize(self, change: int, timeout_s: float = RESIZE_S) -> asyncio.Future[Resized]:
        """See `ReloadQueue.request_resize`."""
        return self._reloads.request_resize(change, timeout_s)

    def request_stop(self, drain_s: float | None, *, at_once: bool) -> asyncio.Future[Stopped]:
        """Drain, then end; ``drain_s`` None: as configured.

        A stop under way can be hurried, or given a nearer deadline.
        """
        if at_once:
            self._hurry.set()
        if self._order is None:
            self._life.is_stopping = True
            self._log.info("stopping", at_once=at_once)
            timeouts = self._reloader.served.config.timeouts
            drain_s = float(timeouts.drain) if drain_s is None else drain_s
            self._order = StopOrder(
                delay_s=float(timeouts.shutdown_delay), drain_s=drain_s, hurry=self._hurry
            )
            self._service.stopping(self._order.delay_s + drain_s)
            self._begin(self._stop(self._order))
        elif drain_s is not None:
            self._shutdown.shorten(self._order, drain_s)
        self._pool.changed.set()
        return self._stopped

    async def _stop(self, order: StopOrder) -> None:
        try:
            stopped = await self._shutdown.run(order)
        except Exception:
            # Our bug, or a kernel that refuses; but nobody could end us any more but by SIGKILL.
            self._log.exception("the stop failed, and goes on at once")
            self._hurry.set()
            stopped = await self._shutdown.run(order)
        if not self._stopped.done():
            self._stopped.set_result(stopped)

    def _on_loop_error(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._log.error(
            "event loop", message=context.get("message"), exc_info=context.get("exception")
        )

    def _log_event(self, level: str, message: str, fields: dict[str, str]) -> None:
        getattr(self._log, level)(message, **fields)
