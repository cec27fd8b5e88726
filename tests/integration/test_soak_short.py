"""The soak itself, for a few seconds: real processes, reloads, kills, and a stop under load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loadtests.processes import ROOT

DEADLINE_S = 110


def soak(tmp_path: Path, *arguments: str) -> tuple[int, str, dict[str, Any]]:
    """Run it: exit code, output, report."""
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "loadtests.soak", "--report", str(report)]
    with subprocess.Popen(
        [*command, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    ) as running:
        try:
            output, _ = running.communicate(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired:
            running.terminate()  # it ends all that it has started
            output, _ = running.communicate()
            pytest.fail(f"no end within {DEADLINE_S} s:\n{output}")
        except BaseException:
            running.terminate()
            raise
    found = json.loads(report.read_text()) if report.exists() else {}
    return running.returncode, output, found


@pytest.mark.timeout(DEADLINE_S + 10)
def test_nothing_is_lost(tmp_path: Path) -> None:
    """Reloads, resizes and kills under a light load: every connection is accounted for."""
    arguments = ("--seconds", "8", "--load", "steady", "--rate", "200", "--seed", "5")
    code, output, report = soak(tmp_path, *arguments, "--kills-per-minute", "60")
    assert code == 0, output
    assert report["wrong"] == []
    last, final = report["rests"][-1], report["final"]
    assert last["accepted"] == last["ended"] + last["connections"] > 500
    assert final["outcomes"]["ok"] > 500
    assert final["outcomes"]["limited"] > 0
    assert final["outcomes"]["cut"] > 0
    assert report["log"]["lines"] > 500
    assert report["deeds"]["reload accepted"] >= 5
    assert len(report["killed"]["at"]) >= 1


@pytest.mark.skipif(
    os.geteuid() != 0 or not os.access("/dev/net/tun", os.R_OK | os.W_OK),
    reason="needs network namespaces and TUN devices",
)
@pytest.mark.timeout(DEADLINE_S + 10)
def test_nothing_is_lost_over_a_path(tmp_path: Path) -> None:
    """The same with a round trip of 50 ms between clients and proxyctl, without kills."""
    arguments = ("--seconds", "5", "--load", "steady", "--rate", "60", "--path", "50ms")
    code, output, report = soak(tmp_path, *arguments, "--kills-per-minute", "0")
    assert code == 0, output
    assert report["line"]["dropped"] == report["line"]["refused"] == report["line_drops"] == 0
    assert report["line"]["carried"] > 1000
    assert report["final"]["longest_s"] > 0.1  # two round trips at the least
