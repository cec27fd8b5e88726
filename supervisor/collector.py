"""Python's garbage collector, held still while a config is read and compiled."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused_collector() -> Iterator[None]:
    """Nothing looks for garbage meanwhile.

    A config of thousands of routes makes hardly any, and to walk all that is there, again and again
    while it grows, takes as long as to read it.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
