"""Whole files or none: what is being written is waited for, what cannot be read is said."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from supervisor import config_read
from supervisor.config_read import ReadError, read_file

WHOLE = b"first half, second half\n"
HALF = len(WHOLE) // 2


def refused(path: Path) -> ReadError:
    """Why a file cannot be had."""
    with pytest.raises(ReadError) as caught:
        read_file(path, 100)
    return caught.value


def test_what_cannot_be_read(tmp_path: Path) -> None:
    """No file, a directory, a FIFO and a device end at once with their own words."""
    os.mkfifo(tmp_path / "fifo")
    assert "No such file" in refused(tmp_path / "none").reason
    assert refused(tmp_path).reason == "is a directory"
    assert refused(tmp_path / "fifo").reason == "is no regular file"
    assert refused(Path("/dev/zero")).reason == "is no regular file"
    assert "cannot be read" in refused(tmp_path / "nul\0").reason
    assert "cannot be read" in refused(tmp_path / ("long" * 100)).reason


def test_no_more_than_asked_for(tmp_path: Path) -> None:
    """Of a larger file one byte more than the limit comes, so that the caller can tell."""
    (tmp_path / "a").write_bytes(b"12345")
    assert read_file(tmp_path / "a", 3) == b"1234"
    assert read_file(tmp_path / "a", 5) == b"12345"


def test_half_written_file_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of which a writer has written one half is read when the other one is there."""
    monkeypatch.setattr(config_read, "SETTLE_S", 0.4)
    path = tmp_path / "a"
    with path.open("wb", buffering=0) as file:
        file.write(WHOLE[:HALF])
        rest = threading.Timer(0.05, file.write, [WHOLE[HALF:]])
        rest.start()
        try:
            assert read_file(path, 100) == WHOLE
        finally:
            rest.join()


def test_file_that_never_rests(tmp_path: Path) -> None:
    """A file that is written to all the time is refused after a while, with a way out."""
    path = tmp_path / "a"
    stop = threading.Event()

    def write() -> None:
        with path.open("ab", buffering=0) as file:
            while not stop.wait(0.001):
                file.write(b"x")

    path.write_bytes(b"x")
    writer = threading.Thread(target=write)
    writer.start()
    try:
        why = refused(path)
    finally:
        stop.set()
        writer.join()
    assert why.reason == "the file goes on changing while it is read"
    assert "rename" in why.hint


def test_file_in_place_of_another(tmp_path: Path) -> None:
    """Files that replace each other by renaming are each read whole."""
    path = tmp_path / "a"
    path.write_bytes(b"0" * 50)
    stop = threading.Event()

    def replace() -> None:
        number = 0
        while not stop.wait(0.12):
            number = (number + 1) % 10
            (tmp_path / "new").write_bytes(b"%d" % number * 50)
            (tmp_path / "new").rename(path)

    writer = threading.Thread(target=replace)
    writer.start()
    try:
        found = [read_file(path, 100) for _ in range(4)]
    finally:
        stop.set()
        writer.join()
    assert all(len(data) == 50 and len(set(data)) == 1 for data in found)


def test_old_times_do_not_make_a_file_settled(tmp_path: Path) -> None:
    """A file whose modification time was set back was changed just now all the same."""
    path = tmp_path / "a"
    path.write_bytes(WHOLE)
    os.utime(path, (0, 0))
    status = path.stat()
    assert not config_read._is_settled(status, status)
