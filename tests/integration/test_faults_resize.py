"""Workers that come and go by order, under load and with faults on the way."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conftest import StartProxyctl
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
from tests.helpers.processes import Config
from tests.helpers.targets import Target
from tests.helpers.waiting import wait_until

SLOTS = 3


@pytest.fixture
def target() -> Iterator[Target]:
    """Tells each connection which worker has it."""
    one = Target(serve)
    yield one
    one.close()


def config_of(target: Target, ports: list[int], **more: object) -> Config:
    """Each port with a route of its own."""
    routes = [named_route(f"on-{port}", [port], target) for port in ports]
    return {"listen": ["127.0.0.1"], "admin": None, "max_workers": SLOTS, "routes": routes, **more}


def states(*wanted: str) -> Callable[[list[dict[str, Any]]], bool]:
    """For `wait_for_workers`: exactly these, and every socket is polled by a ready one."""

    def look(workers: list[dict[str, Any]]) -> bool:
        if sorted(worker["state"] for worker in workers) != sorted(wanted):
            return False
        polled = [one["indexes"] for one in workers if one["state"] == "ready"]
        return sorted(index for indexes in polled for index in indexes) == list(range(SLOTS))

    return look


def without(incarnation: int) -> Callable[[list[dict[str, Any]]], bool]:
    """For `wait_for_workers`: this one has ended."""
    return lambda workers: all(one["incarnation"] != incarnation for one in workers)


def test_leaving_worker_keeps_what_it_has(proxyctl: StartProxyctl, target: Target) -> None:
    """It drains for as long as its connection lasts; meanwhile its slot gets a new worker."""
    (port,) = free_ports(1)
    running = proxyctl(config_of(target, [port]), workers=2)
    (_, leaving) = sorted(incarnations(running.workers()))
    long = one_for_each(port, {1, leaving})
    with Dialler(port) as dialler:
        for _ in range(2):
            running.signal(signal.SIGTTOU)
            running.wait_for_workers(states("draining", "ready"), "one drains")
            running.signal(signal.SIGTTIN)
            running.wait_for_workers(states("draining", "ready", "ready"), "its slot is used again")
            newest = max(incarnations(running.workers()))
            for one in long:
                assert one.echoes()
            running.signal(signal.SIGTTOU)
            running.wait_for_workers(without(newest), "the new one had nothing and is gone")
            running.signal(signal.SIGTTIN)
            running.wait_for_workers(states("draining", "ready", "ready"), "and once more")
        for one in long:
            one.close()
        running.wait_for_workers(states("ready", "ready"), "it has ended")
    assert not dialler.failures
    assert running.status()["restarts"] == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_leaving_worker_that_is_lost(
    proxyctl: StartProxyctl, target: Target, how: signal.Signals
) -> None:
    """One that is killed or hangs while it drains is accounted for, and nobody else is touched."""
    (port,) = free_ports(1)
    running = proxyctl(config_of(target, [port], timeouts={"watchdog": "2s"}), workers=2)
    long = one_for_each(port, {1, 2})
    with Dialler(port) as before:
        running.signal(signal.SIGTTOU)
        workers = running.wait_for_workers(states("draining", "ready"), "one drains")
    (victim,) = [one for one in workers if one["state"] == "draining"]
    # Nobody dials now: a short one that came just before it drained would be lost with it.
    os.kill(victim["pid"], how)
    with Dialler(port) as dialler:
        running.wait_for_workers(states("ready"), "it is gone")
        restarts = wait_until(lambda: running.status()["restarts"], "its end is noted")
    assert not before.failures + dialler.failures
    assert [one.echoes() for one in long] == [one.worker != victim["incarnation"] for one in long]
    (restart,) = restarts
    assert restart["kind"] == ("killed" if how == signal.SIGKILL else "hung")
    assert restart["incarnation"] == victim["incarnation"]
    lost = restart["accepted"] - restart["ended"]
    assert lost in (1, 2)  # 2: the last short one had ended, and it had not seen that yet
    killed = running.status()["totals"]["killed"]
    assert (killed["workers"], killed["accepted"] - killed["ended"]) == (1, lost)
    for one in long:
        one.close()


def test_reload_during_a_resize(proxyctl: StartProxyctl, target: Target) -> None:
    """Resizes and reloads at once: nothing fails, and all end on the last generation."""
    port, other = free_ports(2)
    running = proxyctl(config_of(target, [port]), workers=2)
    long = LongConnection(port)
    with Dialler(port) as dialler:
        for number in range(4):
            running.signal(signal.SIGTTIN if number % 2 == 0 else signal.SIGTTOU)
            running.write(config_of(target, [port, other] if number % 2 == 0 else [port]))
            assert running.ask("reload").exit_code == 0
        running.signal(signal.SIGTTIN)
        running.wait_for_workers(
            lambda workers: are_ready(SLOTS, generation=5)(
                [one for one in workers if one["state"] != "draining"]
            ),
            "all on one generation",
        )
        assert long.echoes()
        long.close()
    assert not dialler.failures


def test_every_socket_is_polled_when_two_hang_at_once(
    proxyctl: StartProxyctl, target: Target
) -> None:
    """Of three workers two are stopped; the one that is left serves everyone, long before the
    watchdog, and those that wake take their places again."""
    (port,) = free_ports(1)
    running = proxyctl(config_of(target, [port], timeouts={"watchdog": "60s"}), workers=SLOTS)
    pids = running.ready_pids()
    long = one_for_each(port, {1, 2, 3})
    with Dialler(port) as first, Dialler(port) as second, Dialler(port) as third:
        for pid in pids[:2]:
            os.kill(pid, signal.SIGSTOP)
        running.wait_for_workers(states("ready", "silent", "silent"), "one polls everything")
        diallers = (first, second, third)
        served = [one.served for one in diallers]
        with Dialler(port) as late:
            wait_until(lambda: late.served > 20, "who dials now is served")
        for pid in pids[:2]:
            os.kill(pid, signal.SIGCONT)
        running.wait_for_workers(states("ready", "ready", "ready"), "they take their places")
        wait_until(
            lambda: all(
                one.served > before + 5 for one, before in zip(diallers, served, strict=True)
            ),
            "whoever waited is served",
        )
    assert not any(one.failures for one in (*diallers, late))
    for one in long:
        assert one.echoes()
        one.close()
