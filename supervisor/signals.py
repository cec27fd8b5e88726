"""Signals become events on a queue; a handler does nothing else."""

from __future__ import annotations

import asyncio
import signal
from enum import Enum
from typing import Final


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
    """From now on each signal puts its event on ``queue``."""
    for number, event in EVENTS.items():
        loop.add_signal_handler(number, queue.put_nowait, event)
    # Kept for the upgrade in place; its default action would end us.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def remove(loop: asyncio.AbstractEventLoop) -> None:
    """Undo `install`."""
    for number in EVENTS:
        loop.remove_signal_handler(number)
