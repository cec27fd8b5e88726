"""Descriptors and memory over a soak: sampled all along, and flat.

Memory is flat when the samples of a process do not rise from quarter to quarter, by their medians:
a leak grows all along, with reloads and kills; a heap that settles does not. One that takes a step
does not leak either: a worker that slept through a stop shakes hands with all that waited for it
at once, and keeps the heap of that moment. Samples begin SETTLE_S after a process was first seen,
since everything is larger once it was used. Descriptors go with the ports of the config, so they
are compared at rests, where the config is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median, median_low
from typing import Final

from msgspec import Struct, field

from loadtests.soak_proxy import Figures

SAMPLE_S: Final = 1.0
SETTLE_S: Final = 30.0
MOST_KEPT: Final = 4000  # samples of one process; then every other one is dropped
LEAST: Final = 8  # samples in each quarter, to say anything
# From one half of the samples to the other. A heap grows by arenas of 1 MiB.
MEMORY_PART: Final = 1.04
MEMORY_KIB: Final = 1536
# A worker keeps up to 32 spare pipes of two ends; a few descriptors come and go everywhere.
OF_WORKER: Final = 4
DESCRIPTORS: Final = {"worker": 80, "supervisor": 12, "fork server": 2}


class Series(Struct, kw_only=True):
    """Of one process: instants and KiB of anonymous memory."""

    role: str
    pid: int
    first_at: float
    at: list[float] = field(default_factory=list)
    kib: list[int] = field(default_factory=list)


class Trend(Struct, frozen=True, kw_only=True):
    """Medians of the four quarters of the samples of one process."""

    role: str
    pid: int
    samples: int
    seconds: float
    kib: tuple[float, ...]

    def text(self) -> str:
        """One line."""
        values = ", ".join(f"{value / 1024:.2f}" for value in self.kib)
        return (
            f"{self.role} {self.pid}, {self.samples} samples in {self.seconds:.0f} s: {values} MiB"
        )

    @property
    def wrong(self) -> list[str]:
        """What has grown by more than the tolerance, from one half to the other."""
        growth = 2 * median(after - before for before, after in pairwise(self.kib))
        if growth <= self.kib[0] * (MEMORY_PART - 1) + MEMORY_KIB:
            return []
        return [f"memory grows: {self.text()}"]


class Memory:
    """All processes that were ever sampled."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, int], Series] = {}

    def add(self, now: float, figures: Sequence[Figures]) -> None:
        """One sample of each process."""
        for one in figures:
            key = (one.role, one.pid)
            series = self._series.get(key)
            if series is None:
                series = Series(role=one.role, pid=one.pid, first_at=now)
                self._series[key] = series
            if now - series.first_at < SETTLE_S:
                continue
            series.at.append(now)
            series.kib.append(one.anonymous_kib)
            if len(series.at) > MOST_KEPT:
                del series.at[::2], series.kib[::2]

    def supervisor(self) -> list[tuple[float, int]]:
        """Its samples: seconds since the first one, and KiB."""
        found = [one for one in self._series.values() if one.role == "supervisor"]
        return [
            (round(at - one.at[0], 1), kib)
            for one in found
            for at, kib in zip(one.at, one.kib, strict=True)
        ]

    def trends(self) -> list[Trend]:
        """Of every process that was there long enough, by role, the longest first."""
        found = [trend(series) for series in self._series.values()]
        known = [one for one in found if one is not None]
        return sorted(known, key=lambda one: (one.role, -one.samples))


def trend(series: Series) -> Trend | None:
    """None: too few samples to say."""
    quarter = len(series.at) // 4
    if quarter < LEAST:
        return None
    begins = (0, quarter, 2 * quarter, 3 * quarter)
    return Trend(
        role=series.role,
        pid=series.pid,
        samples=len(series.at),
        seconds=series.at[-1] - series.at[0],
        kib=tuple(median_low(series.kib[begin : begin + quarter]) for begin in begins),
    )


def judge_descriptors(before: Sequence[Figures], after: Sequence[Figures]) -> list[str]:
    """What has grown from one rest to another; the largest process of a role counts."""
    wrong = []
    for role, spare in DESCRIPTORS.items():
        old = [own_descriptors(one) for one in before if one.role == role]
        new = [own_descriptors(one) for one in after if one.role == role]
        if not old or not new:
            wrong.append(f"no figures of a {role}")
        elif max(new) > max(old) + spare:
            wrong.append(f"{role}: {max(old)} descriptors became {max(new)}")
    return wrong


def own_descriptors(one: Figures) -> int:
    """Without those of each connection, and of each worker: pair, pidfd, lock and the like."""
    return one.descriptors - 2 * one.connections - OF_WORKER * one.workers
