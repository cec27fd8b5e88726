"""What a run was measured on: machine, kernel, versions, commit."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from loadtests.processes import ROOT, LoadTestError, find_program

_CPU_MODEL = re.compile(r"^model name\s*:\s*(.+)$", re.MULTILINE)
_VERSION_FLAGS: Final = {
    "haproxy": "-v",
    "nginx": "-v",
    "wrk": "-v",
    "iperf3": "--version",
    "openssl": "version",
}
_PACKAGES: Final = ("proxyctl", "uvloop", "msgspec", "pyzmq", "locust")


def facts() -> dict[str, str]:
    """Names and values, all text; what cannot be found out is "unknown"."""
    found = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "cpu": cpu_model(Path("/proc/cpuinfo").read_text()),
        "cpus": str(len(os.sched_getaffinity(0))),
        "kernel": platform.release(),
        "python": sys.version.split()[0],
    }
    found.update({name: program_version(name) for name in _VERSION_FLAGS})
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def cpu_model(cpuinfo: str) -> str:
    """The model named in /proc/cpuinfo; other architectures than x86 name none."""
    found = _CPU_MODEL.search(cpuinfo)
    return found[1].strip() if found else f"unknown ({platform.machine()})"


def program_version(name: str) -> str:
    """The first line that a program prints about its version."""
    try:
        command = [find_program(name), _VERSION_FLAGS[name]]
    except LoadTestError:
        return "not installed"
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0] if lines else "unknown"


def commit() -> str:
    """The commit that is checked out, with "+" when tracked files differ from it."""
    head = _git("rev-parse", "--short=12", "HEAD")
    if head is None:
        return "unknown"
    return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, timeout=10, check=False, cwd=ROOT
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
