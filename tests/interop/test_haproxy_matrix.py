"""HAProxy before and behind proxyctl, both versions and families, whoever speaks first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from tests.helpers.matrix import Cell, Matrix, cells, matrix

CELLS: Final = [
    *cells("haproxy", "own"),
    *cells("haproxy", "haproxy"),
    *cells("proxyctl", "haproxy"),
]


pytestmark = pytest.mark.program("haproxy")


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    """HAProxy on both sides, and proxyctl in front of HAProxy."""
    with matrix(tmp_path_factory.mktemp("haproxy"), CELLS) as started:
        yield started


@pytest.mark.parametrize("way", CELLS, ids=str)
def test_haproxy_and_proxyctl_keep_the_client(ways: Matrix, way: Cell) -> None:
    """The last server sees who the client is, and every hop is empty afterwards."""
    ways.check(way)


def test_every_connection_is_accounted_for(ways: Matrix) -> None:
    """The counters of the hops are whole after all of it, and agree with each other."""
    ways.check_books(CELLS)
