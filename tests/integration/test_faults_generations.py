"""A worker that is killed, stopped or refuses at each step of a generation, with real processes.

In each case all workers end on one generation, and no connection of a living worker is touched.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shared.messages import Reply
from tests.helpers.fault_supervisor import Fault, Step, What
from tests.helpers.named_echo import (
    Dialler,
    LongConnection,
    are_ready,
    incarnations,
    named_route,
    one_for_each,
    serve,
)
from tests.helpers.ports import free_ports
from tests.helpers.processes import Config, Proxyctl
from tests.helpers.targets import Target
from tests.helpers.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
WORKERS = 3
STEPS: list[Step] = ["before_prepare", "after_prepared", "between_commits", "before_committed"]


class Site:
    """One supervisor for all cases; each brings it back to three ready workers."""

    def __init__(self, directory: Path) -> None:
        self.target = Target(serve)
        self.port, self.other = free_ports(2)
        self.fault_path = directory / "fault.json"
        self.idle_s = 100
        fault_supervisor = ["-m", "tests.helpers.fault_supervisor", str(self.fault_path)]
        self.running = Proxyctl(
            directory,
            self.config(),
            workers=WORKERS,
            command=[sys.executable, *fault_supervisor],
            cwd=ROOT,
        )

    def config(self) -> Config:
        """Route `changing` is different each time, `kept` never."""
        changing = named_route("changing", [self.other], self.target)
        changing["action"]["timeouts"] = {"idle": self.idle_s}
        return {
            "listen": ["127.0.0.1"],
            "admin": None,
            "max_workers": 4,
            "timeouts": {"watchdog": "3s"},
            "routes": [named_route("kept", [self.port], self.target), changing],
        }

    def generation(self) -> int:
        """That the supervisor says is served."""
        return int(self.running.status()["generation"])

    def reload(self) -> Reply:
        """A reload with a change, and its answer."""
        self.idle_s += 1
        self.running.write(self.config())
        return self.running.ask("reload")

    def settle(self, generation: int) -> list[dict[str, Any]]:
        """Wait until all workers serve this generation."""
        return self.running.wait_for_workers(
            are_ready(WORKERS, generation), f"{WORKERS} workers on generation {generation}"
        )

    def pid_of(self, incarnation: int) -> int:
        """Of a living worker."""
        found = [one for one in self.running.workers() if one["incarnation"] == incarnation]
        return int(found[0]["pid"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Ended after the last case."""
    one = Site(tmp_path_factory.mktemp("faults"))
    try:
        one.running.start()
        yield one
    finally:
        one.running.end()
        one.target.close()


class Case:
    """Long connections through each worker and new ones all the time, around one fault."""

    def __init__(self, site: Site, step: Step, what: What) -> None:
        self.before = site.generation()
        ready = sorted(incarnations(site.settle(self.before)))
        # The first Commit goes to the worker that came first: the second stands between two.
        self.victim = ready[1]
        self.long = one_for_each(site.port, set(ready))
        self.killed = site.running.status()["totals"]["killed"]
        self.site = site
        fault = Fault(step=step, what=what, victim=self.victim)
        pending = site.fault_path.with_suffix(".new")
        pending.write_bytes(msgspec.json.encode(fault))
        pending.rename(site.fault_path)
        self.dialler = Dialler(site.port)

    def __enter__(self) -> Case:
        self.dialler.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.dialler.stop()
        for one in self.long:
            one.close()

    def restart(self) -> dict[str, Any]:
        """What is noted of the victim's end, once its last words have been waited for."""

        def look() -> dict[str, Any]:
            restarts: list[dict[str, Any]] = self.site.running.status()["restarts"]
            return next((one for one in restarts if one["incarnation"] == self.victim), {})

        return wait_until(look, "the end is noted")

    def lost(self, workers: int) -> dict[str, int]:
        """What forced ends cost since the case began, once there were that many."""
        killed = self.site.running.status()["totals"]["killed"]
        lost = {key: killed[key] - self.killed[key] for key in killed}
        return lost if lost["workers"] == workers else {}

    def end(self, generation: int, *, is_victim_lost: bool) -> None:
        """All serve one generation, and only the victim's connections may have failed."""
        self.site.settle(generation)
        assert not self.site.fault_path.exists(), "the fault has happened"
        assert self.site.generation() == generation
        for one in self.long:
            if one.worker != self.victim or not is_victim_lost:
                assert one.echoes(), f"connection of worker {one.worker}"
        served = self.dialler.served
        wait_until(lambda: self.dialler.served > served + 5, "new connections are served")
        self.dialler.stop()
        unknown = [one for one in self.dialler.failures if one.worker is None]
        others = [one for one in self.dialler.failures if one.worker not in (None, self.victim)]
        assert not others, self.dialler.failures
        lost = wait_until(lambda: self.lost(int(is_victim_lost)), "its account is closed")
        assert len(unknown) <= lost["accepted"] - lost["ended"], self.dialler.failures
        assert is_victim_lost or not self.dialler.failures, self.dialler.failures


