"""What all HTTP of a worker shares: kept connections, ids, the date, passwords under check."""

from __future__ import annotations

import asyncio
import os
import time
from email.utils import formatdate
from typing import TYPE_CHECKING

from shared.http.answers import OwnAnswers
from shared.http.head import HeadLimits
from shared.http.request_ids import RequestIds
from shared.plan import AnswerPlan, HttpPlan, Timeouts
from worker.basic_auth import BasicAuth
from worker.reactor import TICK_S
from worker.timer_wheel import TimerWheel

if TYPE_CHECKING:
    from worker.http_pool import Place, Upstream


class Widest:
    """The widest limits and times of all HTTP routes of a generation; 0: there is none."""

    __slots__ = ("fields", "head_bytes", "keep_alive", "request_head")

    def __init__(self) -> None:
        self.head_bytes = self.fields = 0
        self.request_head = self.keep_alive = 0.0

    def add(self, http: HttpPlan, timeouts: Timeouts) -> None:
        """One more route."""
        self.head_bytes = max(self.head_bytes, http.head_limit)
        self.fields = max(self.fields, http.field_limit)
        self.request_head = max(self.request_head, timeouts.request_head)
        self.keep_alive = max(self.keep_alive, timeouts.http_keep_alive)


class HttpPlane:
    """``limits`` and ``timeouts``: before a request's route is known, the widest of all.

    ``own``: answers to requests for which no route was found.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, now: float) -> None:
        self.kept: TimerWheel[Upstream] = TimerWheel(TICK_S, now)
        self.pools: dict[Place, list[Upstream]] = {}
        self.limits = HeadLimits()
        self.timeouts = Timeouts()
        self.own = OwnAnswers()
        self.auth = BasicAuth(loop)
        self.make_id = RequestIds(int.from_bytes(os.urandom(16))).make
        self._second = int(time.time())
        self.date = formatdate(self._second, usegmt=True).encode()

    def adopt(self, widest: Widest, pages: tuple[tuple[int, AnswerPlan], ...]) -> None:
        """Serve by these from now on. ``pages``: the global ones, by status."""
        self.own = OwnAnswers("", HttpPlan(error_pages=pages))
        if widest.head_bytes:
            self.limits = HeadLimits(head_bytes=widest.head_bytes, fields=widest.fields)
            self.timeouts = Timeouts(
                request_head=widest.request_head, http_keep_alive=widest.keep_alive
            )

    def tick(self, now: float) -> None:
        """Close what was kept for long enough, and look at the date."""
        for up in self.kept.expire(now):
            up.on_deadline(now)
        second = int(time.time())
        if second != self._second:
            self._second = second
            self.date = formatdate(second, usegmt=True).encode()

    def close(self) -> None:
        """Nothing is exchanged any more: what was kept is given back."""
        for up in self.kept.items():
            up.close()
        self.auth.close()
