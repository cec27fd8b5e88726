"""Starting and stopping, with real processes."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

from tests.conftest import StartProxyctl
from tests.helpers.ports import free_port, free_ports
from tests.helpers.processes import config_of
from tests.helpers.sockets import EchoServer, connect, echoes, exchange, is_refused, occupied_port
from tests.helpers.waiting import wait_until


def test_start_says_what_it_listens_on_and_serves(
    proxyctl: StartProxyctl, echo: EchoServer
) -> None:
    """One line per listener, one `ready` line, and a connection reaches the target."""
    first, second = free_ports(2)
    running = proxyctl(config_of({"a": (first, echo.address), "b": (second, echo.address)}))
    lines = running.output().splitlines()
    assert lines[:2] == [f"listening on 127.0.0.1:{port}" for port in (first, second)]
    assert lines[2].startswith("ready: 2 workers, 2 listeners, generation 1 (")
    assert echoes(first)
    assert echoes(second)


def test_status_and_workers_tell_what_runs(proxyctl: StartProxyctl, echo: EchoServer) -> None:
    """`status` and `workers` have the keys that programs rely on, and count connections."""
    port = free_port()
    running = proxyctl(config_of({"a": (port, echo.address)}))
    with connect(port) as client:
        assert exchange(client, b"counted") == b"counted"
        wait_until(lambda: running.status()["connections"] == 1, "one connection")
    wait_until(lambda: running.status()["connections"] == 0, "no connection")
    code, document = running.run("status")
    data = document["data"]
    assert code == 0
    assert data["supervisor"]["pid"] == running.pid
    assert data["generation"] == 1
    assert data["ready"] is True
    assert data["workers"]["ready"] == data["workers"]["wanted"] == 2
    assert data["totals"]["accepted"] == 1
    assert data["totals"]["routes"]["a"]["total"] == 1
    assert data["totals"]["targets"][echo.address]["received"] == len(b"counted")
    assert sum(data["totals"]["ends"].values()) == 1
    workers = running.workers()
    assert [worker["slot"] for worker in workers] == [0, 1]
    assert all(worker["state"] == "ready" and worker["generation"] == 1 for worker in workers)


def test_every_listening_socket_has_an_owner(proxyctl: StartProxyctl, echo: EchoServer) -> None:
    """With fewer workers than slots each socket index is polled by exactly one worker."""
    config = config_of({"a": (free_port(), echo.address)}, max_workers=5)
    running = proxyctl(config, workers=2)
    workers = running.wait_for_workers(
        lambda found: sum(len(worker["indexes"]) for worker in found) == 5, "all assigned"
    )
    polled = sorted(index for worker in workers for index in worker["indexes"])
    assert polled == [0, 1, 2, 3, 4]
    assert {len(worker["indexes"]) for worker in workers} == {2, 3}


def test_term_drains_what_is_open(proxyctl: StartProxyctl, echo: EchoServer) -> None:
    """After TERM the port is refused while an open connection goes on to its own end."""
    port = free_port()
    running = proxyctl(config_of({"a": (port, echo.address)}))
    with connect(port) as client:
        assert exchange(client, b"before") == b"before"
        running.signal(signal.SIGTERM)
        wait_until(lambda: is_refused(port), "the port is closed")
        assert exchange(client, b"after") == b"after"
        assert running.exit_code() is None
    assert running.wait() == 0
    assert "stopped: 1 connection drained, 0 cut at the deadline" in running.output()
    assert running.alive() == []


def test_stop_cuts_at_the_deadline(proxyctl: StartProxyctl, echo: EchoServer) -> None:
    """`stop --timeout` ends what is still open after that long, and says how many."""
    port = free_port()
    running = proxyctl(config_of({"a": (port, echo.address)}))
    with connect(port) as client:
        assert exchange(client, b"x") == b"x"
        code, document = running.run("stop", "--timeout", "200ms")
        assert code == 0
        assert document["data"] == {"drained": 0, "cut": 1}
        assert running.wait() == 0


def test_second_term_ends_at_once(proxyctl: StartProxyctl, echo: EchoServer) -> None:
    """A second TERM cuts what the first one lets drain, and the exit code is 0 all the same."""
    port = free_port()
    running = proxyctl(config_of({"a": (port, echo.address)}))
    with connect(port) as client:
        assert exchange(client, b"x") == b"x"
        running.signal(signal.SIGTERM)
        wait_until(lambda: is_refused(port), "the drain has begun")
        running.signal(signal.SIGTERM)
        assert running.wait() == 0
    assert running.alive() == []


def test_second_start_finds_the_first(proxyctl: StartProxyctl, echo: EchoServer) -> None:
    """A start in a runtime directory that is in use ends with 1, names the pid, harms nothing."""
    port, other = free_ports(2)
    first = proxyctl(config_of({"a": (port, echo.address)}))
    second = proxyctl(config_of({"a": (other, echo.address)}), is_ready_expected=False)
    assert second.wait() == 1
    assert f"pid {first.pid}" in second.log()
    assert echoes(port)
    assert first.run("status")[0] == 0


def test_taken_port_is_named(proxyctl: StartProxyctl, echo: EchoServer) -> None:
    """A port that someone listens on ends the start with 1, the address and who has it."""
    with occupied_port() as port:
        running = proxyctl(config_of({"a": (port, echo.address)}), is_ready_expected=False)
        assert running.wait() == 1
        assert f"127.0.0.1:{port}" in running.log()
        assert "by pid" in running.log()
    assert not (running.runtime_dir / "control.sock").exists()


def test_modules_of_the_current_directory_are_not_run(
    proxyctl: StartProxyctl, echo: EchoServer, tmp_path: Path
) -> None:
    """Folders named worker, shared and supervisor in the current directory are never imported."""
    poisoned = tmp_path / "poisoned"
    for package in ("worker", "shared", "supervisor"):
        (poisoned / package).mkdir(parents=True)
        (poisoned / package / "__init__.py").write_text("raise SystemExit('poison')\n")
    port = free_port()
    running = proxyctl(config_of({"a": (port, echo.address)}), cwd=poisoned)
    assert echoes(port)
    assert "poison" not in running.log()


def test_unix_listener_takes_over_a_stale_file(
    proxyctl: StartProxyctl, echo: EchoServer, tmp_path: Path
) -> None:
    """A socket file that nobody listens on is replaced; at the end it is removed."""
    path = tmp_path / "in.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    config = config_of({"a": (0, echo.address)})
    config["routes"][0]["match"]["ports"] = [f"unix:{path}"]
    running = proxyctl(config)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        assert exchange(client, b"local") == b"local"
    assert running.run("stop")[0] == 0
    assert not path.exists()
