"""A worker without a supervisor: how `proxyctl stop` finds it, what it looks after, how it leaves.

Each orphan holds a lock file in the runtime directory that names its pid (`shared/orphan_file.py`).
All of them poll the same listening sockets, so one that is told to leave just leaves its share to
the others; the last one retires the ports as a full stop does (design section 2). What a dead one
had open would count against the limits of all for ever: nobody else is there to clear its row.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from shared import syn_filter
from shared.limit_rows import LimitRows
from shared.log import Logger
from shared.messages import Spawn
from shared.orphan_file import COUNTS_AT, LEAVING, LEAVING_AT, PID_BYTES, OrphanCounts
from shared.runtime_files import ORPHAN_LOCK, ORPHAN_PATTERN
from worker.accounting import CELL_ENDED
from worker.data_plane import DataPlane
from worker.listener import Listener

_LOOK_S: Final = 0.5  # the connections of a killed one stop counting within a second


class OrphanLock:
    """The lock file of this process; held until it is closed or the process ends."""

    def __init__(self, runtime_dir: str) -> None:
        """OSError when the file cannot be made."""
        self._path = Path(runtime_dir) / ORPHAN_LOCK.format(pid=os.getpid())
        # Locked before it has its name: whoever finds one without a lock takes it for stale.
        new = self._path.with_suffix(".new")
        self._fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(self._fd, f"{os.getpid()}\n".encode().ljust(PID_BYTES), 0)
            self.note(OrphanCounts())  # all of it has its place on the disk from now on
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            new.rename(self._path)
        except OSError:
            os.close(self._fd)
            raise

    def leave(self) -> bool:
        """Say that this one is on its way out; True when all others are so as well, or gone.

        It is said before the others are looked at, so of several at least one finds itself last.
        """
        os.pwrite(self._fd, LEAVING, LEAVING_AT)
        others = self._path.parent.glob(ORPHAN_PATTERN)
        return not any(_serves(path) for path in others if path != self._path)

    def note(self, counts: OrphanCounts) -> None:
        """For `proxyctl stop`, which reads it also after the file was removed."""
        os.pwrite(self._fd, counts.packed(), COUNTS_AT)

    def close(self) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)
        os.close(self._fd)


class Orphan:
    """What a worker does on its own account once it has no supervisor."""

    def __init__(self, plane: DataPlane, limits_fd: int, spawn: Spawn, log: Logger) -> None:
        self._plane = plane
        self._limits_fd = limits_fd
        self._cleared = {spawn.counts_row}  # rows that need no look: ours, and those of the dead
        self._runtime_dir = spawn.runtime_dir
        self._log = log
        self._ended_before: int | None = None  # connections, when the drain began
        self._lock: OrphanLock | None = None
        self._is_told = False  # that the file cannot be written
        self._is_over = False

    def appear(self) -> None:
        """Make the lock file, so that `proxyctl stop` finds this one."""
        try:
            self._lock = OrphanLock(self._runtime_dir)
        except OSError as error:
            self._tell(error)

    def let_in(self) -> None:
        """Take over from a supervisor that was lost while ports came, went or moved.

        It alone knew which of them were to be closed when, and kept SYNs from those: a port that
        nobody serves or closes would leave its clients without an answer. What is of a committed
        generation is served on, that on its way out too; what is of one to come is closed.
        """
        self._plane.give_up_next()
        for listener in self._plane.listeners():
            for one in listener.sockets.values():
                try:
                    syn_filter.let_in(one.sock)
                except OSError as error:
                    self._log.error("cannot listen", listener=listener.name, error=str(error))

    async def watch(self) -> None:
        """Clear the rows of others that died, and keep the figures for a stop; until cancelled."""
        rows = None
        try:
            rows = LimitRows(self._limits_fd)
        except OSError as error:
            self._log.error("cannot see whose connections count", error=str(error))
        while True:
            self._note(self._counts())
            if rows is not None:
                await self._clear(rows)
            await asyncio.sleep(_LOOK_S)

    async def _clear(self, rows: LimitRows) -> None:
        for row in range(rows.used()):
            if row not in self._cleared and rows.is_abandoned(row):
                rows.forget(row)
                self._cleared.add(row)
                await asyncio.sleep(0)  # a row is a step of its own; traffic goes in between

    async def leave(self) -> None:
        """Retire the ports as a full stop does, unless other orphans serve them on."""
        if self._lock is None or self._lock.leave():
            await _stop_accepting(self._plane.listeners())

    def drains(self) -> None:
        """The drain begins now."""
        self._ended_before = self._plane.cells[CELL_ENDED]

    def ended(self, drained: int, cut: int) -> None:
        """Nothing is open any more."""
        self._note(OrphanCounts(drained=drained, cut=cut))
        self._is_over = True  # `watch` may have its turn once more, and knows less
        self._log.info("stopped without a supervisor", drained=drained, cut=cut)

    def close(self) -> None:
        """Let go of the lock file."""
        if self._lock:
            self._lock.close()

    def _counts(self) -> OrphanCounts:
        """As of now; what is cut is so at one moment, and `ended` says it."""
        before = self._ended_before
        ended = 0 if before is None else self._plane.cells[CELL_ENDED] - before
        return OrphanCounts(drained=ended, open=self._plane.connections)

    def _note(self, counts: OrphanCounts) -> None:
        if self._lock is None or self._is_over:
            return
        try:
            self._lock.note(counts)
        except OSError as error:
            self._tell(error)

    def _tell(self, error: OSError) -> None:
        if not self._is_told:
            self._log.error("cannot write the orphan's lock file", error=str(error))
        self._is_told = True


async def _stop_accepting(listeners: Iterable[Listener]) -> None:
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
        return os.pread(fd, len(LEAVING), LEAVING_AT) != LEAVING
    finally:
        os.close(fd)
    return False
