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

SHARE: Final = 0.02  # of a worker's time, for its reports


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
        pause_s = STATS_S
        while True:
            try:
                async with asyncio.timeout(pause_s):
                    await self._is_wanted.wait()
            except TimeoutError:
                pass  # time for the next one
            self._is_wanted.clear()
            bodies, self._then = self._then, []
            cost_s = await self.report()
            for body in bodies:
                self._client.say(body)
            pause_s = max(STATS_S, cost_s / SHARE)

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
