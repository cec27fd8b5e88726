"""Signals become events on a queue; a handler does nothing else."""

from __future__ import annotations

import asyncio
import signal
from enum import Enum
from typing import Final

from supervisor import early_signals


class Event(Enum):
    """What the operator wants (design section 2, "Signals")."""

    RELOAD = "reload"
    DRAIN = "drain"
    STOP = "stop"
    REOPEN_LOGS = "reopen_logs"
    MORE = "more"
    FEWER = "fewer"


EVENTS: Final = {
    signal.SIGHUP: Event.RELOAD,
    signal.SIGTERM: Event.DRAIN,
    signal.SIGINT: Event.STOP,
    signal.SIGQUIT: Event.STOP,
    signal.SIGUSR1: Event.REOPEN_LOGS,
    signal.SIGTTIN: Event.MORE,
    signal.SIGTTOU: Event.FEWER,
}


def install(loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[Event]) -> None:
    """From now on each signal puts its event on ``queue``; those noted before do so now.

    But for a change of the number of workers: of a signal that came just before this, the loop
    tells too, and twice is only the same for the others.
    """
    for number, event in EVENTS.items():
        loop.add_signal_handler(number, queue.put_nowait, event)
    # Kept for the upgrade in place; its default action would end us.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    for early in map(signal.Signals, early_signals.noted()):
        if early in EVENTS and EVENTS[early] not in (Event.MORE, Event.FEWER):
            queue.put_nowait(EVENTS[early])


def remove(loop: asyncio.AbstractEventLoop) -> None:
    """Undo `install`. The end is under way: from now on signals do nothing to it."""
    # Blocked meanwhile: between the two each has its default action.
    signal.pthread_sigmask(signal.SIG_BLOCK, EVENTS)
    for number in EVENTS:
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, EVENTS)
