"""From the config's file to a plan: read and checked in a thread, names resolved."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from msgspec import Struct

from shared.config import Config
from shared.errors import Problem, StartError
from shared.plan import Endpoints, Plan
from supervisor import compile as compiler
from supervisor import config_file, example
from supervisor.collector import set_aside
from supervisor.config_listeners import MAX_DESCRIPTORS
from supervisor.names import Log as NamesLog
from supervisor.names import Resolver

# Below it ZeroMQ, which wants a dozen, ends the whole process instead of raising an error.
LEAST_DESCRIPTORS: Final = 128
RESOLVE_S: Final = 5.0  # a name that takes longer counts as down, and is asked again later


class Checked(Struct):
    """A config that may be served."""

    config: Config
    warnings: list[Problem]


class ConfigSource:
    """Where the config comes from. ``path`` None: the built-in example."""

    def __init__(self, path: Path | None, runtime_dir: Path, names_log: NamesLog) -> None:
        self._path = path
        self._runtime_dir = runtime_dir
        self._ids = compiler.ListenerIds()
        self._resolver = Resolver(names_log)
        self._resolving = asyncio.Lock()

    def describe(self) -> str:
        """The file, or what stands for it."""
        return str(self._path) if self._path is not None else "built-in example"

    async def check(self) -> Checked:
        """Read and check it; ConfigError with every problem."""
        if self._path is None:
            return Checked(example.example_config(self._runtime_dir), [])
        loaded = await asyncio.to_thread(config_file.load, self._path)
        return Checked(loaded.config, loaded.warnings)

    async def compile(self, config: Config, *, generation: int, slots: int) -> Plan:
        """Resolve its names and make a plan of it; ConfigError when the ports are too many."""
        endpoints = await self.resolve(config, {})

        def compile_all() -> Plan:
            plan = compiler.compile_plan(
                config,
                generation=generation,
                slots=slots,
                listener_ids=self._ids,
                endpoints=endpoints,
                descriptors=_descriptors(),
            )
            set_aside(len(plan.routes))
            return plan

        return await asyncio.to_thread(compile_all)

    async def resolve(self, config: Config, known: Mapping[str, tuple[str, ...]]) -> Endpoints:
        """The addresses of its names; of one that fails, those ``known``."""
        async with self._resolving:
            names = sorted(compiler.names_of(config))
            addresses = await self._resolver.resolve(names, RESOLVE_S)
        return Endpoints(
            addresses={name: found or known.get(name, ()) for name, found in addresses.items()}
        )


def raise_descriptor_limit() -> None:
    """As many open files as the hard limit allows; StartError below LEAST_DESCRIPTORS."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < LEAST_DESCRIPTORS:
        raise StartError(
            f"the limit of open files is {hard}, and {LEAST_DESCRIPTORS} is the least",
            "raise it (ulimit -n, LimitNOFILE=)",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _descriptors() -> int:
    """How many listening sockets there may be: each worker holds them all, and connections."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(MAX_DESCRIPTORS, soft // 2)
