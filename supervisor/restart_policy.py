"""When a slot gets its next worker (design section 2, "Crashed workers").

Pure: the clock is an argument. Times are seconds of one monotonic clock.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

FIRST_DELAY_S: Final = 0.1
EARLY_S: Final = 5.0  # an abnormal end this soon after "ready" is a failed start
FAILURES_MAX: Final = 5  # in a row; then the slot is `failed`
FAILED_RETRY_S: Final = 30.0


class SlotHistory(Struct, frozen=True, kw_only=True):
    """What happened in a slot. No worker is started there before ``not_before``."""

    failed_starts: int = 0  # in a row
    not_before: float = 0.0
    reason: str = ""  # of the last end

    @property
    def is_failed(self) -> bool:
        """Too many failed starts in a row: tried only now and then."""
        return self.failed_starts >= FAILURES_MAX


class WorkerEnd(Struct, frozen=True, kw_only=True):
    """How a worker ended. ``ready_s``: how long it had been ready, None if it never was."""

    ready_s: float | None
    is_abnormal: bool  # anything but exit status 0
    is_outside_kill: bool = False  # SIGKILL that was not ours: the OOM killer, an operator
    reason: str = ""


def after_end(history: SlotHistory, end: WorkerEnd, now: float) -> SlotHistory:
    """The slot's history after one more end."""
    if end.is_outside_kill:
        return SlotHistory(
            failed_starts=history.failed_starts if end.ready_s is None else 0,
            not_before=now + FIRST_DELAY_S,
            reason=end.reason,
        )
    is_early = end.ready_s is None or (end.is_abnormal and end.ready_s < EARLY_S)
    failed_starts = history.failed_starts + 1 if is_early else 0
    return SlotHistory(
        failed_starts=failed_starts,
        not_before=now + delay_s(failed_starts),
        reason=end.reason,
    )


def delay_s(failed_starts: int) -> float:
    """Seconds until the next try: 0.1 s, doubling with each failed start; 30 s once failed."""
    if failed_starts >= FAILURES_MAX:
        return FAILED_RETRY_S
    return FIRST_DELAY_S * 2.0 ** max(0, failed_starts - 1)
