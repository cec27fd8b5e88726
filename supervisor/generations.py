"""Generations on their way to workers: all at once in a rollout, or one by one at boot.

Carries out what `supervisor/rollout.py` decides. A worker that says Hello while a rollout
prepares takes part in it; at any other time it gets the committed generation.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable

from msgspec import Struct, structs

from shared.errors import ControlError
from shared.log import Logger
from shared.messages import (
    ROUTES_PER_MESSAGE,
    Abort,
    Commit,
    Prepare,
    PrepareRoutes,
    Resolve,
    encode,
)
from shared.plan import Endpoints, Plan
from supervisor.control_server import ControlServer
from supervisor.listeners import Listeners
from supervisor.rollout import (
    PROGRESS_S,
    Action,
    Phase,
    Replace,
    Rollout,
    SendAbort,
    SendCommit,
    SendPrepare,
)
from supervisor.worker_process import Status, WorkerProcess


class EncodedPlan(Struct):
    """A generation as the messages that carry it; encoded once for all workers."""

    plan: Plan
    prepare: bytes
    batches: list[bytes]


async def encode_plan(plan: Plan) -> EncodedPlan:
    """Encode in slices, so that thousands of routes do not hold the loop."""
    batches = []
    for start in range(0, len(plan.routes), ROUTES_PER_MESSAGE):
        routes = list(plan.routes[start : start + ROUTES_PER_MESSAGE])
        batches.append(encode(PrepareRoutes(generation=plan.generation, routes=routes)))
        await asyncio.sleep(0)
    return EncodedPlan(plan, _encode_prepare(plan), batches)


def _encode_prepare(plan: Plan) -> bytes:
    prepare = Prepare(
        generation=plan.generation,
        listeners=list(plan.listeners),
        routes=len(plan.routes),
        endpoints=plan.endpoints,
    )
    return encode(prepare)


class Generations:
    """``committed`` is what every new worker is to serve. ``workers`` is shared, by incarnation."""

    def __init__(
        self,
        workers: dict[int, WorkerProcess],
        control: ControlServer,
        listeners: Listeners,
        log: Logger,
        on_ready: Callable[[WorkerProcess], None],
    ) -> None:
        self.committed: EncodedPlan | None = None
        self._workers = workers
        self._control = control
        self._listeners = listeners
        self._log = log
        self._on_ready = on_ready
        self._rollout: Rollout | None = None
        self._candidate: EncodedPlan | None = None
        self._outcome: asyncio.Future[None] | None = None
        self._closed_for = ""
        self._loop = asyncio.get_running_loop()

    async def roll_out(self, candidate: EncodedPlan) -> None:
        """Bring a generation to every worker; ControlError with the reason when it is refused."""
        if self._closed_for:
            raise ControlError(self._closed_for)
        rollout = Rollout(candidate.plan.generation)
        self._rollout, self._candidate = rollout, candidate
        self._outcome = self._loop.create_future()
        ready = [worker.incarnation for worker in self._workers.values() if worker.has_said_hello]
        self._carry_out(rollout.begin(ready, self._loop.time()))
        try:
            await self._outcome
        finally:
            self._rollout = self._candidate = self._outcome = None

    def close(self, reason: str) -> None:
        """Refuse whatever is not final yet, and all that comes."""
        self._closed_for = reason
        if self._rollout is not None:
            self._carry_out(self._rollout.refuse(reason))

    # What workers do

    def hello(self, worker: WorkerProcess) -> None:
        """A new worker's loop turns."""
        worker.has_said_hello = True
        if self._rollout is not None and self._rollout.phase is Phase.PREPARING:
            self._carry_out(self._rollout.join(worker.incarnation, self._loop.time()))
        else:
            self._boot(worker)

    def progress(self, worker: WorkerProcess) -> None:
        """It has built some more of whatever it prepares."""
        worker.progress_at = self._loop.time()
        if self._rollout is not None:
            self._rollout.progress(worker.incarnation, worker.progress_at)

    def prepared(self, worker: WorkerProcess, generation: int) -> None:
        """It has built this generation."""
        if self._is_rolling_out(worker, generation):
            assert self._rollout is not None
            self._carry_out(self._rollout.prepared(worker.incarnation))
        elif worker.preparing == generation:
            self._control.send(worker.incarnation, Commit(generation=generation))

    def refused(self, worker: WorkerProcess, generation: int, reason: str) -> None:
        """It cannot build this generation."""
        if self._is_rolling_out(worker, generation):
            assert self._rollout is not None
            self._carry_out(self._rollout.refused(worker.incarnation, reason))
        elif worker.preparing == generation:
            worker.last_error = reason
            worker.kill(f"refused generation {generation}")

    def has_committed(self, worker: WorkerProcess, generation: int) -> None:
        """It serves by this generation."""
        worker.generation = generation
        if worker.preparing == generation:
            worker.preparing = 0
        if worker.status is Status.STARTING:
            worker.status = Status.READY
            worker.ready_at = self._loop.time()
            self._on_ready(worker)
        if self._is_rolling_out(worker, generation):
            assert self._rollout is not None
            self._carry_out(self._rollout.committed(worker.incarnation))

    def left(self, worker: WorkerProcess) -> None:
        """It is gone."""
        if self._rollout is not None:
            self._carry_out(self._rollout.left(worker.incarnation))

    def silent(self, worker: WorkerProcess) -> None:
        """It fell silent, or beats again."""
        if self._rollout is not None:
            self._carry_out(self._rollout.silent(worker.incarnation, worker.is_silent))

    def tick(self, now: float) -> None:
        """Look for workers that make no progress."""
        if self._rollout is not None:
            self._carry_out(self._rollout.tick(now))
        for worker in list(self._workers.values()):
            if worker.preparing and now - worker.progress_at >= PROGRESS_S:
                worker.kill(f"no progress for {PROGRESS_S:g} s")

    # Names and ports

    def resolve(self, endpoints: Endpoints) -> None:
        """Names have new addresses: tell every worker, and those to come."""
        if self.committed is None:
            return
        plan = structs.replace(self.committed.plan, endpoints=endpoints)
        self.committed = EncodedPlan(plan, _encode_prepare(plan), self.committed.batches)
        for worker in self._workers.values():
            if worker.has_said_hello:
                self._control.send(worker.incarnation, Resolve(endpoints=endpoints))

    def forget_listeners(self, ids: Iterable[int]) -> None:
        """Workers hold these no more, or soon will not."""
        gone = set(ids)
        for worker in self._workers.values():
            worker.given -= gone

    # Carrying out

    def _is_rolling_out(self, worker: WorkerProcess, generation: int) -> bool:
        rollout = self._rollout
        return (
            rollout is not None
            and rollout.generation == generation
            and rollout.takes_part(worker.incarnation)
        )

    def _boot(self, worker: WorkerProcess) -> None:
        # Once the first Commit is sent, the candidate is what everyone is to serve.
        is_final = self._rollout is not None and self._rollout.phase is not Phase.REFUSED
        encoded = self._candidate if is_final else self.committed
        if encoded is None:
            return
        worker.preparing = encoded.plan.generation
        worker.progress_at = self._loop.time()
        self._send_generation(worker, encoded)

    def _send_generation(self, worker: WorkerProcess, encoded: EncodedPlan) -> None:
        worker.give(self._missing(worker, encoded.plan))
        is_sent = self._control.send_raw(worker.incarnation, encoded.prepare)
        for batch in encoded.batches:
            is_sent = is_sent and self._control.send_raw(worker.incarnation, batch)
        if not is_sent:
            worker.kill("takes no messages")

    def _missing(self, worker: WorkerProcess, plan: Plan) -> list[tuple[int, int, socket.socket]]:
        held = self._listeners.held
        return [
            (listener.id, index, one)
            for listener in plan.listeners
            if listener.id not in worker.given
            for index, one in enumerate(held[listener.id].sockets)
        ]

    def _carry_out(self, actions: list[Action]) -> None:
        assert self._rollout is not None
        generation = self._rollout.generation
        for action in actions:
            worker = self._workers.get(action.incarnation)
            if worker is None:
                continue
            match action:
                case SendPrepare():
                    assert self._candidate is not None
                    worker.preparing = 0
                    self._send_generation(worker, self._candidate)
                case SendCommit():
                    self._control.send(worker.incarnation, Commit(generation=generation))
                case SendAbort():
                    self._take_back(worker, generation)
                case Replace(reason=reason):
                    worker.last_error = reason
                    worker.kill(f"cannot follow generation {generation}")
        self._conclude()

    def _take_back(self, worker: WorkerProcess, generation: int) -> None:
        assert self._candidate is not None
        kept = self.committed.plan.listeners if self.committed else ()
        worker.given -= {listener.id for listener in self._candidate.plan.listeners} - {
            listener.id for listener in kept
        }
        self._control.send(worker.incarnation, Abort(generation=generation))
        if worker.status is Status.STARTING:
            self._boot(worker)

    def _conclude(self) -> None:
        rollout = self._rollout
        assert rollout is not None
        if rollout.phase in (Phase.COMMITTING, Phase.DONE):
            self.committed = self._candidate
        outcome = self._outcome
        if outcome is None or outcome.done() or not rollout.is_over:
            return
        if rollout.phase is Phase.DONE:
            outcome.set_result(None)
        else:
            outcome.set_exception(ControlError(rollout.reason))
