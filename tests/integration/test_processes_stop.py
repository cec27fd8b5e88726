"""Stops that are asked for again, hurried, or watched while they go on, with real processes."""

from __future__ import annotations

import json
import signal
import subprocess

import pytest

from supervisor.cli import stopping, views
from tests.conftest import StartProxyctl
from tests.helpers.ports import free_port, free_ports
from tests.helpers.processes import PROXYCTL, Proxyctl, config_of, readiness
from tests.helpers.sockets import EchoServer, connect, exchange, is_refused
from tests.helpers.waiting import wait_until


def begin_stop(running: Proxyctl, *arguments: str) -> subprocess.Popen[str]:
    """`proxyctl stop` in a process of its own."""
    place = ["--runtime-dir", str(running.runtime_dir)]
    command = [*PROXYCTL, "stop", *arguments, "--json", *place]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_stop_waits_for_the_delay_too(
    proxyctl: StartProxyctl, echo: EchoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline of `stop --timeout` begins only when `shutdown_delay` is over."""
    timeouts = {"shutdown_delay": "2s"}
    running = proxyctl(config_of({"a": (free_port(), echo.address)}, timeouts=timeouts))
    monkeypatch.setattr(stopping, "_MARGIN_S", 1.5)
    reply = stopping.stop(running.runtime_dir, 0.0, now=False)
    assert (reply.exit_code, reply.errors) == (0, [])
    assert running.wait() == 0


def test_a_second_stop_brings_the_deadline_nearer(
    proxyctl: StartProxyctl, echo: EchoServer
) -> None:
    """Both are answered with what there was; one that allows more time changes nothing."""
    port = free_port()
    running = proxyctl(config_of({"a": (port, echo.address)}))
    with connect(port) as kept:
        assert exchange(kept, b"x") == b"x"
        with connect(port) as leaving, begin_stop(running, "--timeout", "5m") as first:
            assert exchange(leaving, b"x") == b"x"
            wait_until(lambda: is_refused(port), "the port is closed")
            assert exchange(kept, b"y") == b"y"
            leaving.close()
            wait_until(lambda: running.status()["connections"] == 1, "one has left")
            with begin_stop(running, "--timeout", "10m") as later:
                code, document = running.run("stop", "--timeout", "200ms")
                assert (code, document["data"]) == (0, {"drained": 1, "cut": 1})
                for one in (first, later):
                    output, _ = one.communicate(timeout=20)
                    assert json.loads(output)["data"] == document["data"]
    assert running.wait() == 0


def test_a_stop_under_way_is_shown(proxyctl: StartProxyctl, echo: EchoServer) -> None:
    """By `status`, and by `/readyz` while connections drain as well."""
    port, admin = free_ports(2)
    config = config_of({"a": (port, echo.address)}, admin={"listen": f"127.0.0.1:{admin}"})
    running = proxyctl(config, workers=1)
    assert "stopping" not in views.status(running.status())
    with connect(port) as client:
        assert exchange(client, b"x") == b"x"
        running.signal(signal.SIGTERM)
        wait_until(lambda: running.status()["workers"]["draining"] == 1, "it drains")
        assert "stopping     a stop has begun" in views.status(running.status()).splitlines()
        assert readiness(admin) == (503, b"not ready: a stop has begun\n")
    assert running.wait() == 0


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_a_start_that_is_interrupted_ends_quietly(
    proxyctl: StartProxyctl, echo: EchoServer, how: signal.Signals
) -> None:
    """Workers whose Hello comes when the ports are closed already are given nothing."""
    for _ in range(3):
        config = config_of({"a": (free_port(), echo.address)})
        running = proxyctl(config, workers=4, is_ready_expected=False)
        wait_until(lambda one=running: "listening" in one.output(), "it listens")  # type: ignore[misc]
        running.signal(how)
        assert running.wait() == 0
        assert "Traceback" not in running.log() + running.output()
        assert '"level":"error"' not in running.log()


def test_a_second_stop_counts_before_the_drain_has_begun(
    proxyctl: StartProxyctl, echo: EchoServer
) -> None:
    """Within `shutdown_delay` as well."""
    port = free_port()
    config = config_of({"a": (port, echo.address)}, timeouts={"shutdown_delay": "1s"})
    running = proxyctl(config)
    with connect(port) as client:
        assert exchange(client, b"x") == b"x"
        running.signal(signal.SIGTERM)
        wait_until(lambda: running.status()["stopping"], "the stop has begun")
        code, document = running.run("stop", "--timeout", "0")
        assert (code, document["data"]) == (0, {"drained": 0, "cut": 1})
    assert running.wait() == 0
