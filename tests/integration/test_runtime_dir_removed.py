"""The runtime directory, or something of it, is removed while proxyctl runs."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from supervisor.runtime_dir import running_pid
from tests.conftest import StartProxyctl
from tests.helpers.ports import free_port
from tests.helpers.processes import Proxyctl, config_of
from tests.helpers.sockets import EchoServer, connect, echoes, exchange
from tests.helpers.waiting import wait_until

MENDED = "something was removed from the runtime directory, and is there again"


def remove(running: Proxyctl, what: str) -> None:
    """The whole directory, or the files of this pattern."""
    if not what:
        shutil.rmtree(running.runtime_dir)
    for path in running.runtime_dir.glob(what) if what else []:
        path.unlink()


@pytest.mark.parametrize("what", ["", "*.sock", "*.lock"])
def test_what_was_removed_is_made_again(
    proxyctl: StartProxyctl, echo: EchoServer, what: str
) -> None:
    """Commands find it, workers that die are replaced, and nobody else can start there."""
    port = free_port()
    config = config_of({"a": (port, echo.address)})
    running = proxyctl(config)
    with connect(port) as client:
        assert exchange(client, b"x") == b"x"
        remove(running, what)
        wait_until(lambda: MENDED in running.log(), "it has noticed")
        assert str(running.runtime_dir) in running.log()
        assert exchange(client, b"y") == b"y"
    assert running_pid(running.runtime_dir) == running.pid
    assert running.runtime_dir.stat().st_mode & 0o777 == 0o700
    old = running.ready_pids()
    os.kill(old[0], signal.SIGKILL)
    running.wait_for_workers(
        lambda found: (
            [one["state"] for one in found] == ["ready"] * 2
            and old[0] not in [one["pid"] for one in found]
        ),
        "it is replaced",
    )
    assert echoes(port)
    second = proxyctl(config, is_ready_expected=False)
    assert second.wait() == 1
    assert f"another proxyctl runs in {running.runtime_dir}" in second.log()
    assert running.run("stop")[0] == 0
    assert running.wait() == 0
    assert list(running.runtime_dir.glob("*.sock")) == []


def test_a_place_that_cannot_be_made_again_is_told_once(
    proxyctl: StartProxyctl, echo: EchoServer, tmp_path: Path
) -> None:
    """The error names the directory and what is in the way; traffic goes on meanwhile."""
    port = free_port()
    running = proxyctl(config_of({"a": (port, echo.address)}))
    shutil.rmtree(running.runtime_dir)
    running.runtime_dir.touch()
    wait_until(lambda: "no worker can start" in running.log(), "it has noticed")
    assert f'"directory":"{running.runtime_dir}"' in running.log()
    assert echoes(port)
    running.runtime_dir.unlink()
    wait_until(lambda: MENDED in running.log(), "it could at last")
    assert running.log().count("no worker can start") == 1
    assert running.run("status")[0] == 0


def test_a_place_that_another_has_taken_is_left_to_it(
    proxyctl: StartProxyctl, echo: EchoServer
) -> None:
    """Neither its lock nor its socket is touched, not even at the end of the first."""
    port = free_port()
    first = proxyctl(config_of({"a": (free_port(), echo.address)}))
    first.signal(signal.SIGSTOP)
    shutil.rmtree(first.runtime_dir)
    second = proxyctl(config_of({"b": (port, echo.address)}))
    first.signal(signal.SIGCONT)
    wait_until(lambda: "no worker can start" in first.log(), "it has noticed")
    first.signal(signal.SIGTERM)
    assert first.wait() == 0
    assert second.status()["supervisor"]["pid"] == second.pid
