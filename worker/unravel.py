"""Frees large structures a little at a time.

To drop the last reference to the tables of ten thousand routes would hold the loop for as long as
it takes to free all that hangs on them, and Python frees a thing as a whole. So it is taken apart
first, from the top, while nobody else holds it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Final

from shared.by_network import ByNetwork
from shared.match_http import HttpRoutes, HttpTable
from shared.match_shelf import Bucket, Shelf
from shared.match_waiting import Waiting
from shared.matching import Matcher
from shared.path_index import PathIndex, Prefix
from worker.tls_contexts import Terminator

# What holds others, many of them perhaps; all else is freed as a whole.
_OF_MATCHING: Final = frozenset(
    {Bucket, ByNetwork, HttpRoutes, HttpTable, Matcher, PathIndex, Prefix, Shelf, Waiting}
)
_TAKEN_APART: Final = _OF_MATCHING | {Terminator, dict, list, tuple}
_A_STEP: Final = 8  # entries; a TLS context among them takes 0.8 ms where it knows many authorities


def _count(held: list[Any]) -> int:
    return sys.getrefcount(held[-1])


_ALONE: Final = _count([object()])  # held by the list, and by the call that counts


def is_shared(held: list[Any]) -> bool:
    """Whether anyone but this list holds the last of it."""
    return _count(held) > _ALONE


def unravel(held: list[Any]) -> Iterator[None]:
    """Let go of these and of all that only they hold, a step at a time.

    What somebody else holds stays as it is. A step takes some microseconds, or as long as one thing
    that is no table takes to be freed.
    """
    while held:
        kind = type(held[-1])
        if kind not in _TAKEN_APART or is_shared(held):
            held.pop()
        elif kind is dict:
            _empty_dict(held)
        elif kind is list:
            _empty_list(held)
        else:
            _take_apart(held)
        yield


def _empty_dict(held: list[Any]) -> None:
    table = held[-1]
    if not table:
        held.pop()
    for _ in range(min(len(table), _A_STEP)):
        _keep(held, table.popitem()[1])


def _empty_list(held: list[Any]) -> None:
    row = held[-1]
    if not row:
        held.pop()
    for _ in range(min(len(row), _A_STEP)):
        _keep(held, row.pop())


def _take_apart(held: list[Any]) -> None:
    whole = held.pop()
    if type(whole) is tuple:
        for part in whole:
            _keep(held, part)
        return
    for name in type(whole).__slots__:
        if name != "__weakref__":
            _keep(held, getattr(whole, name))


def _keep(held: list[Any], part: Any) -> None:
    """For a later step, where there is more to it."""
    if type(part) in _TAKEN_APART:
        held.append(part)
