"""Workers that die, hang or leave, with real processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from tests.conftest import StartProxyctl
from tests.helpers.ports import free_port, free_ports
from tests.helpers.processes import Proxyctl, config_of, readiness
from tests.helpers.sockets import EchoServer, connect, echoes, exchange
from tests.helpers.waiting import wait_until


def all_ready(running: Proxyctl, count: int, without: int) -> list[int]:
    """Wait until ``count`` workers are ready and none of them has the pid ``without``."""
    found = running.wait_for_workers(
        lambda workers: (
            [worker["state"] for worker in workers] == ["ready"] * count
            and all(worker["pid"] != without for worker in workers)
        ),
        f"{count} ready workers without {without}",
    )
    return [worker["pid"] for worker in found]


def last_restart(running: Proxyctl) -> dict[str, Any]:
    """The last worker that ended unasked; noted once its last words have been waited for."""
    restarts: list[dict[str, Any]] = wait_until(
        lambda: running.status()["restarts"], "the end is noted"
    )
    return restarts[-1]


def test_killed_worker_is_replaced(proxyctl: StartProxyctl, echo: EchoServer) -> None:
    """After kill -9 its listeners are served all the time, and its slot gets a successor."""
    port = free_port()
    running = proxyctl(config_of({"a": (port, echo.address)}))
    victim, sibling = running.ready_pids()
    os.kill(victim, signal.SIGKILL)
    assert all(echoes(port) for _ in range(20))
    assert sibling in all_ready(running, 2, without=victim)
    assert all(echoes(port) for _ in range(20))
    restart = last_restart(running)
    assert (restart["pid"], restart["kind"], restart["reason"]) == (victim, "killed", "SIGKILL")


def test_killed_worker_leaves_its_counts(proxyctl: StartProxyctl, echo: EchoServer) -> None:
    """What a killed worker had accepted stays counted, and what it held ends as `killed`."""
    port = free_port()
    running = proxyctl(config_of({"a": (port, echo.address)}), workers=1)
    (victim,) = running.ready_pids()
    with connect(port) as client:
        assert exchange(client, b"held") == b"held"
        wait_until(lambda: running.status()["connections"] == 1, "counted")
        os.kill(victim, signal.SIGKILL)
        all_ready(running, 1, without=victim)
        wait_until(lambda: running.status()["totals"]["ends"] == {"killed": 1}, "folded")
    totals = running.status()["totals"]
    assert (totals["accepted"], totals["ended"]) == (1, 1)
    assert echoes(port)
    wait_until(lambda: running.status()["totals"]["routes"]["a"]["total"] == 2, "counted on")
    assert running.status()["totals"]["accepted"] == 2


def test_hung_worker_is_adopted_then_replaced(proxyctl: StartProxyctl, echo: EchoServer) -> None:
    """The listeners of a stopped worker go to its sibling; after the watchdog it is replaced."""
    port = free_port()
    config = config_of({"a": (port, echo.address)}, timeouts={"watchdog": "4s"})
    running = proxyctl(config, workers=2)
    victim, sibling = running.ready_pids()
    os.kill(victim, signal.SIGSTOP)
    slots = running.status()["workers"]["wanted"] * 2  # max_workers: auto is at least that

    def is_adopted(workers: list[dict[str, Any]]) -> bool:
        return any(w["pid"] == sibling and len(w["indexes"]) >= slots for w in workers)

    running.wait_for_workers(is_adopted, "the sibling polls everything")
    assert running.run("status")[0] == 4
    all_ready(running, 2, without=victim)
    assert "silent for" in last_restart(running)["reason"]
    assert all(echoes(port) for _ in range(10))


def test_worker_that_wakes_again_is_kept(proxyctl: StartProxyctl, echo: EchoServer) -> None:
    """A worker that beats again before the watchdog gets its own listeners back."""
    port = free_port()
    running = proxyctl(config_of({"a": (port, echo.address)}))
    sleeper = running.ready_pids()[0]
    before = {worker["pid"]: worker["indexes"] for worker in running.workers()}
    os.kill(sleeper, signal.SIGSTOP)
    running.wait_for_workers(lambda w: w[0]["state"] == "silent", "it is found silent")
    os.kill(sleeper, signal.SIGCONT)
    running.wait_for_workers(
        lambda workers: {worker["pid"]: worker["indexes"] for worker in workers} == before,
        "everything is as before",
    )
    assert echoes(port)


def test_fork_server_is_replaced_without_harm(proxyctl: StartProxyctl, echo: EchoServer) -> None:
    """After kill -9 of the fork server workers go on, and one that dies later is replaced."""
    port = free_port()
    running = proxyctl(config_of({"a": (port, echo.address)}))
    with connect(port) as client:
        assert exchange(client, b"one") == b"one"
        killed = running.fork_server_pid()
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: running.fork_server_pid() != killed, "it is gone")
        assert exchange(client, b"two") == b"two"
    victim = running.ready_pids()[0]
    os.kill(victim, signal.SIGKILL)
    all_ready(running, 2, without=victim)
    assert running.fork_server_pid() not in {0, killed}
    assert echoes(port)


def test_term_to_a_worker_lets_it_drain(proxyctl: StartProxyctl, echo: EchoServer) -> None:
    """A worker that gets TERM hands over, keeps its connection to the end, and has a successor."""
    port = free_port()
    running = proxyctl(config_of({"a": (port, echo.address)}), workers=1)
    (leaving,) = running.ready_pids()
    with connect(port) as client:
        assert exchange(client, b"one") == b"one"
        os.kill(leaving, signal.SIGTERM)
        running.wait_for_workers(
            lambda workers: {worker["state"] for worker in workers} == {"ready", "draining"},
            "one drains beside its successor",
        )
        assert echoes(port)
        assert exchange(client, b"two") == b"two"
    all_ready(running, 1, without=leaving)
    assert running.status()["restarts"] == []


def test_reload_reaches_a_worker_that_drains(proxyctl: StartProxyctl, echo: EchoServer) -> None:
    """A draining worker follows a reload: its connection outlives it, a removed route ends it."""
    port, other = free_ports(2)
    timeouts = {"drain": "0s"}
    both = {"a": (port, echo.address), "b": (other, echo.address)}
    running = proxyctl(config_of(both, timeouts=timeouts), workers=1)
    (leaving,) = running.ready_pids()
    with connect(port) as kept, connect(other) as removed:
        assert exchange(kept, b"one") == b"one"
        assert exchange(removed, b"one") == b"one"
        os.kill(leaving, signal.SIGTERM)
        running.wait_for_workers(lambda workers: len(workers) == 2, "one drains")
        running.write(config_of({"a": (port, echo.address)}, timeouts=timeouts))
        assert running.run("reload")[0] == 0
        assert removed.recv(1) == b""  # within a tick of the commit
        assert exchange(kept, b"two") == b"two"
    all_ready(running, 1, without=leaving)


def test_ttin_and_ttou_change_the_number(proxyctl: StartProxyctl, echo: EchoServer) -> None:
    """TTIN adds a worker, TTOU takes one away, and all sockets stay polled."""
    port = free_port()
    running = proxyctl(config_of({"a": (port, echo.address)}, max_workers=3), workers=2)
    running.signal(signal.SIGTTIN)
    all_ready(running, 3, without=0)
    running.signal(signal.SIGTTOU)
    all_ready(running, 2, without=0)
    running.signal(signal.SIGTTOU)
    workers = running.wait_for_workers(
        lambda found: len(found) == 1 and len(found[0]["indexes"]) == 3, "one polls everything"
    )
    assert workers[0]["slot"] == 0
    assert all(echoes(port) for _ in range(10))


def test_workers_that_cannot_start_end_the_start(
    proxyctl: StartProxyctl, echo: EchoServer, tmp_path: Path
) -> None:
    """When no worker gets ready the start ends with 1 and says why."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text(
        "import os, sys\nif 'worker.fork_server' in sys.orig_argv:\n    os._exit(9)\n"
    )
    config = config_of({"a": (free_port(), echo.address)})
    environment = {"PYTHONPATH": str(broken)}
    running = proxyctl(config, environment=environment, is_ready_expected=False)
    assert running.wait() == 1
    assert "no worker got ready: the fork server ended with status 9" in running.log()
    assert running.alive() == []


