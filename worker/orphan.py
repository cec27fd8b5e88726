"""A worker without a supervisor: how `proxyctl stop` finds it, and how it leaves.

Each orphan holds a lock file in the runtime directory that names its pid. All of them poll the
same listening sockets, so one that is told to leave just leaves its share to the others; the last
one retires the ports as a full stop does (design section 2).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from shared import syn_filter
from shared.runtime_files import ORPHAN_LOCK, ORPHAN_PATTERN
from worker.listener import Listener

_PID_BYTES: Final = 32  # of the file; whoever looks for orphans reads no more
_LEAVING: Final = b"leaving\n"  # stands behind the pid


class OrphanLock:
    """The lock file of this process; held until it is closed or the process ends."""

    def __init__(self, runtime_dir: str) -> None:
        """OSError when the file cannot be made."""
        self._path = Path(runtime_dir) / ORPHAN_LOCK.format(pid=os.getpid())
        # Locked before it has its name: whoever finds one without a lock takes it for stale.
        new = self._path.with_suffix(".new")
        self._fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(self._fd, f"{os.getpid()}\n".encode().ljust(_PID_BYTES), 0)
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            new.rename(self._path)
        except OSError:
            os.close(self._fd)
            raise

    def leave(self) -> bool:
        """Say that this one is on its way out; True when all others are so as well, or gone.

        It is said before the others are looked at, so of several at least one finds itself last.
        """
        os.pwrite(self._fd, _LEAVING, _PID_BYTES)
        others = self._path.parent.glob(ORPHAN_PATTERN)
        return not any(_serves(path) for path in others if path != self._path)

    def close(self) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)
        os.close(self._fd)


async def stop_accepting(listeners: Iterable[Listener]) -> None:
    """Drop new SYNs at these, and wait until handshakes in flight are through."""
    longest_s = 0.0
    for listener in listeners:
        wait_s = syn_filter.handshake_s(listener.plan.host)
        longest_s = max(longest_s, wait_s)
        for one in listener.sockets.values() if wait_s else ():
            syn_filter.attach(one.sock)
    await asyncio.sleep(longest_s)


def _serves(path: Path) -> bool:
    """Whether this is the file of an orphan that lives and was not told to leave."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(fd, len(_LEAVING), _PID_BYTES) != _LEAVING
    finally:
        os.close(fd)
    return False
