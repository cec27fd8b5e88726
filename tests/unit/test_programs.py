"""The marker for system programs: present runs, missing skips, missing with CI=true fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.programs import find_program

ROOT: Final = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("program", "ci", "outcome"),
    [
        ("sh", "", "1 passed"),
        ("sh", "true", "1 passed"),
        ("no-such-program", "", "1 skipped"),
        ("no-such-program", "true", "1 error"),
        ("no_such_module.so", "true", "1 error"),
    ],
)
def test_marker(program: str, ci: str, outcome: str, tmp_path: Path) -> None:
    """A whole pytest run with the plugin ends as it should, and names what is missing."""
    test = f"import pytest\n@pytest.mark.program('sh', {program!r})\ndef test_it(): pass\n"
    (tmp_path / "test_it.py").write_text(test)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    program(name): needs it\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.programs", "-p", "no:cacheprovider", "-ra"],
        cwd=tmp_path,
        env={**os.environ, "CI": ci, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert outcome in done.stdout
    assert (done.returncode == 0) == (outcome != "1 error")
    assert (f"{program} is not installed" in done.stdout) == (outcome != "1 passed")


def test_daemons_are_found_outside_of_a_users_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """/usr/sbin is searched too; what is nowhere is None."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_program("no-such-program") is None
    mine = tmp_path / "mine"
    mine.write_text("#!/bin/sh\n")
    mine.chmod(0o755)
    assert find_program("mine") == str(mine)
    assert (find_program("haproxy") is not None) == any(
        Path(folder, "haproxy").exists() for folder in ("/usr/sbin", "/sbin", "/usr/local/sbin")
    )
