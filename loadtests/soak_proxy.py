"""The proxyctl of a soak: started, asked, signalled, watched, stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any, Final

import msgspec
from msgspec import Struct

from loadtests.delay_line import namespace
from loadtests.proc_files import parse_stat
from loadtests.processes import LoadTestError, Started, Workspace, tree, wait_line, wait_until
from shared.messages import Reply
from supervisor.cli.client import ask

ASK_S: Final = 30.0
STOP_S: Final = 30.0
LOG: Final = "proxyctl.log"  # in the workspace
_FORK_SERVER: Final = b"worker.fork_server"


class Figures(Struct, frozen=True, kw_only=True):
    """Of one process. ``anonymous_kib`` is its heap, with what it still shares since its fork;
    ``shmem_kib`` its part of tables in shared memory, whose size is fixed.
    """

    role: str  # supervisor, fork server, worker
    pid: int
    incarnation: int  # of a worker, else 0
    connections: int  # of a worker, else 0
    descriptors: int
    pss_kib: int
    anonymous_kib: int
    shmem_kib: int
    workers: int = 0  # processes of the supervisor's, those that drain included


class Proxy:
    """One run of `proxyctl start`. Its commands work from any thread."""

    def __init__(
        self, space: Workspace, config: str, files: dict[str, str], netns: str | None
    ) -> None:
        """``files``: names and texts of what the config names."""
        for name, text in files.items():
            space.write(name, text)
        self.config_path = space.write("soak.json", config)
        self.runtime_dir = space.directory / "run"
        self.known: dict[int, int] = {}  # every pid of this run: its start, in ticks since boot
        self._space = space
        command = [*program(), "start", "--config", str(self.config_path)]
        with namespace(netns):
            self.started: Started = space.start(
                "proxyctl", [*command, "--runtime-dir", str(self.runtime_dir)]
            )
        wait_line(self.started, "ready:")
        self.remember()

    @property
    def pid(self) -> int:
        """Of the supervisor."""
        return self.started.popen.pid

    def write(self, text: str) -> None:
        """Replace the config file, in one step."""
        self._space.write("soak.json", text)

    def write_file(self, name: str, text: str) -> None:
        """The same for a file that the config names."""
        self._space.write(name, text)

    def read_file(self, name: str) -> str:
        """A file beside the config."""
        return (self._space.directory / name).read_text()

    def write_torn(self, text: str, between: Callable[[], None]) -> None:
        """Rewrite the config file in place, half of it before ``between``, half of it after."""
        with self.config_path.open("w") as file:
            file.write(text[: len(text) // 2])
            file.flush()
            between()
            file.write(text[len(text) // 2 :])

    def ask(self, verb: str, arguments: dict[str, Any] | None = None) -> Reply:
        """The supervisor's reply to a command."""
        return ask(self.runtime_dir, verb, arguments or {}, ASK_S)

    def run(self, verb: str) -> tuple[int, str]:
        """The command itself, as its own process: exit code and output."""
        done = subprocess.run(
            [*program(), verb, "--runtime-dir", str(self.runtime_dir)],
            capture_output=True,
            text=True,
            timeout=ASK_S,
            check=False,
        )
        return done.returncode, (done.stdout + done.stderr).strip()

    def data(self, verb: str) -> dict[str, Any]:
        """``data`` of a command; LoadTestError when it has none."""
        reply = self.ask(verb)
        if not reply.data:
            said = "; ".join(problem.message for problem in reply.errors)
            raise LoadTestError(f"`{verb}` was not answered: {said}\n{self.started.tail()}")
        return reply.data

    def workers(self) -> list[dict[str, Any]]:
        """Those that have a process."""
        return [worker for worker in self.data("workers")["workers"] if worker.get("pid")]

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the supervisor."""
        os.kill(self.pid, number)

    def signal_child(self, pid: int, number: signal.Signals) -> bool:
        """Send a signal to a child of the supervisor; False when that pid is none any more."""
        try:
            if parse_stat(Path(f"/proc/{pid}/stat").read_text()).parent != self.pid:
                return False
            os.kill(pid, number)
        except (FileNotFoundError, ProcessLookupError):
            return False
        return True

    def fork_server(self) -> int | None:
        """Its pid: the oldest child that runs it and is no worker. None while there is none."""
        found = [pid for pid in tree(self.pid)[1:] if _FORK_SERVER in _cmdline(pid)]
        workers = {worker["pid"] for worker in self.workers()}
        births = {pid: born for pid in found if pid not in workers and (born := _birth(pid))}
        ours = [pid for pid in births if _parent(pid) == self.pid]
        return min(ours, key=lambda pid: births[pid], default=None)

    def remember(self) -> None:
        """Note every process of this run, to find out later whether one is left."""
        for pid in tree(self.pid):
            born = _birth(pid)
            if born is not None:
                self.known.setdefault(pid, born)

    def left(self) -> list[int]:
        """Pids of noted processes that still run."""
        return [pid for pid, born in self.known.items() if _birth(pid) == born]

    def stop(self, listen: Callable[[float], None]) -> tuple[int, str]:
        """TERM, and wait for the end: exit status and the line that it printed last.

        ``listen`` is called again and again with some seconds to spend.
        """
        self.remember()
        self.send(signal.SIGTERM)
        deadline = monotonic() + STOP_S
        while (status := self.started.popen.poll()) is None:
            if monotonic() > deadline:
                raise LoadTestError(f"no end within {STOP_S:g} s:\n{self.started.tail()}")
            listen(0.05)
        lines = self.started.log.read_text(errors="replace").splitlines()
        said = [line for line in lines if line.startswith("stopped")]
        return status, said[-1] if said else ""

    def wait(self, is_so: Callable[[], bool], timeout_s: float, what: str) -> bool:
        """Poll; False, and no error, when it never comes to be so."""
        try:
            wait_until(is_so, timeout_s, what)
        except LoadTestError:
            return False
        return True

    def figures(self) -> list[Figures]:
        """Descriptors and memory of the supervisor, the fork server and every worker."""
        workers = self.workers()
        supervisor = _figures("supervisor", self.pid)
        found = [supervisor and msgspec.structs.replace(supervisor, workers=len(workers))]
        if (fork_server := self.fork_server()) is not None:
            found.append(_figures("fork server", fork_server))
        found += [
            _figures("worker", one["pid"], one["incarnation"], one["connections"])
            for one in workers
            if one["state"] == "ready"
        ]
        return [one for one in found if one is not None]


def program() -> list[str]:
    """proxyctl, as the running interpreter would start it."""
    return [sys.executable, "-P", "-m", "supervisor.cli"]


def _figures(role: str, pid: int, incarnation: int = 0, connections: int = 0) -> Figures | None:
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    except (FileNotFoundError, ProcessLookupError):
        return None
    sizes = {
        name: int(rest.split()[0])
        for name, colon, rest in (line.partition(":") for line in rollup.splitlines()[1:])
        if colon
    }
    return Figures(
        role=role,
        pid=pid,
        incarnation=incarnation,
        connections=connections,
        descriptors=descriptors,
        pss_kib=sizes["Pss"],
        anonymous_kib=sizes["Anonymous"],
        shmem_kib=sizes.get("Pss_Shmem", 0),  # since Linux 5.13
    )


def _cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _birth(pid: int) -> int | None:
    """Start in ticks since boot; None for what has ended, zombies included."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if text.rpartition(")")[2].split()[0] == "Z":
        return None
    return parse_stat(text).start_ticks


def _parent(pid: int) -> int:
    try:
        return parse_stat(Path(f"/proc/{pid}/stat").read_text()).parent
    except (FileNotFoundError, ProcessLookupError):
        return 0
