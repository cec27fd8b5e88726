"""nginx before (it sends v1 only) and behind proxyctl, both families, whoever speaks first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from tests.helpers.matrix import Cell, Matrix, cells, matrix

CELLS: Final = [
    *cells("nginx", "own", ["v1"]),
    *cells("nginx", "nginx", ["v1"]),
    *cells("proxyctl", "nginx"),
]
MIXED: Final = [*cells("nginx", "haproxy", ["v1"]), *cells("haproxy", "nginx")]

pytestmark = pytest.mark.program("nginx", "ngx_stream_module.so")


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    """nginx on both sides, and proxyctl in front of nginx."""
    with matrix(tmp_path_factory.mktemp("nginx"), CELLS) as started:
        yield started


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    """nginx on one side and HAProxy on the other."""
    with matrix(tmp_path_factory.mktemp("mixed"), MIXED) as started:
        yield started


@pytest.mark.parametrize("way", CELLS, ids=str)
def test_nginx_and_proxyctl_keep_the_client(ways: Matrix, way: Cell) -> None:
    """The last server sees who the client is, and every hop is empty afterwards."""
    ways.check(way)


@pytest.mark.program("haproxy")
@pytest.mark.parametrize("way", MIXED, ids=str)
def test_nginx_proxyctl_and_haproxy_keep_the_client(mixed: Matrix, way: Cell) -> None:
    """proxyctl between the two others passes the client on."""
    mixed.check(way)


def test_every_connection_is_accounted_for(ways: Matrix) -> None:
    """The counters of the hops are whole after all of it, and agree with each other."""
    ways.check_books(CELLS)
