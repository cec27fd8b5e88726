"""Signals that come while `proxyctl start` is not ready for them: noted, and obeyed later.

Their default actions would end it without a word, or stop it (TTIN, TTOU). A handler does nothing
but note: it runs at any moment, within an import or half way through taking the lock, so a stop is
left to the next `check`. They are handlers and not SIG_IGN, which every child would inherit.

Imports next to nothing, for it must be there before all that takes time to import.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import Final

_STOPS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
_LATER: Final = (
    signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU,
)  # fmt: skip

_noted: list[int] = []  # of this process, as its handlers are


class StoppedEarlyError(Exception):
    """A signal to stop has come before there was anything to stop."""


def note() -> None:
    """From now on signals are noted, until the supervisor takes them itself."""
    for number in (*_STOPS, *_LATER):
        signal.signal(number, _note)


def _note(number: int, _: FrameType | None) -> None:
    _noted.append(number)


def noted() -> tuple[int, ...]:
    """Those that have come, in their order."""
    return tuple(_noted)


def check() -> None:
    """StoppedEarlyError when one of them asks for a stop."""
    if any(number in _STOPS for number in _noted):
        raise StoppedEarlyError
