"""What a worker tells of its counters: when, and in which steps."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Final

from shared.log import Logging
from shared.messages import STATS_S, Spawn, WorkerMessage, encode
from shared.stats import Snapshot
from worker.control_client import ControlClient
from worker.data_plane import DataPlane

# Of a worker's time, for its reports. With thousands of routes in use, counters are read from
# memory that no cache holds, and what they push out of it is read again by the next connections:
# so whoever has no time to spare reports less often.
SHARE: Final = 0.02
SHARE_OF_BUSY: Final = 0.0025
BUSY: Final = 0.5  # of its time


def share(used_s: float, waited_s: float) -> float:
    """What part of its time a worker may use for reports that used so much CPU meanwhile."""
    return SHARE_OF_BUSY if used_s > waited_s * BUSY else SHARE


class Reporter:
    """Reports every STATS_S, less often where that would take more than its share of the time."""

    def __init__(
        self, spawn: Spawn, plane: DataPlane, client: ControlClient, logging: Logging
    ) -> None:
        self._spawn = spawn
        self._plane = plane
        self._client = client
        self._logging = logging
        self._sequence = 0
        self._is_wanted = asyncio.Event()
        self._then: list[WorkerMessage] = []

    def report_then(self, body: WorkerMessage) -> None:
        """Report as soon as may be, and say this after it."""
        self._then.append(body)
        self._is_wanted.set()

    async def run(self) -> None:
        """Report for ever."""
        cost_s = 0.0
        while True:
            await self._until_due(cost_s)
            self._is_wanted.clear()
            bodies, self._then = self._then, []
            cost_s = await self.report()
            for body in bodies:
                self._client.say(body)

    async def _until_due(self, cost_s: float) -> None:
        """Wait for the next report, which will take so much CPU."""
        since_s, used_s = time.monotonic(), time.thread_time()
        budget_s = 0.0
        while True:
            try:
                async with asyncio.timeout(STATS_S):
                    await self._is_wanted.wait()
                    return
            except TimeoutError:
                now_s, now_used_s = time.monotonic(), time.thread_time()
            part_s = now_s - since_s
            budget_s += part_s * share(now_used_s - used_s, part_s)
            if budget_s >= cost_s:
                return
            since_s, used_s = now_s, now_used_s

    async def report(self, *, is_last: bool = False) -> float:
        """Tell all counters as they are now; returns the seconds of CPU that it took.

        In steps, since thousands of routes take tens of milliseconds.
        """
        begin = time.thread_time()
        cost_s = 0.0
        self._sequence += 1
        snapshot = self._part(self._sequence, 0, is_last=is_last)
        snapshot.log_lines_dropped = self._logging.dropped
        self._plane.fill(snapshot)
        for number, (routes, is_end) in enumerate(self._plane.route_parts()):
            if number:
                snapshot = self._part(snapshot.sequence, number, is_last=is_last)
            snapshot.routes, snapshot.is_end = routes, is_end
            raw = encode(snapshot)
            cost_s += time.thread_time() - begin
            if not await self._client.push(raw):
                break  # half a report is of no use
            begin = time.thread_time()
        return cost_s

    def _part(self, sequence: int, number: int, *, is_last: bool) -> Snapshot:
        return Snapshot(
            slot=self._spawn.slot,
            pid=os.getpid(),
            incarnation=self._spawn.incarnation,
            run=self._spawn.run,
            sequence=sequence,
            part=number,
            is_last=is_last,
        )
