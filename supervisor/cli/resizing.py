"""`proxyctl workers`: list them, or have one more or less and wait until it is so."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from shared.config.structs import MAX_WORKERS
from shared.messages import Reply
from supervisor.cli import client

ACTIONS: Final = ("list", "add", "remove")
_LIST_S: Final = 10.0
# Beyond its own limit the supervisor may have a reload or a resize to finish first.
_MARGIN_S: Final = 5.0


def parse(action: str, count: int | None) -> int:
    """The change in the number of workers, 0 for list; ValueError when it makes no sense."""
    if action not in ACTIONS:
        raise ValueError(f"{action!r} is none of {', '.join(ACTIONS)}")
    if action == "list":
        if count is not None:
            raise ValueError("a number goes with add and remove")
        return 0
    change = 1 if count is None else count
    if not 1 <= change <= MAX_WORKERS:
        raise ValueError(f"{change} is no number of workers from 1 to {MAX_WORKERS}")
    return change if action == "add" else -change


def workers(directory: Path, change: int, timeout_s: float) -> Reply:
    """Ask for the list, or for ``change`` workers more or less."""
    if not change:
        return client.ask(directory, "workers", {}, _LIST_S)
    arguments = {"change": change, "timeout_s": timeout_s}
    return client.ask(directory, "resize", arguments, timeout_s + _MARGIN_S)
