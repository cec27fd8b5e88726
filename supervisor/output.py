"""The few lines that `proxyctl start` prints on standard output."""

from __future__ import annotations

import sys
from collections.abc import Iterable


def say(lines: Iterable[str]) -> None:
    """Print and flush. Whoever reads them may be gone: that is no reason to stop."""
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except (OSError, ValueError):
        # Closed already, or else Python would complain once more at exit.
        sys.stdout = None