@pytest.mark.parametrize("step", STEPS)
def test_killed(site: Site, step: Step) -> None:
    """kill -9 of one worker vetoes nothing: the others commit, its successor serves the same."""
    with Case(site, step, "kill") as case:
        reply = site.reload()
        assert reply.exit_code == 0, reply
        case.end(case.before + 1, is_victim_lost=True)
        restart = case.restart()
        status = site.running.status()
    assert restart["kind"] == "killed"
    assert restart["accepted"] >= restart["dialled"] > 0
    assert status["last_reload"]["ok"] is True


@pytest.mark.parametrize("step", STEPS)
def test_stopped_and_woken(site: Site, step: Step) -> None:
    """A worker that is stopped at this step and beats again later serves what it had missed."""
    with Case(site, step, "stop") as case:
        sleeper = site.pid_of(case.victim)
        reply = site.reload()
        assert reply.exit_code == 0, reply
        site.running.wait_for_workers(
            lambda workers: any(one["state"] == "silent" for one in workers), "it is silent"
        )
        os.kill(sleeper, signal.SIGCONT)
        case.end(case.before + 1, is_victim_lost=False)
        assert case.victim in incarnations(site.running.workers())


@pytest.mark.parametrize("step", STEPS)
def test_stopped_for_good(site: Site, step: Step) -> None:
    """A worker that stays stopped is replaced by the watchdog; its successor serves the same."""
    with Case(site, step, "stop") as case:
        assert site.reload().exit_code == 0
        site.running.wait_for_workers(
            lambda workers: all(one["incarnation"] != case.victim for one in workers),
            "it is replaced",
        )
        case.end(case.before + 1, is_victim_lost=True)
        restart = case.restart()
    assert (restart["kind"], restart["reason"]) == ("hung", "silent for 3 s")


@pytest.mark.parametrize("step", STEPS[:2])
def test_refuses_before_the_first_commit(site: Site, step: Step) -> None:
    """A refusal keeps the old generation everywhere; the answer and `status` say why."""
    with Case(site, step, "refuse") as case:
        reply = site.reload()
        assert reply.exit_code == 1, reply
        assert any("999999" in error.message for error in reply.errors)
        case.end(case.before, is_victim_lost=False)
        assert case.victim in incarnations(site.running.workers())
        last = site.running.status()["last_reload"]
    assert last["ok"] is False
    assert "999999" in last["errors"][0]["message"]
    assert site.reload().exit_code == 0


@pytest.mark.parametrize("step", STEPS[2:])
def test_refuses_once_it_is_final(site: Site, step: Step) -> None:
    """Who cannot follow what is committed is replaced; `status` says who and why."""
    with Case(site, step, "refuse") as case:
        assert site.reload().exit_code == 0
        restart = case.restart()
        # It drains, whether it had committed or not: nobody is cut off.
        site.running.wait_for_workers(
            lambda workers: (
                sorted(one["state"] for one in workers) == ["draining", "ready", "ready", "ready"]
            ),
            "its successor is there, and it drains",
        )
        assert all(one.echoes() for one in case.long)
        for one in case.long:
            one.close()
        case.long = []
        case.end(case.before + 1, is_victim_lost=False)
    assert restart["kind"] == "outdated"
    assert "999999" in restart["reason"]


def test_two_generations_missed(site: Site) -> None:
    """A worker that slept through two generations, one of them begun, serves the last at once."""
    with Case(site, "after_prepared", "stop") as case:
        sleeper = site.pid_of(case.victim)
        assert site.reload().exit_code == 0
        assert site.reload().exit_code == 0
        os.kill(sleeper, signal.SIGCONT)
        case.end(case.before + 2, is_victim_lost=False)


def test_hups_coalesce_while_a_worker_is_stopped(site: Site) -> None:
    """However many HUPs come while a reload waits, they become one more, with the last content."""
    with Case(site, "before_prepare", "stop") as case:
        sleeper = site.pid_of(case.victim)
        waiting = threading.Thread(target=site.reload)
        waiting.start()
        wait_until(lambda: not site.fault_path.exists(), "the first reload waits")
        site.idle_s += 1
        site.running.write(site.config())
        for _ in range(20):
            site.running.signal(signal.SIGHUP)
        waiting.join(20.0)
        assert not waiting.is_alive()
        wait_until(lambda: site.generation() == case.before + 2, "one more reload")
        os.kill(sleeper, signal.SIGCONT)
        case.end(case.before + 2, is_victim_lost=False)


def test_long_connections_of_a_removed_route_are_told(site: Site) -> None:
    """The answer to a reload counts what goes on and what drains, over all workers."""
    generation = site.generation()
    ready = incarnations(site.settle(generation))
    kept = one_for_each(site.port, ready)
    removed = [LongConnection(site.other) for _ in range(2)]
    try:
        config = site.config()
        del config["routes"][1]
        site.running.write(config)
        reply = site.running.ask("reload")
        counted = {"kept": len(kept), "draining": len(removed)}
        assert reply.data["connections"] == counted
        assert all(one.echoes() for one in [*kept, *removed])
    finally:
        for one in [*kept, *removed]:
            one.close()
