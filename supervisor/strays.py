"""Reaps children that nobody waits for.

As a child subreaper, and perhaps as process 1 of a container, we inherit processes that we did
not start: a worker whose fork server died with it, or what an example's process left.
"""

from __future__ import annotations

import os
from typing import Final

_PATIENCE_S: Final = 1.0


class StrayReaper:
    """Call `reap` now and then; it never waits."""

    def __init__(self) -> None:
        self._pid = 0
        self._seen_at = 0.0

    def reap(self, now: float) -> None:
        """Reap one stray. A child with an owner in this process is waited for by that owner at
        once, so only one that is still there a second later is a stray."""
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None:
            self._pid = 0
        elif found.si_pid != self._pid:
            self._pid, self._seen_at = found.si_pid, now
        elif now - self._seen_at >= _PATIENCE_S:
            self._pid = 0
            os.waitid(os.P_PID, found.si_pid, os.WEXITED | os.WNOHANG)
