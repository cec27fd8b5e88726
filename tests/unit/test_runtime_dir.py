"""The runtime directory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shared.errors import StartError
from supervisor.runtime_dir import RuntimeDir, choose, orphans, running_pid
from worker.orphan import OrphanLock


def test_choice_goes_by_option_environment_and_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """The option wins, then the environment, then the place for this user."""
    named = {"PROXYCTL_RUNTIME_DIR": "/named", "XDG_RUNTIME_DIR": "/run/user/7"}
    assert choose(Path("/given"), named) == Path("/given")
    assert choose(None, named) == Path("/named")
    monkeypatch.setattr(os, "geteuid", lambda: 7)
    assert choose(None, {"XDG_RUNTIME_DIR": "/run/user/7"}) == Path("/run/user/7/proxyctl")
    assert choose(None, {}) == Path("/tmp/proxyctl-7")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert choose(None, {"XDG_RUNTIME_DIR": "/run/user/0"}) == Path("/run/proxyctl")


def test_lock_names_its_holder_and_keeps_others_out(tmp_path: Path) -> None:
    """While it is held the pid can be read and a second one is refused; then it is free."""
    directory = tmp_path / "run"
    assert running_pid(directory) is None
    first = RuntimeDir(directory)
    first.open()
    assert running_pid(directory) == os.getpid()
    assert directory.stat().st_mode & 0o777 == 0o700
    with pytest.raises(StartError, match=f"pid {os.getpid()}"):
        RuntimeDir(directory).open()
    first.close()
    assert running_pid(directory) is None
    again = RuntimeDir(directory)
    again.open()
    again.close()


def test_stale_files_go_and_live_orphans_stay(tmp_path: Path) -> None:
    """Sockets and locks of dead runs are removed; the lock of an orphan that lives is not."""
    tmp_path.chmod(0o700)
    for name in ("control.sock", "workers-0a.sock", "stats-0a.sock", "orphan-1.lock"):
        (tmp_path / name).touch()
    (tmp_path / "mine.txt").touch()
    held = OrphanLock(str(tmp_path))
    directory = RuntimeDir(tmp_path)
    directory.open()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"supervisor.lock", "mine.txt", f"orphan-{os.getpid()}.lock"}
    assert orphans(tmp_path) == [os.getpid()]
    (warning,) = directory.warnings()
    assert f"(pid {os.getpid()})" in warning
    held.close()
    assert orphans(tmp_path) == []
    assert directory.warnings() == []
    directory.close()


def test_path_that_is_too_long_is_refused_by_name(tmp_path: Path) -> None:
    """A socket path over 107 bytes would be cut or refused by the system; we say so."""
    directory = tmp_path / ("x" * 100)
    with pytest.raises(StartError, match="107"):
        RuntimeDir(directory).open()
    assert not directory.exists()


def test_directory_that_others_use_is_not_closed(tmp_path: Path) -> None:
    """A directory that is open to others and holds other files is refused, not changed."""
    (tmp_path / "other").touch()
    tmp_path.chmod(0o755)
    with pytest.raises(StartError, match="open to others"):
        RuntimeDir(tmp_path).open()
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_directory_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever owns it could read and replace our sockets."""
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(StartError, match="belongs to user"):
        RuntimeDir(tmp_path).open()


def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    """A file in its place is named in the error."""
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match="file"):
        RuntimeDir(tmp_path / "file").open()
