"""When the certificates in use expire: for /metrics, for `status`, and a warning in time."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from msgspec import Struct

from shared.log import Logger
from shared.plan import CertificatePlan, Plan
from supervisor.facts import WARN_DAYS

DAY_S: Final = 86400.0
WARN_S: Final = WARN_DAYS * DAY_S

_LOOK_S: Final = 3600.0
_LOGGED_ROUTES: Final = 20  # in one line of the log


class Use(Struct, frozen=True, kw_only=True):
    """One certificate of one route. ``expires``: seconds since 1970."""

    route: str
    certificate: str  # the path as configured
    names: tuple[str, ...]
    expires: float
    is_client: bool = False  # shown to targets, not to clients


class Expiring(Struct, frozen=True, kw_only=True):
    """A certificate that expires soon, with the names of the routes that use it."""

    certificate: str
    expires: float
    routes: tuple[str, ...]


def uses(plan: Plan) -> list[Use]:
    """Every certificate of every route, in the order of the plan, each once for a route."""
    found: dict[tuple[str, str, bool], Use] = {}
    for route in plan.routes:
        if route.terminate is not None:
            for index in route.terminate.certificates:
                use = _use(route.name, plan.certificates[index], is_client=False)
                found.setdefault((use.route, use.certificate, False), use)
        if route.upstream_tls is not None and route.upstream_tls.certificate is not None:
            certificate = plan.certificates[route.upstream_tls.certificate]
            use = _use(route.name, certificate, is_client=True)
            found.setdefault((use.route, use.certificate, True), use)
    return list(found.values())


def _use(route: str, certificate: CertificatePlan, *, is_client: bool) -> Use:
    return Use(
        route=route,
        certificate=certificate.name,
        names=certificate.names,
        expires=certificate.expires,
        is_client=is_client,
    )


def certificates_data(plan: Plan, now: float) -> list[dict[str, Any]]:
    """``data.certificates`` of `status`; ``days_left`` in whole days."""
    return [
        {
            "route": use.route,
            "certificate": use.certificate,
            "shown_to": "targets" if use.is_client else "clients",
            "names": list(use.names),
            "expires": use.expires,
            "days_left": days_left(use.expires, now),
        }
        for use in uses(plan)
    ]


def days_left(expires: float, now: float) -> int:
    """Whole days; below 0 once it has expired."""
    return math.floor((expires - now) / DAY_S)


def due(
    found: Iterable[Use], told: Mapping[tuple[str, float], float], served_at: float, now: float
) -> list[Expiring]:
    """The certificates to be warned of now: from WARN_S before their end, once a day.

    ``told``: when that was done, by name and end. ``served_at``: when the generation was read;
    what was to be warned of then has been, by the reading.
    """
    expiring: dict[tuple[str, float], dict[str, None]] = {}
    for use in found:
        key = use.certificate, use.expires
        if use.expires - now >= WARN_S:
            continue
        last = told.get(key, -math.inf)
        if use.expires - served_at < WARN_S:
            last = max(last, served_at)
        if now - last < DAY_S:
            continue
        expiring.setdefault(key, {})[use.route] = None
    return [
        Expiring(certificate=certificate, expires=expires, routes=tuple(routes))
        for (certificate, expires), routes in expiring.items()
    ]


class ExpiryWatch:
    """Warns in the log. ``read``: the plan that is served, and when its files were read."""

    def __init__(self, read: Callable[[], tuple[Plan, float]], log: Logger) -> None:
        self._read = read
        self._log = log
        self._told: dict[tuple[str, float], float] = {}

    async def run(self) -> None:
        """Look once an hour, for ever."""
        while True:
            self.look(time.time())
            await asyncio.sleep(_LOOK_S)

    def look(self, now: float) -> None:
        """Warn of what is due at ``now``, seconds since 1970."""
        plan, served_at = self._read()
        found = uses(plan)
        current = {(use.certificate, use.expires) for use in found}
        self._told = {key: at for key, at in self._told.items() if key in current}
        for one in due(found, self._told, served_at, now):
            self._told[one.certificate, one.expires] = now
            has_expired = one.expires <= now
            level = self._log.error if has_expired else self._log.warning
            level(
                "a certificate has expired" if has_expired else "a certificate expires soon",
                certificate=one.certificate,
                expires=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(one.expires)),
                days_left=days_left(one.expires, now),
                routes=list(one.routes[:_LOGGED_ROUTES]),
            )
