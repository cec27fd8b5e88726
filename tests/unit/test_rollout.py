"""A generation on its way to the workers, in two phases."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

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


def begun(*incarnations: int) -> Rollout:
    """A rollout of generation 7 that these workers were asked to prepare."""
    rollout = Rollout(7)
    assert rollout.begin(list(incarnations), 0.0) == [SendPrepare(one) for one in incarnations]
    return rollout


def test_commit_waits_for_all_to_be_prepared() -> None:
    """The first Commit goes out with the last Prepared, the end with the last Committed."""
    rollout = begun(1, 2)
    assert rollout.prepared(1) == []
    assert rollout.prepared(2) == [SendCommit(1), SendCommit(2)]
    assert rollout.committed(1) == []
    assert not rollout.is_over
    assert rollout.committed(2) == []
    assert rollout.phase is Phase.DONE


def test_without_workers_it_is_done_at_once() -> None:
    """Nobody to ask: the next worker simply begins with it."""
    rollout = Rollout(7)
    assert rollout.begin([], 0.0) == []
    assert rollout.phase is Phase.DONE


def test_one_refusal_aborts_everywhere() -> None:
    """A Refused before the first Commit is a veto, with its reason."""
    rollout = begun(1, 2)
    rollout.prepared(1)
    assert rollout.refused(2, "no such thing") == [SendAbort(1), SendAbort(2)]
    assert rollout.phase is Phase.REFUSED
    assert rollout.reason == "no such thing"
    assert rollout.prepared(1) == []


def test_after_the_first_commit_a_refusal_is_the_workers_own_end() -> None:
    """A late worker that cannot follow the committed generation is replaced."""
    rollout = begun(1, 2)
    rollout.silent(2, True, 0.0)
    assert rollout.prepared(1) == [SendCommit(1)]
    assert rollout.refused(2, "cannot") == [Replace(2, "cannot")]
    assert not rollout.takes_part(2)
    rollout.committed(1)
    assert rollout.phase is Phase.DONE


def test_a_worker_that_dies_is_not_waited_for() -> None:
    """Its end may be what the others' Commit waited for."""
    rollout = begun(1, 2)
    rollout.prepared(1)
    assert rollout.left(2) == [SendCommit(1)]


def test_a_silent_worker_gets_its_commit_once_it_has_caught_up() -> None:
    """It holds up nobody, and is committed when it is prepared after all."""
    rollout = begun(1, 2)
    rollout.prepared(1)
    assert rollout.silent(2, True, 0.0) == [SendCommit(1)]
    rollout.silent(2, False, 0.0)
    assert rollout.prepared(2) == [SendCommit(2)]
    rollout.committed(1)
    rollout.committed(2)
    assert rollout.phase is Phase.DONE


def test_who_is_silent_at_the_start_is_asked_once_it_beats_again() -> None:
    """Nothing is queued for it; before the end it takes part, and the end waits for it."""
    rollout = Rollout(7)
    assert rollout.begin([1, 2], 0.0, frozenset({2})) == [SendPrepare(1)]
    assert rollout.prepared(1) == [SendCommit(1)]
    assert rollout.silent(2, False, 1.0) == [SendPrepare(2)]
    assert rollout.committed(1) == []
    assert rollout.prepared(2) == [SendCommit(2)]
    rollout.committed(2)
    assert rollout.phase is Phase.DONE


def test_who_was_never_asked_is_not_aborted() -> None:
    """An Abort goes to those that have something to forget."""
    rollout = Rollout(7)
    rollout.begin([1, 2], 0.0, frozenset({2}))
    assert rollout.refused(1, "no") == [SendAbort(1)]


def test_a_commit_waits_while_its_worker_is_silent() -> None:
    """A worker that was stopped after its Prepared gets its Commit when it beats again."""
    rollout = begun(1, 2, 3)
    rollout.prepared(2)
    rollout.silent(2, True, 1.0)
    rollout.prepared(1)
    assert rollout.prepared(3) == [SendCommit(1), SendCommit(3)]
    assert rollout.silent(2, False, 2.0) == [SendCommit(2)]


