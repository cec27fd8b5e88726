"""What becomes of a worker that has ended: its last words, its counts, its slot's history."""

from __future__ import annotations

import asyncio
from typing import Final

from msgspec import Struct

from shared.log import Logger
from supervisor.control_server import ControlServer
from supervisor.counts import Counts, CountsTable, Killed
from supervisor.ledger import Ledger
from supervisor.limit_tables import LimitTables
from supervisor.restart_log import Restart, RestartLog
from supervisor.restart_policy import (
    FAILED_RETRY_S,
    FAILURES_MAX,
    SlotHistory,
    WorkerEnd,
    after_end,
)
from supervisor.worker_process import Exit, Status, WorkerProcess

_LAST_SNAPSHOT_S: Final = 0.25  # a dead worker's last bytes are read by ZeroMQ's own thread


class Slot(Struct):
    """At most one worker that serves; those that drain may be there beside it."""

    history: SlotHistory = SlotHistory()
    worker: WorkerProcess | None = None
    restarts: int = 0
    is_spawning: bool = False


class Accounts(Struct, frozen=True):
    """Where what workers counted is kept."""

    ledger: Ledger
    counts: CountsTable
    limits: LimitTables


class WorkerEnds:
    """``killed``: what forced ends cost. ``drained`` and ``cut`` are those of the full stop."""

    def __init__(
        self, slots: list[Slot], accounts: Accounts, control: ControlServer, log: Logger
    ) -> None:
        self.restarts = RestartLog()
        self.killed = Killed()
        self.drained = 0
        self.cut = 0
        self.changed = asyncio.Event()  # a worker got ready or ended
        self.burying: dict[int, WorkerProcess] = {}  # dead, and their last words may still come
        self._slots = slots
        self._accounts = accounts
        self._control = control
        self._log = log
        self._loop = asyncio.get_running_loop()

    def failed_start(self, number: int, reason: str) -> None:
        """There is no process, nor anything that stands for one."""
        self._note_end(number, WorkerEnd(ready_s=None, is_abnormal=True, reason=reason))
        self._log.error("cannot start a worker", slot=number, error=reason)

    def never_came(self, worker: WorkerProcess, reason: str) -> None:
        """There is no process. Should one come up after all, it finds its socket closed."""
        worker.close()
        self._accounts.limits.forget(worker.counts_row)
        self._accounts.ledger.fold(worker.incarnation)
        self._accounts.counts.fold(worker.counts_row)
        slot = self._slots[worker.slot]
        if slot.worker is worker:
            slot.worker = None
        self._note_end(worker.slot, WorkerEnd(ready_s=None, is_abnormal=True, reason=reason))
        self._note_restart(worker, "fork", reason, Counts())

    def came(self, worker: WorkerProcess, end: Exit) -> None:
        """The process is gone: say so in its slot, and stop counting what it held."""
        self.burying[worker.incarnation] = worker
        self._accounts.limits.forget(worker.counts_row)
        slot = self._slots[worker.slot]
        if slot.worker is not worker:
            return
        slot.worker = None
        ready_at = worker.ready_at
        how = WorkerEnd(
            ready_s=None if ready_at is None else self._loop.time() - ready_at,
            is_abnormal=_is_forced(end),
            is_outside_kill=end.signal == 9 and not worker.our_reason,
            reason=worker.our_reason or end.text(),
        )
        self._note_end(worker.slot, how)

    async def bury(self, worker: WorkerProcess, end: Exit, *, is_stopping: bool) -> None:
        """Take in what it said last, then fold its counters."""
        deadline = self._loop.time() + _LAST_SNAPSHOT_S
        while not self._has_said_all(worker, is_stopping) and self._loop.time() < deadline:
            await asyncio.sleep(_LAST_SNAPSHOT_S / 10)
            self._control.read_queued_snapshots()
        self._accounts.ledger.fold(worker.incarnation)
        left = self._accounts.counts.fold(worker.counts_row)
        worker.close()
        if is_stopping:  # a resize is not the stop's
            self._settle_stop(worker, left)
        if _is_forced(end) and not worker.is_unwanted:  # such a one has never served
            self._add_killed(left)
        is_leaving = is_stopping or worker.status in (Status.LEAVING, Status.DRAINING)
        is_asked = not _is_forced(end) and (is_leaving or worker.drained is not None)
        if is_asked or worker.is_unwanted:
            self._log.info("worker ended", slot=worker.slot, worker=worker.pid)
        else:
            self._note_unasked_end(worker, end, left)
        del self.burying[worker.incarnation]
        self.changed.set()

    def outdated(self, worker: WorkerProcess, reason: str) -> None:
        """It lives, and cannot follow a generation: another takes its place."""
        if worker.last_error:
            reason = f"{reason}: {worker.last_error}"
        self._slots[worker.slot].restarts += 1
        self._note_restart(
            worker, "outdated", reason, self._accounts.counts.read(worker.counts_row)
        )

    def _has_said_all(self, worker: WorkerProcess, is_stopping: bool) -> bool:
        has_drained = worker.drained is not None or not is_stopping
        return has_drained and self._accounts.ledger.has_last(worker.incarnation)

    def _settle_stop(self, worker: WorkerProcess, left: Counts) -> None:
        """What it says itself, or for one that was killed what stands in shared memory."""
        if worker.drained is not None:
            self.drained += worker.drained[0]
            self.cut += worker.drained[1]
            return
        if worker.ended_before is not None:
            self.drained += max(0, left.ended - worker.ended_before)
        self.cut += max(0, left.accepted - left.ended)

    def _add_killed(self, left: Counts) -> None:
        self.killed.workers += 1
        self.killed.accepted += left.accepted
        self.killed.dialled += left.dialled
        self.killed.ended += left.ended

    def _note_unasked_end(self, worker: WorkerProcess, end: Exit, left: Counts) -> None:
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
        self._note_restart(worker, kind, reason, left)

    def _note_end(self, number: int, end: WorkerEnd) -> None:
        slot = self._slots[number]
        was_failed = slot.history.is_failed
        slot.history = after_end(slot.history, end, self._loop.time())
        slot.restarts += 1
        if slot.history.is_failed and not was_failed:
            self._log.error(
                f"slot failed: {FAILURES_MAX} failed starts in a row; mend what the reason says,"
                f" it is tried again every {FAILED_RETRY_S:g} s",
                slot=number,
                reason=end.reason,
            )
        self.changed.set()

    def _note_restart(self, worker: WorkerProcess, kind: str, reason: str, left: Counts) -> None:
        held = max(0, left.accepted - left.ended)
        self._log.warning(
            "worker ended" if kind != "outdated" else "worker is replaced",
            slot=worker.slot,
            worker=worker.pid,
            kind=kind,
            reason=reason,
            connections=held,
        )
        self.restarts.note(
            Restart(
                slot=worker.slot,
                pid=worker.pid,
                incarnation=worker.incarnation,
                kind=kind,
                reason=reason,
                accepted=left.accepted,
                dialled=left.dialled,
                ended=left.ended,
            )
        )


def _is_forced(end: Exit) -> bool:
    return bool(end.status or end.signal)
