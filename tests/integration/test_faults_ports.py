"""Ports that come, go, return and move while somebody dials them all the time."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator

import pytest
import zmq

from shared.messages import Request, decode_reply, encode
from shared.runtime_files import CONTROL_SOCKET
from tests.conftest import StartProxyctl
from tests.helpers.named_echo import Dialler, LongConnection, are_ready, named_route, serve
from tests.helpers.ports import free_port, free_ports, free_range
from tests.helpers.processes import Config
from tests.helpers.sockets import is_refused, occupied_port
from tests.helpers.targets import Target
from tests.helpers.waiting import wait_until

RETIRED_S = 4.0  # within which a removed port is refused (design section 2)
GONE_S = 5.0  # within which an answer is read, or its reader is gone
RANGE = 6


@pytest.fixture
def target() -> Iterator[Target]:
    """Tells each connection which worker has it."""
    one = Target(serve)
    yield one
    one.close()


def config_of(target: Target, ports: list[int | str], listen: str = "127.0.0.1") -> Config:
    """Each port with a route of its own."""
    routes = [named_route(f"on-{port}", [port], target) for port in ports]
    return {"listen": [listen], "admin": None, "max_workers": 3, "routes": routes}


def serves_on(dialler: Dialler) -> None:
    """Wait until it has been served some more."""
    before = dialler.served
    wait_until(lambda: dialler.served > before + 20, "it is served on")


def refused_in_time(port: int) -> None:
    """Wait until nobody listens there any more."""
    wait_until(lambda: is_refused(port), f"{port} is refused", RETIRED_S)


def test_removed_port_serves_until_the_answer_has_been_read(
    proxyctl: StartProxyctl, target: Target
) -> None:
    """However late its reader is; one that is gone is waited for no longer than some seconds."""
    kept, removed = free_ports(2)
    running = proxyctl(config_of(target, [kept, removed]))
    late_s = RETIRED_S - 0.5  # without a receipt it is refused by now
    with Dialler(removed) as dialler, zmq.Context() as context, context.socket(zmq.REQ) as caller:
        serves_on(dialler)
        running.write(config_of(target, [kept]))
        caller.setsockopt(zmq.LINGER, 1000)
        caller.connect(f"ipc://{running.runtime_dir / CONTROL_SOCKET}")
        caller.send(encode(Request(verb="reload", arguments={"receipt": "mine"})))
        assert decode_reply(caller.recv()).exit_code == 0
        end = time.monotonic() + late_s
        wait_until(lambda: dialler.failures or time.monotonic() > end, "it is late")
        caller.send(encode(Request(verb="received", arguments={"receipt": "mine"})))
        read = time.monotonic()
        assert decode_reply(caller.recv()).exit_code == 0
        refused_in_time(removed)
        wait_until(lambda: dialler.failures, "its clients see it")
        dialler.stop()
        assert all(one.began > read and one.is_refused for one in dialler.failures)
    running.write(config_of(target, [kept, removed]))
    assert running.ask("reload").exit_code == 0
    running.write(config_of(target, [kept]))
    with zmq.Context() as context, context.socket(zmq.REQ) as caller:
        caller.connect(f"ipc://{running.runtime_dir / CONTROL_SOCKET}")
        caller.send(encode(Request(verb="reload", arguments={"receipt": "lost"})))
        assert decode_reply(caller.recv()).exit_code == 0
    wait_until(lambda: is_refused(removed), "it is refused", GONE_S + RETIRED_S)


def test_removed_port_serves_what_was_dialled_before(
    proxyctl: StartProxyctl, target: Target
) -> None:
    """Whoever dialled before the reload answered is served; soon after the port is refused."""
    kept, removed = free_ports(2)
    running = proxyctl(config_of(target, [kept, removed]))
    with Dialler(kept) as others, Dialler(removed) as dialler:
        long = LongConnection(removed)
        serves_on(dialler)
        running.write(config_of(target, [kept]))
        assert running.ask("reload").exit_code == 0
        answered = time.monotonic()
        refused_in_time(removed)
        wait_until(lambda: dialler.failures, "its clients see it")
        dialler.stop()
        assert all(one.began > answered and one.is_refused for one in dialler.failures)
        assert long.echoes()  # within `drain`
        long.close()
    assert not others.failures


def test_port_that_returns_while_it_retires_loses_nothing(
    proxyctl: StartProxyctl, target: Target
) -> None:
    """A port that a reload takes away and the next one brings back serves every dial."""
    kept, moving = free_ports(2)
    running = proxyctl(config_of(target, [kept, moving]))
    with Dialler(moving) as dialler:
        serves_on(dialler)
        for _ in range(3):
            running.write(config_of(target, [kept]))
            assert running.ask("reload").exit_code == 0
            running.write(config_of(target, [kept, moving]))
            assert running.ask("reload").exit_code == 0
        serves_on(dialler)
    assert not dialler.failures


def test_refused_reload_lets_nobody_in_at_its_new_ports(
    proxyctl: StartProxyctl, target: Target
) -> None:
    """Those opened before the one that another program has would reset whom they accepted."""
    kept, first, *others = free_ports(100)
    running = proxyctl(config_of(target, [kept]))
    with occupied_port() as taken, Dialler(first) as dialler:
        running.write(config_of(target, [kept, first, *others, taken]))
        for _ in range(8):
            assert running.ask("reload").exit_code == 1
        dialler.stop()
    assert dialler.failures
    assert dialler.served == 0
    assert all(one.is_refused for one in dialler.failures), dialler.failures


def test_refused_reload_leaves_a_retiring_port_what_waits_there(
    proxyctl: StartProxyctl, target: Target
) -> None:
    """A reload that would bring a port back, and is refused, takes nothing from whoever waits."""
    kept, removed = free_ports(2)
    running = proxyctl(config_of(target, [kept, removed]), workers=1)
    running.write(config_of(target, [kept]))
    assert running.ask("reload").exit_code == 0
    waiting = socket.create_connection(("127.0.0.1", removed), RETIRED_S)
    with occupied_port() as taken, waiting:
        running.write(config_of(target, [kept, removed, taken]))
        assert running.ask("reload").exit_code == 1
        waiting.sendall(b"early")
        assert waiting.recv(1)
    refused_in_time(removed)


def test_changed_listen_address_loses_nothing(proxyctl: StartProxyctl, target: Target) -> None:
    """From 0.0.0.0 to 127.0.0.1 and back, and a refused attempt: every dial is served."""
    (port,) = free_ports(1)
    running = proxyctl(config_of(target, [port], "0.0.0.0"))
    with Dialler(port) as dialler:
        for listen in ("127.0.0.1", "0.0.0.0"):
            with occupied_port() as taken:
                running.write(config_of(target, [port, taken], listen))
                assert running.ask("reload").exit_code == 1
            running.write(config_of(target, [port], listen))
            assert running.ask("reload").exit_code == 0
            assert running.status()["listeners"] == [f"{listen}:{port}"]
            serves_on(dialler)
            wait_until(
                lambda: "listeners closed" in running.log().rpartition("reload ok")[2],
                "the other address has retired",
            )
            serves_on(dialler)
    assert not dialler.failures


def test_listen_moves_with_fewer_workers_than_slots(
    proxyctl: StartProxyctl, target: Target
) -> None:
    """New connections are steered there, and the way to the wildcard and back loses none."""
    (port,) = free_ports(1)
    config = config_of(target, [port])
    running = proxyctl({**config, "max_workers": 6}, workers=2)
    with Dialler(port) as dialler:
        for listen in ("0.0.0.0", "127.0.0.1") * 3:
            running.write({**config_of(target, [port], listen), "max_workers": 6})
            assert running.ask("reload").exit_code == 0
            assert running.status()["listeners"] == [f"{listen}:{port}"]
            serves_on(dialler)
    assert not dialler.failures
    assert "cannot listen" not in running.log()


def test_a_worker_that_sleeps_through_a_changed_listen_follows(
    proxyctl: StartProxyctl, target: Target
) -> None:
    """Descriptors of the next generation come to it before it hears of that one: none is lost."""
    (port,) = free_ports(1)
    running = proxyctl(config_of(target, [port]), workers=3)
    with Dialler(port) as dialler:
        for _ in range(2):
            for listen in ("0.0.0.0", "127.0.0.1"):
                victim = running.ready_pids()[0]
                os.kill(victim, signal.SIGSTOP)
                try:
                    running.write(config_of(target, [port], listen))
                    assert running.ask("reload").exit_code == 0
                finally:
                    os.kill(victim, signal.SIGCONT)
                running.write(config_of(target, [port], "127.0.0.1"))
                assert running.ask("reload").exit_code == 0
                generation = int(running.status()["generation"])
                workers = running.wait_for_workers(are_ready(3, generation), "all follow")
                assert victim in [worker["pid"] for worker in workers]
    assert not dialler.failures


def test_ranges_come_and_go(proxyctl: StartProxyctl, target: Target) -> None:
    """A range is added and removed as a whole; its ports serve and refuse alike."""
    kept, first = free_port(), free_range(RANGE)
    ports = range(first, first + RANGE)
    running = proxyctl(config_of(target, [kept]))
    with Dialler(kept) as dialler:
        running.write(config_of(target, [kept, f"{first}-{first + RANGE - 1}"]))
        assert running.ask("reload").exit_code == 0
        assert len(running.status()["listeners"]) == 1 + RANGE
        for port in ports:
            LongConnection(port).close()
        running.write(config_of(target, [kept]))
        assert running.ask("reload").exit_code == 0
        for port in ports:
            refused_in_time(port)
    assert not dialler.failures


def test_half_written_config_is_never_served(proxyctl: StartProxyctl, target: Target) -> None:
    """While the file is rewritten in place, a reload serves the old one or the new one."""
    kept, other = free_ports(2)
    both, one = config_of(target, [kept, other]), config_of(target, [kept])
    running = proxyctl(both)
    whole = running.config_path.read_bytes()
    with Dialler(kept) as dialler:
        for size in range(0, len(whole), len(whole) // 8):
            running.config_path.write_bytes(whole[:size])
            reply = running.ask("reload")
            assert reply.exit_code == 1
            assert len(running.status()["listeners"]) == 2
        running.write(one)
        assert running.ask("reload").exit_code == 0
    assert not dialler.failures
