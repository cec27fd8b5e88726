"""One generation on its way to the workers, in two phases (design section 3).

Pure: the clock is an argument, and what must be done comes back as a list of actions. Workers
are known by their incarnation.

    preparing --all prepared--> committing --all committed--> done
        |--one Refused, or 60 s without progress--> refused

Only Refused vetoes. The first Commit is final: after it nothing can refuse the generation any
more, and a worker that cannot follow is replaced. A worker that dies is not waited for; one that
falls silent is set aside, and gets its Commit when it has caught up. A silent one is sent nothing:
it is asked once it beats again, and what it has not learnt by the end it learns on its own
(`supervisor/generations.py`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from msgspec import Struct

PROGRESS_S: Final = 60.0


class Phase(StrEnum):
    """Of the generation."""

    PREPARING = "preparing"
    COMMITTING = "committing"
    DONE = "done"
    REFUSED = "refused"


class SendPrepare(Struct, frozen=True):
    """Send the generation to this worker."""

    incarnation: int


class SendCommit(Struct, frozen=True):
    """This worker is to serve by the generation."""

    incarnation: int


class SendAbort(Struct, frozen=True):
    """This worker is to forget the generation."""

    incarnation: int


class Replace(Struct, frozen=True):
    """This worker cannot follow the committed generation."""

    incarnation: int
    reason: str


Action = SendPrepare | SendCommit | SendAbort | Replace


class _Step(StrEnum):
    ASIDE = "aside"  # not asked yet
    PREPARING = "preparing"
    PREPARED = "prepared"
    COMMIT_SENT = "commit_sent"
    COMMITTED = "committed"


class _Participant(Struct):
    step: _Step
    progress_at: float
    is_silent: bool = False


class Rollout:
    """The state of one generation. ``reason`` says why it was refused."""

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.phase = Phase.PREPARING
        self.reason = ""
        self._workers: dict[int, _Participant] = {}

    @property
    def is_over(self) -> bool:
        """Nothing more is waited for."""
        return self.phase in (Phase.DONE, Phase.REFUSED)

    def takes_part(self, incarnation: int) -> bool:
        """Whether this worker was asked to prepare."""
        return incarnation in self._workers

    def begin(
        self, incarnations: list[int], now: float, silent: frozenset[int] = frozenset()
    ) -> list[Action]:
        """Ask these workers, the ``silent`` ones later. Without any it is committed at once."""
        asked = [incarnation for incarnation in incarnations if incarnation not in silent]
        for incarnation in incarnations:
            is_silent = incarnation in silent
            step = _Step.ASIDE if is_silent else _Step.PREPARING
            self._workers[incarnation] = _Participant(step, now, is_silent)
        return [*map(SendPrepare, asked), *self._advance()]

    def join(self, incarnation: int, now: float) -> list[Action]:
        """A worker that was forked meanwhile takes part."""
        self._workers[incarnation] = _Participant(_Step.PREPARING, now)
        return [SendPrepare(incarnation)]

    def progress(self, incarnation: int, now: float) -> None:
        """The worker has built some more."""
        if worker := self._workers.get(incarnation):
            worker.progress_at = now

    def prepared(self, incarnation: int) -> list[Action]:
        """The worker has built all of it."""
        worker = self._workers.get(incarnation)
        if worker is None or worker.step is not _Step.PREPARING or self.phase is Phase.REFUSED:
            return []
        worker.step = _Step.PREPARED
        return self._advance()

    def refused(self, incarnation: int, reason: str) -> list[Action]:
        """The worker cannot build it: a veto before the first Commit, else its own end."""
        worker = self._workers.get(incarnation)
        if worker is None or worker.step in (_Step.ASIDE, _Step.COMMITTED):
            return []
        if self.phase is Phase.PREPARING:
            return self.refuse(reason)
        if self.phase is Phase.REFUSED:
            return []
        return [Replace(incarnation, reason), *self.left(incarnation)]

    def refuse(self, reason: str) -> list[Action]:
        """Give the generation up; nothing once it is final."""
        if self.phase is not Phase.PREPARING:
            return []
        self.phase = Phase.REFUSED
        self.reason = reason
        return [
            SendAbort(incarnation)
            for incarnation, worker in self._workers.items()
            if worker.step is not _Step.ASIDE
        ]

    def committed(self, incarnation: int) -> list[Action]:
        """The worker serves by it."""
        worker = self._workers.get(incarnation)
        if worker is None or worker.step is not _Step.COMMIT_SENT:
            return []
        worker.step = _Step.COMMITTED
        return self._advance()

    def left(self, incarnation: int) -> list[Action]:
        """The worker is gone."""
        self._workers.pop(incarnation, None)
        return self._advance()

    def silent(self, incarnation: int, is_silent: bool, now: float) -> list[Action]:
        """The worker stopped beating, or beats again."""
        worker = self._workers.get(incarnation)
        if worker is None or worker.is_silent == is_silent:
            return []
        worker.is_silent = is_silent
        worker.progress_at = now  # nobody makes progress while stopped
        if not is_silent and worker.step is _Step.ASIDE and not self.is_over:
            worker.step = _Step.PREPARING
            return [SendPrepare(incarnation), *self._advance()]
        return self._advance()

    def set_aside(self, incarnation: int) -> list[Action]:
        """It could not be asked: its queue is full. It is asked again once it says something."""
        worker = self._workers.get(incarnation)
        if worker is None or self.is_over:
            return []
        worker.step, worker.is_silent = _Step.ASIDE, True
        return self._advance()

    def tick(self, now: float) -> list[Action]:
        """Look for a worker that has made no progress for PROGRESS_S."""
        actions: list[Action] = []
        for incarnation, worker in list(self._workers.items()):
            if worker.step is not _Step.PREPARING or worker.is_silent:
                continue
            if now - worker.progress_at < PROGRESS_S:
                continue
            reason = f"a worker made no progress for {PROGRESS_S:g} s"
            if self.phase is Phase.PREPARING:
                return self.refuse(reason)
            actions += [Replace(incarnation, reason), *self.left(incarnation)]
        return actions

    def _advance(self) -> list[Action]:
        if self.is_over:
            return []
        heard = [worker for worker in self._workers.values() if not worker.is_silent]
        if self.phase is Phase.PREPARING:
            if any(worker.step is _Step.PREPARING for worker in heard):
                return []
            if self._workers and not heard:
                return []  # nobody has built it; the watchdog makes an end of the wait
            self.phase = Phase.COMMITTING
        actions: list[Action] = []
        for incarnation, worker in self._workers.items():
            if worker.step is _Step.PREPARED and not worker.is_silent:
                worker.step = _Step.COMMIT_SENT
                actions.append(SendCommit(incarnation))
        if all(worker.step is _Step.COMMITTED for worker in heard):
            self.phase = Phase.DONE
        return actions
