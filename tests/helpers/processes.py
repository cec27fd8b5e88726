"""proxyctl as a process, for tests: start it, ask it, kill it, and leave nothing behind."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import psutil

from shared.messages import Reply
from supervisor.cli.client import ask
from tests.helpers.waiting import DEADLINE_S, wait_until

Config = dict[str, Any]

PROXYCTL: Final = (sys.executable, "-P", "-m", "supervisor.cli")


def config_of(routes: dict[str, tuple[int, str]], **more: object) -> Config:
    """A config with these routes: name to (port, target), on 127.0.0.1, without admin listener."""
    return {
        "listen": ["127.0.0.1"],
        "admin": None,
        "routes": [
            {
                "name": name,
                "match": {"ports": [port]},
                "action": {"type": "forward", "targets": [target]},
            }
            for name, (port, target) in routes.items()
        ],
        **more,
    }


def whole_lines(text: str) -> list[str]:
    """The lines of a log that is written to meanwhile, without one that has only begun."""
    return text.rpartition("\n")[0].splitlines()


class Proxyctl:
    """One run of `proxyctl start`. Its output is in files, so that a full pipe holds nothing up."""

    def __init__(
        self,
        directory: Path,
        config: Config,
        *,
        number: int = 0,
        workers: int | None = 2,
        runtime_dir: Path | None = None,
        cwd: Path | None = None,
        environment: dict[str, str] | None = None,
        command: list[str] | None = None,
        is_ready_expected: bool = True,
    ) -> None:
        self.config_path = directory / f"proxyctl{number}.json"
        self.runtime_dir = runtime_dir or directory / "run"
        self.output_path = directory / f"output{number}"
        self.log_path = directory / f"log{number}"
        self.known: dict[int, float] = {}  # pid of every process of this run: when it was created
        self._workers = workers
        self._environment = environment or {}
        self._cwd = cwd
        self._command = command or [*PROXYCTL]  # what runs `start`
        self._is_ready_expected = is_ready_expected
        self._process: subprocess.Popen[bytes] | None = None
        self.write(config)

    def write(self, config: Config) -> None:
        """Replace the config file."""
        self.config_path.write_text(json.dumps(config))

    def start(self) -> None:
        """Start it, and wait for its line `ready` unless that is not expected."""
        arguments = ["start", "--config", str(self.config_path)]
        if self._workers is not None:
            arguments += ["--workers", str(self._workers)]
        with self.output_path.open("wb") as output, self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [*self._command, *arguments, "--runtime-dir", str(self.runtime_dir)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                cwd=self._cwd,
                env={**os.environ, **self._environment},
                start_new_session=True,
            )
        if self._is_ready_expected:
            wait_until(lambda: "ready:" in self.output() or self.exit_code() is not None, "ready")
            assert self.exit_code() is None, self.log()
            self.remember()

    def wait_for_answer(self) -> None:
        """Wait until it answers commands and has a ready worker, whatever it has printed."""

        def is_there() -> bool:
            reply = ask(self.runtime_dir, "status", {}, DEADLINE_S)
            return bool(reply.data.get("ready"))

        wait_until(is_there, "it answers")
        self.remember()

    @property
    def pid(self) -> int:
        """Of the supervisor."""
        assert self._process is not None
        return self._process.pid

    def output(self) -> str:
        """Its standard output so far."""
        return self.output_path.read_text()

    def log(self) -> str:
        """Its standard error so far."""
        return self.log_path.read_text()

    def exit_code(self) -> int | None:
        """None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def wait(self, deadline_s: float = DEADLINE_S) -> int:
        """Its exit code, once it has ended."""
        assert self._process is not None
        return self._process.wait(deadline_s)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the supervisor."""
        os.kill(self.pid, number)

    def run(self, verb: str, *arguments: str) -> tuple[int, dict[str, Any]]:
        """A command of the CLI with --json: exit code and the object."""
        done = subprocess.run(
            [*PROXYCTL, verb, *arguments, "--json", "--runtime-dir", str(self.runtime_dir)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    def ask(self, verb: str) -> Reply:
        """The reply to a command, without the cost of a process for it."""
        reply = ask(self.runtime_dir, verb, {}, DEADLINE_S)
        assert reply.data, reply
        return reply

    def status(self) -> dict[str, Any]:
        """``data`` of `status`."""
        return self.ask("status").data

    def workers(self) -> list[dict[str, Any]]:
        """``data.workers`` of `workers`."""
        found: list[dict[str, Any]] = self.ask("workers").data["workers"]
        self.remember()
        return found

    def ready_pids(self) -> list[int]:
        """Pids of the workers that are ready, by slot."""
        return [worker["pid"] for worker in self.workers() if worker["state"] == "ready"]

    def wait_for_workers(
        self, is_so: Callable[[list[dict[str, Any]]], bool], what: str
    ) -> list[dict[str, Any]]:
        """Ask for the workers until they are as wanted."""

        def look() -> list[dict[str, Any]]:
            found = self.workers()
            return found if is_so(found) else []

        return wait_until(look, what)

    def fork_server_pid(self) -> int:
        """Pid of the fork server: the child that is no worker."""
        workers = {worker["pid"] for worker in self.workers()}
        for child in psutil.Process(self.pid).children():
            try:
                command = " ".join(child.cmdline())
            except psutil.Error:
                continue  # it has just ended
            if child.pid not in workers and "worker.fork_server" in command:
                return int(child.pid)
        return 0

    def remember(self) -> None:
        """Note every process of this run, so that `end` finds it even as an orphan."""
        if self.exit_code() is not None:
            return
        for child in psutil.Process(self.pid).children(recursive=True):
            self.known[child.pid] = child.create_time()

    def alive(self) -> list[int]:
        """Pids of the noted processes that still run."""
        return [pid for pid, created in self.known.items() if _process(pid, created)]

    def end(self) -> None:
        """End everything, by process id."""
        if self._process is None:
            return
        self.remember()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(DEADLINE_S)
        for pid, created in self.known.items():
            process = _process(pid, created)
            if process is not None:
                process.kill()
        wait_until(lambda: not self.alive(), "every process has ended")


def readiness(admin_port: int) -> tuple[int, bytes]:
    """Status and body of `/readyz`."""
    connection = http.client.HTTPConnection("127.0.0.1", admin_port, timeout=DEADLINE_S)
    with closing(connection):
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        return response.status, response.read()


def _process(pid: int, created: float) -> psutil.Process | None:
    """The process, if that number still means the same one and it is no zombie."""
    try:
        process = psutil.Process(pid)
        if process.create_time() == created and process.status() != psutil.STATUS_ZOMBIE:
            return process
    except psutil.NoSuchProcess:
        return None
    return None
