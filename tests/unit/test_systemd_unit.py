"""The unit file: known to systemd, and as closed as it is said to be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs import find_program

UNIT = Path(__file__).parents[2] / "systemd" / "proxyctl.service"
MOST_EXPOSED = 1.8  # of systemd-analyze's scale to 10; units of other proxies score 9


@pytest.fixture
def analyze() -> str:
    """The path of systemd-analyze."""
    program = find_program("systemd-analyze")
    assert program is not None
    return program


@pytest.mark.program("systemd-analyze")
def test_unit_is_valid(tmp_path: Path, analyze: str) -> None:
    """Every setting is known, and the program it starts is there."""
    text = UNIT.read_text().replace("/usr/bin/proxyctl", str(Path(sys.executable)))
    unit = tmp_path / UNIT.name
    unit.write_text(text)
    done = subprocess.run([analyze, "verify", str(unit)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert UNIT.name not in done.stderr, done.stderr


@pytest.mark.program("systemd-analyze")
def test_unit_is_hardened(analyze: str) -> None:
    """systemd's own judgement does not get worse."""
    done = subprocess.run(
        [analyze, "security", "--offline=yes", str(UNIT)], capture_output=True, text=True
    )
    verdict = next(line for line in done.stdout.splitlines() if "Overall exposure level" in line)
    assert float(verdict.split(":")[1].split()[0]) <= MOST_EXPOSED, verdict
