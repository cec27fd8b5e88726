"""How long a listener waits for a client's first bytes, by who ranks above whom."""

from __future__ import annotations

from bisect import bisect_left

from shared.match_criteria import Rank, is_for_plain, is_for_tls
from shared.plan import RoutePlan


class Waiting:
    """The candidates of one network that need bytes: who ranks above, and how long to wait.

    ``ranks`` are in order and ``longest`` grows: who ranks lower counts only where it waits longer.
    """

    __slots__ = ("is_for_others", "is_for_tls", "longest", "ranks")

    def __init__(self) -> None:
        self.ranks: list[Rank] = []
        self.longest: list[float] = []  # seconds, by the place in ``ranks``
        self.is_for_tls = self.is_for_others = False

    def add(self, rank: Rank, route: RoutePlan) -> None:
        """One more."""
        self.is_for_tls = self.is_for_tls or is_for_tls(route)
        self.is_for_others = self.is_for_others or is_for_plain(route)
        seconds = route.timeouts.initial_data
        place = bisect_left(self.ranks, rank)
        if place and self.longest[place - 1] >= seconds:
            return
        end = place
        while end < len(self.ranks) and self.longest[end] <= seconds:
            end += 1
        self.ranks[place:end] = [rank]
        self.longest[place:end] = [seconds]

    def longest_above(self, rank: Rank) -> float | None:
        """The longest wait of those before ``rank``; None: there are none."""
        place = bisect_left(self.ranks, rank)
        return self.longest[place - 1] if place else None
