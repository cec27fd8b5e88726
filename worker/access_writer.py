"""The thread that writes a worker's access log: it waits for the disk, so that nobody else does.

It takes chunks of whole lines and orders from a queue, one after the other. Workers append to the
same file, so a chunk goes out with one write (a file opened with O_APPEND takes it in one piece),
and what a full disk took of a line is blanked out again.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import stat
import time
from collections import deque
from queue import SimpleQueue
from threading import Event, Thread
from typing import Final

from shared.log import open_for_append

WRITE_MAX_BYTES: Final = 65536
TOO_SLOW: Final = "the file takes them too slowly"
_PIPE_MAX_BYTES: Final = select.PIPE_BUF  # pipe(7): more may be torn by what others write
_GLANCE_MS: Final = 20  # how often an order is looked for while a FIFO is full
_TRIES: Final = 2  # a write that came up short is tried once more, which says why


class Order:
    """Open the file again by its path, or (``is_last``) end. ``error`` holds once ``done`` is set.

    ``deadline``, of time.monotonic: until then lines that stand before it may wait for room.
    """

    def __init__(self, deadline: float, *, is_last: bool) -> None:
        self.deadline = deadline
        self.is_last = is_last
        self.error = ""
        self.done = Event()


class AccessWriter:
    """One file and its thread. Counters are written by the thread alone, and read by anyone."""

    def __init__(self, path: str) -> None:
        """OSError when the file cannot be opened."""
        self.taken_bytes = 0  # written or lost
        self.written = 0  # lines
        self.lost = 0  # lines
        self.trouble = ""  # why the last ones were lost
        self._path = path
        self._queue: SimpleQueue[bytes | Order] = SimpleQueue()
        self._orders: deque[Order] = deque()
        self._thread = Thread(target=self._run, name="access-log", daemon=True)
        self._take_over(open_for_append(path))
        self._thread.start()

    # On the caller's thread; neither waits for the writing one

    def put(self, chunk: bytes) -> None:
        """Have whole lines written."""
        self._queue.put(chunk)

    def order(self, order: Order) -> None:
        """Have this done once all that was put before is written or lost."""
        self._orders.append(order)
        self._queue.put(order)

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread's end; False when time is over."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # On the thread

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are the loop's
        while True:
            item = self._queue.get()
            if isinstance(item, bytes):
                self._write(item)
                self.taken_bytes += len(item)
                continue
            if item.is_last:
                self._close()
            else:
                item.error = self._reopen()
            self._orders.popleft()
            item.done.set()
            if item.is_last:
                return

    def _reopen(self) -> str:
        try:
            fd = open_for_append(self._path)
        except OSError as error:
            return f"{self._path}: {error.strerror}"
        self._close()
        self._take_over(fd)
        return ""

    def _close(self) -> None:
        try:
            os.close(self._fd)
        except OSError as error:
            self.trouble = error.strerror or str(error)  # NFS says only now what it did not keep

    def _take_over(self, fd: int) -> None:
        self._fd = fd
        mode = os.fstat(fd).st_mode
        self._is_file = stat.S_ISREG(mode)
        self._most = _PIPE_MAX_BYTES if stat.S_ISFIFO(mode) else WRITE_MAX_BYTES
        self._is_torn = False  # what we wrote last is no whole line

    def _write(self, chunk: bytes) -> None:
        while len(chunk) > self._most:
            # One line that is longer than that goes out alone.
            end = chunk.rfind(b"\n", 0, self._most) + 1 or chunk.find(b"\n") + 1
            self._write_piece(chunk[:end])
            chunk = chunk[end:]
        if chunk:
            self._write_piece(chunk)

    def _write_piece(self, piece: bytes) -> None:
        """Write these lines, or count those that could not be."""
        for _ in range(_TRIES):
            try:
                if self._is_torn:
                    self._send(b"\n")
                size = self._send(piece)
            except BlockingIOError:
                self.trouble = TOO_SLOW
                break
            except OSError as error:
                self.trouble = error.strerror or str(error)
                break
            if size == len(piece):
                self.written += piece.count(b"\n")
                return
            whole = piece.rfind(b"\n", 0, size) + 1
            self.written += piece.count(b"\n", 0, whole)
            self._mend(size - whole)
            piece = piece[whole:]
        self.lost += piece.count(b"\n")

    def _send(self, piece: bytes) -> int:
        """Write, and wait where there is no room yet; returns how many bytes went out. OSError."""
        size = 0
        while True:
            try:
                size += os.write(self._fd, piece[size:] if size else piece)
            except BlockingIOError:
                if not self._has_room_in_time():
                    if size:
                        return size
                    raise
                continue
            self._is_torn = size < len(piece)
            if self._is_file or not self._is_torn:
                return size  # to a file others may have appended meanwhile: no going on from here

    def _has_room_in_time(self) -> bool:
        """Wait for room in a FIFO, for ever unless an order waits."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        while True:
            is_late = bool(self._orders) and time.monotonic() >= self._orders[0].deadline
            if poll.poll(0 if is_late else _GLANCE_MS):
                return True
            if is_late:
                return False

    def _mend(self, size: int) -> None:
        """Blank out the ``size`` bytes of a line that has no room for its rest, and end it.

        Bytes that are there need no room, and they are ours: it does no harm to lines that another
        worker has appended since, but ends the line before them.
        """
        if size == 0:
            self._is_torn = False
        if not self._is_file or size == 0:
            return
        try:
            end = os.lseek(self._fd, 0, os.SEEK_CUR)
            flags = fcntl.fcntl(self._fd, fcntl.F_GETFL)
            fcntl.fcntl(self._fd, fcntl.F_SETFL, flags & ~os.O_APPEND)  # pwrite would append
            try:
                os.pwrite(self._fd, b" " * (size - 1) + b"\n", end - size)
            finally:
                fcntl.fcntl(self._fd, fcntl.F_SETFL, flags)
        except OSError:
            return  # the next line begins with a newline then
        self._is_torn = False
