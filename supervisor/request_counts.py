"""What `proxyctl routes` and `status` say about the requests of a route, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from shared.plan import Plan
from shared.stats import RouteCounts, Totals

_QUANTILES: Final = (("p50_s", 0.5), ("p95_s", 0.95), ("p99_s", 0.99))
_SERVER_ERRORS: Final = "5xx"


def by_route(plan: Plan, totals: Totals, rates: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """`request_data` of every route that speaks HTTP: of served ones, and of those that did.

    ``rates``: requests per second, by route.
    """
    speaking = {route.name for route in plan.routes if route.http is not None}
    data: dict[str, dict[str, Any]] = {}
    for name, counts in totals.routes.items():
        if counts.request is not None or name in speaking:
            data[name] = request_data(counts, counts.requests_by_class(), rates.get(name, 0.0))
    return data


def request_data(counts: RouteCounts, classes: dict[str, int], rate: float) -> dict[str, Any]:
    """``requests`` in all, ``by_class`` ("2xx"), ``per_second`` over the last minute, the share of
    5xx answers as ``error_rate`` (0 to 1), and the durations within which 50, 95 and 99 % of all
    requests were answered, in seconds; null where there were none.
    """
    requests = sum(classes.values())
    durations: dict[str, float | None] = dict.fromkeys((key for key, _ in _QUANTILES), None)
    if counts.request is not None:
        for key, share in _QUANTILES:
            value = counts.request.quantile(share)
            durations[key] = None if value is None else round(value, 6)
    errors = classes.get(_SERVER_ERRORS, 0)
    return {
        "requests": requests,
        "by_class": classes,
        "per_second": rate,
        "error_rate": round(errors / requests, 6) if requests else 0.0,
        **durations,
    }
