"""How often a worker reports."""

from __future__ import annotations

from worker.reporter import SHARE, SHARE_OF_BUSY, share


def test_a_busy_worker_gives_less_of_its_time_to_reports() -> None:
    """More than half of it used is busy."""
    assert share(0.0, 0.5) == share(0.25, 0.5) == SHARE
    assert share(0.26, 0.5) == share(0.5, 0.5) == SHARE_OF_BUSY
    assert SHARE_OF_BUSY < SHARE
