"""A proxy that is started for one measurement, with a real program in its place."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator

import pytest

from loadtests.peers import running
from loadtests.processes import LoadTestError, Workspace
from tests.helpers.sockets import connect, is_refused

LISTENS = f"{sys.executable} -m http.server --bind 127.0.0.1 {{port}}"


@pytest.fixture
def space() -> Iterator[Workspace]:
    """A workspace that leaves the handler of SIGTERM as it was."""
    before = signal.getsignal(signal.SIGTERM)
    with Workspace("proxyctl-test-") as found:
        yield found
    signal.signal(signal.SIGTERM, before)


def test_each_start_is_a_process_of_its_own_on_the_same_port(space: Workspace) -> None:
    """It takes connections while it is measured, is gone afterwards, and can come again."""
    port = space.port()
    pids = set()
    for _ in range(2):
        with running(space, "mine", {"bulk": (port, 1)}, LISTENS, "mine") as subject:
            connect(subject.ports["bulk"]).close()
            (part,) = subject.started
            pids.add(part.popen.pid)
        assert part.popen.poll() is not None
        assert is_refused(port)
    assert len(pids) == 2


def test_a_start_that_fails_leaves_nothing_running(space: Workspace) -> None:
    """What was started before it is ended, and the error says what became of it."""
    script = space.write(
        "one_of_two.py",
        "import socket, sys\n"
        "port, target_port = map(int, sys.argv[1:])\n"
        "if target_port == 2:\n"
        "    sys.exit('no second')\n"
        "with socket.create_server(('127.0.0.1', port)) as listener:\n"
        "    while True:\n"
        "        listener.accept()[0].close()\n",
    )
    first, second = space.port(), space.port()
    forwards = {"connections": (first, 1), "bulk": (second, 2)}
    command = f"{sys.executable} {script} {{port}} {{target_port}}"
    with (
        pytest.raises(LoadTestError, match="no second"),
        running(space, "mine", forwards, command, "mine"),
    ):
        raise AssertionError("it was taken for started")
    assert is_refused(first)


def test_an_unknown_proxy_needs_a_command(space: Workspace) -> None:
    """The error names those that are known."""
    with (
        pytest.raises(LoadTestError, match=r"no proxy called other \(haproxy, nginx"),
        running(space, "other", {"bulk": (space.port(), 1)}, None, "other"),
    ):
        raise AssertionError("it was taken for started")
