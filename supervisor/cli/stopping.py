"""`proxyctl stop`: drain the supervisor, or workers that lost theirs, and wait until it is gone."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from shared.messages import Reply
from shared.orphan_file import OrphanCounts
from supervisor import orphans, runtime_dir
from supervisor.cli import client

_GLANCE_S: Final = 0.05
# Beyond its own deadline the supervisor retires ports (4 s at most) and ends its workers.
_MARGIN_S: Final = 15.0
_KILL_S: Final = 10.0  # for an orphan that is told to end at once
_CUT_HINT: Final = "`proxyctl stop --now` cuts what is still open"


def stop(directory: Path, timeout_s: float | None, now: bool) -> Reply:
    """Stop what runs in ``directory``; without ``timeout_s`` the config's drain deadline holds.

    Orphans are told to end at once after ``timeout_s``, and killed if they do not.
    """
    if (refusal := client.not_ours(directory)) is not None:
        return refusal
    wait_s = None
    if now or timeout_s is not None:
        delay_s = 0.0 if now else _delay_s(directory)
        wait_s = delay_s + (timeout_s or 0.0) + _MARGIN_S
    deadline = None if wait_s is None else time.monotonic() + wait_s
    if runtime_dir.running_pid(directory) is None:
        limit_s = 0.0 if now else timeout_s
        return _stop_orphans(directory, deadline, limit_s)
    arguments: dict[str, Any] = {"now": now}
    if timeout_s is not None:
        arguments["timeout_s"] = timeout_s
    reply = client.ask(directory, "stop", arguments, wait_s)
    if reply.exit_code != client.OK:
        return reply
    if not _wait(lambda: runtime_dir.running_pid(directory) is None, deadline):
        return client.timed_out("the supervisor is still there", _CUT_HINT)
    return reply


def _delay_s(directory: Path) -> float:
    """How long the supervisor accepts connections still before it drains; 0 if it says nothing."""
    found = client.ask(directory, "ping", {}, _MARGIN_S).data.get("shutdown_delay_s", 0.0)
    return float(found)


def _stop_orphans(directory: Path, deadline: float | None, limit_s: float | None) -> Reply:
    """TERM drains an orphan, a second one ends it at once (design section 2)."""
    leaving = _Leaving(directory, limit_s)
    try:
        leaving.look_for_more()
        if not leaving.orphans:
            return client.not_running(directory)
        if not _wait(leaving.are_gone, deadline):
            left = ", ".join(str(one.pid) for one in leaving.orphans if one.lives())
            return client.timed_out(f"workers still have connections (pid {left})", _CUT_HINT)
        total = sum((one.counts() for one in leaving.orphans), OrphanCounts())
        pids = sorted(one.pid for one in leaving.orphans)
    finally:
        for one in leaving.orphans:
            one.close()
    data = {"orphans": pids, "drained": total.drained, "cut": total.cut}
    return Reply(exit_code=client.OK, data=data)


class _Leaving:
    """Orphans that were told to leave: those of the first look, and who turns into one later."""

    def __init__(self, directory: Path, limit_s: float | None) -> None:
        """``limit_s``: from now on until they are told to end at once; None: never."""
        self.orphans: list[orphans.Orphan] = []
        self._directory = directory
        self._cut_at = math.inf if limit_s is None else time.monotonic() + limit_s
        self._kill_at = math.inf  # known when they have been told

    def look_for_more(self) -> None:
        """A worker may find only now that it has no supervisor."""
        for one in orphans.find(self._directory, [known.pid for known in self.orphans]):
            self.orphans.append(one)
            if not one.is_leaving():  # a second TERM would cut what another stop lets end
                one.send(signal.SIGTERM)

    def are_gone(self) -> bool:
        """Whether none is left, after another look, and after what is due was sent."""
        self.look_for_more()
        now = time.monotonic()
        if now >= self._cut_at:
            self._kill_at = min(self._kill_at, now + _KILL_S)
            for one in self.orphans:
                # One that hangs for so long: nobody else watches it.
                one.send(signal.SIGKILL if now >= self._kill_at else signal.SIGTERM)
        return not any(one.lives() for one in self.orphans)


def _wait(is_done: Callable[[], bool], deadline: float | None) -> bool:
    while not is_done():
        if deadline is not None and time.monotonic() >= deadline:
            return False
        time.sleep(_GLANCE_S)
    return True
