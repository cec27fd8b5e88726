"""Waiting in tests: always for something, never for a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

DEADLINE_S: Final = 20.0  # far more than anything takes; only a failing test waits so long
_GLANCE_S: Final = 0.02


def wait_until(look: Callable[[], T], what: str, deadline_s: float = DEADLINE_S) -> T:
    """Call ``look`` until it returns something true, and return that; AssertionError if never."""
    deadline = time.monotonic() + deadline_s
    pause = threading.Event()
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {deadline_s:g} s: {what}"
        pause.wait(_GLANCE_S)
