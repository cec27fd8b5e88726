"""What the interop tests share: a failing test shows what its proxies have printed."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.helpers.chain import Topology


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the output of every process of the test's topology to the report of its failure."""
    report = yield
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, Topology):
                report.sections += [(f"output of {name}", text) for name, text in value.outputs()]
    return report


@pytest.fixture
def topology(tmp_path: Path) -> Iterator[Topology]:
    """An empty scenario of this test alone; whatever it starts is ended."""
    topology = Topology(tmp_path)
    try:
        yield topology
    finally:
        topology.end()
