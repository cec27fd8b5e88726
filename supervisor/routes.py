"""What `proxyctl routes` says, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from shared.config import Config, Route
from shared.plan import Plan, RoutePlan
from shared.stats import RouteCounts, Totals
from supervisor.request_counts import by_route


class RoutesReading(Struct, frozen=True, kw_only=True):
    """What the list is made from, taken at one moment and changed by nobody since."""

    config: Config
    plan: Plan
    totals: Totals
    rates: Mapping[str, float] = {}  # requests per second, by route

    def data(self) -> dict[str, Any]:
        """Every route of the file in its order, then those removed ones that still drain.

        ``state`` of each: serving; no_target_up (none that takes new connections); disabled;
        draining (a reload removed it). ``http``: `request_counts.request_data`, null where the
        route does not speak it.
        """
        served = {route.name: route for route in self.plan.routes}
        counts = self.totals.routes
        requests = by_route(self.plan, self.totals, self.rates)
        listed = [
            _route(route, served.get(str(route.name)), counts.get(str(route.name), RouteCounts()))
            for route in self.config.routes
        ]
        known = {str(route.name) for route in self.config.routes}
        draining = [
            {"name": name, "state": "draining", "ports": [], "domains": [], **_counts(one)}
            for name, one in counts.items()
            if one.draining and name not in known
        ]
        routes = [{**one, "http": requests.get(one["name"])} for one in [*listed, *draining]]
        return {"generation": self.plan.generation, "routes": routes}


def _route(route: Route, plan: RoutePlan | None, counts: RouteCounts) -> dict[str, Any]:
    return {
        "name": str(route.name),
        "state": _state(plan, counts),
        "ports": [str(port) for port in route.match.ports],
        "domains": [str(domain) for domain in route.match.domains],
        "priority": route.priority,
        "tags": [str(tag) for tag in route.tags],
        "targets": [target.name for target in route.action.targets],
        **_counts(counts),
    }


def _state(plan: RoutePlan | None, counts: RouteCounts) -> str:
    if plan is None:
        return "disabled"
    if plan.http is not None and plan.http.answer is not None:
        return "serving"  # by ourselves
    if any(_is_up(counts, target.name) for target in plan.targets if target.weight):
        return "serving"
    return "no_target_up"


def _is_up(counts: RouteCounts, target: str) -> bool:
    """One that nobody has dialled yet is taken for reachable."""
    found = counts.targets.get(target)
    return found is None or found.is_up


def _counts(counts: RouteCounts) -> dict[str, int]:
    return {
        "connections": counts.active,
        "draining": counts.draining,
        "total": counts.total,
        "received": counts.received,
        "sent": counts.sent,
    }