def test_supervisor_lost_workers_serve_on(proxyctl: StartProxyctl, echo: EchoServer) -> None:
    """After kill -9 of the supervisor its workers serve old and new connections; `stop` ends
    them, and lets the open connection end first."""
    port = free_port()
    running = proxyctl(config_of({"a": (port, echo.address)}))
    orphans = running.ready_pids()
    with connect(port) as client:
        assert exchange(client, b"one") == b"one"
        running.signal(signal.SIGKILL)
        running.wait()
        wait_until(lambda: sorted(running.alive()) == sorted(orphans), "only workers are left")
        assert exchange(client, b"two") == b"two"
        assert all(echoes(port) for _ in range(10))
        code, document = running.run("status")
        assert code == 3
        assert all(str(pid) in document["errors"][0]["message"] for pid in orphans)
    code, document = running.run("stop")
    assert code == 0
    assert sorted(document["data"]["orphans"]) == sorted(orphans)
    wait_until(lambda: running.alive() == [], "the orphans have ended")
    assert list(running.runtime_dir.glob("orphan-*")) == []


def test_it_is_not_ready_while_all_its_workers_are_silent(
    proxyctl: StartProxyctl, echo: EchoServer
) -> None:
    """A load balancer that asks `/readyz` must go elsewhere; one that beats again is enough."""
    admin = free_port()
    config = config_of(
        {"a": (free_port(), echo.address)},
        admin={"listen": f"127.0.0.1:{admin}"},
        timeouts={"watchdog": "5m"},
    )
    running = proxyctl(config)
    assert readiness(admin) == (200, b"ready\n")
    pids = running.ready_pids()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: running.status()["workers"]["silent"] == 2, "both are silent")
        assert running.status()["ready"] is False
        assert readiness(admin) == (503, b"not ready: no worker is ready\n")
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    wait_until(lambda: running.status()["ready"], "a worker beats again")
    assert readiness(admin) == (200, b"ready\n")


