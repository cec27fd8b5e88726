"""All workers: as many as wanted, each in a slot; replaced when they crash, hang or leave.

A slot has at most one worker that serves; workers that drain may be there beside it. Whatever
happens is noted at once; `WorkerPool.run` then brings what is into line with what is wanted.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Final

from msgspec import Struct

from shared.errors import ControlError
from shared.log import Logger, LogSettings
from shared.messages import Drain, Spawn, SupervisorMessage
from supervisor.assigner import Assigner
from supervisor.control_server import ControlServer
from supervisor.counts import CountsTable
from supervisor.fork_client import ForkServer
from supervisor.generations import Generations
from supervisor.ledger import Ledger
from supervisor.listeners import Listeners
from supervisor.restart_log import RestartLog
from supervisor.restart_policy import SlotHistory, WorkerEnd, after_end
from supervisor.strays import StrayReaper
from supervisor.worker_process import Exit, Status, WorkerProcess, WorkerState

TICK_S: Final = 0.1
SILENT_S: Final = 1.0  # without a heartbeat: siblings adopt its listeners (design section 3)
_STALL_S: Final = 0.5  # we ourselves were away: what workers said meanwhile is still unread
_LAST_SNAPSHOT_S: Final = 0.25  # a dead worker's last bytes are read by ZeroMQ's own thread


class _Slot(Struct):
    history: SlotHistory = SlotHistory()
    worker: WorkerProcess | None = None
    restarts: int = 0
    is_spawning: bool = False


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
        self.restarts = RestartLog()
        self.workers: dict[int, WorkerProcess] = {}  # alive, by incarnation
        self.counts = CountsTable()
        self.fork_server = ForkServer(log)
        self.generations = Generations(self.workers, control, listeners, log, self._on_ready)
        self.assigner = Assigner(self.workers, slots, control, self._on_handed_over)
        self.changed = asyncio.Event()  # a worker got ready or ended; for those who wait for it
        self.is_stopping = False  # nothing is replaced any more
        self.drained = 0
        self.cut = 0
        self._run = run
        self._runtime_dir = runtime_dir
        self._control = control
        self._ledger = ledger
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._slots = [_Slot() for _ in range(slots)]
        self._incarnation = 0
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._burying: dict[int, WorkerProcess] = {}
        self._strays = StrayReaper()

    # What there is

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
        return self.workers.get(incarnation) or self._burying.get(incarnation)

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
        return not self.workers and not self._burying

    def leave(self, worker: WorkerProcess) -> None:
        """Hand its listeners over, then let it drain; a wanted slot gets a successor first."""
        if worker.status in (Status.LEAVING, Status.DRAINING) or self.is_stopping:
            return
        slot = self._slots[worker.slot]
        if slot.worker is worker:
            slot.worker = None
        if worker.status is Status.STARTING:
            worker.kill("no longer wanted")
            return
        worker.status = Status.LEAVING
        self.assigner.change()
        self._wake.set()

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

    async def _spawn(self, number: int, slot: _Slot) -> None:
        self._incarnation += 1
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            slot.is_spawning = False
            self._note_end(number, WorkerEnd(ready_s=None, is_abnormal=True, reason=str(error)))
            self._log.error("cannot start a worker", slot=number, error=str(error))
            return
        row = self.counts.take()
        worker = WorkerProcess(number, self._incarnation, row, ours, self._loop.time())
        # Known before it is there: its Hello may come before the fork server's answer.
        self.workers[worker.incarnation] = worker
        self._ledger.open(worker.incarnation)
        slot.worker = worker
        try:
            with theirs:
                spawn = self._spawn_message(worker)
                pid = await self.fork_server.spawn(spawn, theirs, self.counts.fd)
            worker.watch(pid, self._on_exit)
        except (ControlError, OSError) as error:
            self._give_up(worker, str(error))
        else:
            self._log.debug("worker started", slot=number, worker=pid)
        finally:
            slot.is_spawning = False

    def _give_up(self, worker: WorkerProcess, reason: str) -> None:
        """There is no process. Should one come up after all, it finds its socket closed."""
        self.workers.pop(worker.incarnation, None)
        worker.close()
        self._ledger.fold(worker.incarnation)
        self.counts.fold(worker.counts_row)
        slot = self._slots[worker.slot]
        if slot.worker is worker:
            slot.worker = None
        self._note_end(worker.slot, WorkerEnd(ready_s=None, is_abnormal=True, reason=reason))
        self._note_restart(worker, "fork", reason)
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

    def _on_ready(self, worker: WorkerProcess) -> None:
        self._log.info("worker ready", slot=worker.slot, worker=worker.pid)
        self.assigner.change()
        self.changed.set()

    def _on_handed_over(self, worker: WorkerProcess) -> None:
        worker.status = Status.DRAINING
        worker.indexes = frozenset()
        self._control.send(worker.incarnation, Drain(deadline_s=None))

    def _on_exit(self, worker: WorkerProcess, end: Exit) -> None:
        del self.workers[worker.incarnation]
        self._burying[worker.incarnation] = worker
        slot = self._slots[worker.slot]
        is_expected = worker.drained is not None or self.is_stopping
        is_expected = is_expected or worker.status in (Status.LEAVING, Status.DRAINING)
        if slot.worker is worker:
            slot.worker = None
            ready_s = None
            if worker.ready_at is not None:
                ready_s = self._loop.time() - worker.ready_at
            is_outside = end.signal == 9 and not worker.our_reason
            how = WorkerEnd(
                ready_s=ready_s,
                is_abnormal=bool(end.status or end.signal),
                is_outside_kill=is_outside,
                reason=worker.our_reason or end.text(),
            )
            self._note_end(worker.slot, how)
        self.generations.left(worker)
        self.assigner.change()
        self._start_task(self._bury(worker, end, is_expected))
        self._wake.set()

    async def _bury(self, worker: WorkerProcess, end: Exit, is_expected: bool) -> None:
        """Take in what it said last, then fold its counters."""
        deadline = self._loop.time() + _LAST_SNAPSHOT_S
        while not self._has_said_all(worker) and self._loop.time() < deadline:
            await asyncio.sleep(_LAST_SNAPSHOT_S / 10)
            self._control.read_queued_snapshots()
        self._ledger.fold(worker.incarnation)
        self.counts.fold(worker.counts_row)
        worker.close()
        if worker.drained is not None and self.is_stopping:  # a resize is not the stop's
            self.drained += worker.drained[0]
            self.cut += worker.drained[1]
        if is_expected:
            self._log.info("worker ended", slot=worker.slot, worker=worker.pid)
        else:
            self._note_unasked_end(worker, end)
        del self._burying[worker.incarnation]
        self.changed.set()

    def _has_said_all(self, worker: WorkerProcess) -> bool:
        has_drained = worker.drained is not None or not self.is_stopping
        return has_drained and self._ledger.has_last(worker.incarnation)

    def _note_unasked_end(self, worker: WorkerProcess, end: Exit) -> None:
        reason = worker.our_reason or end.text()
        if worker.last_error:
            reason = f"{reason}: {worker.last_error}"
        if worker.our_reason:
            kind = "hung" if worker.ready_at is not None else "boot"
        elif worker.ready_at is None:
            kind = "boot"
        else:
            kind = "killed" if end.signal == 9 else "crashed"
        slot = self._slots[worker.slot]
        slot.history = SlotHistory(
            failed_starts=slot.history.failed_starts,
            not_before=slot.history.not_before,
            reason=reason,
        )
        self._note_restart(worker, kind, reason)

    def _note_end(self, number: int, end: WorkerEnd) -> None:
        slot = self._slots[number]
        was_failed = slot.history.is_failed
        slot.history = after_end(slot.history, end, self._loop.time())
        slot.restarts += 1
        if slot.history.is_failed and not was_failed:
            self._log.error("slot failed: too many failed starts in a row", slot=number)
        self.changed.set()

    def _note_restart(self, worker: WorkerProcess, kind: str, reason: str) -> None:
        self._log.warning("worker ended", slot=worker.slot, worker=worker.pid, reason=reason)
        self.restarts.note(worker.slot, worker.pid, kind, reason)

    # Silence

    def heard(self, worker: WorkerProcess) -> None:
        """It has said something."""
        worker.heard_at = self._loop.time()
        if worker.is_silent:
            worker.is_silent = False
            self._log.info("worker beats again", slot=worker.slot, worker=worker.pid)
            self.assigner.change()
            self.generations.silent(worker)

    def _check_silence(self, now: float) -> None:
        for worker in list(self.workers.values()):
            silence_s = now - worker.heard_at
            if silence_s > self.watchdog_s:
                worker.kill(f"silent for {self.watchdog_s:g} s")
            elif silence_s > SILENT_S and worker.has_said_hello and not worker.is_silent:
                worker.is_silent = True
                self._log.warning("worker is silent", slot=worker.slot, worker=worker.pid)
                self.assigner.change()
                self.generations.silent(worker)
