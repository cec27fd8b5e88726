"""When a slot gets its next worker."""

from __future__ import annotations

import pytest

from supervisor.restart_policy import (
    EARLY_S,
    FAILED_RETRY_S,
    FAILURES_MAX,
    FIRST_DELAY_S,
    SlotHistory,
    WorkerEnd,
    after_end,
    delay_s,
)

CRASH_AT_BOOT = WorkerEnd(ready_s=None, is_abnormal=True, reason="boot")
LATE_CRASH = WorkerEnd(ready_s=EARLY_S, is_abnormal=True)


def after(*ends: WorkerEnd, now: float = 100.0) -> SlotHistory:
    """The history of a slot after these ends, all at the same time."""
    history = SlotHistory()
    for end in ends:
        history = after_end(history, end, now)
    return history


def test_first_crash_waits_a_tenth_of_a_second() -> None:
    """A worker that ran well before it crashed is replaced after the first delay."""
    history = after(LATE_CRASH)
    assert history.failed_starts == 0
    assert history.not_before == pytest.approx(100.0 + FIRST_DELAY_S)


def test_failed_starts_double_the_delay() -> None:
    """Each failed start in a row doubles the wait, until the slot has failed."""
    delays = [after(*[CRASH_AT_BOOT] * count).not_before - 100.0 for count in range(1, 7)]
    assert delays == pytest.approx([0.1, 0.2, 0.4, 0.8, FAILED_RETRY_S, FAILED_RETRY_S])


def test_slot_fails_after_five_in_a_row() -> None:
    """Four failed starts are not yet a failed slot, five are."""
    assert not after(*[CRASH_AT_BOOT] * (FAILURES_MAX - 1)).is_failed
    assert after(*[CRASH_AT_BOOT] * FAILURES_MAX).is_failed


@pytest.mark.parametrize(
    ("end", "is_failed_start"),
    [
        (WorkerEnd(ready_s=None, is_abnormal=False), True),
        (WorkerEnd(ready_s=None, is_abnormal=True), True),
        (WorkerEnd(ready_s=EARLY_S - 0.1, is_abnormal=True), True),
        (WorkerEnd(ready_s=EARLY_S - 0.1, is_abnormal=False), False),
        (WorkerEnd(ready_s=EARLY_S, is_abnormal=True), False),
        (WorkerEnd(ready_s=None, is_abnormal=True, is_outside_kill=True), False),
        (WorkerEnd(ready_s=0.0, is_abnormal=True, is_outside_kill=True), False),
    ],
)
def test_what_counts_as_a_failed_start(end: WorkerEnd, is_failed_start: bool) -> None:
    """Ends before ready, and abnormal ones soon after it; never SIGKILL from outside."""
    assert after(end).failed_starts == int(is_failed_start)


def test_one_good_run_forgives_what_was_before() -> None:
    """After a worker that ran well the count of failed starts begins anew."""
    assert after(CRASH_AT_BOOT, CRASH_AT_BOOT, LATE_CRASH).failed_starts == 0


def test_outside_kill_at_boot_forgives_nothing() -> None:
    """SIGKILL before ready neither adds to the failed starts nor clears them."""
    killed = WorkerEnd(ready_s=None, is_abnormal=True, is_outside_kill=True)
    history = after(CRASH_AT_BOOT, CRASH_AT_BOOT, killed)
    assert history.failed_starts == 2
    assert history.not_before == pytest.approx(100.0 + FIRST_DELAY_S)


def test_reason_of_the_last_end_is_kept() -> None:
    """The history tells why the last worker ended."""
    assert after(LATE_CRASH, CRASH_AT_BOOT).reason == "boot"


def test_delay_never_exceeds_the_retry() -> None:
    """However often it fails, the slot is tried again."""
    assert max(delay_s(count) for count in range(2000)) == FAILED_RETRY_S
