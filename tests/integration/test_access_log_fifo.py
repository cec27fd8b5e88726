"""The access log of a worker on a FIFO: readers that are slow, hang, or are gone."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shared.plan import AccessPlan
from tests.helpers.access_lines import (
    Notes,
    access_log,
    accounted,
    entry,
    numbers_of,
    write_fast,
)
from tests.helpers.waiting import DEADLINE_S, wait_until
from worker.access_log import BUFFER_MAX_BYTES, AccessLog

LINE_BYTES = 300  # about; a line of the tests is a little longer


@contextmanager
def fifo(path: Path) -> Iterator[int]:
    """A FIFO, and the end to read from, of which nothing is read by itself."""
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        yield reader
    finally:
        os.close(reader)


def more_than_the_buffer() -> range:
    """Numbers of more lines than may wait."""
    return range(2 * BUFFER_MAX_BYTES // LINE_BYTES)


def test_reader_that_hangs_holds_nobody_up(tmp_path: Path) -> None:
    """A FIFO that nobody empties: the loop's thread goes on, lines are dropped and counted."""
    path, notes = tmp_path / "fifo", Notes()
    with fifo(path), access_log(path, notes=notes) as log:
        finished = threading.Event()

        def go_on() -> None:
            write_fast(log, more_than_the_buffer())
            log.tick(time.monotonic())
            finished.set()

        loop = threading.Thread(target=go_on, daemon=True)
        loop.start()
        assert finished.wait(DEADLINE_S), "a write waited for the reader"
        loop.join()
        assert log.dropped > 0
        assert log.dropped < len(more_than_the_buffer())
        assert [note[2]["reason"] for note in notes] == ["the file takes them too slowly"]

        path.rename(tmp_path / "fifo.1")
        before = time.monotonic()
        assert log.reopen() == ""
        assert time.monotonic() - before < DEADLINE_S
        write_fast(log, range(10))
        log.close(DEADLINE_S)
        assert numbers_of(path) == list(range(10))
    assert accounted(log) == len(more_than_the_buffer()) + 10


def test_close_does_not_wait_for_a_reader_that_hangs(tmp_path: Path) -> None:
    """What is not taken in time is dropped and counted, and close comes back."""
    path, notes = tmp_path / "fifo", Notes()
    with fifo(path), access_log(path, notes=notes) as log:
        write_fast(log, range(2000))
        log.close(0.2)
        assert accounted(log) == 2000
        assert log.dropped > 0
        assert [note[1] for note in notes] == ["access log lines dropped"]
        log.write(time.monotonic(), entry(1))
        assert accounted(log) == 2001


def test_slow_reader_gets_every_line_whole(tmp_path: Path) -> None:
    """A FIFO takes 4 KiB in one piece (PIPE_BUF), so lines of two writers do not mix."""
    path, lines = tmp_path / "fifo", 3000
    with fifo(path) as reader:
        received = bytearray()

        def read_some() -> bool:
            try:
                while True:
                    received.extend(os.read(reader, 4096))
            except BlockingIOError:
                return received.count(b"\n") == 2 * lines

        with access_log(path) as one, access_log(path) as other:
            for log in (one, other):
                write_fast(log, range(lines))
                log.tick(time.monotonic() + 1.0)
            wait_until(read_some, "every line has come")
            assert (one.lines, one.dropped) == (other.lines, other.dropped) == (lines, 0)
    numbers = [json.loads(line)["received"] for line in received.splitlines()]
    assert sorted(numbers) == sorted([*range(lines), *range(lines)])


def test_reader_that_is_gone_costs_lines(tmp_path: Path) -> None:
    """Lines that nobody can read are dropped; a FIFO without a reader is an error at the start."""
    path = tmp_path / "fifo"
    notes = Notes()
    with fifo(path):
        log = AccessLog(AccessPlan(file=str(path)), "0-1-", lambda *note: notes.append(note))
    write_fast(log, range(100))
    log.close(DEADLINE_S)
    assert (log.lines, log.dropped) == (0, 100)
    assert notes[0][2]["reason"] == "Broken pipe"
    with pytest.raises(OSError, match="No such device"):
        AccessLog(AccessPlan(file=str(path)), "0-1-", lambda *_: None)


def test_line_longer_than_a_write(tmp_path: Path) -> None:
    """What does not go in at once goes in piece by piece."""
    path = tmp_path / "fifo"
    lines = [f"0-1-{number} " + "x" * 100_000 for number in range(3)]
    with fifo(path) as reader:
        received = bytearray()
        with access_log(path, "{id} " + "x" * 100_000) as log:
            write_fast(log, range(3))
            log.tick(time.monotonic() + 1.0)

            def read_some() -> bool:
                try:
                    while True:
                        received.extend(os.read(reader, 65536))
                except BlockingIOError:
                    return received.count(b"\n") == 3

            wait_until(read_some, "every line has come")
        assert received.decode().splitlines() == lines
