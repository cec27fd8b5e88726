"""What others read of the supervisor: status, workers, and the numbers of the admin listener.

Every method returns at once and changes nothing.
"""

from __future__ import annotations

import functools
import os
import time
from importlib import metadata
from typing import Any

from msgspec import Struct

from shared.log import Logging
from shared.stats import Totals
from supervisor import expiry, request_counts, status
from supervisor.expiry import Use
from supervisor.facts import Facts, WorkerLoad
from supervisor.ledger import Ledger
from supervisor.listeners import Listeners
from supervisor.reload import Reloader
from supervisor.reload_queue import ReloadQueue
from supervisor.request_rates import RequestRates
from supervisor.routes import RoutesReading
from supervisor.runtime_dir import RuntimeDir, orphans
from supervisor.worker_pool import WorkerPool


class Life(Struct, kw_only=True):
    """How far the supervisor is; times since 1970. ``up_at`` 0: it was not ready yet."""

    started_at: float
    up_at: float = 0.0
    is_stopping: bool = False
    admin_address: str = ""  # where the admin listener listens, "" while it does not


class Overview(Struct, frozen=True, kw_only=True):
    """Everything that may be asked. ``config`` is shown as it is."""

    runtime_dir: RuntimeDir
    config: str
    life: Life
    pool: WorkerPool
    ledger: Ledger
    listeners: Listeners
    logging: Logging
    reloader: Reloader
    reloads: ReloadQueue
    rates: RequestRates

    def totals(self) -> Totals:
        """Merged counters, as a fresh object; what is served and unused yet stands there with 0."""
        totals = self.ledger.totals()
        totals.log_lines_dropped += self.logging.dropped
        status.add_unused(totals, self.reloader.served.plan)
        return totals

    def worker_states(self) -> dict[str, int]:
        """State: number of workers in it."""
        return self.pool.counts_by_state()

    def worker_lags(self) -> dict[int, float]:
        """Slot: loop lag in seconds."""
        return {worker.slot: worker.lag_s for worker in self.pool.ready()}

    def worker_loads(self) -> dict[int, WorkerLoad]:
        """Slot: what all its workers together, dead ones included, accepted and hold."""
        return {
            slot: WorkerLoad(counts.accepted, max(0, counts.accepted - counts.ended))
            for slot, counts in self.pool.counts.by_slot().items()
        }

    def restarts(self) -> dict[str, int]:
        """Reason: number of workers that were replaced for it."""
        return dict(self.pool.restarts.counts)

    def is_ready(self) -> bool:
        """A worker is ready, and not silent, and no stop has begun."""
        ready = self.pool.counts_by_state()["ready"]
        return bool(self.life.up_at and not self.life.is_stopping and ready)

    def is_stopping(self) -> bool:
        """A stop has begun."""
        return self.life.is_stopping

    def is_degraded(self) -> bool:
        """Fewer workers are ready than wanted, or the last reload was refused."""
        last = self.reloads.last
        is_refused = last is not None and not last.is_ok
        return is_refused or self.pool.counts_by_state()["ready"] < self.pool.wanted

    def facts(self) -> Facts:
        """What the supervisor knows of itself."""
        routes = self.ledger.totals().routes.values()
        last = self.reloads.last
        return Facts(
            version=version(),
            generation=self.reloader.served.plan.generation,
            reloads_ok=self.reloads.ok,
            reloads_refused=self.reloads.refused,
            last_reload_ok=last is None or last.is_ok,
            last_reload_at=last.time if last is not None else self.life.up_at,
            draining_connections=sum(route.draining for route in routes),
        )

    def certificates(self) -> list[Use]:
        """The certificates that clients and targets see, by route."""
        return expiry.uses(self.reloader.served.plan)

    def routes(self) -> RoutesReading:
        """What `proxyctl routes` is made from."""
        served = self.reloader.served
        totals = self.totals()
        return RoutesReading(
            config=served.config,
            plan=served.plan,
            totals=totals,
            rates=self.rates.per_second(totals.routes),
        )

    def workers(self) -> dict[str, Any]:
        """``data`` of `proxyctl workers`."""
        return status.workers_data(self.pool)

    def status(self) -> dict[str, Any]:
        """``data`` of `proxyctl status`."""
        totals = self.totals()
        requests = request_counts.by_route(
            self.reloader.served.plan, totals, self.rates.per_second(totals.routes)
        )
        return {
            "supervisor": {
                "pid": os.getpid(),
                "version": version(),
                "run": self.runtime_dir.run,
                "config": self.config,
                "started_at": self.life.started_at,
                "uptime_s": round(time.time() - self.life.started_at, 3),
            },
            "generation": self.reloader.served.plan.generation,
            "ready": self.is_ready(),
            "stopping": self.life.is_stopping,
            "workers": status.worker_counts(self.pool),
            "listeners": self.listeners.names(),
            "admin": self.life.admin_address,
            "certificates": expiry.certificates_data(self.reloader.served.plan, time.time()),
            "connections": totals.connections,
            "draining": status.draining_routes(totals),
            "draining_workers": status.draining_workers(self.pool),
            "orphans": orphans(self.runtime_dir.path),
            "totals": {
                **status.totals_data(totals, self.pool.counts.total(), requests),
                "killed": status.killed_data(self.pool),
            },
            "last_reload": status.last_reload(self.reloads.last),
            "restarts": status.restarts_data(self.pool.restarts),
            "kernel": {"tcp_migrate_req": status.tcp_migrate_req()},
        }


@functools.cache
def version() -> str:
    """Of the installed package."""
    try:
        return metadata.version("proxyctl")
    except metadata.PackageNotFoundError:
        return "unknown"
