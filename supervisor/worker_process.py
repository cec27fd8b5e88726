"""One worker as the supervisor sees it: the process, the socket pair, what it last said."""

from __future__ import annotations

import array
import asyncio
import errno
import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Final

from msgspec import Struct

from shared.messages import DESCRIPTORS_PER_MESSAGE, ListenerSockets, encode

_RETRY_S: Final = 0.05


class Status(StrEnum):
    """Of a worker that lives."""

    STARTING = "starting"
    READY = "ready"
    LEAVING = "leaving"  # its listeners are being handed over; it still polls them
    DRAINING = "draining"


class WorkerState(Struct, frozen=True, kw_only=True):
    """One worker for `proxyctl workers`; ages and lags in seconds."""

    slot: int
    state: str
    pid: int = 0  # 0: there is no process in this slot now
    generation: int = 0
    connections: int = 0
    incarnation: int = 0
    age_s: float = 0.0
    lag_s: float = 0.0
    indexes: tuple[int, ...] = ()
    restarts: int = 0


class Exit(Struct, frozen=True):
    """How a process ended: its exit status, or the signal that ended it (0: none)."""

    status: int
    signal: int
    unknown: str = ""  # why neither is known

    def text(self) -> str:
        """``exit status 1``, ``SIGKILL``."""
        if self.unknown:
            return f"exit status {self.unknown}"
        if not self.signal:
            return f"exit status {self.status}"
        try:
            return signal.Signals(self.signal).name
        except ValueError:
            return f"signal {self.signal}"


class _Lent(Struct, frozen=True):
    """(listener id, socket index, socket) each, on their way for one generation."""

    generation: int
    sockets: list[tuple[int, int, socket.socket]]


class WorkerProcess:
    """A worker from the moment it is asked for. Times are of the loop's clock."""

    def __init__(
        self, slot: int, incarnation: int, counts_row: int, channel: socket.socket, now: float
    ) -> None:
        self.slot = slot
        self.incarnation = incarnation
        self.counts_row = counts_row
        self.pid = 0
        self.status = Status.STARTING
        self.started_at = now
        self.heard_at = now
        self.ready_at: float | None = None
        self.is_silent = False
        self.has_said_hello = False
        self.generation = 0  # committed there
        self.preparing = 0  # whose Prepare was sent last; 0 once that is settled
        self.is_prepared = False  # with that one
        self.is_commit_sent = False  # of that one
        self.is_behind = False  # it serves an older generation than the committed one
        self.is_outdated = False  # cannot follow any more: drains on what it has
        self.is_unwanted = False  # ended by us before it served
        self.progress_at = now
        self.connections = 0
        self.lag_s = 0.0
        self.indexes: frozenset[int] = frozenset()  # that it was last told to poll
        self.epoch = 0
        self.acked_epoch = 0
        self.given: set[int] = set()  # ids of listeners whose descriptors it has
        self.lent: set[int] = set()  # those of them that only the generation in preparation needs
        self.retiring: set[int] = set()  # ids of listeners that it was told to close
        self.drained: tuple[int, int] | None = None
        self.ended_before: int | None = None  # connections ended when the full stop's drain began
        self.our_reason = ""  # why we end it by force
        self.last_error = ""  # what it said itself
        self._pidfd = -1
        self._channel = channel
        self._queue: deque[_Lent] = deque()
        self._is_waiting = False
        channel.setblocking(False)

    @property
    def is_answering(self) -> bool:
        """Ready, heard of lately, and serving what is committed: it may be given listeners."""
        return self.status is Status.READY and not self.is_silent and not self.is_behind

    def watch(self, pid: int, on_exit: Callable[[WorkerProcess, Exit], None]) -> None:
        """The process is there: call ``on_exit`` once when it has ended. Its silence begins."""
        self.pid = pid
        self.heard_at = asyncio.get_running_loop().time()
        self._pidfd = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_pidfd, on_exit)
        if self.our_reason:
            self.kill(self.our_reason)  # it was to end before we knew whom to send that to

    def _on_pidfd(self, on_exit: Callable[[WorkerProcess, Exit], None]) -> None:
        try:
            result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            self._forget_pidfd()
            on_exit(self, Exit(0, 0, "not known"))
            return
        if result is None:
            return
        self._forget_pidfd()
        is_exit = result.si_code == os.CLD_EXITED
        end = Exit(result.si_status, 0) if is_exit else Exit(0, result.si_status)
        on_exit(self, end)

    def _forget_pidfd(self) -> None:
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def kill(self, reason: str) -> None:
        """SIGKILL by us; ``reason`` tells why."""
        self.our_reason = self.our_reason or reason
        if self._pidfd >= 0:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def give(self, generation: int, sockets: Iterable[tuple[int, int, socket.socket]]) -> None:
        """Pass (listener id, socket index, socket) each, for the generation in preparation.

        What does not fit waits its turn.
        """
        entries = list(sockets)
        self.lent.update(listener for listener, _, _ in entries)
        self.given |= self.lent
        for start in range(0, len(entries), DESCRIPTORS_PER_MESSAGE):
            batch = entries[start : start + DESCRIPTORS_PER_MESSAGE]
            self._queue.append(_Lent(generation, batch))
        self._pump()

    def take_back(self) -> None:
        """It forgets the generation in preparation, and with that the listeners lent for it."""
        self.given -= self.lent
        self.lent = set()
        self.preparing = 0
        self.is_prepared = self.is_commit_sent = False

    def settle(self) -> None:
        """It serves the generation that it was preparing: what was lent is its own."""
        self.lent = set()
        self.preparing = 0
        self.is_prepared = self.is_commit_sent = False

    def close(self) -> None:
        """The process is gone, or was never there: give back what we hold for it."""
        self._forget_pidfd()
        if self._channel.fileno() >= 0:
            self._stop_waiting()
            self._channel.close()
        self._queue.clear()

    def _pump(self) -> None:
        while self._queue and self._channel.fileno() >= 0:
            # A listener may have been closed while it waited here.
            first = self._queue[0]
            entries = [entry for entry in first.sockets if entry[2].fileno() >= 0]
            if entries and not self._send(_Lent(first.generation, entries)):
                return
            self._queue.popleft()
        self._stop_waiting()

    def _send(self, lent: _Lent) -> bool:
        names = [(listener, index) for listener, index, _ in lent.sockets]
        message = ListenerSockets(generation=lent.generation, sockets=names)
        descriptors = array.array("i", [held.fileno() for _, _, held in lent.sockets])
        loop = asyncio.get_running_loop()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)]
        try:
            self._channel.sendmsg([encode(message)], rights)
        except BlockingIOError:
            if not self._is_waiting:
                self._is_waiting = True
                loop.add_writer(self._channel.fileno(), self._pump)
            return False
        except OSError as error:
            if error.errno == errno.ETOOMANYREFS:
                # unix(7): as many descriptors are under way as the limit of open files allows.
                self._stop_waiting()
                loop.call_later(_RETRY_S, self._pump)
                return False
            # It has closed its end, so it is ending; the pidfd tells.
            self._queue.clear()
            self._stop_waiting()
            return False
        return True

    def _stop_waiting(self) -> None:
        if self._is_waiting:
            self._is_waiting = False
            asyncio.get_running_loop().remove_writer(self._channel.fileno())
