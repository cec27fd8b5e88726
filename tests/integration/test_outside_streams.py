"""Standard streams that are closed, or that nobody reads any more."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from supervisor import output
from tests.conftest import StartProxyctl
from tests.helpers.ports import free_port
from tests.helpers.processes import PROXYCTL, config_of
from tests.helpers.sockets import EchoServer, echoes


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_it_runs_with_closed_streams(
    proxyctl: StartProxyctl, echo: EchoServer, tmp_path: Path, closed: str
) -> None:
    """No listener takes their numbers, and the loop runs: it serves, reloads and stops."""
    port = free_port()
    config = config_of({"a": (port, echo.address)}, log={"file": str(tmp_path / "log")})
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh"]
    running = proxyctl(config, command=[*shell, *PROXYCTL], is_ready_expected=False)
    running.wait_for_answer()
    assert echoes(port)
    for fd in range(3):
        assert not os.readlink(f"/proc/{running.pid}/fd/{fd}").startswith("socket:")
    assert running.run("reload")[0] == 0
    running.signal(signal.SIGTERM)
    assert running.wait() == 0
    assert "Traceback" not in running.log()


def test_a_command_runs_with_closed_streams(tmp_path: Path) -> None:
    """What it has to say goes nowhere; its exit code tells all the same."""
    command = [*PROXYCTL, "status", "--runtime-dir", str(tmp_path)]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command], timeout=60, check=False
    )
    assert done.returncode == 3


def test_a_reader_that_is_gone_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the first line that fails, nor those that follow it."""
    read, write = os.pipe()
    os.close(read)
    with monkeypatch.context() as patched:
        patched.setattr("sys.stdout", os.fdopen(write, "w", closefd=False))
        output.say(["one"])
        output.say(["two"])
    os.close(write)
