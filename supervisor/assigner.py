"""Keeps every listening socket polled by some worker (design section 2).

Carries out what `supervisor/assignment.py` decides: first gives, waits until the new owners say
that they poll, then takes from the old ones. A worker that leaves is told to drain after that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from shared.messages import Assign
from supervisor.assignment import Share, spread, union
from supervisor.control_server import ControlServer
from supervisor.worker_process import Status, WorkerProcess


class Assigner:
    """``workers`` is shared, by incarnation. ``on_handed_over``: a leaving worker may drain."""

    def __init__(
        self,
        workers: dict[int, WorkerProcess],
        slots: int,
        control: ControlServer,
        on_handed_over: Callable[[WorkerProcess], None],
    ) -> None:
        self._workers = workers
        self._slots = slots
        self._control = control
        self._on_handed_over = on_handed_over
        self._changed = asyncio.Event()
        self._woken = asyncio.Event()  # by a change or an acknowledgement

    def change(self) -> None:
        """Who may poll has changed."""
        self._changed.set()
        self._woken.set()

    def assigned(self, worker: WorkerProcess, epoch: int) -> None:
        """The worker polls exactly what it was told with this epoch."""
        worker.acked_epoch = max(worker.acked_epoch, epoch)
        self._woken.set()

    async def run(self) -> None:
        """Carry out changes for ever."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._reassign()

    async def _reassign(self) -> None:
        answering = {w.incarnation: w for w in self._workers.values() if w.is_answering}
        owners = {incarnation: worker.slot for incarnation, worker in answering.items()}
        target = spread(self._slots, owners)
        if not target:
            return  # nobody to give to; the next worker that gets ready is a change
        current = {incarnation: worker.indexes for incarnation, worker in answering.items()}
        self._send(answering, union(current, target))
        if not await self._acknowledged(list(answering.values())):
            return  # changed again meanwhile: begin anew, nothing was taken from anyone
        self._send(answering, target)
        for worker in list(self._workers.values()):
            if worker.status is Status.LEAVING:
                self._on_handed_over(worker)

    def _send(self, workers: dict[int, WorkerProcess], share: Share) -> None:
        for incarnation, worker in workers.items():
            if share[incarnation] == worker.indexes:
                continue
            worker.indexes = share[incarnation]
            worker.epoch += 1
            order = Assign(epoch=worker.epoch, indexes=sorted(worker.indexes))
            self._control.send(incarnation, order)

    async def _acknowledged(self, workers: list[WorkerProcess]) -> bool:
        """Wait until all poll as told; False when there is a change first."""
        while any(worker.acked_epoch < worker.epoch for worker in workers):
            self._woken.clear()
            if self._changed.is_set():
                return False
            await self._woken.wait()
        return not self._changed.is_set()
