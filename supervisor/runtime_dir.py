"""The runtime directory: lock, sockets, and what dead runs left behind (design section 3)."""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from time import monotonic, sleep
from typing import Final

from shared.errors import StartError
from shared.orphan_file import PID_BYTES, pid_of
from shared.runtime_files import (
    CONTROL_SOCKET,
    IPC_PATH_MAX_BYTES,
    LOCK_FILE,
    ORPHAN_PATTERN,
    STATS_SOCKET,
    WORKERS_SOCKET,
)

# `running_pid` holds the lock for a moment to look whether it is free; a start waits that long.
_LOCK_PATIENCE_S: Final = 0.3


def choose(explicit: Path | None, environ: Mapping[str, str] = os.environ) -> Path:
    """The runtime directory, absolute: ``--runtime-dir``, else the environment, else by user."""
    if explicit is not None:
        return explicit.absolute()
    if named := environ.get("PROXYCTL_RUNTIME_DIR"):
        return Path(named).absolute()
    if os.geteuid() == 0:
        return Path("/run/proxyctl")
    if user_dir := environ.get("XDG_RUNTIME_DIR"):
        return Path(user_dir).absolute() / "proxyctl"
    return Path(f"/tmp/proxyctl-{os.geteuid()}")


def stranger(directory: Path, euid: int) -> int | None:
    """The user whom the directory belongs to, where that is not ``euid``; root may use any.

    What stands in a stranger's directory must not be believed: it could name any pid to end.
    """
    try:
        owner = directory.lstat().st_uid
    except OSError:
        return None
    return owner if euid not in (0, owner) else None


def running_pid(directory: Path) -> int | None:
    """The pid of the supervisor that holds the lock; None if none runs."""
    return _holder(directory / LOCK_FILE)


def orphans(directory: Path) -> list[int]:
    """Pids of workers that lost their supervisor and still serve."""
    holders = (_holder(path) for path in directory.glob(ORPHAN_PATTERN))
    return sorted(pid for pid in holders if pid)


def _holder(path: Path) -> int | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return pid_of(os.read(fd, PID_BYTES))
    finally:
        os.close(fd)
    return None


class RuntimeDir:
    """The runtime directory of one run, locked by it.

    ``run`` is a random id: messages and socket names carry it, so that a worker of an earlier run
    can never be taken for one of ours.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run = secrets.token_hex(4)
        self.workers_path = path / WORKERS_SOCKET.format(run=self.run)
        self.stats_path = path / STATS_SOCKET.format(run=self.run)
        self.control_path = path / CONTROL_SOCKET
        self._lock_fd = -1

    def open(self) -> None:
        """Create the directory if need be, lock it, and clear what dead runs left.

        StartError when it cannot be ours, or when another supervisor has it.
        """
        self._check_path_length()
        try:
            self._make()
            self._lock()
        except OSError as error:
            raise StartError(
                f"cannot use the runtime directory {self.path}: {error.strerror}",
                "name another with --runtime-dir",
            ) from error
        self._clear()

    def is_whole(self) -> bool:
        """Our lock and our sockets are still in their places."""
        return self._has_lock() and not self.missing()

    def missing(self) -> list[Path]:
        """Those of our sockets that are not there."""
        paths = (self.workers_path, self.stats_path, self.control_path)
        return [path for path in paths if not path.exists()]

    def restore(self) -> None:
        """Make the directory and its lock again where somebody removed them.

        OSError, or StartError when another supervisor has taken the place meanwhile.
        """
        if self._has_lock():
            return
        self._make()
        old = self._lock_fd
        self._lock(0.0)
        os.close(old)

    def _has_lock(self) -> bool:
        """Whether the file that others look at is the one that we hold."""
        try:
            found = os.stat(self.path / LOCK_FILE)
        except OSError:
            return False
        return self._lock_fd >= 0 and os.path.samestat(found, os.fstat(self._lock_fd))

    def close(self) -> None:
        """Remove our sockets and let the lock go."""
        if self._has_lock():  # else it is another's by now
            self.control_path.unlink(missing_ok=True)
        for path in (self.workers_path, self.stats_path):
            path.unlink(missing_ok=True)
        if self._lock_fd >= 0:
            os.ftruncate(self._lock_fd, 0)
            os.close(self._lock_fd)
            self._lock_fd = -1

    def with_orphans(self, error: StartError) -> StartError:
        """The error of a port that is taken; by workers of an earlier run: how to end them."""
        pids = orphans(self.path)
        if not pids or "in use" not in error.message:
            return error
        served = ", ".join(map(str, pids))
        hint = f"workers that lost their supervisor still serve (pid {served}): `proxyctl stop`"
        return StartError(error.message, f"{hint} drains them")

    def warnings(self) -> list[str]:
        """What a start should say about workers of an earlier run, which nothing else shows."""
        pids = orphans(self.path)
        if not pids:
            return []
        have = (
            "worker of an earlier run has" if len(pids) == 1 else "workers of an earlier run have"
        )
        served = ", ".join(map(str, pids))
        return [
            f"{len(pids)} {have} no supervisor and serve on by their own config (pid {served}):"
            " TERM drains each; `proxyctl stop` drains them too when it stops this supervisor"
        ]

    def _check_path_length(self) -> None:
        longest = max((self.workers_path, self.stats_path, self.control_path), key=_bytes_of)
        if _bytes_of(longest) > IPC_PATH_MAX_BYTES:
            raise StartError(
                f"the path of a socket would have {_bytes_of(longest)} bytes, and"
                f" {IPC_PATH_MAX_BYTES} is the most: {longest}",
                "name a shorter directory with --runtime-dir",
            )

    def _make(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.mkdir(mode=0o700, exist_ok=True)
        found = self.path.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise StartError(f"the runtime directory {self.path} is no directory")
        if found.st_uid != os.geteuid():
            raise StartError(
                f"the runtime directory {self.path} belongs to user {found.st_uid}, not to us",
                "name another with --runtime-dir",
            )
        if stat.S_IMODE(found.st_mode) == 0o700:
            return
        # Never close a directory that others use, such as /run: only an empty one, or our own.
        if any(self.path.iterdir()) and not (self.path / LOCK_FILE).exists():
            raise StartError(
                f"the runtime directory {self.path} is open to others and holds other files",
                "name one that proxyctl has to itself, mode 0700",
            )
        self.path.chmod(0o700)

    def _lock(self, patience_s: float = _LOCK_PATIENCE_S) -> None:
        fd = os.open(self.path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = monotonic() + patience_s
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if monotonic() < deadline:
                    sleep(0.02)
                    continue
                pid = os.read(fd, 32).strip().decode("ascii", "replace") or "not known"
                os.close(fd)
                raise StartError(
                    f"another proxyctl runs in {self.path} (pid {pid})",
                    "`proxyctl stop` ends it; --runtime-dir names another directory",
                ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._lock_fd = fd

    def _clear(self) -> None:
        """Remove files of dead runs; those of orphans that live stay."""
        stale = [self.control_path]
        stale += self.path.glob(WORKERS_SOCKET.format(run="*"))
        stale += self.path.glob(STATS_SOCKET.format(run="*"))
        stale += [path for path in self.path.glob(ORPHAN_PATTERN) if _holder(path) is None]
        for path in stale:
            path.unlink(missing_ok=True)


def _bytes_of(path: Path) -> int:
    return len(os.fsencode(path))
