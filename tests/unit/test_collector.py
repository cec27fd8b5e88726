"""The garbage collector and configs of thousands of routes."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from supervisor.collector import MANY_ROUTES, set_aside


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Nothing stays frozen behind a test."""
    yield
    gc.unfreeze()


def test_many_routes_are_set_aside() -> None:
    """What is there is looked at no more, garbage is gone before; few routes change nothing."""
    frozen = gc.get_freeze_count()
    set_aside(MANY_ROUTES - 1)
    assert gc.get_freeze_count() == frozen
    ring: list[object] = []
    ring.append(ring)
    known = id(ring)
    del ring
    set_aside(MANY_ROUTES)
    assert gc.get_freeze_count() > frozen
    gc.unfreeze()
    assert known not in {id(one) for one in gc.get_objects()}
