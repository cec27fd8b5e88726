"""Lists of candidates for the first bytes, best first (`shared/matching.py`)."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from typing import Any, TypeVar

from shared.by_network import Client
from shared.match_criteria import Candidate, Offer, Rank

V = TypeVar("V")


def rank_in_order(candidate: Candidate[Any]) -> Rank:
    """What such a list is sorted by."""
    return candidate.rank


def put(table: dict[str, Sequence[Candidate[V]]], key: str, own: tuple[Candidate[V], ...]) -> None:
    """Add to a list in its order; a route that has the key to itself shares its tuple."""
    there = table.setdefault(key, own)
    if there is own:
        return
    if not isinstance(there, list):
        table[key] = there = list(there)
    for candidate in own:
        insort(there, candidate, key=rank_in_order)


def first(
    group: Sequence[Candidate[V]], client: Client, is_tls: bool | None, hello: Offer | None
) -> Candidate[V] | None:
    """The best of an ordered list whose checks hold."""
    for candidate in group:
        for holds in candidate.checks:
            if not holds(candidate, client, is_tls, hello):
                break
        else:
            return candidate
    return None
