"""Python's garbage collector and configs of thousands of routes."""

from __future__ import annotations

import gc
from typing import Final

MANY_ROUTES: Final = 1000


def set_aside(routes: int) -> None:
    """Look for garbage once, and never again at what is there now, where so many routes are.

    Else the next full collection walks all of it, 100 ms for 10,000 routes, and so do later ones.
    What is set aside is freed all the same, when nobody refers to it any more.
    """
    if routes >= MANY_ROUTES:
        gc.collect()
        gc.freeze()
