"""The reactor: an epoll of our own, watched by uvloop through its file descriptor.

uvloop runs timers, ZeroMQ and everything slow; accept, dial and relay run here, as plain calls on
non-blocking sockets. uvloop sees one descriptor, so a wake-up costs it once per batch and not once
per socket: that is where the connection rate of transports and `add_reader` is lost.

Sockets of connections are registered edge-triggered: a paused or half-dead socket then neither
spins nor needs to leave the epoll, and stopping to read costs no system call. The price is the
rule of epoll(7): whoever reads a full buffer must come back by itself (`again`).
"""

from __future__ import annotations

import asyncio
import select
import time
from collections.abc import Callable
from typing import Final, Protocol

from worker.syscalls import dispatch, watch

IN: Final = select.EPOLLIN
OUT: Final = select.EPOLLOUT
ERROR: Final = select.EPOLLERR
RESET: Final = ERROR | select.EPOLLHUP  # HUP alone: both directions ended, by FIN or close
FIN: Final = select.EPOLLRDHUP
# What makes a short read not the last one; a read stops at urgent data, tcp(7).
ENDED: Final = FIN | RESET | select.EPOLLPRI
READING: Final = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLPRI | select.EPOLLET
WRITING: Final = READING | select.EPOLLOUT

TICK_S: Final = 0.1  # granularity of every timeout of a connection


class Pollable(Protocol):
    """What the table holds for a descriptor."""

    def ready(self, events: int) -> None:
        """Act on epoll events; must not raise for anything that a peer can cause."""


class Closable(Protocol):
    """A socket whose descriptor must outlive the current batch."""

    def close(self) -> None: ...


class Reactor:
    """Polls, dispatches, and runs what had to wait for the end of a batch."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_tick: Callable[[float], None],
        on_bug: Callable[[object, Exception], None],
    ) -> None:
        """``on_tick(now)`` runs every TICK_S; ``on_bug`` gets what a handler must never raise."""
        self.now = time.monotonic()  # of the current batch
        self.table: dict[int, Pollable] = {}
        self.again: list[Callable[[], None]] = []  # sources that may hold more bytes
        self.closing: list[Closable] = []  # closed after the batch, see _finish
        self._loop = loop
        self._epoll = select.epoll()
        self._fd = self._epoll.fileno()
        self._dispatch = dispatch
        self._watch = watch
        self.modify = self._epoll.modify
        self.unregister = self._epoll.unregister
        self._on_tick = on_tick
        self._on_bug = on_bug
        self._is_turn_asked = False
        loop.add_reader(self._epoll.fileno(), self.turn)
        self._timer = loop.call_later(TICK_S, self._tick)

    def register(self, fd: int, events: int) -> None:
        """Have the handler of the table told of these events."""
        self._watch(self._epoll, self._fd, fd, events)

    def turn(self) -> None:
        """One batch: what is ready, then what came back, then the closes."""
        self.now = time.monotonic()
        self._dispatch(self._epoll, self._fd, self.table, self._on_bug)
        if self.again or self.closing:
            self._finish()

    def look_at_clock(self) -> float:
        """The instant, for what comes between batches; an idle worker's `now` is a tick old."""
        self.now = time.monotonic()
        return self.now

    def _finish(self) -> None:
        again, self.again = self.again, []
        for resume in again:
            try:
                resume()
            except Exception as exc:
                self._on_bug(getattr(resume, "__self__", None), exc)
        # A descriptor closed within a batch could be given out again at once, and a stale event
        # of the batch would then reach its new owner.
        closing, self.closing = self.closing, []
        for sock in closing:
            sock.close()
        if self.again and not self._is_turn_asked:
            self._is_turn_asked = True
            self._loop.call_soon(self._asked_turn)

    def _asked_turn(self) -> None:
        self._is_turn_asked = False
        self.turn()

    def _tick(self) -> None:
        self._timer = self._loop.call_later(TICK_S, self._tick)
        self.now = time.monotonic()
        try:
            self._on_tick(self.now)
        except Exception as exc:
            self._on_bug(None, exc)
        if self.again or self.closing:
            self._finish()

    def close(self) -> None:
        """Stop polling; sockets still waiting for the end of a batch are closed."""
        self._timer.cancel()
        self._loop.remove_reader(self._epoll.fileno())
        self._finish()
        self._epoll.close()
