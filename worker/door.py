"""Both gates of a connection at once: the short way in for a client that was seen a moment ago.

Where a listener has one route for everyone, the global gate and the route's are known at accept.
For a client that both have admitted before, whose entries are where they were, and who is below
every limit, a Door does what `Gate.enter` and `Gate.admit` do, in one look: 2.5 us less of a
connection's 100. Whatever else it meets it leaves to the gates, which then refuse by name.

An entry's number is epoch, total and open, one above the other (`shared/limit_layout.py`), so the
sum over all rows says how many are open and how many came, if all of them are of the epoch of now:
only then does it lie within 2 to the EPOCH_SHIFT above as many times that epoch. (A row that is one
ahead beside one that is one behind is not told apart; that makes an error of one part of the
period, for the moment at which a part begins.)
"""

from __future__ import annotations

from shared.limit_layout import COUNT_BITS, EPOCH, EPOCH_SHIFT, ONE_MORE, OPEN
from worker.gate import MOST_REMEMBERED, Gate
from worker.limits import Limits

# Cells of all rows; what their sum begins at, is below of, and how many may be open.
_Look = tuple[tuple[int, ...], int, int, int]


class _Pass:
    """What a client is counted under. Good while no row takes an entry, until an epoch ends."""

    __slots__ = ("looks", "more", "news", "own", "until")

    def __init__(self, news: bytes) -> None:
        self.news = news  # see `Limits.look`
        self.until = float("inf")
        self.looks: list[_Look] = []
        self.more: list[tuple[int, int]] = []  # our cells, each with what one connection adds
        self.own: tuple[int, ...] = ()  # the same without


class Door:
    """The global gate and that of the only route; either may be None, as where nothing is asked."""

    __slots__ = ("_cells", "_gates", "_get", "_limits", "_memory", "_most", "_passes", "gate")

    def __init__(
        self, first: Gate | None, route: Gate | None, limits: Limits, is_inner: bool = False
    ) -> None:
        """``is_inner``: behind `Gate.enter_unknown`, which has judged how many are open."""
        self.gate = route  # has been asked for whoever came in here
        self._gates = tuple(gate for gate in (first, route) if gate is not None)
        self._most = first.most if first is not None and not is_inner else 0
        self._limits = limits
        self._cells = limits.cells
        self._memory = limits.memory
        self._get = limits.cells.__getitem__
        self._passes: dict[str, _Pass] = {}

    def enter(self, ip: str, now: float) -> tuple[int, ...] | None:
        """The cells that count the connection from now on; None: ask the gates."""
        limits = self._limits
        found = self._passes.get(ip)
        if found is None or self._memory[limits.news_at] != found.news or now >= found.until:
            found = self._meet(ip, now)
            if found is None:
                return None
        if self._most and sum(limits.open_used) >= self._most:
            return None
        cells = self._cells
        get = self._get
        for all_, begin, end, most in found.looks:
            total = sum(map(get, all_))
            if not begin <= total < end or total & OPEN >= most:
                return None
        for cell, more in found.more:
            cells[cell] += more
        return found.own

    def _meet(self, ip: str, now: float) -> _Pass | None:
        """Look the client up in every table; None where something of it is still to be made."""
        made = _Pass(self._limits.look())
        for gate in self._gates:
            counted = gate.counted_under(ip)
            if counted is None:
                return None
            for all_, most, rate in counted:
                made.more.append((all_[0], 1 if rate is None else 1 + ONE_MORE))
                begin, end = 0, 1 << EPOCH_SHIFT  # without a rate the epoch stays 0
                if rate is not None:
                    epoch = int(now / rate.part_s)
                    begin = len(all_) * ((epoch & EPOCH) << EPOCH_SHIFT)
                    end = begin + (rate.most << COUNT_BITS)
                    made.until = min(made.until, (epoch + 1) * rate.part_s)
                made.looks.append((all_, begin, end, most or OPEN + 1))
        made.own = tuple(cell for cell, _ in made.more)
        if len(self._passes) >= MOST_REMEMBERED:
            self._passes.clear()
        self._passes[ip] = made
        return made
