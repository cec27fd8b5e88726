"""Workers that lost their supervisor: what of a dead one still counts, and what their stop says."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from supervisor.cli.client import ask
from supervisor.orphans import find
from supervisor.runtime_dir import orphans
from tests.conftest import StartProxyctl
from tests.helpers.named_echo import LongConnection, named_route, one_for_each, serve
from tests.helpers.ports import free_port, free_ports
from tests.helpers.processes import PROXYCTL, Config, Proxyctl
from tests.helpers.sockets import is_refused
from tests.helpers.targets import Target
from tests.helpers.waiting import wait_until

MOST = 12


@pytest.fixture
def target() -> Iterator[Target]:
    """Tells each connection which worker has it."""
    with closing(Target(serve)) as one:
        yield one


def config_of(target: Target, port: int, most: int = 0) -> Config:
    """One route; ``most``: connections at one time, in all and from one address."""
    limits = {"max_connections": most, "max_connections_per_ip": most} if most else {}
    return {
        "listen": ["127.0.0.1"],
        "admin": None,
        "max_workers": 3,
        "security": limits,
        "routes": [{**named_route("a", [port], target), "security": limits}],
    }


def is_served(port: int, stack: ExitStack) -> bool:
    """Whether one more connection is let in; it stays open."""
    try:
        stack.enter_context(closing(LongConnection(port)))
    except (OSError, AssertionError):
        return False
    return True


def open_in(running: Proxyctl) -> list[int]:
    """Connections that each orphan has, as it says itself."""
    found = find(running.runtime_dir)
    with ExitStack() as stack:
        return [stack.enter_context(closing(one)).counts().open for one in found]


def listens(port: int) -> bool:
    """Whether any socket listens there; a dial would be a connection that counts."""
    own = f":{port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return any(line[1].endswith(own) and line[3] == "0A" for line in lines)


def lose_supervisor(running: Proxyctl, *victims: int) -> None:
    """Kill it, and these workers at the same moment; the others know of it afterwards."""
    pids = set(running.ready_pids())
    running.signal(signal.SIGSTOP)  # it must not see what becomes of its workers
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    running.signal(signal.SIGKILL)
    running.wait()
    left = pids - set(victims)
    wait_until(lambda: set(orphans(running.runtime_dir)) == left, "the others know")


@pytest.mark.parametrize("when", ["with the supervisor", "as an orphan"])
def test_connections_of_a_killed_orphan_stop_counting(
    proxyctl: StartProxyctl, target: Target, when: str
) -> None:
    """Nobody but the other workers can clear what it counted, whether it was an orphan by then."""
    port = free_port()
    running = proxyctl(config_of(target, port, MOST), workers=3)
    workers = {one["incarnation"]: one["pid"] for one in running.workers()}
    with ExitStack() as stack:
        for one in one_for_each(port, set(workers)):
            stack.enter_context(closing(one))
        wait_until(lambda: not is_served(port, stack), "all that may be are open")
        victim = workers[min(workers)]
        if when == "with the supervisor":
            lose_supervisor(running, victim)
        else:
            lose_supervisor(running)
            assert not is_served(port, stack)
            os.kill(victim, signal.SIGKILL)
        wait_until(lambda: is_served(port, stack), "its share is free")
        wait_until(lambda: not is_served(port, stack), "and no more than that")
        others = set(workers.values()) - {victim}
        assert set(orphans(running.runtime_dir)) == others


def test_stop_of_orphans_says_what_it_drained_and_cut(
    proxyctl: StartProxyctl, target: Target
) -> None:
    """What ends by itself is drained, what stays is cut at the deadline, over all of them."""
    port = free_port()
    running = proxyctl(config_of(target, port), workers=2)
    with ExitStack() as stack:
        kept = [stack.enter_context(closing(LongConnection(port))) for _ in range(7)]
        lose_supervisor(running)
        stop = subprocess.Popen(
            [*PROXYCTL, "stop", "--timeout", "5s", "--runtime-dir", str(running.runtime_dir)],
            stdout=subprocess.PIPE,
            text=True,
        )
        with stop:
            wait_until(lambda: not listens(port), "the drain has begun")
            for one in kept[:4]:
                one.close()
            said, _ = stop.communicate(timeout=60)
    assert stop.returncode == 0
    line = "stopped: 4 connections drained, 3 cut at the deadline; 2 workers had no supervisor"
    assert said.strip() == line
    assert running.alive() == []


def test_orphan_that_hangs_is_killed_by_the_stop(proxyctl: StartProxyctl, target: Target) -> None:
    """No watchdog ends it; what it held is counted as cut."""
    port = free_port()
    running = proxyctl(config_of(target, port), workers=2)
    hung, _ = workers = running.ready_pids()
    numbers = {one["pid"]: one["incarnation"] for one in running.workers()}
    with ExitStack() as stack:
        for one in one_for_each(port, {numbers[pid] for pid in workers}):
            stack.enter_context(closing(one))
        lose_supervisor(running)
        wait_until(lambda: open_in(running) == [1, 1], "both have noted what is open")
        os.kill(hung, signal.SIGSTOP)
        code, document = running.run("stop", "--now")
    assert code == 0, document
    assert document["data"] == {"orphans": sorted(workers), "drained": 0, "cut": 2}
    assert running.alive() == []


def drops_syns(port: int) -> bool:
    """Whether a dial gets no answer for a moment, or, on a busy machine, is refused by now."""
    try:
        socket.create_connection(("127.0.0.1", port), 0.15).close()
    except (TimeoutError, ConnectionRefusedError):
        return True
    return False


def test_no_port_is_left_without_an_answer(proxyctl: StartProxyctl, target: Target) -> None:
    """The supervisor is lost just when it keeps new SYNs from a port, for others to finish."""
    kept, removed = free_ports(2)
    everywhere = {"listen": ["0.0.0.0"]}  # where handshakes may take long: 1.2 s without new SYNs
    config = {**config_of(target, kept), **everywhere}
    other = {**named_route("b", [removed], target)}
    running = proxyctl({**config, "routes": [*config["routes"], other]}, workers=2)
    running.write(config)
    assert running.ask("reload").exit_code == 0
    wait_until(lambda: drops_syns(removed), "it is about to be closed")
    lose_supervisor(running)
    with ExitStack() as stack:
        assert is_served(kept, stack)
        assert is_served(removed, stack) or is_refused(removed)


def test_a_port_that_was_to_come_is_refused(proxyctl: StartProxyctl, target: Target) -> None:
    """It was bound for a generation that a worker had still to prepare."""
    port, coming = free_ports(2)
    config = config_of(target, port)
    running = proxyctl(config, workers=2)
    hung, _ = running.ready_pids()
    os.kill(hung, signal.SIGSTOP)
    running.write({**config, "routes": [*config["routes"], named_route("b", [coming], target)]})
    reload = threading.Thread(target=ask, args=(running.runtime_dir, "reload", {}, 1.0))
    reload.start()
    try:
        wait_until(lambda: listens(coming), "it is bound")
        running.signal(signal.SIGKILL)
        running.wait()
    finally:
        os.kill(hung, signal.SIGCONT)
        reload.join()
    wait_until(lambda: len(orphans(running.runtime_dir)) == 2, "both know")
    wait_until(lambda: is_refused(coming), "it is refused")
    with ExitStack() as stack:
        assert all(is_served(port, stack) for _ in range(20))


def test_a_supervisor_beside_orphans_tells_of_them(proxyctl: StartProxyctl, target: Target) -> None:
    """It starts on other ports: its log and `status` name them, and its stop ends them with it."""
    old, new = free_ports(2)
    first = proxyctl(config_of(target, old), workers=2)
    pids = sorted(first.ready_pids())
    with ExitStack() as stack:
        held = stack.enter_context(closing(LongConnection(old)))
        lose_supervisor(first)
        second = proxyctl(config_of(target, new), workers=1)
        named = f"(pid {pids[0]}, {pids[1]})"
        (line,) = (one for one in second.log().splitlines() if named in one)
        assert "2 workers of an earlier run have no supervisor" in line
        assert "proxyctl stop" in line
        assert "warning" in line
        assert second.status()["orphans"] == pids
        told = subprocess.run(
            [*PROXYCTL, "status", "--runtime-dir", str(second.runtime_dir)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert f"2 workers of an earlier run {named} without a supervisor" in told.stdout
        other = stack.enter_context(closing(LongConnection(new)))
        stop = subprocess.Popen(
            [*PROXYCTL, "stop", "--timeout", "5s", "--runtime-dir", str(second.runtime_dir)],
            stdout=subprocess.PIPE,
            text=True,
        )
        with stop:
            wait_until(lambda: not listens(old) and not listens(new), "both drain")
            assert held.echoes()
            assert other.echoes()
            held.close()
            said, _ = stop.communicate(timeout=60)
    assert stop.returncode == 0
    line = "stopped: 1 connection drained, 1 cut at the deadline; 2 workers had no supervisor"
    assert said.strip() == line
    assert first.alive() == second.alive() == []


def test_orphans_that_one_drains_alone(proxyctl: StartProxyctl, target: Target) -> None:
    """TERM to each leaves the new supervisor as it is, and its stop has nothing more to say."""
    old, new = free_ports(2)
    first = proxyctl(config_of(target, old), workers=2)
    lose_supervisor(first)
    second = proxyctl(config_of(target, new), workers=1)
    for pid in second.status()["orphans"]:
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: second.status()["orphans"] == [], "they have ended")
    with ExitStack() as stack:
        assert is_served(new, stack)
    code, document = second.run("stop", "--now")
    assert code == 0
    assert "orphans" not in document["data"]
