"""The operational log."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from shared.log import Logging, LogSettings


def lines(path: Path) -> list[dict[str, object]]:
    """The file's lines as objects."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_json_line_has_its_fields(tmp_path: Path) -> None:
    """One object a line: time, level, event, then what was bound and given."""
    path = tmp_path / "log"
    logging = Logging(LogSettings(format="json", file=str(path)), component="worker", slot=3)
    logging.logger.warning("something", target="t")
    (line,) = lines(path)
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert line["level"] == "warning"
    assert (line["component"], line["slot"], line["target"]) == ("worker", 3, "t")


def test_error_carries_its_traceback(tmp_path: Path) -> None:
    """A logged exception is text within its line."""
    path = tmp_path / "log"
    logging = Logging(LogSettings(format="json", file=str(path)))
    try:
        raise ValueError("inner")
    except ValueError:
        logging.logger.exception("outer")
    (line,) = lines(path)
    assert "ValueError: inner" in str(line["exception"])


def test_level_changes_for_loggers_that_are_bound_already(tmp_path: Path) -> None:
    """After a reload every logger follows the new level, format and file."""
    old, new = tmp_path / "old", tmp_path / "new"
    logging = Logging(LogSettings(format="json", file=str(old)))
    bound = logging.logger.bind(slot=1)
    bound.debug("hidden")
    logging.apply(LogSettings(level="debug", format="console", file=str(new)))
    bound.debug("shown")
    assert old.read_text() == ""
    assert "shown" in new.read_text()
    assert not new.read_text().startswith("{")


def test_reopen_follows_a_rotation(tmp_path: Path) -> None:
    """Lines go on into the renamed file until it is opened again by its path."""
    path, rotated = tmp_path / "log", tmp_path / "log.1"
    logging = Logging(LogSettings(format="json", file=str(path)))
    path.rename(rotated)
    logging.logger.info("before")
    assert logging.reopen() == ""
    logging.logger.info("after")
    assert [line["event"] for line in lines(rotated)] == ["before"]
    assert [line["event"] for line in lines(path)] == ["after"]


def test_reopen_that_fails_keeps_the_old_file(tmp_path: Path) -> None:
    """Where the path has gone the old file stays in use, and the reason is told."""
    directory = tmp_path / "gone"
    directory.mkdir()
    path = directory / "log"
    logging = Logging(LogSettings(format="json", file=str(path)))
    moved = directory.rename(tmp_path / "moved")
    assert "No such file" in logging.reopen()
    logging.logger.info("still")
    assert [line["event"] for line in lines(moved / "log")] == ["still"]


def test_reader_that_hangs_costs_lines_not_time(tmp_path: Path) -> None:
    """A FIFO that nobody empties takes what fits; the rest is dropped and counted."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        logging = Logging(LogSettings(format="json", file=str(fifo)))
        for _ in range(200):
            logging.logger.info("x" * 2000)
        assert 0 < logging.dropped < 200
    finally:
        os.close(reader)
    before = logging.dropped
    logging.logger.info("nobody reads any more")
    assert logging.dropped == before + 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_is_survived() -> None:
    """Each line that finds no room is dropped and counted."""
    logging = Logging(LogSettings(format="json", file="/dev/full"))
    logging.logger.error("lost")
    logging.logger.error("lost")
    assert logging.dropped == 2
