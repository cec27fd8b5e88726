"""What `proxyctl status` and `proxyctl workers` say, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from msgspec import to_builtins
from msgspec.structs import asdict

from shared.plan import Plan
from shared.stats import (
    Histogram,
    ListenerCounts,
    RouteCounts,
    TargetCounts,
    Totals,
    add_target,
    unrouted_requests,
)
from supervisor.counts import Counts
from supervisor.reload import Outcome
from supervisor.restart_log import RestartLog
from supervisor.worker_pool import WorkerPool
from supervisor.worker_process import Status, WorkerState

_TCP_MIGRATE_REQ: Final = Path("/proc/sys/net/ipv4/tcp_migrate_req")


def workers_data(pool: WorkerPool) -> dict[str, Any]:
    """``data`` of `workers`: how many, and each one with what it has accepted, dialled, ended."""
    return {**worker_counts(pool), "workers": [_worker_data(pool, one) for one in pool.states()]}


def _worker_data(pool: WorkerPool, state: WorkerState) -> dict[str, Any]:
    data: dict[str, Any] = to_builtins(state)
    worker = pool.workers.get(state.incarnation)
    counts = pool.counts.read(worker.counts_row) if worker is not None else Counts()
    return {**data, **to_builtins(counts)}


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


def draining_routes(totals: Totals) -> list[dict[str, Any]]:
    """Routes that a reload removed and that still have connections, the most first."""
    draining = [(route.draining, name) for name, route in totals.routes.items() if route.draining]
    draining.sort(key=lambda entry: (-entry[0], entry[1]))
    return [{"route": name, "connections": connections} for connections, name in draining]


def draining_workers(pool: WorkerPool) -> list[dict[str, int]]:
    """Workers that finish what they have and then end."""
    return [
        {"slot": worker.slot, "pid": worker.pid, "connections": worker.connections}
        for worker in pool.workers.values()
        if worker.status in (Status.LEAVING, Status.DRAINING)
    ]


def killed_data(pool: WorkerPool) -> dict[str, int]:
    """Workers that ended by force, and what all of them together had counted until then."""
    data: dict[str, int] = to_builtins(pool.killed)
    return data


def tcp_migrate_req() -> bool | None:
    """Whether the kernel moves waiting connections of a closed listener to its siblings.

    A safety net only: we close no listener while its port is served. None: not known.
    """
    try:
        return _TCP_MIGRATE_REQ.read_text().strip() == "1"
    except OSError:
        return None


def _route_data(route: RouteCounts) -> dict[str, Any]:
    """With the names of what is counted, which reports go without."""
    data = asdict(route)
    data["targets"] = {name: asdict(target) for name, target in route.targets.items()}
    for name in ("connect", "request", "first_byte"):
        histogram: Histogram | None = data[name]
        data[name] = None if histogram is None else asdict(histogram)
    return data


def totals_data(
    totals: Totals, counts: Counts, requests: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    """Counters by route, by target (over all routes) and by end reason.

    ``requests``: by route, what `request_counts.by_route` says; it becomes the route's ``http``.
    """
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
    routes = {name: _route_data(route) for name, route in totals.routes.items()}
    answers = unrouted_requests(totals)
    for name, data in routes.items():
        data["http"] = http = requests.get(name)
        _add(answers, http["by_class"] if http else {})
    return {
        "accepted": counts.accepted,
        "dialled": counts.dialled,
        "ended": counts.ended,
        "routes": routes,
        "targets": {name: asdict(target) for name, target in targets.items()},
        "listeners": to_builtins(totals.listeners),
        "ends": ends,
        "refused": refused,
        "requests": dict(sorted(answers.items())),
        "received": sum(route.received for route in totals.routes.values()),
        "sent": sum(route.sent for route in totals.routes.values()),
        "access_lines": totals.access_lines,
        "access_lines_dropped": totals.access_lines_dropped,
        "log_lines_dropped": totals.log_lines_dropped,
        "limit_table_full": totals.limit_table_full,
    }


def restarts_data(restarts: RestartLog) -> list[dict[str, Any]]:
    """The last workers that ended unasked, oldest first."""
    data: list[dict[str, Any]] = to_builtins(list(restarts.last))
    return data


def _add(into: dict[str, int], other: dict[str, int]) -> None:
    for name, count in other.items():
        into[name] = into.get(name, 0) + count
