"""What all tests share: the marker `program`, and proxyctl processes that are always ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import shared
import worker
from shared import http
from tests.helpers.processes import Proxyctl
from tests.helpers.sockets import EchoServer

pytest_plugins = ["tests.programs"]

StartProxyctl = Callable[..., Proxyctl]


@pytest.fixture
def proxyctl(tmp_path: Path) -> Iterator[StartProxyctl]:
    """Start proxyctl with a config; whatever was started is ended after the test."""
    started: list[Proxyctl] = []

    def start(config: dict[str, object], **options: object) -> Proxyctl:
        running = Proxyctl(tmp_path, config, number=len(started), **options)  # type: ignore[arg-type]
        started.append(running)
        running.start()
        return running

    try:
        yield start
    finally:
        for running in started:
            running.end()


@pytest.fixture
def echo() -> Iterator[EchoServer]:
    """A target that sends back what it gets."""
    with EchoServer() as server:
        yield server


def pytest_sessionstart() -> None:
    """Refuse to test what was compiled of an older source."""
    directories = (worker.__path__[0], shared.__path__[0], http.__path__[0])
    for built in (one for place in directories for one in Path(place).glob("*.so")):
        for suffix in ("py", "c"):
            source = built.parent / f"{built.name.partition('.')[0]}.{suffix}"
            if source.exists() and source.stat().st_mtime > built.stat().st_mtime:
                pytest.exit(f"{source.name} is newer than {built.name}: make build", returncode=2)
