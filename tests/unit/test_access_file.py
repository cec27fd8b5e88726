"""The supervisor's check of the access log's file, before any worker opens it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from shared.errors import StartError
from shared.plan import AccessPlan
from supervisor.log_control import Reopened, check_access_file


def test_file_is_made_and_left_as_it_is(tmp_path: Path) -> None:
    """One that is not there is made for owner and group; one that is there keeps its lines."""
    path = tmp_path / "access"
    old = os.umask(0)
    try:
        check_access_file(AccessPlan(file=str(path)))
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.write_text("line\n")
    check_access_file(AccessPlan(file=str(path)))
    assert path.read_text() == "line\n"


def test_no_access_log_needs_no_file() -> None:
    """Without `log.access` there is nothing to check."""
    before = os.listdir("/proc/self/fd")
    check_access_file(None)
    assert os.listdir("/proc/self/fd") == before


def test_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    """The message has path and reason, the hint says what to do."""
    path = tmp_path / "none" / "access"
    with pytest.raises(StartError) as caught:
        check_access_file(AccessPlan(file=str(path)))
    assert caught.value.message == f"cannot open the access log {path}: No such file or directory"
    assert caught.value.hint == "create its directory"


def test_fifo_without_a_reader_is_refused(tmp_path: Path) -> None:
    """Nobody waits for a reader; the hint tells what is missing."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    with pytest.raises(StartError) as caught:
        check_access_file(AccessPlan(file=str(path)))
    assert "FIFO" in caught.value.hint


def test_outcome_of_a_reopening_in_words() -> None:
    """As the operator reads it."""
    assert Reopened(asked=2, done=1).text() == "1/2 workers reopened"
