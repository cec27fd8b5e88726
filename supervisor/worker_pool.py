"""All workers: as many as wanted, each in a slot; replaced when they crash, hang or leave.

A slot has at most one worker that serves; workers that drain may be there beside it. Whatever
happens is noted at once; `WorkerPool.run` then brings what is into line with what is wanted.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Final

from shared.errors import ControlError, InternalError
from shared.limit_layout import rows_for
from shared.log import Logger, LogSettings
from shared.messages import Drain, Spawn, SupervisorMessage
from supervisor.assigner import Assigner, Sockets
from supervisor.control_server import ControlServer
from supervisor.counts import CountsTable, Killed
from supervisor.fork_client import ForkServer
from supervisor.generations import Duties, Generations
from supervisor.ledger import Ledger
from supervisor.limit_tables import LimitTables
from supervisor.listeners import Listeners
from supervisor.restart_log import RestartLog
from supervisor.strays import StrayReaper
from supervisor.worker_ends import Accounts, Slot, WorkerEnds
from supervisor.worker_process import Exit, Status, WorkerProcess, WorkerState

TICK_S: Final = 0.1
SILENT_S: Final = 1.0  # without a heartbeat: siblings adopt its listeners (design section 3)
_FORK_SERVER_S: Final = 1.0  # between two starts of one that ends at once
_STALL_S: Final = 0.5  # we ourselves were away: what workers said meanwhile is still unread


class WorkerPool:
    """The pool. ``wanted`` may be changed at any time, within the slots."""

    def __init__(
        self,
        *,
        run: str,
        runtime_dir: str,
        slots: int,
        wanted: int,
        control: ControlServer,
        listeners: Listeners,
        ledger: Ledger,
        log_settings: LogSettings,
        log: Logger,
    ) -> None:
        self.wanted = wanted
        self.watchdog_s = 10.0
        self.log_settings = log_settings
        self.workers: dict[int, WorkerProcess] = {}  # alive, by incarnation
        self.counts = CountsTable(rows_for(slots))
        self.limits = LimitTables(rows_for(slots))
        self.fork_server = ForkServer(log)
        duties = Duties(self._on_serving, self._on_replace)
        self.generations = Generations(self.workers, control, listeners, log, duties)
        sockets = Sockets(listeners, slots)
        self.assigner = Assigner(self.workers, sockets, control, log, self._on_handed_over)
        self.is_stopping = False  # nothing is replaced any more
        self._run = run
        self._runtime_dir = runtime_dir
        self._control = control
        self._ledger = ledger
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._slots = [Slot() for _ in range(slots)]
        accounts = Accounts(ledger, self.counts, self.limits)
        self._ends = WorkerEnds(self._slots, accounts, control, log)
        self.changed = self._ends.changed  # for those who wait for a worker to get ready or end
        self._incarnation = 0
        self._fork_server_due = 0.0
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._strays = StrayReaper()

    # What there is, and what there was

    @property
    def restarts(self) -> RestartLog:
        """Workers that ended unasked."""
        return self._ends.restarts

    @property
    def killed(self) -> Killed:
        """What forced ends cost: the counts of all workers that ended by a signal or a crash."""
        return self._ends.killed

    @property
    def drained(self) -> int:
        """Connections that ended by themselves after the full stop began."""
        return self._ends.drained

    @property
    def cut(self) -> int:
        """Connections that the full stop cut."""
        return self._ends.cut

    @property
    def slots(self) -> int:
        """Room for this many workers."""
        return len(self._slots)

    def ready(self) -> list[WorkerProcess]:
        """Workers that serve and are not on their way out."""
        return [worker for worker in self.workers.values() if worker.status is Status.READY]

    def is_settled(self) -> bool:
        """Every wanted slot has a ready worker, or has failed."""
        return all(
            slot.history.is_failed or (slot.worker and slot.worker.status is Status.READY)
            for slot in self._slots[: self.wanted]
        )

    def failure(self) -> str:
        """Why the last worker ended that did; "" when none has."""
        reasons = [slot.history.reason for slot in self._slots if slot.history.reason]
        return reasons[0] if reasons else ""

    def find(self, incarnation: int) -> WorkerProcess | None:
        """A worker that lives, or died a moment ago and whose last words may still come."""
        return self.workers.get(incarnation) or self._ends.burying.get(incarnation)

    def counts_by_state(self) -> dict[str, int]:
        """Workers by state: ready, silent, starting, draining, failed."""
        counts = dict.fromkeys(("ready", "silent", "starting", "draining", "failed"), 0)
        for state in self.states():
            counts[state.state if state.state != "leaving" else "draining"] += 1
        return counts

    def states(self) -> list[WorkerState]:
        """Every worker, and every wanted slot that has none, by slot."""
        states = [self._state(worker) for worker in self.workers.values()]
        for number, slot in enumerate(self._slots[: self.wanted]):
            if slot.worker is None and not self.is_stopping:
                state = "failed" if slot.history.is_failed else "starting"
                states.append(WorkerState(slot=number, state=state, restarts=slot.restarts))
        return sorted(states, key=lambda state: (state.slot, state.incarnation))

    def _state(self, worker: WorkerProcess) -> WorkerState:
        is_silent = worker.status is Status.READY and worker.is_silent
        return WorkerState(
            slot=worker.slot,
            pid=worker.pid,
            state="silent" if is_silent else worker.status.value,
            generation=worker.generation,
            connections=worker.connections,
            incarnation=worker.incarnation,
            age_s=round(self._loop.time() - worker.started_at, 3),
            lag_s=round(worker.lag_s, 6),
            indexes=tuple(sorted(worker.indexes)),
            restarts=self._slots[worker.slot].restarts,
        )

    # What is wanted

    def resize(self, wanted: int) -> None:
        """Want this many workers, as far as there are slots; at least one."""
        wanted = min(max(1, wanted), self.slots)
        if wanted != self.wanted:
            self._log.info("number of workers changed", workers=wanted)
            self.wanted = wanted
            self._wake.set()

    def is_empty(self) -> bool:
        """No worker lives, and all that the last ones said has been taken in."""
        return not self.workers and not self._ends.burying

    def leave(self, worker: WorkerProcess) -> None:
        """Hand its listeners over, then let it drain; a wanted slot gets a successor first."""
        if worker.status in (Status.LEAVING, Status.DRAINING) or self.is_stopping:
            return
        slot = self._slots[worker.slot]
        if slot.worker is worker:
            slot.worker = None
        if worker.status is Status.STARTING:
            worker.is_unwanted = True
            worker.kill("no longer wanted")
            return
        worker.status = Status.LEAVING
        self.assigner.change()
        self._wake.set()

    def send(self, worker: WorkerProcess, message: SupervisorMessage) -> None:
        """Tell one worker."""
        self._control.send(worker.incarnation, message)

    def read_counters(self) -> None:
        """Take in what workers have reported and nobody has read yet."""
        self._control.read_queued_snapshots()

    def send_all(self, message: SupervisorMessage) -> None:
        """Tell every worker that has said Hello."""
        for worker in self.workers.values():
            if worker.has_said_hello:
                self._control.send(worker.incarnation, message)

    async def wait(self, is_so: Callable[[], bool], timeout_s: float | None) -> bool:
        """Wait until ``is_so``, looking whenever a worker changes; False when time is over."""
        try:
            async with asyncio.timeout(timeout_s):
                while not is_so():
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            return is_so()
        return True

    async def run(self) -> None:
        """Keep as many workers as wanted, for ever."""
        due = self._loop.time()
        while True:
            now = self._loop.time()
            if now - due > _STALL_S:
                for worker in self.workers.values():
                    worker.heard_at = max(worker.heard_at, now - TICK_S)
            self._check_silence(now)
            self.generations.tick(now)
            if not self.is_stopping:
                self._keep_fork_server(now)
                self._reconcile(now)
            self._strays.reap(now)
            due = now + TICK_S
            self._wake.clear()
            try:
                async with asyncio.timeout(TICK_S):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def close(self) -> None:
        """End the fork server, bury the dead, give memory back. No worker may live any more."""
        self.fork_server.stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2.0)
        for task in self._tasks:
            task.cancel()
        self.counts.close()
        self.limits.close()

    def _keep_fork_server(self, now: float) -> None:
        """One that was killed is started anew before it is needed."""
        if self.fork_server.pid or not self.workers or now < self._fork_server_due:
            return
        self._fork_server_due = now + _FORK_SERVER_S
        try:
            self.fork_server.start()
        except OSError as error:
            self._log.error("cannot start the fork server", error=str(error))

    def _reconcile(self, now: float) -> None:
        for number, slot in enumerate(self._slots):
            if number >= self.wanted:
                if slot.worker is not None:
                    self.leave(slot.worker)
            elif slot.worker is None and not slot.is_spawning and now >= slot.history.not_before:
                slot.is_spawning = True
                self._start_task(self._spawn(number, slot))

    def _start_task(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Start and end of a worker

    async def _spawn(self, number: int, slot: Slot) -> None:
        if self.is_stopping:  # since this was begun
            slot.is_spawning = False
            return
        self._incarnation += 1
        try:
            row = self.counts.take(number)
        except InternalError as error:
            slot.is_spawning = False
            self._ends.failed_start(number, f"{error}: too many workers drain")
            return
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            slot.is_spawning = False
            self.counts.fold(row)
            self._ends.failed_start(number, str(error))
            return
        self.limits.open_row(row)
        worker = WorkerProcess(number, self._incarnation, row, ours, self._loop.time())
        # Known before it is there: its Hello may come before the fork server's answer.
        self.workers[worker.incarnation] = worker
        self._ledger.open(worker.incarnation)
        slot.worker = worker
        try:
            with theirs:
                spawn = self._spawn_message(worker)
                pid = await self.fork_server.spawn(spawn, theirs, (self.counts.fd, self.limits.fd))
            worker.watch(pid, self._on_exit)
        except (ControlError, OSError) as error:
            self._give_up(worker, str(error))
        else:
            self._log.debug("worker started", slot=number, worker=pid)
        finally:
            slot.is_spawning = False

    def _give_up(self, worker: WorkerProcess, reason: str) -> None:
        self.workers.pop(worker.incarnation, None)
        self._ends.never_came(worker, reason)
        self.generations.left(worker)

    def _spawn_message(self, worker: WorkerProcess) -> Spawn:
        return Spawn(
            run=self._run,
            slot=worker.slot,
            incarnation=worker.incarnation,
            control_addr=self._control.workers_addr,
            stats_addr=self._control.stats_addr,
            runtime_dir=self._runtime_dir,
            counts_row=worker.counts_row,
            log_level=self.log_settings.level,
            log_format=self.log_settings.format,
            log_file=self.log_settings.file,
        )

    def _on_serving(self, worker: WorkerProcess) -> None:
        """It serves what is committed: its first generation, or one that it had missed."""
        if worker.our_reason:
            return  # it is being killed: it neither counts as ready nor is given listeners
        if worker.status is Status.STARTING:
            worker.status = Status.READY
            worker.ready_at = self._loop.time()
            self._log.info("worker ready", slot=worker.slot, worker=worker.pid)
        else:
            generation = worker.generation
            self._log.info(
                "worker has caught up", slot=worker.slot, worker=worker.pid, generation=generation
            )
        self.assigner.change()
        self.changed.set()

    def _on_replace(self, worker: WorkerProcess, reason: str) -> None:
        """What it has goes on under what it knows; it gets nothing new."""
        if worker.status is Status.STARTING:
            worker.kill(reason)
        elif worker.status is Status.READY:
            self._ends.outdated(worker, reason)
            self.leave(worker)

    def _on_handed_over(self, worker: WorkerProcess) -> None:
        worker.status = Status.DRAINING
        worker.indexes = frozenset()
        self._control.send(worker.incarnation, Drain(deadline_s=None))
        self.changed.set()

    def _on_exit(self, worker: WorkerProcess, end: Exit) -> None:
        del self.workers[worker.incarnation]
        self._ends.came(worker, end)
        self.generations.left(worker)
        self.assigner.change()
        self._start_task(self._ends.bury(worker, end, is_stopping=self.is_stopping))
        self._wake.set()

    # Silence

    def heard(self, worker: WorkerProcess) -> None:
        """It has said something."""
        worker.heard_at = self._loop.time()
        if worker.is_silent:
            worker.is_silent = False
            self._log.info("worker beats again", slot=worker.slot, worker=worker.pid)
            self.generations.silent(worker)
            self.assigner.change()

    def _check_silence(self, now: float) -> None:
        for worker in list(self.workers.values()):
            if not worker.pid:
                continue  # the fork server has its own time to answer, and may have to start first
            silence_s = now - worker.heard_at
            if silence_s > self.watchdog_s:
                worker.kill(f"silent for {self.watchdog_s:g} s")
            elif silence_s > SILENT_S and worker.has_said_hello and not worker.is_silent:
                worker.is_silent = True
                self._log.warning("worker is silent", slot=worker.slot, worker=worker.pid)
                self.assigner.change()
                self.generations.silent(worker)
