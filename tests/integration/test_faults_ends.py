"""Full stops, crash loops, lost supervisors and fork servers: what is lost, and what is said."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartProxyctl
from tests.helpers.named_echo import (
    Dialler,
    LongConnection,
    are_ready,
    named_route,
    one_for_each,
    serve,
)
from tests.helpers.ports import free_port
from tests.helpers.processes import Config, Proxyctl
from tests.helpers.sockets import is_refused
from tests.helpers.targets import Target
from tests.helpers.waiting import wait_until

# Runs at the start of the fork server: its grandchildren, the workers, end at once while a file is
# there. A fork server forks twice, so a worker is the second generation.
CRASHER = """
import os, sys
if "worker.fork_server" in sys.orig_argv:
    depth = 0
    def after_fork():
        global depth
        depth += 1
        if depth == 2 and os.path.exists(os.environ["CRASH_FILE"]):
            os._exit(9)
    os.register_at_fork(after_in_child=after_fork)
"""


@pytest.fixture
def target() -> Iterator[Target]:
    """Tells each connection which worker has it."""
    one = Target(serve)
    yield one
    one.close()


def config_of(target: Target, port: int, **timeouts: str) -> Config:
    """One route."""
    return {
        "listen": ["127.0.0.1"],
        "admin": None,
        "max_workers": 2,
        "timeouts": timeouts,
        "routes": [named_route("a", [port], target)],
    }


def orphans(running: Proxyctl, count: int) -> None:
    """Wait until so many workers know that they have no supervisor."""
    wait_until(
        lambda: len(list(running.runtime_dir.glob("orphan-*.lock"))) == count, f"{count} orphans"
    )


def test_stop_under_load_drops_no_answered_dial(proxyctl: StartProxyctl, target: Target) -> None:
    """Whoever was answered is served to the end; after that, dials are refused."""
    port = free_port()
    running = proxyctl(config_of(target, port, drain="5s"))
    with Dialler(port) as first, Dialler(port) as second, Dialler(port) as third:
        wait_until(lambda: first.served > 20, "it is served")
        assert running.ask("stop").exit_code == 0
        wait_until(lambda: first.failures, "its clients see it")
    failures = [*first.failures, *second.failures, *third.failures]
    assert all(one.is_refused for one in failures), failures
    assert running.wait() == 0


def test_stop_counts_what_drains_and_what_is_cut(proxyctl: StartProxyctl, target: Target) -> None:
    """The last line is exact, with the connections of a worker that hangs among those cut."""
    port = free_port()
    running = proxyctl(config_of(target, port, drain="2s", watchdog="60s"))
    _, hung = running.ready_pids()
    long = one_for_each(port, {1, 2})
    for _ in range(4):
        long.append(LongConnection(port))
    held = {worker: sum(one.worker == worker for one in long) for worker in (1, 2)}
    os.kill(hung, signal.SIGSTOP)
    running.wait_for_workers(lambda workers: workers[1]["state"] == "silent", "it is silent")
    running.signal(signal.SIGTERM)
    wait_until(lambda: is_refused(port), "the drain has begun")
    ends = next(one for one in long if one.worker == 1)
    assert ends.echoes()
    ends.close()
    assert running.wait() == 0
    cut = held[1] - 1 + held[2]
    last = running.output().splitlines()[-1]
    assert last == f"stopped: 1 connection drained, {cut} cut at the deadline"
    assert running.alive() == []
    for one in long:
        one.close()


def test_crash_loop_fails_the_slot(proxyctl: StartProxyctl, target: Target, tmp_path: Path) -> None:
    """After five failed starts in a row a slot is given up for a while: status 4, and the log says
    what to do; the other worker serves on."""
    (tmp_path / "sitecustomize.py").write_text(CRASHER)
    crash_file = tmp_path / "crash"
    environment = {"PYTHONPATH": str(tmp_path), "CRASH_FILE": str(crash_file)}
    port = free_port()
    running = proxyctl(config_of(target, port), environment=environment)
    victim, _ = running.ready_pids()
    crash_file.touch()
    os.kill(victim, signal.SIGKILL)
    with Dialler(port) as dialler:
        running.wait_for_workers(lambda workers: workers[0]["state"] == "failed", "it is failed")
        code, document = running.run("status")
    assert code == 4
    assert document["data"]["workers"]["failed"] == 1
    wait_until(
        lambda: [one["kind"] for one in running.status()["restarts"]] == ["killed"] + ["boot"] * 5,
        "each end is noted",
    )
    assert running.status()["restarts"][-1]["reason"] == "exit status 9"
    assert "slot failed: 5 failed starts in a row" in running.log()
    assert "it is tried again every 30 s" in running.log()
    assert dialler.served
    assert not dialler.failures


def test_fork_server_killed_in_the_middle_of_a_spawn(
    proxyctl: StartProxyctl, target: Target
) -> None:
    """The worker that was asked for comes from the next fork server; `status` says what was."""
    port = free_port()
    running = proxyctl(config_of(target, port))
    fork_server = running.fork_server_pid()
    victim, _ = running.ready_pids()
    os.kill(fork_server, signal.SIGSTOP)
    os.kill(victim, signal.SIGKILL)
    with Dialler(port) as dialler:
        running.wait_for_workers(
            lambda workers: workers[0]["state"] == "starting" and workers[0]["incarnation"] == 3,
            "a worker is asked for",
        )
        os.kill(fork_server, signal.SIGKILL)
        running.wait_for_workers(are_ready(2), "there are two again")
    assert not dialler.failures
    wait_until(
        lambda: sorted(one["kind"] for one in running.status()["restarts"]) == ["fork", "killed"],
        "each end is noted",
    )
    assert "fork server ended" in running.log()


def test_a_worker_is_not_silent_before_it_is_forked(
    proxyctl: StartProxyctl, target: Target
) -> None:
    """A fork server that is slow, or has to start first, may take longer than the watchdog."""
    running = proxyctl(config_of(target, free_port(), watchdog="1s"))
    fork_server = running.fork_server_pid()
    victim, other = running.ready_pids()
    os.kill(fork_server, signal.SIGSTOP)
    try:
        os.kill(victim, signal.SIGKILL)
        running.wait_for_workers(lambda workers: workers[0]["state"] == "starting", "one is asked")
        os.kill(other, signal.SIGSTOP)  # what the watchdog does to it tells the time
        wait_until(lambda: "silent for 1 s" in running.log(), "a second and more is over")
        until = time.monotonic() + 1.0
        wait_until(lambda: time.monotonic() > until, "some more, for that one was heard of later")
    finally:
        os.kill(fork_server, signal.SIGCONT)
    running.wait_for_workers(are_ready(2), "there are two again")
    assert sorted(one["kind"] for one in running.status()["restarts"]) == ["hung", "killed"]


def test_lost_supervisor_loses_nothing(proxyctl: StartProxyctl, target: Target) -> None:
    """Its workers serve on. One that gets TERM drains and leaves its share to the other; the last
    one retires the port, and lets go of what it has when that ends."""
    port = free_port()
    running = proxyctl(config_of(target, port))
    first, last = running.ready_pids()
    long = {one.worker: one for one in one_for_each(port, {1, 2})}
    with Dialler(port) as dialler:
        running.signal(signal.SIGKILL)
        running.wait()
        orphans(running, 2)
        served = dialler.served
        wait_until(lambda: dialler.served > served + 20, "they serve on")
        os.kill(first, signal.SIGTERM)
        served = dialler.served
        wait_until(lambda: dialler.served > served + 20, "the other serves on")
        assert long[1].echoes()
        long[1].close()
        wait_until(lambda: running.alive() == [last], "the first has ended")
        os.kill(last, signal.SIGTERM)
        wait_until(lambda: is_refused(port), "the port is refused")
        wait_until(lambda: dialler.failures, "its clients see it")
    assert all(one.is_refused for one in dialler.failures), dialler.failures
    assert long[2].echoes()
    long[2].close()
    wait_until(lambda: running.alive() == [], "the last has ended")
    assert list(running.runtime_dir.glob("orphan-*")) == []


def test_worker_that_drains_when_the_supervisor_is_lost(
    proxyctl: StartProxyctl, target: Target
) -> None:
    """It goes on draining: the first TERM cuts nothing, the second does."""
    port = free_port()
    running = proxyctl(config_of(target, port))
    long = {one.worker: one for one in one_for_each(port, {1, 2})}
    running.signal(signal.SIGTTOU)

    def drains(workers: list[dict[str, Any]]) -> bool:
        return any(worker["state"] == "draining" for worker in workers)

    workers = running.wait_for_workers(drains, "one drains")
    (draining,) = [one for one in workers if one["state"] == "draining"]
    running.signal(signal.SIGKILL)
    running.wait()
    orphans(running, 2)
    kept = long[draining["incarnation"]]
    os.kill(draining["pid"], signal.SIGTERM)
    assert kept.echoes()
    os.kill(draining["pid"], signal.SIGTERM)
    wait_until(lambda: draining["pid"] not in running.alive(), "it has ended")
    other = long[3 - draining["incarnation"]]
    assert other.echoes()
    for one in long.values():
        one.close()
