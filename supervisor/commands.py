"""What the CLI asks over the control socket, and what it gets (design section 4)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from msgspec import to_builtins

from shared.errors import Problem
from shared.messages import Reply, Request
from supervisor.overview import Overview
from supervisor.receipts import Receipts
from supervisor.reload import Outcome
from supervisor.resize import RESIZE_S, Resized
from supervisor.shutdown import Stopped

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
DEGRADED: Final = 4
TIMED_OUT: Final = 5


class Commanded(Protocol):
    """What of the supervisor the commands need."""

    def request_reload(
        self, read: asyncio.Future[None] | None = None
    ) -> asyncio.Future[Outcome]: ...

    def request_resize(self, change: int, timeout_s: float) -> asyncio.Future[Resized]: ...

    def request_stop(self, drain_s: float | None, *, at_once: bool) -> asyncio.Future[Stopped]: ...


class Commands:
    """One method per verb; each returns the Reply."""

    def __init__(self, supervisor: Commanded, overview: Overview) -> None:
        self._supervisor = supervisor
        self._overview = overview
        self._receipts = Receipts()
        self._verbs: dict[str, Callable[[dict[str, Any]], Awaitable[Reply]]] = {
            "ping": self._ping,
            "status": self._status,
            "routes": self._routes,
            "workers": self._workers,
            "resize": self._resize,
            "reload": self._reload,
            "received": self._received,
            "stop": self._stop,
        }

    async def answer(self, request: Request) -> Reply:
        """Carry out one request."""
        verb = self._verbs.get(request.verb)
        if verb is None:
            return _problem(USAGE, f"unknown verb {request.verb!r}", "verb")
        return await verb(request.arguments)

    async def _ping(self, _: dict[str, Any]) -> Reply:
        # Whoever asks for a stop has to wait for that long more.
        timeouts = self._overview.reloader.served.config.timeouts
        return Reply(exit_code=OK, data={"shutdown_delay_s": float(timeouts.shutdown_delay)})

    async def _status(self, _: dict[str, Any]) -> Reply:
        code = DEGRADED if self._overview.is_degraded() else OK
        return Reply(exit_code=code, data=self._overview.status())

    async def _routes(self, _: dict[str, Any]) -> Reply:
        # In a thread, since ten thousand of them take longer than the loop may be held.
        return Reply(exit_code=OK, data=await asyncio.to_thread(self._overview.routes().data))

    async def _workers(self, _: dict[str, Any]) -> Reply:
        return Reply(exit_code=OK, data=self._overview.workers())

    async def _resize(self, arguments: dict[str, Any]) -> Reply:
        change, timeout_s = arguments.get("change"), arguments.get("timeout_s", RESIZE_S)
        if not isinstance(change, int) or isinstance(change, bool) or not change:
            return _problem(USAGE, f"change must be a number of workers, not {change!r}", "usage")
        if not _is_duration(timeout_s):
            return _problem(USAGE, f"timeout_s must be seconds from 0, not {timeout_s!r}", "usage")
        # Shielded: what has begun goes on when the caller leaves.
        resized = await asyncio.shield(self._supervisor.request_resize(change, timeout_s))
        code = OK
        if resized.problem is not None:
            code = FAILED if resized.is_refused else TIMED_OUT if resized.is_late else DEGRADED
        errors = [] if resized.problem is None else [resized.problem]
        return Reply(exit_code=code, data=self._overview.workers(), errors=errors)

    async def _received(self, arguments: dict[str, Any]) -> Reply:
        self._receipts.came(arguments.get("receipt"))
        return Reply(exit_code=OK)

    async def _reload(self, arguments: dict[str, Any]) -> Reply:
        receipt = arguments.get("receipt")
        read = self._receipts.expect(receipt)
        try:
            # Shielded: others may wait for the same reload.
            outcome = await asyncio.shield(self._supervisor.request_reload(read))
        finally:
            self._receipts.answered(receipt)
        data = {
            "generation": outcome.generation,
            "seconds": outcome.seconds,
            "summary": outcome.summary,
            "routes": {
                "added": outcome.added,
                "changed": outcome.changed,
                "removed": outcome.removed,
                "reordered": outcome.is_reordered,
            },
            "settings": outcome.settings,
            "connections": {"kept": outcome.kept, "draining": outcome.draining},
        }
        if outcome.is_ok:
            return Reply(exit_code=OK, data=data, warnings=outcome.warnings)
        kept = Problem(message=f"kept generation {outcome.generation}", code="kept")
        return Reply(exit_code=FAILED, data=data, errors=[*outcome.errors, kept])

    async def _stop(self, arguments: dict[str, Any]) -> Reply:
        timeout_s = arguments.get("timeout_s")
        if timeout_s is not None and not _is_duration(timeout_s):
            return _problem(USAGE, f"timeout_s must be seconds from 0, not {timeout_s!r}", "usage")
        at_once = arguments.get("now") is True
        done = self._supervisor.request_stop(timeout_s, at_once=at_once)
        stopped = await asyncio.shield(done)
        return Reply(exit_code=OK, data=to_builtins(stopped))


def _is_duration(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9


def _problem(exit_code: int, message: str, code: str) -> Reply:
    return Reply(exit_code=exit_code, errors=[Problem(message=message, code=code)])
