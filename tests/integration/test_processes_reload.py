"""Reloads, with real processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.conftest import StartProxyctl
from tests.helpers.ports import free_port, free_ports
from tests.helpers.processes import Proxyctl, config_of
from tests.helpers.sockets import EchoServer, connect, echoes, exchange, is_refused, occupied_port
from tests.helpers.waiting import wait_until


def generation(running: Proxyctl) -> int:
    """That the supervisor serves."""
    return int(running.status()["generation"])


def test_hup_adds_and_removes_routes(proxyctl: StartProxyctl, echo: EchoServer) -> None:
    """HUP brings a new port and takes an old one away; no worker and no connection changes."""
    kept, removed, added = free_ports(3)
    running = proxyctl(config_of({"kept": (kept, echo.address), "old": (removed, echo.address)}))
    pids = running.ready_pids()
    with connect(kept) as client:
        assert exchange(client, b"before") == b"before"
        running.write(config_of({"kept": (kept, echo.address), "new": (added, echo.address)}))
        running.signal(signal.SIGHUP)
        wait_until(lambda: generation(running) == 2, "generation 2")
        assert all(echoes(added) for _ in range(8))
        wait_until(lambda: is_refused(removed), "the old port is closed")
        assert exchange(client, b"after") == b"after"
    status = running.status()
    assert status["last_reload"]["result"] == "ok"
    assert status["last_reload"]["summary"] == "+1 route, -1"
    assert status["listeners"] == [f"127.0.0.1:{port}" for port in (kept, added)]
    assert running.ready_pids() == pids
    assert all(worker["generation"] == 2 for worker in running.workers())


def test_reload_command_answers_with_the_outcome(proxyctl: StartProxyctl, echo: EchoServer) -> None:
    """`reload` waits, and tells which routes are new, changed and gone."""
    first, second = free_ports(2)
    running = proxyctl(config_of({"a": (first, echo.address), "b": (second, echo.address)}))
    changed = config_of({"a": (first, echo.address), "c": (second, echo.address)})
    changed["routes"][0]["action"]["timeouts"] = {"idle": "5m"}
    running.write(changed)
    code, document = running.run("reload")
    assert code == 0
    assert document["data"]["generation"] == 2
    changes = {"added": ["c"], "changed": ["a"], "removed": ["b"], "reordered": False}
    assert document["data"]["routes"] == changes
    assert echoes(second)


def test_bad_config_keeps_everything(proxyctl: StartProxyctl, echo: EchoServer) -> None:
    """A config with an error is refused with its place; the old one serves on, status is 4."""
    port = free_port()
    running = proxyctl(config_of({"a": (port, echo.address)}))
    bad = config_of({"a": (port, echo.address)})
    bad["routes"][0]["tragets"] = []
    running.write(bad)
    code, document = running.run("reload")
    assert code == 1
    assert "tragets" in document["errors"][0]["message"]
    assert document["data"]["generation"] == 1
    assert document["errors"][0]["file"] == str(running.config_path)
    assert echoes(port)
    code, document = running.run("status")
    assert code == 4
    assert document["data"]["last_reload"]["result"] == "refused"
    running.write(config_of({"a": (port, echo.address)}))
    assert running.run("reload")[0] == 0
    assert running.run("status")[0] == 0


def test_taken_port_refuses_the_reload(proxyctl: StartProxyctl, echo: EchoServer) -> None:
    """A port that cannot be bound refuses the reload, and what was bound before it is closed."""
    port, free = free_ports(2)
    running = proxyctl(config_of({"a": (port, echo.address)}))
    with occupied_port() as taken:
        routes = {
            "a": (port, echo.address),
            "b": (free, echo.address),
            "c": (taken, echo.address),
        }
        running.write(config_of(routes))
        code, document = running.run("reload")
        assert code == 1
        assert f"127.0.0.1:{taken}" in document["errors"][0]["message"]
        assert is_refused(free)
    assert echoes(port)
    assert generation(running) == 1


def test_port_that_returns_is_served_again(proxyctl: StartProxyctl, echo: EchoServer) -> None:
    """A port that leaves and comes back with the next reload is served as if nothing was."""
    kept, moving = free_ports(2)
    both = config_of({"a": (kept, echo.address), "b": (moving, echo.address)})
    running = proxyctl(both)
    for _ in range(2):
        running.write(config_of({"a": (kept, echo.address)}))
        assert running.run("reload")[0] == 0
        running.write(both)
        assert running.run("reload")[0] == 0
        assert all(echoes(moving) for _ in range(4))
    running.write(config_of({"a": (kept, echo.address)}))
    assert running.run("reload")[0] == 0
    wait_until(lambda: is_refused(moving), "the port is closed")
    running.write(both)
    assert running.run("reload")[0] == 0
    assert all(echoes(moving) for _ in range(4))


def test_wider_listen_address_takes_over(proxyctl: StartProxyctl, echo: EchoServer) -> None:
    """A port moves from 127.0.0.1 to 0.0.0.0 although we ourselves hold it meanwhile."""
    port = free_port()
    running = proxyctl(config_of({"a": (port, echo.address)}))
    running.write(config_of({"a": (port, echo.address)}, listen=["0.0.0.0"]))
    code, document = running.run("reload")
    assert code == 0, document
    assert running.status()["listeners"] == [f"0.0.0.0:{port}"]
    wait_until(lambda: echoes(port), "served by the wider address")


def test_hups_in_a_row_become_few_reloads(proxyctl: StartProxyctl, echo: EchoServer) -> None:
    """However many HUPs come, the last config is served in the end and every worker is ready."""
    port, other = free_ports(2)
    running = proxyctl(config_of({"a": (port, echo.address)}))
    for _ in range(10):
        running.signal(signal.SIGHUP)
    running.write(config_of({"a": (port, echo.address), "b": (other, echo.address)}))
    running.signal(signal.SIGHUP)
    wait_until(lambda: len(running.status()["listeners"]) == 2, "the last config is served")
    assert echoes(other)
    assert generation(running) <= 12
    assert len(running.ready_pids()) == 2


def test_reload_goes_on_while_a_worker_dies(proxyctl: StartProxyctl, echo: EchoServer) -> None:
    """A worker killed around a reload vetoes nothing; its successor serves the new generation."""
    port, other = free_ports(2)
    running = proxyctl(config_of({"a": (port, echo.address)}))
    victim = running.ready_pids()[0]
    running.write(config_of({"a": (port, echo.address), "b": (other, echo.address)}))
    os.kill(victim, signal.SIGSTOP)
    running.signal(signal.SIGHUP)
    os.kill(victim, signal.SIGKILL)
    running.wait_for_workers(
        lambda workers: (
            [(worker["state"], worker["generation"]) for worker in workers] == [("ready", 2)] * 2
        ),
        "all serve generation 2",
    )
    assert all(echoes(other) for _ in range(8))


def test_usr1_reopens_the_log_files(
    proxyctl: StartProxyctl, echo: EchoServer, tmp_path: Path
) -> None:
    """After a rotation USR1 makes supervisor and workers write to the new file."""
    log = tmp_path / "proxyctl.log"
    settings = {"file": str(log), "level": "debug", "format": "json"}
    running = proxyctl(config_of({"a": (free_port(), echo.address)}, log=settings))
    wait_until(log.exists, "the log file is there")
    log.rename(tmp_path / "proxyctl.log.1")
    running.signal(signal.SIGUSR1)
    wait_until(lambda: log.exists() and '"workers":"2/2"' in log.read_text(), "all acknowledged")
    os.kill(running.ready_pids()[0], signal.SIGKILL)
    wait_until(lambda: "SIGKILL" in log.read_text(), "the new file is written")


def test_reload_changes_the_number_of_workers(proxyctl: StartProxyctl, echo: EchoServer) -> None:
    """`workers` of a file that changed counts; --workers wins over it."""
    port = free_port()
    config = config_of({"a": (port, echo.address)}, workers=1, max_workers=2)
    running = proxyctl(config, workers=None)
    assert len(running.ready_pids()) == 1
    running.write({**config, "workers": 2})
    assert running.run("reload")[0] == 0
    running.wait_for_workers(
        lambda workers: [worker["state"] for worker in workers] == ["ready"] * 2, "two are ready"
    )
    running.write({**config, "workers": 2, "max_workers": 4})
    code, document = running.run("reload")
    assert code == 0
    assert "max_workers" in document["warnings"][0]["path"]


def test_what_waits_for_the_next_start_is_said_at_each_reload(
    proxyctl: StartProxyctl, echo: EchoServer
) -> None:
    """Compared with what runs: until the file says that again, and not when it does."""
    routes = {"a": (free_port(), echo.address)}
    config = config_of(routes, workers=1, max_workers=2)
    changed = {"admin": {"listen": f"127.0.0.1:{free_port()}"}, "max_workers": 4, "workers": 3}
    running = proxyctl(config, workers=None)

    def warned() -> list[str]:
        code, document = running.run("reload")
        assert code == 0, document
        return sorted(warning["path"] for warning in document["warnings"])

    running.write({**config, **changed})
    for _ in range(2):
        assert warned() == ["admin.listen", "max_workers", "workers"]
    running.write(config)
    assert warned() == []
