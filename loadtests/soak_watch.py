"""What is read of proxyctl while a soak runs: counters that must never go back, and restarts."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic
from typing import Any, Final

from msgspec import Struct

from loadtests.soak_memory import SAMPLE_S as MEMORY_S
from loadtests.soak_memory import Memory
from loadtests.soak_proxy import Proxy
from loadtests.soak_thread import Looking

SAMPLE_S: Final = 0.5
_GAUGES: Final = frozenset({"active", "draining", "connections", "is_up"})
_MOST_NOTED: Final = 20


class Restart(Struct, frozen=True, kw_only=True):
    """An entry of ``status.data.restarts``. What is None the status did not say."""

    slot: int
    pid: int
    kind: str
    reason: str
    time: float
    incarnation: int | None = None
    accepted: int | None = None
    dialled: int | None = None
    ended: int | None = None


class Watch(Looking):
    """A thread that samples `status`. ``restarts`` are in the order of their ends."""

    def __init__(self, proxy: Proxy) -> None:
        super().__init__("status", SAMPLE_S)
        self.restarts: list[Restart] = []
        self.samples = 0
        self.memory = Memory()
        self._memory_at = 0.0
        self._proxy = proxy
        self._last: dict[str, float] = {}
        self._seen: set[tuple[int, int, float]] = set()

    def sample(self) -> dict[str, Any]:
        """``data`` of `status`, compared with what the last one said."""
        with self._lock:
            data = self._proxy.data("status")
            self._proxy.remember()
            self.samples += 1
            for restart in data["restarts"]:
                key = (restart["slot"], restart["pid"], restart["time"])
                if key not in self._seen:
                    self._seen.add(key)
                    known = {name: restart.get(name) for name in Restart.__struct_fields__}
                    self.restarts.append(Restart(**known))
            self._compare(dict(counters("", data["totals"])))
        return data

    def _compare(self, found: dict[str, float]) -> None:
        for name, before in self._last.items():
            now = found.get(name)
            if now is None and before == 0:
                continue  # a route that came and went without being used
            if (now is None or now < before) and len(self.wrong) < _MOST_NOTED:
                self.wrong.append(f"counter {name} went from {before} to {now}")
        self._last = found

    def look(self) -> None:
        """A sample, and once in a while one of memory."""
        self.sample()
        if monotonic() >= self._memory_at:
            self._memory_at = monotonic() + MEMORY_S
            self.memory.add(monotonic(), self._proxy.figures())


def counters(prefix: str, data: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Every number below ``data`` that may only grow, by the path of its keys."""
    for key, value in data.items():
        name = f"{prefix}.{key}" if prefix else key
        if key in _GAUGES or isinstance(value, bool):
            continue
        if isinstance(value, dict):
            yield from counters(name, value)
        elif isinstance(value, list):
            yield from counters(name, {str(place): one for place, one in enumerate(value)})
        elif isinstance(value, int | float):
            yield name, value
