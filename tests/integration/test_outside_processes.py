"""What an operator sees at the edges: a stop that is hurried, ports that are taken, low limits."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.cli.main import run
from supervisor.runtime_dir import orphans, stranger
from tests.conftest import StartProxyctl
from tests.helpers.ports import free_port
from tests.helpers.processes import config_of
from tests.helpers.sockets import EchoServer, connect, exchange, is_refused, occupied_port
from tests.helpers.waiting import wait_until


def test_stop_now_says_how_many_it_cut(proxyctl: StartProxyctl, echo: EchoServer) -> None:
    """What `stop --now` ends is counted as cut, also when it was opened a moment before."""
    port = free_port()
    running = proxyctl(config_of({"a": (port, echo.address)}))
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            assert exchange(stack.enter_context(connect(port)), b"x") == b"x"
        code, document = running.run("stop", "--now")
    assert code == 0
    assert document["data"] == {"drained": 0, "cut": 5}
    assert running.wait() == 0


def test_hurried_drain_counts_each_connection_once(
    proxyctl: StartProxyctl, echo: EchoServer
) -> None:
    """A drain that a second TERM hurries counts what it cuts as cut, and not as drained too."""
    port = free_port()
    running = proxyctl(config_of({"a": (port, echo.address)}))
    with connect(port) as kept:
        assert exchange(kept, b"x") == b"x"
        with connect(port) as leaving:
            assert exchange(leaving, b"x") == b"x"
            running.signal(signal.SIGTERM)
            wait_until(lambda: is_refused(port), "the port is closed")
            states = {"ready": 0, "starting": 0}
            wait_until(lambda: running.status()["workers"].items() >= states.items(), "all drain")
        wait_until(lambda: running.status()["connections"] == 1, "one has left")
        running.signal(signal.SIGTERM)
        assert running.wait() == 0
    assert "stopped: 1 connection drained, 1 cut at the deadline" in running.output()


def test_drain_of_a_resize_is_not_counted_at_the_stop(
    proxyctl: StartProxyctl, echo: EchoServer
) -> None:
    """What a worker drained because there should be fewer does not show in the stop's figures."""
    port = free_port()
    running = proxyctl(config_of({"a": (port, echo.address)}))
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            assert exchange(stack.enter_context(connect(port)), b"x") == b"x"
        running.signal(signal.SIGTTOU)
        running.wait_for_workers(
            lambda found: sum(worker["state"] == "ready" for worker in found) == 1, "one is ready"
        )
    running.wait_for_workers(lambda found: len(found) == 1, "the other has left")
    wait_until(lambda: running.status()["connections"] == 0, "no connection")
    _, document = running.run("stop")
    assert document["data"] == {"drained": 0, "cut": 0}


def test_start_beside_orphans_says_how_to_end_them(
    proxyctl: StartProxyctl, echo: EchoServer
) -> None:
    """Workers without a supervisor hold the port: `start` names `proxyctl stop`, which ends them.

    What is open longer than `stop --timeout` allows is cut.
    """
    port = free_port()
    config = config_of({"a": (port, echo.address)})
    first = proxyctl(config)
    with connect(port) as client:
        assert exchange(client, b"x") == b"x"
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        wait_until(lambda: len(orphans(first.runtime_dir)) == 2, "both know")
        assert exchange(client, b"y") == b"y"
        again = proxyctl(config, is_ready_expected=False)
        assert again.wait() == 1
        assert "`proxyctl stop` drains them" in again.log()
        code, document = first.run("stop", "--timeout", "200ms")
        assert code == 0, document
        assert len(document["data"]["orphans"]) == 2
    assert orphans(first.runtime_dir) == []


def test_taken_admin_port_says_by_whom(proxyctl: StartProxyctl, echo: EchoServer) -> None:
    """The refusal names the process that listens there."""
    with occupied_port() as taken:
        admin = {"listen": f"127.0.0.1:{taken}"}
        config = config_of({"a": (free_port(), echo.address)}, admin=admin)
        refused = proxyctl(config, is_ready_expected=False)
        assert refused.wait() == 1
        assert f"127.0.0.1:{taken}: Address already in use by pid {os.getpid()}: " in refused.log()


def test_low_limit_of_open_files_is_said_plainly(tmp_path: Path) -> None:
    """With fewer descriptors than ZeroMQ needs `start` is refused instead of aborted."""
    config = tmp_path / "proxyctl.json"
    config.write_text(json.dumps(config_of({"a": (free_port(), "127.0.0.1:9")})))
    command = [sys.executable, "-P", "-m", "supervisor.cli", "start", "--config", str(config)]
    done = subprocess.run(
        ["sh", "-c", 'ulimit -n 24 && exec "$@"', "sh", *command, "--runtime-dir", tmp_path / "r"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "the limit of open files is 24, and 128 is the least" in done.stderr
    assert done.stdout == ""


def test_only_root_uses_the_runtime_directory_of_another(tmp_path: Path) -> None:
    """What stands in a directory of somebody else is not believed, unless we are root."""
    owner = tmp_path.stat().st_uid
    assert stranger(tmp_path, owner) is None
    assert stranger(tmp_path, 0) is None
    assert stranger(tmp_path, owner + 1) == owner
    assert stranger(tmp_path / "missing", owner + 1) is None


def test_probe_without_time_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    """`probe --timeout 0` could never hear an answer: it is refused before anything is dialled."""
    assert run(["probe", "127.0.0.1:1", "--timeout", "0", "--json"]) == 2
    assert "it must be above 0" in json.loads(capsys.readouterr().out)["errors"][0]["message"]
