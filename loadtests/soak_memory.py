"""Descriptors and memory over a soak: sampled all along, and flat.

A leak grows all along, whatever else happens: memory is flat unless the samples of a process rise
from each quarter to the next, by their medians. A heap that settles does not, nor one that takes a
step: a worker that slept through a stop shakes hands with all that waited for it at once, and keeps
the heap of that moment. For a heap never shrinks much below what the most connections took that
ever were open at a time. Over a slow path that record goes on rising, and the heap with it, so only
the longest time is judged during which it stood; connections that stay open are the books' matter.
What such a peak left free a leak fills first, so runs without a slow path find it sooner.

Samples begin SETTLE_S after a process was first seen, since everything is larger once it was used.
A steady leak is found that adds 2 x (MEMORY_KIB + 4 %) over the samples: to 30 MiB some 80 KiB/s in
70 s, and 9 KiB/s in ten minutes. Descriptors go with the ports of the config, so they are compared
at rests, where the config is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median_low
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
# More connections open than ever before, by so many, begin another time: with TLS one takes 14 KiB.
MORE_OPEN: Final = 64
# A worker keeps up to 32 spare pipes of two ends; a few descriptors come and go everywhere.
OF_WORKER: Final = 4
DESCRIPTORS: Final = {"worker": 80, "supervisor": 12, "fork server": 2}


class Series(Struct, kw_only=True):
    """Of one process: instants, KiB of anonymous memory, and the most connections until then."""

    role: str
    pid: int
    first_at: float
    at: list[float] = field(default_factory=list)
    kib: list[int] = field(default_factory=list)
    most: list[int] = field(default_factory=list)
    record: int = 0  # the most connections so far, those while it settled included


class Trend(Struct, frozen=True, kw_only=True):
    """Medians of the four quarters of the samples of one process that are judged.

    ``most``: connections that were open at a time, until then.
    """

    role: str
    pid: int
    samples: int
    seconds: float
    most: int
    kib: tuple[float, ...]

    def text(self) -> str:
        """One line."""
        values = ", ".join(f"{value / 1024:.2f}" for value in self.kib)
        most = f", at most {self.most} open" if self.most else ""
        return (
            f"{self.role} {self.pid}, {self.samples} samples in {self.seconds:.0f} s{most}:"
            f" {values} MiB"
        )

    @property
    def wrong(self) -> list[str]:
        """What has grown in every part, by more than the tolerance from one half to the other."""
        growth = 2 * min(after - before for before, after in pairwise(self.kib))
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
            series.record = max(series.record, one.connections)
            if now - series.first_at < SETTLE_S:
                continue
            series.at.append(now)
            series.kib.append(one.anonymous_kib)
            series.most.append(series.record)
            if len(series.at) > MOST_KEPT:
                del series.at[::2], series.kib[::2], series.most[::2]

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
    judged = _longest(series.most)
    quarter = len(judged) // 4
    if quarter < LEAST:
        return None
    first, last = judged[0], judged[-1]
    begins = range(first, first + 4 * quarter, quarter)
    return Trend(
        role=series.role,
        pid=series.pid,
        samples=len(judged),
        seconds=series.at[last] - series.at[first],
        most=series.most[last],
        kib=tuple(median_low(series.kib[begin : begin + quarter]) for begin in begins),
    )


def _longest(most: Sequence[int]) -> range:
    """The places of the longest time during which the record did not rise by MORE_OPEN."""
    found, begin = range(0), 0
    for place, record in enumerate(most):
        if record > most[begin] + MORE_OPEN:
            begin = place
        found = max(found, range(begin, place + 1), key=len)
    return found


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
