"""The access log of a worker on real files: rotation, several writers, full disks."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shared.plan import AccessPlan
from tests.helpers.access_lines import (
    Notes,
    access_log,
    entry,
    numbers_of,
    read_lines,
    wait_for_lines,
    write_fast,
    write_lines,
)
from tests.helpers.waiting import DEADLINE_S, wait_until
from worker.access_log import NOTE_S, AccessLog

ROOT = Path(__file__).parents[2]


def run_writers(*arguments: tuple[str, ...]) -> list[tuple[int, int]]:
    """Processes that write at the same time; the lines that each wrote, and dropped."""
    command = [sys.executable, "-m", "tests.helpers.access_lines"]
    writers = [
        subprocess.Popen([*command, *each], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for each in arguments
    ]
    try:
        outputs = [writer.communicate(timeout=60)[0] for writer in writers]
        assert all(writer.returncode == 0 for writer in writers)
    finally:
        for writer in writers:
            if writer.poll() is None:
                writer.kill()
            writer.wait(DEADLINE_S)
    found = [tuple(map(int, output.split())) for output in outputs]
    return [(lines, dropped) for lines, dropped in found]


def test_a_line_is_in_the_file_after_some_ticks(tmp_path: Path) -> None:
    """What waits is handed over by age; the line says the time of the wall clock."""
    path = tmp_path / "access"
    before = time.time()
    with access_log(path) as log:
        now = time.monotonic()
        log.write(now, entry(7))
        for _ in range(3):
            now += 0.1
            log.tick(now)
        wait_until(lambda: log.lines == 1, "the line is written")
        (line,) = read_lines(path)
    assert line["id"] == "0-1-7"
    assert line["time"].endswith("Z")
    said = datetime.fromisoformat(line["time"])
    assert said.tzinfo == UTC
    assert before - 0.01 <= said.timestamp() <= time.time()


def test_time_follows_the_turns_of_the_loop(tmp_path: Path) -> None:
    """Milliseconds, whole seconds and the date change as the given time does."""
    path = tmp_path / "access"
    start = time.monotonic()
    steps = [0.0, 0.001, 0.5, 1.0, 61.0, 86400.0]
    with access_log(path) as log:
        for number, step in enumerate(steps):
            log.write(start + step, entry(number))
    times = [datetime.fromisoformat(line["time"]).timestamp() for line in read_lines(path)]
    for found, step in zip(times, steps, strict=True):
        assert abs(found - times[0] - step) < 0.0021  # two cuts to milliseconds


def test_template_goes_to_the_file(tmp_path: Path) -> None:
    """Lines as the plan's format says."""
    path = tmp_path / "access"
    with access_log(path, "{id} {client} {end} größe") as log:
        log.write(time.monotonic(), entry(1))
    assert path.read_text() == "0-1-1 192.0.2.1:40000 client_closed größe\n"


