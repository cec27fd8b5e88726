"""A worker without a supervisor keeps a lock file, so that `proxyctl stop` finds it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from shared.runtime_files import ORPHAN_LOCK


class OrphanLock:
    """The lock file of this process; held until it is closed or the process ends."""

    def __init__(self, runtime_dir: str) -> None:
        """OSError when the file cannot be made."""
        self._path = Path(runtime_dir) / ORPHAN_LOCK.format(pid=os.getpid())
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def close(self) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)
        os.close(self._fd)
