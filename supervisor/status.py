"""What `proxyctl status` and `proxyctl workers` say, as plain data."""

from __future__ import annotations

from typing import Any

from msgspec import to_builtins

from shared.plan import Plan
from shared.stats import ListenerCounts, RouteCounts, TargetCounts, Totals, add_target
from supervisor.counts import Counts
from supervisor.reload import Outcome
from supervisor.restart_log import RestartLog
from supervisor.worker_pool import WorkerPool


def workers_data(pool: WorkerPool) -> dict[str, Any]:
    """``data`` of `workers`."""
    return {"workers": to_builtins(pool.states())}


def worker_counts(pool: WorkerPool) -> dict[str, int]:
    """How many workers are wanted, and how many are in each state."""
    return {"wanted": pool.wanted, **pool.counts_by_state()}


def last_reload(outcome: Outcome | None) -> dict[str, Any]:
    """The last reload; ``result`` None: there was none."""
    if outcome is None:
        return {"result": None, "ok": True, "errors": []}
    return {
        "result": "ok" if outcome.is_ok else "refused",
        "ok": outcome.is_ok,
        "generation": outcome.generation,
        "time": outcome.time,
        "seconds": outcome.seconds,
        "summary": outcome.summary,
        "errors": to_builtins(outcome.errors),
    }


def add_unused(totals: Totals, plan: Plan) -> None:
    """Give what is served and was not used yet its zeros; workers do not report those."""
    for listener in plan.listeners:
        totals.listeners.setdefault(listener.name, ListenerCounts())
    for route in plan.routes:
        counts = totals.routes.setdefault(route.name, RouteCounts())
        for target in route.targets:
            counts.targets.setdefault(target.name, TargetCounts())


def totals_data(totals: Totals, counts: Counts) -> dict[str, Any]:
    """Counters by route, by target (over all routes) and by end reason."""
    targets: dict[str, TargetCounts] = {}
    ends: dict[str, int] = {}
    refused: dict[str, int] = {}
    for route in totals.routes.values():
        _add(ends, route.ends)
        for name, target in route.targets.items():
            add_target(targets.setdefault(name, TargetCounts()), target)
    for listener in totals.listeners.values():
        _add(refused, listener.refused)
    _add(ends, refused)
    return {
        "accepted": counts.accepted,
        "dialled": counts.dialled,
        "ended": counts.ended,
        "routes": to_builtins(totals.routes),
        "targets": to_builtins(targets),
        "listeners": to_builtins(totals.listeners),
        "ends": ends,
        "refused": refused,
        "received": sum(route.received for route in totals.routes.values()),
        "sent": sum(route.sent for route in totals.routes.values()),
    }


def restarts_data(restarts: RestartLog) -> list[dict[str, Any]]:
    """The last workers that ended unasked, oldest first."""
    data: list[dict[str, Any]] = to_builtins(list(restarts.last))
    return data


def _add(into: dict[str, int], other: dict[str, int]) -> None:
    for name, count in other.items():
        into[name] = into.get(name, 0) + count
