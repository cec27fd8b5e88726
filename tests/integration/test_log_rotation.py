"""Rotation of the logs of running processes: who has opened them again, and what is lost."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from tests.conftest import StartProxyctl
from tests.helpers.access_lines import read_lines
from tests.helpers.ports import free_port
from tests.helpers.processes import Proxyctl, config_of, whole_lines
from tests.helpers.sockets import EchoServer, echoes
from tests.helpers.waiting import wait_until


def log_lines(path: Path) -> list[dict[str, object]]:
    """The operational log as objects."""
    return [json.loads(line) for line in whole_lines(path.read_text())] if path.is_file() else []


def results(path: Path) -> list[object]:
    """What each reopening that had no error came to, ``2/2``."""
    return [line["workers"] for line in log_lines(path) if line["event"] == "logs reopened"]


def failures(path: Path) -> list[dict[str, object]]:
    """The lines about reopenings that had one."""
    return [line for line in log_lines(path) if "could not be reopened" in str(line["event"])]


def users_of(running: Proxyctl, path: Path) -> list[int]:
    """Processes of this run that have the file open."""
    found = []
    for pid in [running.pid, *(worker["pid"] for worker in running.workers())]:
        try:
            names = [os.readlink(one) for one in Path(f"/proc/{pid}/fd").iterdir()]
        except FileNotFoundError:
            continue  # it has just ended, or closed one
        found += [pid] if str(path) in names else []
    return found


def wait_for_results(log: Path, expected: list[object]) -> None:
    """Wait until the reopenings so far came to this."""
    wait_until(lambda: results(log) == expected, f"reopened: {expected}")


def wait_until_unused(running: Proxyctl, path: Path) -> None:
    """Wait until no process has it open."""
    wait_until(lambda: not users_of(running, path), f"nobody writes to {path}")


def test_rotation_under_traffic_loses_no_line(
    proxyctl: StartProxyctl, echo: EchoServer, tmp_path: Path
) -> None:
    """Each connection has its line, in one of the files, while USR1 comes again and again."""
    log, access, port = tmp_path / "log", tmp_path / "access", free_port()
    settings = {"file": str(log), "format": "json", "access": {"file": str(access)}}
    running = proxyctl(config_of({"a": (port, echo.address)}, log=settings))
    rounds, connections = 5, 20
    for turn in range(rounds):
        assert all(echoes(port) for _ in range(connections))
        access.rename(tmp_path / f"access.{turn}")
        assert all(echoes(port) for _ in range(connections))
        running.signal(signal.SIGUSR1)
        wait_for_results(log, ["2/2"] * (turn + 1))
    running.signal(signal.SIGTERM)
    assert running.wait() == 0
    files = [access, *(tmp_path / f"access.{turn}" for turn in range(rounds))]
    lines = [line for path in files for line in read_lines(path)]
    assert len(lines) == len({line["id"] for line in lines}) == 2 * rounds * connections
    assert all(line["end"] == "client_closed" for line in lines)


def test_worker_that_hangs_is_named(
    proxyctl: StartProxyctl, echo: EchoServer, tmp_path: Path
) -> None:
    """It is not waited for without end, and opens its log again when it goes on."""
    log, old = tmp_path / "log", tmp_path / "log.1"
    settings = {"file": str(log), "format": "json"}
    running = proxyctl(config_of({"a": (free_port(), echo.address)}, log=settings))
    victim = running.ready_pids()[0]
    log.rename(old)
    os.kill(victim, signal.SIGSTOP)
    try:
        running.signal(signal.SIGUSR1)
        wait_until(lambda: bool(failures(log)), "it is named")
    finally:
        os.kill(victim, signal.SIGCONT)
    (error,) = failures(log)
    assert error["workers"] == "1/2"
    assert error["errors"] == [f"worker 0 (pid {victim}): no answer within 2 s"]
    assert error["component"] == "logs"
    wait_until_unused(running, old)


def test_nothing_is_called_reopened_that_was_not(
    proxyctl: StartProxyctl, echo: EchoServer, tmp_path: Path
) -> None:
    """A log file that cannot be opened by its path is an error, and no success beside it."""
    log, old = tmp_path / "log", tmp_path / "log.1"
    settings = {"file": str(log), "format": "json"}
    running = proxyctl(config_of({"a": (free_port(), echo.address)}, log=settings))
    log.rename(old)
    log.mkdir()
    running.signal(signal.SIGUSR1)
    wait_until(lambda: bool(failures(old)), "it is said")
    log.rmdir()
    running.signal(signal.SIGUSR1)
    wait_for_results(log, ["2/2"])
    (error,) = failures(old)
    assert error["workers"] == "0/2"
    assert len(error["errors"]) == 3  # type: ignore[arg-type]
    assert not results(old)


def test_worker_that_boots_meanwhile_has_the_new_file(
    proxyctl: StartProxyctl, echo: EchoServer, tmp_path: Path
) -> None:
    """A successor may have opened the old file just before; one that died is not waited for."""
    log, access = tmp_path / "log", tmp_path / "access"
    settings = {"file": str(log), "format": "json", "access": {"file": str(access)}}
    running = proxyctl(config_of({"a": (free_port(), echo.address)}, log=settings))
    pids = running.ready_pids()
    for turn in range(3):
        os.kill(pids[turn % 2], signal.SIGKILL)
        for path in (log, access):
            path.rename(tmp_path / f"{path.name}.{turn}")
        running.signal(signal.SIGUSR1)
        wait_until(lambda: len(results(log)) == 1, "those that live have done it")
        assert results(log)[0] in ("1/1", "2/2")
        wait_until(lambda: len(running.ready_pids()) == 2, "the successor is ready")
        pids = running.ready_pids()
        for path in (log, access):
            wait_until_unused(running, tmp_path / f"{path.name}.{turn}")
        assert set(users_of(running, access)) == set(pids)


def test_reload_reaches_a_worker_that_boots_meanwhile(
    proxyctl: StartProxyctl, echo: EchoServer, tmp_path: Path
) -> None:
    """A changed log holds for every worker, also for one that was asked for before."""
    old, new, port = tmp_path / "old", tmp_path / "new", free_port()
    running = proxyctl(config_of({"a": (port, echo.address)}, log={"file": str(old)}))
    fork_server = running.fork_server_pid()
    os.kill(fork_server, signal.SIGSTOP)
    try:
        os.kill(running.ready_pids()[0], signal.SIGKILL)
        wait_until(lambda: len(running.ready_pids()) == 1, "one is missing")
        running.write(config_of({"a": (port, echo.address)}, log={"file": str(new)}))
        assert running.run("reload")[0] == 0
    finally:
        os.kill(fork_server, signal.SIGCONT)
    wait_until(lambda: len(running.ready_pids()) == 2, "the successor is ready")
    wait_until_unused(running, old)
    assert set(users_of(running, new)) == {running.pid, *running.ready_pids()}


def test_every_line_names_its_component(
    proxyctl: StartProxyctl, echo: EchoServer, tmp_path: Path
) -> None:
    """The part of proxyctl that a line comes from stands in it."""
    log, port = tmp_path / "log", free_port()
    settings = {"file": str(log), "format": "json", "level": "debug"}
    running = proxyctl(config_of({"a": (port, echo.address)}, log=settings))
    os.kill(running.ready_pids()[0], signal.SIGKILL)
    wait_until(lambda: len(running.ready_pids()) == 2, "the successor is ready")
    assert running.run("reload")[0] == 0
    running.signal(signal.SIGTERM)
    assert running.wait() == 0
    lines = log_lines(log)
    assert all(line.get("component") for line in lines)
    assert {"supervisor", "workers", "reload"} <= {line["component"] for line in lines}


def test_journald_lines_of_running_processes(
    proxyctl: StartProxyctl, echo: EchoServer, tmp_path: Path
) -> None:
    """`log.format: journald` holds in supervisor and workers."""
    log = tmp_path / "log"
    settings = {"file": str(log), "format": "journald", "level": "debug"}
    running = proxyctl(config_of({"a": (free_port(), echo.address)}, log=settings))
    running.signal(signal.SIGTERM)
    assert running.wait() == 0
    lines = log.read_text().splitlines()
    assert all(line[0] == "<" and line[1] in "34567" and line[2] == ">" for line in lines)
    assert any("component=supervisor" in line for line in lines)
    assert any("component=worker " in line for line in lines)


def test_a_reload_whose_log_file_cannot_be_opened_is_refused(
    proxyctl: StartProxyctl, echo: EchoServer, tmp_path: Path
) -> None:
    """As for the access log, nothing of that file is taken over. What is in use is not opened."""
    old, new = tmp_path / "old" / "log", tmp_path / "new" / "log"
    old.parent.mkdir()
    port = free_port()
    routes = {"a": (port, echo.address)}
    running = proxyctl(config_of(routes, log={"file": str(old), "format": "json"}))
    changed = config_of({"b": (port, echo.address)}, log={"file": str(new), "format": "json"})
    running.write(changed)
    code, document = running.run("reload")
    (problem,) = document["errors"]
    assert (code, problem["path"], problem["code"]) == (1, "log.file", "log_file")
    assert problem["message"] == f"cannot open the log file {new}: No such file or directory"
    assert problem["hint"] == "create its directory"
    assert running.status()["generation"] == 1
    assert "reload refused" in old.read_text()
    new.parent.mkdir()
    assert running.run("reload")[0] == 0
    wait_until(lambda: "reload ok" in new.read_text(), "it is in use")
    new.unlink()
    new.parent.rmdir()
    assert running.run("reload")[0] == 0
