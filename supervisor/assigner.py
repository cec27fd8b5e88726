"""Keeps every listening socket polled by some worker (design section 2).

Carries out what `supervisor/assignment.py` decides: first gives, waits until the new owners say
that they poll, steers new connections to them, then takes from the old ones. A worker that leaves
is told to drain after that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from shared.log import Logger
from shared.messages import Assign
from supervisor.assignment import Share, spread, steered, union
from supervisor.control_server import ControlServer
from supervisor.listeners import Listeners
from supervisor.worker_process import Status, WorkerProcess

_ANSWER_S: Final = 1.0  # without an acknowledgement the assignment is sent again


class Sockets(Struct, frozen=True):
    """What is shared out: the sockets of all listeners, ``slots`` of each."""

    listeners: Listeners
    slots: int


class Assigner:
    """``workers`` is shared, by incarnation. ``on_handed_over``: a leaving worker may drain."""

    def __init__(
        self,
        workers: dict[int, WorkerProcess],
        sockets: Sockets,
        control: ControlServer,
        log: Logger,
        on_handed_over: Callable[[WorkerProcess], None],
    ) -> None:
        self._workers = workers
        self._sockets = sockets
        self._control = control
        self._log = log
        self._is_refusal_noted = False
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
        slots = self._sockets.slots
        target = spread(slots, owners)
        if not target:
            return  # nobody to give to; the next worker that gets ready is a change
        current = {incarnation: worker.indexes for incarnation, worker in answering.items()}
        self._send(answering, union(slots, current, target))
        if not await self._acknowledged(list(answering.values())):
            return  # changed again meanwhile: begin anew, nothing was taken from anyone
        self._steer(steered(slots, owners))
        self._send(answering, target)
        for worker in list(self._workers.values()):
            if worker.status is Status.LEAVING:
                self._on_handed_over(worker)
            elif worker.indexes and worker.incarnation not in answering:
                # Silent: should it beat again it accepts nothing before it has caught up.
                worker.indexes = frozenset()
                self._tell(worker)

    def _steer(self, indexes: frozenset[int]) -> None:
        problem = self._sockets.listeners.steer(indexes)
        if problem and not self._is_refusal_noted:
            self._is_refusal_noted = True
            self._log.warning("the kernel refuses to even out shares", reason=problem)

    def _send(self, workers: dict[int, WorkerProcess], share: Share) -> None:
        for incarnation, worker in workers.items():
            if share[incarnation] == worker.indexes:
                continue
            worker.indexes = share[incarnation]
            self._tell(worker)

    def _tell(self, worker: WorkerProcess) -> None:
        worker.epoch += 1
        order = Assign(epoch=worker.epoch, indexes=sorted(worker.indexes))
        self._control.send(worker.incarnation, order)

    async def _acknowledged(self, workers: list[WorkerProcess]) -> bool:
        """Wait until all poll as told; False when there is a change first."""
        while late := [worker for worker in workers if worker.acked_epoch < worker.epoch]:
            self._woken.clear()
            if self._changed.is_set():
                return False
            try:
                async with asyncio.timeout(_ANSWER_S):
                    await self._woken.wait()
            except TimeoutError:
                for worker in late:
                    self._tell(worker)  # it, or the answer, was dropped by a full queue
        return not self._changed.is_set()
