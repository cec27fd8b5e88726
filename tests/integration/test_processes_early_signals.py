"""Signals to a `proxyctl start` that is not ready yet, and to one that is about to end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.runtime_dir import running_pid
from tests.conftest import StartProxyctl
from tests.helpers.ports import free_port
from tests.helpers.processes import config_of
from tests.helpers.signalled_start import STEPS
from tests.helpers.sockets import EchoServer, echoes, is_refused
from tests.helpers.waiting import wait_until

HARMLESS = "SIGHUP,SIGUSR1,SIGUSR2,SIGTTIN,SIGTTOU,SIGWINCH"
STOPS = ("SIGTERM", "SIGINT", "SIGQUIT")


def signalled(step: str, names: str) -> list[str]:
    """What runs `start` so that it gets these signals at this step."""
    return [sys.executable, "-m", "tests.helpers.signalled_start", step, names]


@pytest.mark.parametrize(
    ("step", "names"),
    [
        *((step, "SIGTERM") for step in STEPS),
        *(("read", name) for name in STOPS[1:]),
        ("read", "SIGHUP,SIGINT,SIGTERM,SIGTERM"),
    ],
)
def test_a_stop_before_it_is_ready(
    proxyctl: StartProxyctl, echo: EchoServer, tmp_path: Path, step: str, names: str
) -> None:
    """It ends with 0, says that it was not ready, and leaves nothing behind."""
    port, path = free_port(), tmp_path / "in.sock"
    config = config_of({"a": (port, echo.address)})
    config["routes"][0]["match"]["ports"].append(f"unix:{path}")
    running = proxyctl(config, command=signalled(step, names), is_ready_expected=False)
    assert running.wait() == 0, running.log()
    assert running.output() == "stopped before it was ready\n"
    assert running.log() == ""
    assert running_pid(running.runtime_dir) is None
    assert not list(running.runtime_dir.glob("*.sock"))
    assert not path.exists()
    assert is_refused(port)


def test_an_early_stop_is_one_object_with_json(tmp_path: Path) -> None:
    """The line goes to stderr then, as all that `start` says on its way."""
    done = subprocess.run(
        [*signalled("import", "SIGTERM"), "start", "--json", "--runtime-dir", str(tmp_path / "r")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "stopped before it was ready\n")
    assert json.loads(done.stdout)["ok"] is True
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("step", STEPS)
def test_other_signals_before_it_is_ready(
    proxyctl: StartProxyctl, echo: EchoServer, step: str
) -> None:
    """They end nothing, and a reload that was asked for comes once it is ready."""
    port = free_port()
    running = proxyctl(config_of({"a": (port, echo.address)}), command=signalled(step, HARMLESS))
    assert echoes(port)
    wait_until(lambda: running.status()["generation"] == 2, "the reload")
    running.wait_for_workers(lambda found: len(found) == 2, "as many workers as were wanted")
    running.signal(signal.SIGTERM)
    assert running.wait() == 0
    assert running.alive() == []


def test_more_signals_during_the_end_change_nothing(
    proxyctl: StartProxyctl, echo: EchoServer
) -> None:
    """Whoever cannot wait sends one after the other; it is a stop by signal all the same."""
    running = proxyctl(config_of({"a": (free_port(), echo.address)}))

    def has_ended() -> bool:
        if running.exit_code() is None:
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
                running.signal(number)
        return running.exit_code() is not None

    wait_until(has_ended, "the end")
    assert running.exit_code() == 0, running.log()
    assert "stopped: 0 connections drained" in running.output()
    assert running.alive() == []
