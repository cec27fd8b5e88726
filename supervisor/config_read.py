"""Whole files for the config: never waited for, never half of one that is being written."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from typing import Final

# A file that changed so lately may be in the middle of being written: another write would follow
# within microseconds of the one before, or milliseconds where the writer has to wait for a CPU.
# (A writer that pauses for longer can only be helped by writing elsewhere and renaming.)
SETTLE_S: Final = 0.05
TRIES: Final = 10  # half a second in all


class ReadError(Exception):
    """The file cannot be had. ``hint`` says what to do."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


def read_file(path: Path, max_bytes: int) -> bytes:
    """What the file holds, or its first ``max_bytes`` + 1 bytes where it is larger.

    Blocks for half a second at most while the file changes. ReadError where it goes on changing,
    is no regular file (a FIFO could be waited for without end), or cannot be read.
    """
    for _ in range(TRIES):
        data = _read_once(path, max_bytes)
        if data is not None:
            return data
        time.sleep(SETTLE_S)
    raise ReadError(
        "the file goes on changing while it is read",
        "write it under another name, then rename it",
    )


def _read_once(path: Path, max_bytes: int) -> bytes | None:
    """The bytes; None where the file changed meanwhile or just before."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the name
        reason = exc.strerror if isinstance(exc, OSError) else str(exc)
        raise ReadError(f"cannot be read: {reason}") from None
    try:
        before = os.fstat(descriptor)
        if stat.S_ISDIR(before.st_mode):
            raise ReadError("is a directory", "name the file")
        if not stat.S_ISREG(before.st_mode):
            raise ReadError("is no regular file")
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(max_bytes + 1)
        return data if _is_settled(before, os.fstat(descriptor)) else None
    except OSError as exc:
        raise ReadError(f"cannot be read: {exc.strerror}") from None
    finally:
        os.close(descriptor)


def _is_settled(before: os.stat_result, after: os.stat_result) -> bool:
    """Whether nothing was written while the file was read, nor just before.

    Looks at the change time too: `cp -p` and `touch` set the other one to what they like. A time
    in the future (another machine's clock) cannot be judged by.
    """
    if _version(before) != _version(after):
        return False
    age_s = time.time() - after.st_ctime
    return not 0 <= age_s < SETTLE_S


def _version(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
