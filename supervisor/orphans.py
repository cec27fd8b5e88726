"""Workers that lost their supervisor, as `proxyctl stop` ends them."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Collection
from pathlib import Path

from shared.orphan_file import COUNTS_AT, LEAVING, LEAVING_AT, OrphanCounts, counts_of, pid_of
from shared.runtime_files import ORPHAN_PATTERN

_FILE_BYTES = 2 * COUNTS_AT


class Orphan:
    """One of them by its lock file, kept open: its last words are in it when it is gone."""

    def __init__(self, pid: int, fd: int) -> None:
        self.pid = pid
        self._fd = fd

    def lives(self) -> bool:
        """Whether it still holds the file."""
        return _is_held(self._fd)

    def is_leaving(self) -> bool:
        """Whether it was told to leave before."""
        return os.pread(self._fd, len(LEAVING), LEAVING_AT) == LEAVING

    def counts(self) -> OrphanCounts:
        """What it said last; what was open then is cut where it is gone."""
        found = counts_of(os.pread(self._fd, _FILE_BYTES, 0))
        if self.lives() or not found.open:
            return found
        return OrphanCounts(found.drained, found.cut + found.open)

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if it has just ended."""
        if not self.lives():
            return
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._fd)


def find(directory: Path, known: Collection[int] = ()) -> list[Orphan]:
    """Those that live and are not ``known``, in the order of their pids; the caller closes them."""
    found = []
    for path in directory.glob(ORPHAN_PATTERN):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        pid = pid_of(os.pread(fd, _FILE_BYTES, 0))
        if pid and pid not in known and _is_held(fd):
            found.append(Orphan(pid, fd))
        else:
            os.close(fd)
    return sorted(found, key=lambda one: one.pid)


def _is_held(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False
