"""A reload: everything is checked, bound and built before anything changes (design section 3)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from msgspec import Struct, field

from shared.config import Config
from shared.errors import ConfigError, ControlError, Problem, StartError
from shared.plan import AddressSet, Plan, RoutePlan
from supervisor import compile as compiler
from supervisor.config_source import ConfigSource
from supervisor.encoded_plan import encode_plan
from supervisor.generations import RolloutResult
from supervisor.listeners import Listeners
from supervisor.log_control import check_access_file, check_log_file, settings_of
from supervisor.retirement import Retirement
from supervisor.route_order import is_reordered
from supervisor.worker_pool import WorkerPool


class Outcome(Struct, frozen=True, kw_only=True):
    """Of one reload. ``generation`` is the one that is served now; ``time`` is since 1970."""

    is_ok: bool
    generation: int
    seconds: float
    time: float
    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    is_reordered: bool = False  # of those that did not change, some that may compete
    settings: list[str] = field(default_factory=list)  # other keys of the config that changed
    kept: int = 0  # connections that go on as they are, over all workers
    draining: int = 0  # connections of removed routes, over all workers
    errors: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    @property
    def summary(self) -> str:
        """``+1 route, ~2, -1``, or ``no route changed, but their order, security, log``."""
        if not self.is_ok:
            return f"kept generation {self.generation}"
        counts = (("+", self.added), ("~", self.changed), ("-", self.removed))
        parts = [f"{sign}{len(names)}" for sign, names in counts if names]
        if not parts:
            others = [*(["their order"] if self.is_reordered else []), *self.settings]
            return ", but ".join(filter(None, ("no route changed", ", ".join(others))))
        parts[0] += " route" if parts[0][1:] == "1" else " routes"
        return ", ".join(parts)


class Served(Struct):
    """What is served now. ``read_at``: when its files were read, seconds since 1970."""

    config: Config
    plan: Plan
    read_at: float = field(default_factory=time.time)


class Reloader:
    """Carries out reloads; the caller sees to it that there is one at a time."""

    def __init__(
        self,
        source: ConfigSource,
        listeners: Listeners,
        pool: WorkerPool,
        retirement: Retirement,
        served: Served,
    ) -> None:
        self.served = served
        self._source = source
        self._listeners = listeners
        self._pool = pool
        self._retirement = retirement
        self._last_generation = served.plan.generation

    async def reload(self, readers: Iterable[asyncio.Future[None]] = ()) -> Outcome:
        """Read the config and serve by it, or change nothing and say why.

        ``readers``: each is done when one who asked has read the answer.
        """
        started = time.monotonic()
        old = self.served
        errors: list[Problem] = []
        warnings: list[Problem] = []
        result = RolloutResult()
        try:
            new, warnings, result = await self._prepare()
        except ConfigError as error:
            errors = error.problems
        except StartError as error:
            errors = [Problem(message=error.message, code="listen", hint=error.hint)]
        except ControlError as error:
            errors = [Problem(message=str(error), code="refused")]
        else:
            self.served = new
            self._retirement.begin(_ids(old.plan) - _ids(new.plan), readers)
        before, after = old.plan.routes, self.served.plan.routes
        difference = compare(before, after)
        others = {*difference.added, *difference.changed, *difference.removed}
        # In a thread, since many routes on many ports take longer than the loop may be held.
        reordered = await asyncio.to_thread(is_reordered, before, after, others)
        return Outcome(
            is_ok=not errors,
            generation=self.served.plan.generation,
            seconds=round(time.monotonic() - started, 3),
            time=time.time(),
            added=difference.added,
            changed=difference.changed,
            removed=difference.removed,
            is_reordered=reordered,
            settings=changed_settings(old, self.served),
            kept=result.kept,
            draining=result.draining,
            errors=errors,
            warnings=warnings,
        )

    async def _prepare(self) -> tuple[Served, list[Problem], RolloutResult]:
        """Bring the new generation to every worker; raises with nothing changed."""
        checked = await self._source.check()
        config = checked.config
        compiler.resolve_slots(config, compiler.resolve_workers(config))
        self._last_generation += 1  # a refused number is not used again
        plan = await self._source.compile(
            config, generation=self._last_generation, slots=self._pool.slots
        )
        await self._check_logs(config, plan)
        if self._pool.is_stopping:
            raise ControlError("proxyctl stops")  # its ports are closed and stay so
        await self._retirement.take_back(listener.id for listener in plan.listeners)
        new: list[int] = []
        try:
            opened = await asyncio.to_thread(self._listeners.open, plan.listeners)
            new = opened.new
            plan = self._listeners.fit(plan, opened)
            result = await self._pool.generations.roll_out(await encode_plan(plan))
            self._pool.read_counters()
        except BaseException:
            self._listeners.close(new)
            self._restore_plans()
            self._retirement.resume()
            raise
        self._retirement.returned()
        warnings = [Problem(message=text, code="listen") for text in opened.warnings]
        return Served(config, plan), [*checked.warnings, *warnings], result

    async def _check_logs(self, config: Config, plan: Plan) -> None:
        """ConfigError when a log that the new config asks for could not be written."""
        await _check("access_log", "log.access", lambda: check_access_file(plan.access))
        file = settings_of(config).file
        if file != self._pool.log_settings.file:  # else nothing is opened
            await _check("log_file", "log.file", lambda: check_log_file(file))

    def _restore_plans(self) -> None:
        for listener in self.served.plan.listeners:
            if listener.id in self._listeners.held:  # a stop may have closed it meanwhile
                self._listeners.held[listener.id].plan = listener


async def _check(code: str, path: str, check: Callable[[], None]) -> None:
    """ConfigError where a log cannot be written."""
    try:
        # In a thread: a file may lie on a disk that hangs.
        await asyncio.to_thread(check)
    except StartError as error:
        problem = Problem(message=error.message, code=code, path=path, hint=error.hint)
        raise ConfigError([problem]) from error


class Difference(Struct, frozen=True):
    """Names of routes."""

    added: list[str]
    changed: list[str]
    removed: list[str]


def compare(old: Iterable[RoutePlan], new: Iterable[RoutePlan]) -> Difference:
    """What a reload does, by the routes' fingerprints."""
    before = {route.name: route.fingerprint for route in old}
    after = {route.name: route.fingerprint for route in new}
    return Difference(
        added=[name for name in after if name not in before],
        changed=[name for name in after if before.get(name, after[name]) != after[name]],
        removed=[name for name in before if name not in after],
    )


def changed_settings(old: Served, new: Served) -> list[str]:
    """Keys at the top of the config, but for its routes, whose values changed.

    ``security`` too where a file of addresses that it names did.
    """
    names = [
        name
        for name in old.config.__struct_fields__
        if name != "routes" and getattr(old.config, name) != getattr(new.config, name)
    ]
    if "security" not in names and _addresses(old.plan) != _addresses(new.plan):
        names.append("security")
    return names


def _addresses(plan: Plan) -> list[AddressSet | None]:
    """Of everyone; those of routes are part of these."""
    rules = plan.security
    return [None if at is None else plan.address_sets[at] for at in (rules.allow, rules.block)]


def _ids(plan: Plan) -> set[int]:
    return {listener.id for listener in plan.listeners}
