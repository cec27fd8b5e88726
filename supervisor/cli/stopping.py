"""`proxyctl stop`: drain the supervisor, and workers that lost theirs; wait until all are gone."""

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

    That is the supervisor, and workers that lost theirs, of an earlier run perhaps. These are told
    to end at once after ``timeout_s``, and killed if they do not.
    """
    if (refusal := client.not_ours(directory)) is not None:
        return refusal
    wait_s = None
    if now or timeout_s is not None:
        delay_s = 0.0 if now else _delay_s(directory)
        wait_s = delay_s + (timeout_s or 0.0) + _MARGIN_S
    deadline = None if wait_s is None else time.monotonic() + wait_s
    leaving = _Leaving(directory, 0.0 if now else timeout_s)
    try:
        leaving.look_for_more()  # they drain while the supervisor does
        if runtime_dir.running_pid(directory) is None:
            leaving.look_for_more()  # it may just have been lost
            if not leaving.orphans:
                return client.not_running(directory)
            reply = Reply(exit_code=client.OK)
        else:
            reply = _stop_supervisor(directory, timeout_s, now, wait_s, deadline)
        if reply.exit_code != client.OK:
            return reply
        return _with_orphans(reply, leaving, deadline)
    finally:
        leaving.close()


def _delay_s(directory: Path) -> float:
    """How long the supervisor accepts connections still before it drains; 0 if it says nothing."""
    found = client.ask(directory, "ping", {}, _MARGIN_S).data.get("shutdown_delay_s", 0.0)
    return float(found)


def _stop_supervisor(
    directory: Path,
    timeout_s: float | None,
    now: bool,
    wait_s: float | None,
    deadline: float | None,
) -> Reply:
    arguments: dict[str, Any] = {"now": now}
    if timeout_s is not None:
        arguments["timeout_s"] = timeout_s
    reply = client.ask(directory, "stop", arguments, wait_s)
    if reply.exit_code != client.OK:
        return reply
    if not _wait(lambda: runtime_dir.running_pid(directory) is None, deadline):
        return client.timed_out("the supervisor is still there", _CUT_HINT)
    return reply


def _with_orphans(reply: Reply, leaving: _Leaving, deadline: float | None) -> Reply:
    """The reply of the stop with what became of the orphans, once they are gone.

    TERM drains one, a second one ends it at once (design section 2).
    """
    if not _wait(leaving.are_gone, deadline):
        left = ", ".join(str(one.pid) for one in leaving.orphans if one.lives())
        return client.timed_out(f"workers still have connections (pid {left})", _CUT_HINT)
    if not leaving.orphans:
        return reply
    total = sum((one.counts() for one in leaving.orphans), OrphanCounts())
    data = {
        "orphans": sorted(one.pid for one in leaving.orphans),
        "drained": reply.data.get("drained", 0) + total.drained,
        "cut": reply.data.get("cut", 0) + total.cut,
    }
    return Reply(exit_code=client.OK, data=data, warnings=reply.warnings)


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

    def close(self) -> None:
        """Let go of their files."""
        for one in self.orphans:
            one.close()


def _wait(is_done: Callable[[], bool], deadline: float | None) -> bool:
    while not is_done():
        if deadline is not None and time.monotonic() >= deadline:
            return False
        time.sleep(_GLANCE_S)
    return True
