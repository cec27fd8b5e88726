"""Large structures are freed a little at a time, and nothing that somebody else holds."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any, ClassVar
from weakref import WeakSet, ref

import pytest

from shared.matching import Matcher
from tests.helpers.http_routes import http_route
from tests.helpers.routes import matcher, route
from worker.unravel import is_shared, unravel

MANY = 500
A_STEP = 16  # of what is counted below: some entries, and what hangs on each


class Leaf:
    """What a table holds in the end."""

    alive: ClassVar[WeakSet[Leaf]] = WeakSet()

    def __init__(self) -> None:
        self.alive.add(self)


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    """What is freed here is freed by its last reference."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def most_a_step(held: list[Any]) -> int:
    """How many leaves the longest step has freed; in the end none is left."""
    most, before = 0, len(Leaf.alive)
    assert before
    for _ in unravel(held):
        most, before = max(most, before - len(Leaf.alive)), len(Leaf.alive)
    assert before == 0
    assert held == []
    return most


def test_dicts_lists_and_tuples() -> None:
    """However they hang together."""
    assert most_a_step([{n: Leaf() for n in range(MANY)}]) <= A_STEP
    assert most_a_step([[Leaf() for _ in range(MANY)]]) <= A_STEP
    assert most_a_step([{n: [(Leaf(),)] for n in range(MANY)}, [{1: Leaf()}]]) <= A_STEP


def every_kind() -> list[Any]:
    """Routes whose matcher has every kind of table, with leaves as their values."""
    networks = ("10.1.0.0/16", "10.2.0.0/16")
    found: list[Any] = []
    for n in range(MANY):
        found += [
            route(f"d{n}", 5 * n, f"h{n}.test", f"*.w{n}.test", client_ips=networks),
            route(f"n{n}", 5 * n + 1, client_ips=(f"10.3.{n % 256}.{n // 256}/32",)),
            route(f"t{n}", 5 * n + 2, tls=True, client_ips=(f"10.4.{n % 256}.{n // 256}/32",)),
            http_route(f"p{n}", 5 * n + 3, "p.test", paths=(f"/p{n}", f"/p{n}/*")),
            http_route(f"h{n}", 5 * n + 4, f"h{n}.http", client_ips=networks),
        ]
    return found


def filled(routes: list[Any]) -> Matcher[Leaf]:
    """Each route has a leaf for its value."""
    made: Matcher[Leaf] = Matcher()
    for one in routes:
        made.add(one, one.listeners[0], Leaf())
    return made


def test_a_matcher() -> None:
    """With whatever tables routes have made in it."""
    assert most_a_step([filled(every_kind())]) <= A_STEP


def test_what_somebody_else_holds_stays_whole() -> None:
    """Of a table, a part of it, or a leaf."""
    leaf, part = Leaf(), [Leaf(), Leaf()]
    whole = {"leaf": leaf, "part": part, "rest": [Leaf()]}
    held: list[Any] = [{"whole": whole}]
    for _ in unravel(held):
        pass
    assert whole["leaf"] is leaf
    assert len(whole) == 3
    del whole["rest"]
    held = [whole]
    del whole
    for _ in unravel(held):
        pass
    assert len(part) == 2
    assert len(Leaf.alive) == 3
    del leaf, part
    assert len(Leaf.alive) == 0


def test_a_matcher_that_is_in_use_still_finds() -> None:
    """One who reads the first bytes of a client holds it."""
    made = matcher(route("a", 0, "a.test"))
    held = [made]
    assert is_shared(held)
    for _ in unravel(held):
        pass
    assert made.at_accept((4, 1)).wait
    gone = ref(made)
    held = [made]
    del made
    assert not is_shared(held)
    for _ in unravel(held):
        pass
    assert gone() is None
