"""The gates of the committed generation, and what they count of connections that are older."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from worker.connection_state import State
from worker.gate import Counting, Gate
from worker.limits import Limits

if TYPE_CHECKING:
    from worker.connection import Connection
    from worker.generation import Generation

TAKEN_OVER_A_TICK: Final = 2000  # connections that a new limit counts; about 5 ms


class Gates:
    """``first``: the gate of everyone, or None where nothing is refused."""

    def __init__(self, limits: Limits) -> None:
        self.first: Gate | None = None
        self.counts_open = False  # it limits how many may be open
        self._limits = limits
        self._generation: Generation | None = None
        self._counted: set[Counting] = set()
        self._waiting: list[Connection] = []

    def adopt(self, generation: Generation, open_: set[Connection], now: float) -> None:
        """Judge by this generation's rules; what is open counts towards limits that are new."""
        self._generation = generation
        self.first = generation.gate()
        self.counts_open = self.first is not None and bool(self.first.most)
        self._limits.open[self._limits.row] = len(open_)
        gates = [route.gate for route in generation.routes.values()]
        counted = {gate.counted for gate in (*gates, self.first) if gate is not None}
        if counted - self._counted:
            self._waiting = list(open_)
        self._counted = counted
        self.tick(now)

    def tick(self, now: float) -> None:
        """Count some of the connections that were there before a limit was."""
        if not self._waiting:
            return
        batch = self._waiting[-TAKEN_OVER_A_TICK:]
        del self._waiting[-TAKEN_OVER_A_TICK:]
        assert self._generation is not None
        routes = self._generation.routes
        for conn in batch:
            if conn.is_closed or conn.state is State.PROXY_HEADER:
                continue  # its client is not known yet: it will be asked like a new one
            route = None if conn.route is None else routes.get(conn.route.name)
            for gate in (self.first, None if route is None else route.gate):
                if gate is not None:
                    gate.take_over(conn, now)
