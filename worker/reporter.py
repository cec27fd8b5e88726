"""What a worker tells of its counters: when, and in which steps."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from shared.log import Logging
from shared.messages import STATS_S, Spawn, WorkerMessage, encode
from shared.stats import Report, Snapshot
from worker.control_client import ControlClient
from worker.data_plane import DataPlane

# Of a worker's time, for its reports. With thousands of routes in use, counters are read from
# memory that no cache holds, and what they push out of it is read again by the next connections:
# so whoever has no time to spare tells less at a time.
SHARE: Final = 0.02
SHARE_OF_BUSY: Final = 0.0025
BUSY: Final = 0.5  # of its time


def share(used_s: float, waited_s: float) -> float:
    """What part of its time a worker may use for reports that used so much CPU meanwhile."""
    return SHARE_OF_BUSY if used_s > waited_s * BUSY else SHARE


class Reporter:
    """Reports every STATS_S: as many parts as its share of the time allows, one at least, in turn.

    So with few routes each report is whole; with thousands in use each has some of them.
    """

    def __init__(
        self, spawn: Spawn, plane: DataPlane, client: ControlClient, logging: Logging
    ) -> None:
        self._spawn = spawn
        self._plane = plane
        self._client = client
        self._logging = logging
        self._sequence = 0
        self._part = -1  # that was told last
        self._told: set[int] = set()  # parts that had something to say
        self._spent_s = 0.0  # of CPU on the report under way
        self._is_wanted = asyncio.Event()
        self._then: list[WorkerMessage] = []

    def report_then(self, body: WorkerMessage) -> None:
        """Report everything as soon as may be, and say this after it."""
        self._then.append(body)
        self._is_wanted.set()

    async def run(self) -> None:
        """Report for ever."""
        while True:
            since_s, used_s = time.monotonic(), time.thread_time()
            try:
                async with asyncio.timeout(STATS_S):
                    await self._is_wanted.wait()
            except TimeoutError:
                waited_s = time.monotonic() - since_s
                await self._report_some(waited_s * share(time.thread_time() - used_s, waited_s))
                continue
            self._is_wanted.clear()
            bodies, self._then = self._then, []
            await self.report()
            for body in bodies:
                self._client.say(body)

    async def report(self, *, is_last: bool = False) -> None:
        """Tell all counters as they are now, with other work between the parts."""
        parts = self._plane.report_parts()
        for part in range(parts):
            if not await self._tell(part, is_last=is_last and part == parts - 1):
                return  # the supervisor takes nothing

    async def _report_some(self, budget_s: float) -> None:
        """Tell the next parts, until so many seconds of CPU are used."""
        parts = self._plane.report_parts()
        self._spent_s = 0.0
        for number in range(parts):
            self._part = (self._part + 1) % parts
            if not await self._tell(self._part, is_needed=number == 0):
                return
            if self._spent_s >= budget_s:
                return

    async def _tell(self, part: int, *, is_needed: bool = False, is_last: bool = False) -> bool:
        """False when it was not taken. Not sent: what says nothing, unless it is needed."""
        begin_s = time.thread_time()
        self._sequence += 1
        snapshot = Snapshot()
        snapshot.log_lines_dropped = self._logging.dropped
        self._plane.fill(snapshot, part)
        if snapshot.routes:
            self._told.add(part)
        is_needed = is_needed or is_last or part == 0 or part in self._told
        raw = encode(self._report(snapshot, part, is_last)) if is_needed else b""
        self._spent_s += time.thread_time() - begin_s
        return await self._client.push(raw) if raw else True

    def _report(self, snapshot: Snapshot, part: int, is_last: bool) -> Report:
        return Report(
            run=self._spawn.run,
            incarnation=self._spawn.incarnation,
            sequence=self._sequence,
            part=part,
            is_last=is_last,
            has_requests=self._plane.has_requests,
            snapshot=encode(snapshot),
        )