def test_orphan_drains_on_term_and_ends_on_the_second(
    proxyctl: StartProxyctl, echo: EchoServer
) -> None:
    """TERM to an orphan keeps its open connection, a second TERM cuts it."""
    port = free_port()
    running = proxyctl(config_of({"a": (port, echo.address)}), workers=1)
    (orphan,) = running.ready_pids()
    with connect(port) as client:
        assert exchange(client, b"one") == b"one"
        running.signal(signal.SIGKILL)
        running.wait()
        wait_until(lambda: running.alive() == [orphan], "only the worker is left")
        wait_until(lambda: list(running.runtime_dir.glob("orphan-*")), "it knows")
        os.kill(orphan, signal.SIGTERM)
        wait_until(lambda: not echoes(port), "it accepts no more")
        assert exchange(client, b"two") == b"two"
        os.kill(orphan, signal.SIGTERM)
        wait_until(lambda: running.alive() == [], "it has ended")


def test_new_start_beside_orphans_says_who_has_the_port(
    proxyctl: StartProxyctl, echo: EchoServer
) -> None:
    """A start while orphans still serve finds the port taken and names one of them."""
    port = free_port()
    running = proxyctl(config_of({"a": (port, echo.address)}), workers=1)
    (orphan,) = running.ready_pids()
    running.signal(signal.SIGKILL)
    running.wait()
    wait_until(lambda: list(running.runtime_dir.glob("orphan-*")), "it knows")
    again = proxyctl(config_of({"a": (port, echo.address)}), is_ready_expected=False)
    assert again.wait() == 1
    assert f"pid {orphan}" in again.log()
    assert echoes(port)
