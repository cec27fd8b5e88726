"""The file of a worker without a supervisor: what it writes and what a stop reads."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from shared.limit_rows import LimitRows, hold
from shared.orphan_file import COUNTS_AT, LEAVING, LEAVING_AT, OrphanCounts, counts_of, pid_of
from supervisor import orphans, runtime_dir
from supervisor.cli import stopping
from supervisor.limit_tables import LimitTables
from tests.helpers.waiting import wait_until
from worker.accounting import CELL_ENDED
from worker.orphan import Orphan, OrphanLock


def test_every_cut_of_a_file_reads_as_less_and_never_as_an_error() -> None:
    """A file may be read while it is written for the first time."""
    counts = OrphanCounts(drained=12, cut=3, open=456)
    raw = b"4711\n".ljust(LEAVING_AT) + LEAVING
    raw = raw.ljust(COUNTS_AT) + counts.packed()
    assert (pid_of(raw), counts_of(raw)) == (4711, counts)
    for end in range(COUNTS_AT):
        assert counts_of(raw[:end]) == OrphanCounts()
    assert pid_of(b"") == pid_of(b"no number\n") == 0


def test_a_shorter_text_leaves_nothing_of_a_longer_one(tmp_path: Path) -> None:
    """Counts go down as well: what was open ends."""
    lock = OrphanLock(str(tmp_path))
    (found,) = orphans.find(tmp_path)
    with closing(found):
        lock.note(OrphanCounts(open=123456))
        assert found.counts() == OrphanCounts(open=123456)
        lock.note(OrphanCounts(drained=1, open=2))
        assert found.counts() == OrphanCounts(drained=1, open=2)
        lock.close()
        assert not found.lives()
        assert found.counts() == OrphanCounts(drained=1, cut=2), "what was open ended with it"
    assert orphans.find(tmp_path) == []


def test_a_row_is_abandoned_when_its_process_is_gone() -> None:
    """The kernel lets the lock go, whatever the end of the process was."""
    tables = LimitTables(8)
    rows = LimitRows(tables.fd)
    ready, done = os.pipe(), os.pipe()
    pid = os.fork()
    if not pid:
        hold(tables.fd, 3)
        os.write(ready[1], b"x")
        os.read(done[0], 1)
        os._exit(0)
    assert os.read(ready[0], 1) == b"x"
    assert not rows.is_abandoned(3)
    assert rows.is_abandoned(2)
    os.write(done[1], b"x")
    os.waitpid(pid, 0)
    assert rows.is_abandoned(3)
    rows.close()
    tables.close()
    for fd in (*ready, *done):
        os.close(fd)


def test_a_directory_that_is_gone_has_no_orphans(tmp_path: Path) -> None:
    """And a lock there cannot be made."""
    assert orphans.find(tmp_path / "gone") == []
    with pytest.raises(OSError, match="No such file"):
        OrphanLock(str(tmp_path / "gone"))


def test_the_last_words_of_an_orphan_stand(tmp_path: Path) -> None:
    """What it has drained and cut is not taken back by a look that comes once more."""

    async def leave() -> None:
        plane: Any = SimpleNamespace(cells=[0, 0, 0], connections=0)
        spawn: Any = SimpleNamespace(counts_row=0, runtime_dir=str(tmp_path))
        one = Orphan(plane, tables.fd, spawn, structlog.get_logger())
        one.appear()
        (seen,) = orphans.find(tmp_path)
        with closing(seen):
            watching = asyncio.ensure_future(one.watch())
            await asyncio.sleep(0)
            one.drains()
            plane.cells[CELL_ENDED] = 6
            one.ended(1, 5)
            one._note(one._counts())
            assert seen.counts() == OrphanCounts(drained=1, cut=5)
            watching.cancel()
            one.close()

    tables = LimitTables(8)
    asyncio.run(leave())
    tables.close()


def test_one_that_appears_during_a_stop_is_told_too(tmp_path: Path) -> None:
    """A worker may find out late that it has no supervisor."""
    told, appeared = os.pipe(), os.pipe()

    def leave(*_: object) -> None:
        os.write(told[1], b"x")
        os.read(appeared[0], 1)
        os._exit(0)

    first = os.fork()
    if not first:
        signal.signal(signal.SIGTERM, leave)
        OrphanLock(str(tmp_path))
        while True:
            signal.pause()
    late = os.fork()
    if not late:
        os.read(told[0], 1)
        OrphanLock(str(tmp_path))
        os.write(appeared[1], b"x")
        signal.pause()
        os._exit(0)
    try:
        wait_until(lambda: runtime_dir.orphans(tmp_path) == [first], "the first is there")
        reply = stopping.stop(tmp_path, 10.0, now=False)
        assert reply.data == {"orphans": sorted((first, late)), "drained": 0, "cut": 0}
    finally:
        for pid in (first, late):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        for fd in (*told, *appeared):
            os.close(fd)


def test_a_second_stop_cuts_nothing(tmp_path: Path) -> None:
    """TERM a second time would: one that was told to leave is only waited for."""
    asked, answered = os.pipe(), os.pipe()
    pid = os.fork()
    if not pid:
        OrphanLock(str(tmp_path)).leave()
        while os.read(asked[0], 1) == b"?":
            os.write(answered[1], b"!")
        os._exit(0)
    try:
        wait_until(lambda: runtime_dir.orphans(tmp_path) == [pid], "it is there")
        file = tmp_path / f"orphan-{pid}.lock"
        wait_until(lambda: LEAVING in file.read_bytes(), "it is on its way out")
        leaving = stopping._Leaving(tmp_path, None)
        assert not leaving.are_gone()
        os.write(asked[1], b"?")
        assert os.read(answered[0], 1) == b"!"
        os.write(asked[1], b".")
        wait_until(leaving.are_gone, "it ends when it is done")
        for one in leaving.orphans:
            one.close()
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        for fd in (*asked, *answered):
            os.close(fd)
