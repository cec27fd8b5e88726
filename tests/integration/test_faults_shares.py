"""Even shares, whoever is there: real workers, real connections."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator

import pytest

from tests.conftest import StartProxyctl
from tests.helpers.named_echo import (
    Dialler,
    are_ready,
    named_route,
    serve,
)
from tests.helpers.ports import free_port
from tests.helpers.processes import Proxyctl
from tests.helpers.sockets import TIMEOUT_S
from tests.helpers.targets import HOSTS, Target, dual_ports
from tests.helpers.waiting import wait_until

CONNECTIONS = 2000  # with four fair workers, 0.8 is five standard deviations away
LEAST, MOST = 0.8, 1.25


@pytest.fixture
def target() -> Iterator[Target]:
    """Tells each connection which worker has it."""
    one = Target(serve)
    yield one
    one.close()


def accepted(running: Proxyctl) -> dict[int, int]:
    """Incarnation of a ready worker: connections that it has accepted."""
    return {
        worker["incarnation"]: worker["accepted"]
        for worker in running.workers()
        if worker["state"] == "ready"
    }


def assert_even(running: Proxyctl, port: int, host: str = HOSTS["v4"]) -> None:
    """Every ready worker gets its share of new connections, and nobody else any."""
    before = accepted(running)
    for _ in range(CONNECTIONS):
        socket.create_connection((host, port), TIMEOUT_S).close()

    def look() -> dict[int, int]:
        got = {worker: count - before[worker] for worker, count in accepted(running).items()}
        return got if sum(got.values()) >= CONNECTIONS else {}

    got = wait_until(look, "all of them are accepted by ready workers")
    shares = {worker: count * len(got) / sum(got.values()) for worker, count in got.items()}
    assert all(LEAST <= share <= MOST for share in shares.values()), shares


def test_shares_are_even_with_fewer_workers_than_slots(
    proxyctl: StartProxyctl, target: Target
) -> None:
    """1, 2, 3 and 4 workers of 4 slots share new connections evenly, on IPv4 and IPv6."""
    (port,) = dual_ports(1)
    config = {
        "listen": list(HOSTS.values()),
        "admin": None,
        "max_workers": 4,
        "routes": [named_route("a", [port], target)],
    }
    running = proxyctl(config, workers=1)
    for count in (2, 3, 4, 3):
        up = count > len(running.ready_pids())
        running.signal(signal.SIGTTIN if up else signal.SIGTTOU)
        running.wait_for_workers(are_ready(count), f"{count} workers")
        running.wait_for_workers(
            lambda workers: sum(len(worker["indexes"]) for worker in workers) == 4,
            "each socket has one poller",
        )
        for host in HOSTS.values():
            assert_even(running, port, host)


def test_shares_are_even_after_a_kill_a_hang_and_on_a_new_port(
    proxyctl: StartProxyctl, target: Target
) -> None:
    """Who is gone or silent gets nothing new, who is left or back gets a fair share."""
    port, other = free_port(), free_port()
    config = {
        "listen": [HOSTS["v4"]],
        "admin": None,
        "max_workers": 4,
        "timeouts": {"watchdog": "60s"},
        "routes": [named_route("a", [port], target)],
    }
    running = proxyctl(config, workers=3)
    victim, sleeper, _ = running.ready_pids()
    with Dialler(port) as dialler:
        os.kill(sleeper, signal.SIGSTOP)
        running.wait_for_workers(
            lambda workers: (
                [worker["state"] for worker in workers].count("silent") == 1
                and sum(len(one["indexes"]) for one in workers if one["state"] == "ready") == 4
                and not any(one["indexes"] for one in workers if one["state"] == "silent")
            ),
            "the others poll everything",
        )
        assert_even(running, port)
        config["routes"] = [named_route("a", [port], target), named_route("b", [other], target)]
        running.write(config)
        assert running.ask("reload").data["generation"] == 2
        assert_even(running, other)
        os.kill(sleeper, signal.SIGCONT)
        running.wait_for_workers(are_ready(3, generation=2), "it serves what it had missed")
        os.kill(victim, signal.SIGKILL)
        running.wait_for_workers(
            lambda workers: are_ready(3)(workers) and all(one["pid"] != victim for one in workers),
            "the killed one has a successor",
        )
        running.wait_for_workers(
            lambda workers: sum(len(worker["indexes"]) for worker in workers) == 4,
            "each socket has one poller",
        )
        assert_even(running, port)
        restart = wait_until(lambda: running.status()["restarts"], "its end is noted")[0]
    assert all(failure.worker in (None, 1) for failure in dialler.failures), dialler.failures
    assert len(dialler.failures) <= restart["accepted"] - restart["ended"], dialler.failures
    assert dialler.served
