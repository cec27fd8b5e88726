"""Every command against a real proxyctl: supervisor, workers, and traffic through them."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from shared.proxy_protocol import parse
from supervisor.example import ADMIN, ECHO, PAGE
from tests.helpers.ports import free_port

PROXYCTL: Final = (sys.executable, "-m", "supervisor.cli")
READY_S: Final = 60


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one command against the proxyctl of ``directory``."""
    command = [*PROXYCTL, *arguments]
    if arguments[0] not in {"validate", "probe"}:
        command += ["--runtime-dir", str(directory)]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)


def data(directory: Path, *arguments: str) -> dict[str, Any]:
    """``data`` of a command that must succeed."""
    done = run(directory, *arguments, "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    document = json.loads(done.stdout)
    assert document["ok"] is True
    return dict(document["data"])


@contextmanager
def started(directory: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A proxyctl that has said `ready`; it is gone afterwards, whatever happens."""
    command = [*PROXYCTL, "start", "--runtime-dir", str(directory), *arguments]
    log = (directory.parent / f"{directory.name}.log").open("w+")
    with (
        log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        late = threading.Timer(READY_S, process.kill)
        late.start()
        try:
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                lines.append(line)
                if line.startswith("ready"):
                    break
            else:
                log.seek(0)
                pytest.fail(f"no ready line: {lines} {log.read()}")
            late.cancel()
            yield process
        finally:
            late.cancel()
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(20)
                finally:
                    process.kill()


class Origin:
    """A target that answers each connection with the PROXY header it got, as text."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return  # closed
            with connection:
                connection.settimeout(20)
                received = b""
                while (answer := parse(received)) is None:
                    part = connection.recv(4096)
                    if not part:
                        break
                    received += part
                else:
                    header = answer[0]
                    connection.sendall(f"{header.source_text} {header.source_port}\n".encode())

    def close(self) -> None:
        """Stop listening."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()


def config(port: int, *, target: str, name: str = "web", directory: Path) -> str:
    """One route that trusts loopback's PROXY headers and sends its own."""
    return f"""\
listen: ["127.0.0.1"]
admin: {{listen: "unix:{directory / "admin.sock"}"}}
proxy_protocol: {{trusted: ["127.0.0.1"], required: false}}
routes:
  - name: {name}
    match: {{ports: [{port}]}}
    action: {{type: forward, targets: ["{target}"], send_proxy: v2}}
"""


def test_a_day_in_the_life(tmp_path: Path) -> None:
    """Start, look, probe, reload well and badly, look again, and stop."""
    directory, file, port = tmp_path / "run", tmp_path / "proxyctl.yaml", free_port()
    with closing(Origin()) as origin:
        good = config(port, target=origin.address, directory=directory)
        file.write_text(good)
        with started(directory, "--config", str(file), "--workers", "2") as process:
            status = data(directory, "status")
            assert status["supervisor"]["pid"] == process.pid
            assert (status["generation"], status["ready"]) == (1, True)
            assert set(status["totals"]) >= {"routes", "targets", "ends"}
            workers = data(directory, "workers")["workers"]
            assert {worker["slot"] for worker in workers} == {0, 1}
            for worker in workers:
                assert {"slot", "pid", "state", "generation", "connections"} <= set(worker)
                assert (worker["state"], worker["generation"]) == ("ready", 1)

            probe = run(directory, "probe", f"127.0.0.1:{port}", "--source", "203.0.113.7:5555")
            assert (probe.returncode, probe.stdout) == (0, "203.0.113.7 5555\n"), probe.stderr

            file.write_text(good.replace("targets", "tragets"))
            refused = run(directory, "reload")
            assert refused.returncode == 1
            assert f"{file}:7:" in refused.stderr
            assert "did you mean 'targets'?" in refused.stderr
            assert refused.stderr.endswith("kept generation 1\n")
            degraded = run(directory, "status")
            assert degraded.returncode == 4
            assert "the last reload was refused" in degraded.stdout

            file.write_text(config(port, target=origin.address, name="new", directory=directory))
            reload = run(directory, "reload")
            assert reload.returncode == 0, reload.stderr
            assert ": +1 route, -1; 0 connections kept, 0 draining\n" in reload.stdout
            assert reload.stdout.count("\n") == 1
            assert data(directory, "status")["generation"] > 1

            stop = run(directory, "stop")
            assert (stop.returncode, stop.stderr) == (0, "")
            assert stop.stdout.startswith("stopped: ")
            assert process.wait(20) == 0
        assert run(directory, "status").returncode == 3


def test_status_counts_what_went_through(tmp_path: Path) -> None:
    """Totals by route, target and end reason come to the CLI and to `/stats` alike."""
    directory, file, port = tmp_path / "run", tmp_path / "proxyctl.yaml", free_port()
    with closing(Origin()) as origin:
        file.write_text(config(port, target=origin.address, directory=directory))
        with started(directory, "--config", str(file), "--workers", "2"):
            for _ in range(5):
                probe = run(directory, "probe", f"127.0.0.1:{port}", "--proxy", "v2")
                assert probe.returncode == 0, probe.stderr
            # A worker reports twice a second; each look is a process of its own, so they are few.
            for _ in range(50):
                totals = data(directory, "status")["totals"]
                if sum(totals["ends"].values()) == 5:
                    break
            assert totals["routes"]["web"]["total"] == 5
            assert totals["targets"][origin.address]["total"] == 5
            assert sum(totals["ends"].values()) == 5
            numbers = stats(directory / "admin.sock")
            assert numbers["proxyctl_route_connections_total"] == 5
            assert numbers["proxyctl_target_connections_total"] == 5


def stats(path: Path) -> dict[str, float]:
    """`/stats` of an admin socket: sums by name."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(path))
        client.sendall(b"GET /stats HTTP/1.1\r\nHost: a\r\n\r\n")
        received = b""
        while part := client.recv(65536):
            received += part
    sums: dict[str, float] = {}
    for sample in json.loads(received.partition(b"\r\n\r\n")[2])["metrics"]:
        sums[sample["name"]] = sums.get(sample["name"], 0) + sample["value"]
    return sums


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_start_ends_with_0_after_a_signal(number: signal.Signals, tmp_path: Path) -> None:
    """A stop by signal is a clean end of `start`."""
    directory, file = tmp_path / "run", tmp_path / "proxyctl.yaml"
    file.write_text(config(free_port(), target="127.0.0.1:1", directory=directory))
    with started(directory, "--config", str(file), "--workers", "1") as process:
        process.send_signal(number)
        assert process.wait(30) == 0


def test_start_with_json_prints_one_object(tmp_path: Path) -> None:
    """What `start` says on its way goes to stderr, and stdout has the object alone."""
    directory, file, log = tmp_path / "run", tmp_path / "proxyctl.yaml", tmp_path / "log"
    file.write_text(config(free_port(), target="127.0.0.1:1", directory=directory))
    command = [*PROXYCTL, "start", "--runtime-dir", str(directory), "--config", str(file), "--json"]
    with (
        log.open("w") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as process,
    ):
        try:
            # Each look is a process of its own; together they are given about a minute.
            assert any(run(directory, "status").returncode == 0 for _ in range(100))
            assert run(directory, "stop", "--now").returncode == 0
            out, _ = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0
    assert json.loads(out)["ok"] is True
    assert "ready: " in log.read_text()


def test_a_second_start_says_who_runs(tmp_path: Path) -> None:
    """The runtime directory is locked: status 1, the pid, and how to go on."""
    directory, file = tmp_path / "run", tmp_path / "proxyctl.yaml"
    file.write_text(config(free_port(), target="127.0.0.1:1", directory=directory))
    with started(directory, "--config", str(file), "--workers", "1") as process:
        second = run(directory, "start", "--config", str(file), "--json")
        assert second.returncode == 1
        (problem,) = json.loads(second.stdout)["errors"]
        assert str(process.pid) in problem["message"]
        assert "stop" in problem["hint"]


def test_a_bad_config_does_not_start(tmp_path: Path) -> None:
    """All errors are shown and nothing is left behind."""
    file = tmp_path / "proxyctl.yaml"
    file.write_text("routes: [{name: a, macth: {}}]\n")
    done = run(tmp_path / "run", "start", "--config", str(file))
    assert done.returncode == 1
    assert "did you mean 'match'?" in done.stderr
    assert not (tmp_path / "run").exists()


@contextmanager
def taken(address: str) -> Iterator[None]:
    """Somebody listens there: this test, or whoever was faster."""
    host, _, port = address.partition(":")
    try:
        listening = socket.create_server((host, int(port)))
    except OSError:
        yield
        return
    with listening:
        yield


def test_the_example_names_a_way_out_when_a_port_is_taken(tmp_path: Path) -> None:
    """Without a config the ports are fixed, so the message says how to choose others."""
    with taken(PAGE):
        done = run(tmp_path / "run", "start")
    assert done.returncode == 1
    assert PAGE in done.stderr
    assert "--config FILE" in done.stderr


def test_the_example_runs(tmp_path: Path) -> None:
    """`proxyctl start` alone serves page, echo and metrics, and its page knows the supervisor."""
    directory = tmp_path / "run"
    with started(directory) as process:
        send = ["--send", "GET / HTTP/1.0\\r\\n\\r\\n"]
        page = run(directory, "probe", PAGE, *send)
        assert page.returncode == 0
        assert str(process.pid) in page.stdout
        assert "What to do next" in page.stdout
        echo = run(directory, "probe", ECHO, "--send", "hello", "--timeout", "1s")
        assert (echo.returncode, echo.stdout) == (0, "hello")
        metrics = run(directory, "probe", ADMIN, "--send", "GET /metrics HTTP/1.0\\r\\n\\r\\n")
        assert 'proxyctl_route_connections_total{route="page"}' in metrics.stdout
        assert run(directory, "reload").returncode == 0


def test_stop_drains_workers_that_lost_their_supervisor(tmp_path: Path) -> None:
    """After a kill -9 the port is still served; `status` says how to end it, and `stop` does."""
    directory, file, port = tmp_path / "run", tmp_path / "proxyctl.yaml", free_port()
    with closing(Origin()) as origin:
        file.write_text(config(port, target=origin.address, directory=directory))
        with started(directory, "--config", str(file), "--workers", "2") as process:
            workers = {worker["pid"] for worker in data(directory, "workers")["workers"]}
            process.kill()
            process.wait(20)
        try:
            probe = run(directory, "probe", f"127.0.0.1:{port}", "--source", "203.0.113.7:1")
            assert probe.stdout == "203.0.113.7 1\n", probe.stderr
            status = run(directory, "status")
            assert status.returncode == 3
            assert "proxyctl stop" in status.stderr
            stop = run(directory, "stop", "--timeout", "30s", "--json")
            assert stop.returncode == 0, stop.stdout
            assert set(json.loads(stop.stdout)["data"]["orphans"]) == workers
            assert run(directory, "stop").returncode == 3
        finally:
            for pid in workers:
                if psutil.pid_exists(pid):
                    psutil.Process(pid).kill()
