"""Started programs, held ports and a temporary directory, all of them gone when a run ends."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic
from types import FrameType, TracebackType
from typing import Final

from msgspec import Struct

from loadtests.proc_files import parse_pss, parse_stat

ROOT: Final = Path(__file__).resolve().parent.parent
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
END_S: Final = 5.0  # what a program gets between TERM and KILL
POLL_S: Final = 0.02

_never = threading.Event()  # its wait() is a pause that a signal ends


class LoadTestError(Exception):
    """A run cannot go on; the message says which program, and shows the end of its output."""


class Started(Struct, frozen=True):
    """One running program. ``log`` has its stdout and stderr."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    def tail(self, lines: int = 15) -> str:
        """The last lines of its output, for messages."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def wait_until(check: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Poll ``check`` until it holds; LoadTestError naming ``what`` after ``timeout_s``."""
    deadline = monotonic() + timeout_s
    while not check():
        if monotonic() > deadline:
            raise LoadTestError(f"{what}: not within {timeout_s:g} s")
        _never.wait(POLL_S)


def find_program(name: str) -> str:
    """Path of a system program; LoadTestError that names the Debian package otherwise.

    nginx and HAProxy live in sbin, which an ordinary user's PATH lacks on Debian.
    """
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/sbin")
    if path is None:
        raise LoadTestError(f"{name} is not installed (apt-get install {name})")
    return path


def proxyctl_program() -> str:
    """The proxyctl that belongs to the running interpreter."""
    path = Path(sys.executable).parent / "proxyctl"
    if not path.exists():
        raise LoadTestError(f"no proxyctl beside {sys.executable} (pip install -e .)")
    return str(path)


def raise_descriptor_limit() -> int:
    """Raise the soft RLIMIT_NOFILE to the hard one; children inherit it. Returns it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def tree(pid: int) -> list[int]:
    """``pid`` and all its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = parse_stat(Path("/proc", entry, "stat").read_text())
            except (FileNotFoundError, ProcessLookupError):
                continue  # ended between listdir and read
            children.setdefault(stat.parent, []).append(int(entry))
    found = [pid]
    for known in found:  # grows while it is walked
        found += children.get(known, [])
    return found


def cpu_us(pids: Sequence[int]) -> float:
    """CPU microseconds that these processes, all threads of each, have used so far."""
    ticks = 0
    for pid in pids:
        stat = parse_stat(Path(f"/proc/{pid}/stat").read_text())
        ticks += stat.user_ticks + stat.system_ticks
    return ticks * 1e6 / TICKS_PER_S


def pss_bytes(pids: Sequence[int]) -> int:
    """Proportional set size of these processes together, in bytes."""
    return sum(parse_pss(Path(f"/proc/{pid}/smaps_rollup").read_text()) for pid in pids)


def _exit_on_term(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)  # unwinds the with blocks, so that nothing is left running


class Workspace:
    """A context that owns a temporary directory, ports and programs, and ends them all.

    Ports are found by binding to port 0 and stay bound, not listening, until the end, so that
    neither an outgoing connection nor another program takes them. SO_REUSEADDR and SO_REUSEPORT
    let the program they are meant for bind them as well.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._held: list[socket.socket] = []
        self._started: list[Started] = []
        self.directory = Path()

    def __enter__(self) -> Workspace:
        signal.signal(signal.SIGTERM, _exit_on_term)
        self.directory = Path(tempfile.mkdtemp(prefix=self._prefix))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            for started in reversed(self._started):
                end(started)
        finally:
            for held in self._held:
                held.close()
            shutil.rmtree(self.directory, ignore_errors=True)

    def port(self) -> int:
        """A free TCP port on 127.0.0.1, held until the end."""
        held = socket.socket()
        self._held.append(held)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])

    def write(self, name: str, text: str) -> Path:
        """Write a file in the directory, in one step for anyone who reads it meanwhile."""
        path = self.directory / name
        part = self.directory / f"{name}.part"
        part.write_text(text)
        part.replace(path)
        return path

    def start(
        self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None
    ) -> Started:
        """Start a program in a session of its own (Ctrl-C reaches only the run itself)."""
        log = self.directory / f"{name}.log"
        with log.open("wb") as output:
            popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        started = Started(name, popen, log)
        self._started.append(started)
        return started

    def stop(self, started: Started) -> None:
        """End one program before the others."""
        self._started.remove(started)
        end(started)


def wait_listening(started: Started, port: int, timeout_s: float = 15.0) -> None:
    """Wait until ``port`` on 127.0.0.1 accepts; LoadTestError when the program ended instead."""

    def accepts() -> bool:
        require_running(started)
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(accepts, timeout_s, f"{started.name} listens on port {port}")
    except LoadTestError as error:
        raise LoadTestError(f"{error}\n{started.tail()}") from None


def wait_line(started: Started, start: str, timeout_s: float = 20.0) -> str:
    """Wait for an output line that begins with ``start`` and return it."""
    found: list[str] = []

    def printed() -> bool:
        require_running(started)
        lines = started.log.read_text(errors="replace").split("\n")[:-1]
        found.extend(line for line in lines if line.startswith(start))
        return bool(found)

    try:
        wait_until(printed, timeout_s, f"{started.name} prints {start!r}")
    except LoadTestError as error:
        raise LoadTestError(f"{error}\n{started.tail()}") from None
    return found[0]


def require_running(started: Started) -> None:
    """LoadTestError with the end of its output when the program has ended."""
    status = started.popen.poll()
    if status is not None:
        raise LoadTestError(f"{started.name} ended with {status}:\n{started.tail()}")


def end(started: Started) -> None:
    """End a program and every process below it: TERM, then KILL for whatever is left."""
    if started.popen.poll() is not None:
        return
    pids = tree(started.popen.pid)
    births = {pid: _birth(pid) for pid in pids}
    started.popen.terminate()
    try:
        started.popen.wait(END_S)
    except subprocess.TimeoutExpired:
        started.popen.kill()
        started.popen.wait()
    for pid in pids[1:]:
        if births[pid] is not None and _birth(pid) == births[pid]:  # same process, not a reused id
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # ended by itself just now


def _birth(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; None when there is none."""
    try:
        return parse_stat(Path(f"/proc/{pid}/stat").read_text()).start_ticks
    except (FileNotFoundError, ProcessLookupError):
        return None
