"""Who may import whom, read from the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("shared", "supervisor", "worker")
MAY_IMPORT = {
    "shared": {"shared"},
    "supervisor": {"shared", "supervisor"},
    "worker": {"shared", "worker"},
}
ZMQ_FILES = {
    "supervisor/control_server.py",
    "supervisor/cli/client.py",
    "worker/control_client.py",
}
# What only decides: no loop, socket, clock or logger (base, codec and pure modules).
PURE = (
    "shared/address_set.py",
    "shared/access_combined.py",
    "shared/access_ecs.py",
    "shared/access_entry.py",
    "shared/access_format.py",
    "shared/access_text.py",
    "shared/config/*.py",
    "shared/ends.py",
    "shared/errors.py",
    "shared/messages.py",
    "shared/networks.py",
    "shared/path_index.py",
    "shared/plan.py",
    "shared/proxy_protocol/*.py",
    "shared/by_network.py",
    "shared/host_names.py",
    "shared/http/*.py",
    "shared/match_*.py",
    "shared/matching.py",
    "shared/runtime_files.py",
    "shared/stats.py",
    "shared/units.py",
    "supervisor/assignment.py",
    "supervisor/compile.py",
    "supervisor/compile_http.py",
    "supervisor/compile_rules.py",
    "supervisor/compile_tls.py",
    "supervisor/config_http.py",
    "supervisor/config_protocol.py",
    "supervisor/config_secrets.py",
    "supervisor/config_taken_tls.py",
    "supervisor/restart_policy.py",
    "supervisor/rollout.py",
    "supervisor/config_shadowed.py",
    "supervisor/shadowed.py",
    "worker/chores.py",
    "worker/connection_state.py",
)
IMPURE = {"asyncio", "socket", "ssl", "zmq", "time", "logging", "uvloop", "select", "subprocess"}


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names.add((node.module or "").partition(".")[0])
    return names


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_keep_apart(package: str) -> None:
    """`shared` imports neither of the others, and those two never each other."""
    for path in (ROOT / package).rglob("*.py"):
        ours = imported(path) & set(PACKAGES)
        assert ours <= MAY_IMPORT[package], path


def test_zeromq_stays_in_three_files() -> None:
    """One file for each end of the control channels."""
    users = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if "zmq" in imported(path)
    }
    assert users == ZMQ_FILES


@pytest.mark.parametrize("pattern", PURE)
def test_what_only_decides_does_nothing(pattern: str) -> None:
    """Base, codec and pure modules import nothing that acts."""
    paths = sorted(ROOT.glob(pattern))
    assert paths
    for path in paths:
        assert not imported(path) & IMPURE, path


def test_workers_import_no_command_line() -> None:
    """What only the supervisor needs costs no worker memory."""
    for path in (ROOT / "worker").rglob("*.py"):
        assert not imported(path) & {"typer", "aiohttp", "yaml", "prometheus_client"}, path
