"""The unit file: known to systemd, as closed as it is said to be, and as proxyctl expects it."""

from __future__ import annotations

import configparser
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from shared.config.timeouts import Timeouts
from tests.programs import find_program

SYSTEMD: Final = Path(__file__).parents[2] / "systemd"
UNIT: Final = SYSTEMD / "proxyctl.service"
MOST_EXPOSED: Final = 1.8  # of systemd-analyze's scale to 10; units of other proxies score 9


@pytest.fixture
def analyze() -> str:
    """The path of systemd-analyze."""
    program = find_program("systemd-analyze")
    assert program is not None
    return program


def service() -> configparser.SectionProxy:
    """The section that says how the service runs; every key in it stands there once."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(UNIT)
    return parser["Service"]


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


def test_unit_waits_for_ready_and_for_the_reload() -> None:
    """The supervisor alone notifies, is watched, and the reload is one that answers."""
    unit = service()
    assert (unit["Type"], unit["NotifyAccess"]) == ("notify", "main")
    assert unit["ExecReload"] == "/usr/bin/proxyctl reload"
    assert unit["ExecStartPre"].startswith("/usr/bin/proxyctl validate ")
    assert (unit["KillMode"], unit["Restart"]) == ("mixed", "on-failure")
    assert int(unit["WatchdogSec"]) > float(Timeouts().watchdog)


def test_unit_gives_a_stop_more_time_than_the_drain() -> None:
    """Connections that may finish are not killed by the service manager."""
    assert int(service()["TimeoutStopSec"]) > float(Timeouts().drain)


def test_logrotate_has_the_logs_opened_again() -> None:
    """The supervisor gets USR1, and no line is lost by a copy."""
    text = (SYSTEMD / "proxyctl.logrotate").read_text()
    directives = [line.strip() for line in text.splitlines() if not line.startswith("#")]
    assert directives[0] == f"/var/log/{service()['LogsDirectory']}/*.log {{"
    assert "systemctl kill --signal=USR1 --kill-whom=main proxyctl.service" in directives
    assert "copytruncate" not in directives
