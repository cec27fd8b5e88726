"""A short run of the soak over HTTP, as a program: reloads and a kill under all kinds of users."""

from __future__ import annotations

import re
import subprocess
import sys

from loadtests.processes import ROOT


def test_short_run() -> None:
    """No request is lost but those that a killed worker held, at each rest and after the stop the
    books agree, and there was something to lose.
    """
    command = [sys.executable, "-m", "loadtests.soak_http", "--seconds", "4", "--seed", "3"]
    done = subprocess.run(
        [*command, "--resizes-per-s", "0", "--kills-per-minute", "120", "--reloads-per-s", "2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert said.rstrip().endswith("PASS")
    assert [line.rpartition("; ")[2] for line in said.splitlines()[1:3]] == ["books agree"] * 2
    for kind in (
        "cut by the stop",
        "http answers",
        "https answers",
        "ws messages",
        "kill",
        "reload",
    ):
        found = re.search(rf"\b{kind}: (\d+)", said)
        assert found is not None, said
        assert int(found[1]) > 0