def test_file_is_made_for_owner_and_group(tmp_path: Path) -> None:
    """Nobody else reads who connects."""
    path = tmp_path / "access"
    old = os.umask(0)
    try:
        with access_log(path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o640
    finally:
        os.umask(old)


def test_rotation_at_full_speed_loses_no_line(tmp_path: Path) -> None:
    """Each line is in one file, once, whole: the old one has the older, the new one the newer."""
    path = tmp_path / "access"
    rounds, lines = 12, 3000
    with access_log(path) as log:
        for turn in range(rounds):
            write_lines(log, range(turn * lines, (turn + 1) * lines))
            if turn + 1 < rounds:
                path.rename(tmp_path / f"access.{turn}")
                # Lines of after the rename, and of before the reopening: to the old file.
                write_lines(log, range(rounds * lines + turn * 10, rounds * lines + turn * 10 + 10))
                assert log.reopen() == ""
    assert (log.lines, log.dropped) == (rounds * lines + (rounds - 1) * 10, 0)
    for turn in range(rounds):
        own = list(range(turn * lines, (turn + 1) * lines))
        late = list(range(rounds * lines + turn * 10, rounds * lines + turn * 10 + 10))
        if turn + 1 < rounds:
            assert numbers_of(tmp_path / f"access.{turn}") == own + late
        else:
            assert numbers_of(path) == own


def test_old_file_is_complete_when_reopen_returns(tmp_path: Path) -> None:
    """Whoever rotates may take the old file away at once."""
    path, old = tmp_path / "access", tmp_path / "access.1"
    with access_log(path) as log:
        write_fast(log, range(1000))
        path.rename(old)
        assert log.reopen() == ""
        assert numbers_of(old) == list(range(1000))
        assert path.read_text() == ""


def test_reopen_that_fails_goes_on_with_the_old_file(tmp_path: Path) -> None:
    """The reason is told, and no line is lost for it."""
    directory = tmp_path / "gone"
    directory.mkdir()
    with access_log(directory / "access") as log:
        write_fast(log, range(10))
        moved = directory.rename(tmp_path / "moved")
        assert log.reopen() == f"{directory / 'access'}: No such file or directory"
        write_fast(log, range(10, 20))
    assert numbers_of(moved / "access") == list(range(20))


def test_several_workers_append_to_one_file(tmp_path: Path) -> None:
    """Every line of every process is whole, and each one's stand in their order."""
    path = tmp_path / "access"
    lines = 20000
    found = run_writers(*((str(path), f"{slot}-1-", str(lines)) for slot in range(3)))
    assert found == [(lines, 0)] * 3
    by_writer: dict[str, list[int]] = {}
    for line in read_lines(path):
        by_writer.setdefault(line["id"][:1], []).append(line["received"])
    assert by_writer == {str(slot): list(range(lines)) for slot in range(3)}


def test_full_disk_drops_counts_and_says_so(tmp_path: Path) -> None:
    """Each line is counted once, the operator hears of it once per NOTE_S, and it goes on later."""
    path, notes = tmp_path / "access", Notes()
    path.symlink_to("/dev/full")
    with access_log(path, notes=notes) as log:
        start = time.monotonic()
        for turn in range(5):
            write_fast(log, range(1000))
            log.tick(start + turn)
            wait_for_lines(log, 1000 * turn + 800)  # the others wait for the next tick
        log.tick(start + 5)
        assert len(notes) == 1
        assert log.reopen() == ""  # the link is the same: all has been tried
        assert (log.lines, log.dropped) == (0, 5000)
        log.tick(start + 5 + NOTE_S)
        assert len(notes) == 2
        for level, message, fields in notes:
            assert (level, message) == ("warning", "access log lines dropped")
            assert fields["reason"] == "No space left on device"
            assert fields["file"] == str(path)
        assert sum(int(fields["lines"]) for _, _, fields in notes) == 5000
        assert notes[-1][2]["dropped"] == "5000"

        path.unlink()
        assert log.reopen() == ""
        write_fast(log, range(10))
        log.tick(start + 6 + NOTE_S)
        wait_until(lambda: log.lines == 10, "lines are written again")
        log.tick(start + 6 + 2 * NOTE_S)
        assert notes[2:] == [("info", "the access log is written again", {"file": str(path)})]
    assert numbers_of(path) == list(range(10))
    assert log.dropped == 5000


def test_line_that_a_full_disk_tears_is_blanked(tmp_path: Path) -> None:
    """Room ends within a line: what is there of it becomes blanks, and the next line is whole."""
    path = tmp_path / "access"
    lines, limit = 4000, 100_001
    ((written, dropped),) = run_writers((str(path), "0-1-", str(lines), str(limit)))
    assert written + dropped == lines
    assert 0 < dropped < lines // 2
    kept = (limit - 4096) // 400
    numbers = numbers_of(path)
    assert len(numbers) == written
    assert numbers == [*range(len(numbers) - lines // 2), *range(lines // 2, lines)]
    assert len(numbers) - lines // 2 > kept // 2
    blank = [line for line in path.read_text().splitlines() if not line.strip()]
    assert len(blank) == 1
    assert path.read_bytes()[limit - 1 : limit] == b"\n"


def test_workers_on_a_full_disk_leave_each_other_whole(tmp_path: Path) -> None:
    """Two processes that meet the end of the room do not tear what the other writes later."""
    path = tmp_path / "access"
    found = run_writers(*((str(path), f"{slot}-1-", "6000", "700001") for slot in range(2)))
    read = read_lines(path)
    for slot, (written, dropped) in enumerate(found):
        assert written + dropped == 6000
        assert sum(line["id"].startswith(f"{slot}-") for line in read) == written


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts; /dev/full is tested above")
def test_disk_that_gets_room_again(tmp_path: Path) -> None:
    """A small file system fills up, is emptied, and takes lines again without being asked to."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(disk)])
    if mounted.returncode:
        pytest.skip("mount is not allowed here; /dev/full is tested above")
    try:
        ballast, path = disk / "ballast", disk / "access"
        ballast.write_bytes(b"x" * 150_000)
        with access_log(path) as log:
            write_fast(log, range(1000))
            assert log.reopen() == ""
            first = log.lines
            assert 0 < first < 1000
            assert log.dropped == 1000 - first
            ballast.unlink()
            write_fast(log, range(1000, 1100))
        numbers = numbers_of(path)
        assert (log.lines, log.dropped) == (first + 100, 1000 - first)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert numbers == [*range(first), *range(1000, 1100)]


def test_line_longer_than_a_write(tmp_path: Path) -> None:
    """A template may be as long as it likes: its lines stay whole."""
    long = "{id} " + "x" * 100_000
    path = tmp_path / "access"
    with access_log(path, long) as log:
        write_fast(log, range(3))
    assert path.read_text().splitlines() == [
        f"0-1-{number} " + "x" * 100_000 for number in range(3)
    ]


def test_file_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    """OSError before there is a thread."""
    before = threading.active_count()
    for path in (tmp_path, tmp_path / "none" / "access"):
        with pytest.raises(OSError, match="directory"):
            AccessLog(AccessPlan(file=str(path)), "0-1-", lambda *_: None)
    assert threading.active_count() == before


def test_thread_and_descriptor_end_with_the_log(tmp_path: Path) -> None:
    """A hundred logs leave nothing behind."""
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    for number in range(100):
        with access_log(tmp_path / "access") as log:
            log.write(time.monotonic(), entry(number))
            assert log.reopen() == ""
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before
    assert numbers_of(tmp_path / "access") == list(range(100))
