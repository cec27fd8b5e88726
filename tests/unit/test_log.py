"""The operational log."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from shared.log import Logging, LogSettings

ROOT = Path(__file__).parents[2]


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


def test_fifo_without_a_reader_is_an_error(tmp_path: Path) -> None:
    """A start or a reload does not wait for someone to read."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(OSError, match="No such device"):
        Logging(LogSettings(file=str(fifo)))


def test_journald_lines_carry_their_priority(tmp_path: Path) -> None:
    """The journal has the time, and reads the level from a number (sd-daemon(3))."""
    path = tmp_path / "log"
    settings = LogSettings(level="debug", format="journald", file=str(path))
    log = Logging(settings, component="c").logger
    for method in ("debug", "info", "warning", "error", "critical"):
        getattr(log, method)(method, n=1)
    assert path.read_text().splitlines() == [
        "<7>debug component=c n=1",
        "<6>info component=c n=1",
        "<4>warning component=c n=1",
        "<3>error component=c n=1",
        "<2>critical component=c n=1",
    ]


def test_journald_values_can_be_told_apart(tmp_path: Path) -> None:
    """What is no plain word stands in quotes, and nothing in a value begins a line."""
    path = tmp_path / "log"
    log = Logging(LogSettings(format="journald", file=str(path))).logger
    log.info("it is", a="two words", b='"', c="k=v", d="", e="x\ny", f=["p", 1], g=None, h="größe")
    assert path.read_text() == (
        '<6>it is a="two words" b="\\"" c="k=v" d="" e="x\\ny" f=["p",1] g=None h=größe\n'
    )


def test_journald_traceback_keeps_its_level(tmp_path: Path) -> None:
    """The journal makes an entry of each line, so each has the priority."""
    path = tmp_path / "log"
    log = Logging(LogSettings(format="journald", file=str(path)), component="c").logger
    try:
        raise ValueError("inner")
    except ValueError:
        log.exception("outer\nmore")
    lines = path.read_text().splitlines()
    assert lines[:2] == ["<3>outer component=c", "<3>more"]
    assert lines[-1] == "<3>ValueError: inner"
    assert all(line.startswith("<3>") for line in lines)


@pytest.mark.parametrize(
    ("stream", "start"), [("own", "<4>look component=c"), ("other", '{"timestamp":'), (None, "{")]
)
def test_auto_knows_the_journal(stream: str | None, start: str) -> None:
    """JOURNAL_STREAM counts only where it names what standard error goes to (systemd.exec(5))."""
    code = (
        "from shared.log import Logging, LogSettings\n"
        "Logging(LogSettings(), component='c').logger.warning('look')"
    )
    ours, theirs = socket.socketpair()
    with ours, theirs:
        found = os.fstat(theirs.fileno())
        name = f"{found.st_dev}:{found.st_ino + (stream == 'other')}"
        environment = {key: value for key, value in os.environ.items() if key != "JOURNAL_STREAM"}
        if stream is not None:
            environment["JOURNAL_STREAM"] = name
        subprocess.run(
            [sys.executable, "-c", code],
            stderr=theirs.fileno(),
            env=environment,
            cwd=ROOT,
            check=True,
        )
        assert ours.recv(65536).decode().startswith(start)


def test_auto_with_a_file_is_not_for_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable speaks of standard error only."""
    found = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
    path = tmp_path / "log"
    Logging(LogSettings(file=str(path))).logger.info("x")
    assert lines(path)[0]["event"] == "x"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_is_survived() -> None:
    """Each line that finds no room is dropped and counted."""
    logging = Logging(LogSettings(format="json", file="/dev/full"))
    logging.logger.error("lost")
    logging.logger.error("lost")
    assert logging.dropped == 2
