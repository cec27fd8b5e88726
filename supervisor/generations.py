"""Generations on their way to workers: all at once in a rollout, or one by one.

Carries out what `supervisor/rollout.py` decides. A worker that says Hello while a rollout
prepares takes part in it; at any other time it gets the committed generation. So does one that
beats again after a rollout has ended without it: until it serves what is committed it is given no
listener.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable

from msgspec import Struct

from shared.errors import ControlError
from shared.log import Logger
from shared.messages import Abort, Commit, Resolve, Retire
from shared.plan import Endpoints, Plan
from supervisor.control_server import ControlServer
from supervisor.encoded_plan import EncodedPlan
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


class RolloutResult(Struct, frozen=True):
    """Connections of the workers that committed: ``kept`` go on, ``draining`` lost their route."""

    kept: int = 0
    draining: int = 0


class Duties(Struct, frozen=True):
    """What others do: a worker may be given listeners from now on; a worker cannot follow."""

    on_serving: Callable[[WorkerProcess], None]
    on_replace: Callable[[WorkerProcess, str], None]


class Generations:
    """``committed`` is what every new worker is to serve. ``workers`` is shared, by incarnation."""

    def __init__(
        self,
        workers: dict[int, WorkerProcess],
        control: ControlServer,
        listeners: Listeners,
        log: Logger,
        duties: Duties,
    ) -> None:
        self.committed: EncodedPlan | None = None
        self._workers = workers
        self._control = control
        self._listeners = listeners
        self._log = log
        self._duties = duties
        self._rollout: Rollout | None = None
        self._candidate: EncodedPlan | None = None
        self._outcome: asyncio.Future[None] | None = None
        self._result = RolloutResult()
        self._closed_for = ""
        self._loop = asyncio.get_running_loop()

    async def roll_out(self, candidate: EncodedPlan) -> RolloutResult:
        """Bring a generation to every worker; ControlError with the reason when it is refused."""
        if self._closed_for:
            raise ControlError(self._closed_for)
        rollout = Rollout(candidate.plan.generation)
        self._rollout, self._candidate = rollout, candidate
        self._outcome = self._loop.create_future()
        self._result = RolloutResult()
        asked = [worker for worker in self._workers.values() if _can_follow(worker)]
        silent = frozenset(worker.incarnation for worker in asked if worker.is_silent)
        begin = rollout.begin([one.incarnation for one in asked], self._loop.time(), silent)
        self._carry_out(begin)
        try:
            await self._outcome
            return self._result
        finally:
            self._rollout = self._candidate = self._outcome = None
            for worker in list(self._workers.values()):
                self._catch_up(worker)

    def close(self, reason: str) -> None:
        """Refuse whatever is not final yet, and all that comes; nobody is given a port any more."""
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
        if worker.preparing != generation or worker.is_commit_sent:
            return  # late, of a generation that was given up
        worker.is_prepared = True
        if self._rollout is not None and self._is_rolling_out(worker):
            self._carry_out(self._rollout.prepared(worker.incarnation))
        else:
            self._catch_up(worker)

    def refused(
        self, worker: WorkerProcess, generation: int, reason: str, *, is_final: bool = False
    ) -> None:
        """It cannot build this generation; ``is_final``: it cannot obey the Commit either."""
        if is_final:
            # What we believe that it holds is not so: it is asked nothing any more.
            self._replace(worker, generation, reason)
            if self._rollout is not None:
                self._carry_out(self._rollout.left(worker.incarnation))
            return
        if worker.preparing != generation:
            return
        if self._rollout is not None and self._is_rolling_out(worker):
            self._carry_out(self._rollout.refused(worker.incarnation, reason))
        elif self.committed is not None and generation != self.committed.plan.generation:
            worker.take_back()
            self._catch_up(worker)
        else:
            self._replace(worker, generation, reason)

    def has_committed(
        self, worker: WorkerProcess, generation: int, kept: int = 0, draining: int = 0
    ) -> None:
        """It serves by this generation."""
        worker.generation = generation
        if worker.preparing == generation:
            worker.settle()
        is_current = self.committed is None or self.committed.plan.generation == generation
        if worker.status is Status.STARTING or (worker.is_behind and is_current):
            worker.is_behind = not is_current
            self._duties.on_serving(worker)
        rollout = self._rollout
        if rollout is None or not self._is_rolling_out(worker):
            self._catch_up(worker)
        elif rollout.generation == generation:
            known = self._result
            self._result = RolloutResult(known.kept + kept, known.draining + draining)
            self._carry_out(rollout.committed(worker.incarnation))

    def serves(self, worker: WorkerProcess, generation: int) -> None:
        """A heartbeat says so: should its Committed have been dropped, this is as good."""
        if worker.is_commit_sent and worker.preparing == generation:
            self.has_committed(worker, generation)

    def left(self, worker: WorkerProcess) -> None:
        """It is gone."""
        if self._rollout is not None:
            self._carry_out(self._rollout.left(worker.incarnation))

    def silent(self, worker: WorkerProcess) -> None:
        """It fell silent, or beats again."""
        now = worker.progress_at = self._loop.time()
        if self._rollout is not None:
            self._carry_out(self._rollout.silent(worker.incarnation, worker.is_silent, now))
        if worker.is_silent:
            return
        self._catch_up(worker)

    def tick(self, now: float) -> None:
        """Look for workers that make no progress."""
        if self._rollout is not None:
            self._carry_out(self._rollout.tick(now))
        for worker in list(self._workers.values()):
            if not worker.preparing or worker.is_silent or self._is_rolling_out(worker):
                continue
            if now - worker.progress_at >= PROGRESS_S:
                self._replace(worker, worker.preparing, f"no progress for {PROGRESS_S:g} s")

    # Names and ports

    def resolve(self, endpoints: Endpoints) -> None:
        """Names have new addresses: tell every worker, and those to come."""
        if self.committed is None:
            return
        self.committed = self.committed.resolved(endpoints)
        for worker in self._workers.values():
            if worker.has_said_hello:
                self._control.send(worker.incarnation, Resolve(endpoints=endpoints))

    def retire(self, worker: WorkerProcess, ids: set[int]) -> None:
        """Have a worker accept all that waits at these listeners and close its copies."""
        worker.retiring |= ids
        worker.given -= ids
        self._control.send(worker.incarnation, Retire(listeners=sorted(ids)))

    def retired(self, worker: WorkerProcess, ids: Iterable[int]) -> None:
        """It holds these no more: what of them it needs again may be given now."""
        worker.retiring.difference_update(ids)
        if self._closed_for:
            return
        for encoded in (self._candidate, self.committed):
            if encoded is not None and encoded.plan.generation == worker.preparing:
                worker.give(worker.preparing, self._missing(worker, encoded.plan))
                return

    # Carrying out

    def _is_rolling_out(self, worker: WorkerProcess) -> bool:
        """Whether what it prepares is the generation of the rollout."""
        rollout = self._rollout
        return rollout is not None and rollout.takes_part(worker.incarnation)

    def _catch_up(self, worker: WorkerProcess) -> None:
        """Bring a worker to the committed generation outside of a rollout, step by step."""
        committed = self.committed
        if committed is None or worker.is_silent or not _can_follow(worker):
            return
        if self._is_rolling_out(worker):
            return
        number = committed.plan.generation
        if worker.generation == number or worker.is_commit_sent:
            return  # there, or its Committed will come
        if worker.preparing != number:
            self._boot(worker)
        elif worker.is_prepared:
            self._commit(worker, number)

    def _boot(self, worker: WorkerProcess) -> None:
        if self.committed is not None and not self._closed_for:
            self._send_generation(worker, self.committed)

    def _send_generation(self, worker: WorkerProcess, encoded: EncodedPlan) -> None:
        if worker.is_commit_sent:
            worker.settle()  # the Commit comes to it before this does
        else:
            worker.take_back()
        worker.preparing = encoded.plan.generation
        worker.give(worker.preparing, self._missing(worker, encoded.plan))
        worker.progress_at = self._loop.time()
        if not all(self._control.send_raw(worker.incarnation, raw) for raw in encoded.messages()):
            self._set_aside(worker)

    def _commit(self, worker: WorkerProcess, generation: int) -> None:
        if self._control.send(worker.incarnation, Commit(generation=generation)):
            worker.is_commit_sent = True
        else:
            self._set_aside(worker)

    def _set_aside(self, worker: WorkerProcess) -> None:
        """Its queue is full: as good as silent. It is told anew once it says something."""
        self._log.warning("worker takes no messages", slot=worker.slot, worker=worker.pid)
        worker.is_silent = True
        worker.take_back()
        if self._rollout is not None:
            self._carry_out(self._rollout.set_aside(worker.incarnation))

    def _missing(self, worker: WorkerProcess, plan: Plan) -> list[tuple[int, int, socket.socket]]:
        held = self._listeners.held
        return [
            (listener.id, index, one)
            for listener in plan.listeners
            if listener.id not in worker.given and listener.id not in worker.retiring
            for index, one in enumerate(held[listener.id].sockets)
        ]

    def _carry_out(self, actions: list[Action]) -> None:
        rollout = self._rollout
        assert rollout is not None
        if rollout.phase in (Phase.COMMITTING, Phase.DONE):
            self._make_final(rollout.generation)
        for action in actions:
            worker = self._workers.get(action.incarnation)
            if worker is None:
                continue
            match action:
                case SendPrepare():
                    assert self._candidate is not None
                    self._send_generation(worker, self._candidate)
                case SendCommit():
                    self._commit(worker, rollout.generation)
                case SendAbort():
                    self._abort(worker, rollout.generation)
                case Replace(reason=reason):
                    self._replace(worker, rollout.generation, reason)
        self._conclude()

    def _make_final(self, generation: int) -> None:
        """From here on the candidate is what everyone is to serve."""
        committed, candidate = self.committed, self._candidate
        if candidate is None or (committed and committed.plan.generation == generation):
            return
        self.committed = candidate
        for problem in self._listeners.listen():
            self._log.error("cannot listen", error=problem)

    def _abort(self, worker: WorkerProcess, generation: int) -> None:
        worker.take_back()
        self._control.send(worker.incarnation, Abort(generation=generation))
        if worker.status is Status.STARTING and not worker.is_silent:
            self._boot(worker)

    def _replace(self, worker: WorkerProcess, generation: int, reason: str) -> None:
        """It cannot follow: a successor takes its place."""
        worker.is_outdated = True
        worker.last_error = reason
        worker.take_back()
        self._duties.on_replace(worker, f"cannot follow generation {generation}")

    def _conclude(self) -> None:
        rollout = self._rollout
        outcome = self._outcome
        if rollout is None or outcome is None or outcome.done() or not rollout.is_over:
            return
        if rollout.phase is Phase.DONE:
            for worker in self._workers.values():
                worker.is_behind = worker.generation != rollout.generation
            outcome.set_result(None)
        else:
            outcome.set_exception(ControlError(rollout.reason))


def _can_follow(worker: WorkerProcess) -> bool:
    return worker.has_said_hello and not worker.is_outdated