def test_who_takes_no_messages_is_asked_again() -> None:
    """Its queue was full: it counts as silent, and gets all of it once it says something."""
    rollout = begun(1, 2)
    rollout.prepared(1)
    assert rollout.set_aside(2) == [SendCommit(1)]
    assert rollout.silent(2, False, 1.0) == [SendPrepare(2)]


def test_a_refusal_after_prepared_is_a_veto_until_the_first_commit() -> None:
    """Whatever a worker said before: as long as nothing is committed, its refusal counts."""
    rollout = begun(1, 2)
    rollout.prepared(1)
    assert rollout.refused(1, "no") == [SendAbort(1), SendAbort(2)]


def test_when_all_are_silent_nothing_is_committed() -> None:
    """A generation that nobody could build is not made final."""
    rollout = begun(1)
    assert rollout.silent(1, True, 0.0) == []
    assert rollout.phase is Phase.PREPARING


def test_a_worker_that_joins_is_waited_for() -> None:
    """One that is forked during Prepare takes part."""
    rollout = begun(1)
    assert rollout.join(2, 5.0) == [SendPrepare(2)]
    assert rollout.prepared(1) == []
    assert rollout.prepared(2) == [SendCommit(1), SendCommit(2)]


def test_no_progress_for_a_minute_refuses() -> None:
    """Progress puts the end off; without any the reload is refused."""
    rollout = begun(1)
    rollout.progress(1, 50.0)
    assert rollout.tick(50.0 + PROGRESS_S - 0.1) == []
    assert rollout.tick(50.0 + PROGRESS_S) == [SendAbort(1)]
    assert "no progress" in rollout.reason


def test_no_progress_after_the_commit_replaces() -> None:
    """Once the generation is final, a worker that is stuck is replaced instead."""
    rollout = begun(1, 2)
    rollout.silent(2, True, 0.0)
    rollout.prepared(1)
    rollout.silent(2, False, 0.0)
    actions = rollout.tick(PROGRESS_S)
    assert [type(action) for action in actions] == [Replace]
    rollout.committed(1)
    assert rollout.phase is Phase.DONE


class RolloutMachine(RuleBasedStateMachine):
    """Random workers doing random things; what the design promises holds throughout."""

    def __init__(self) -> None:
        super().__init__()
        self.rollout = Rollout(1)
        self.now = 0.0
        self.last = 3
        self.committed: set[int] = set()
        self.aborted: set[int] = set()
        self.vetoes = 0
        self.take(self.rollout.begin([1, 2, 3], self.now))

    def take(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, SendCommit):
                assert action.incarnation not in self.committed
                self.committed.add(action.incarnation)
            elif isinstance(action, SendAbort):
                self.aborted.add(action.incarnation)

    @rule(data=st.data())
    def step(self, data: Any) -> None:
        worker = data.draw(st.integers(1, self.last))
        match data.draw(
            st.sampled_from(["prepared", "committed", "refused", "left", "silent", "beats"])
        ):
            case "prepared":
                self.take(self.rollout.prepared(worker))
            case "committed" if worker in self.committed:
                self.take(self.rollout.committed(worker))
            case "refused":
                self.take(self.rollout.refused(worker, "no"))
            case "left":
                self.take(self.rollout.left(worker))
            case "silent":
                self.take(self.rollout.silent(worker, True, self.now))
            case "beats":
                self.take(self.rollout.silent(worker, False, self.now))

    @precondition(lambda self: self.rollout.phase is Phase.PREPARING)
    @rule()
    def fork(self) -> None:
        self.last += 1
        self.take(self.rollout.join(self.last, self.now))

    @rule(seconds=st.floats(0.0, PROGRESS_S))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.take(self.rollout.tick(self.now))

    @invariant()
    def never_both(self) -> None:
        assert not (self.committed and self.aborted)
        assert not self.aborted or self.rollout.phase is Phase.REFUSED
        assert not self.committed or self.rollout.phase in (Phase.COMMITTING, Phase.DONE)


TestRolloutMachine = RolloutMachine.TestCase
TestRolloutMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
