"""What is printed on standard output by more than one module."""

from __future__ import annotations

import sys
from collections.abc import Iterable


def say(lines: Iterable[str]) -> None:
    """Print and flush. Whoever reads them may be gone: that is no reason to stop."""
    if sys.stdout is None:  # gone the last time already
        return
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except (OSError, ValueError):
        # Closed already, or else Python would complain once more at exit.
        sys.stdout = None


def plural(count: int, noun: str) -> str:
    """``1 worker``, ``2 workers``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
