"""README.md says what is true: its configs are valid, its commands and its links exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from supervisor.config_file import load_bytes
from tests.helpers.certificates import Authority

ROOT: Final = Path(__file__).resolve().parents[2]
README: Final = (ROOT / "README.md").read_text()
CONFIGS: Final = re.findall(r"^```yaml\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
SHELL: Final = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS: Final = sorted({line for block in SHELL for line in block.splitlines() if line})


def proxyctl(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run proxyctl to its end."""
    return subprocess.run(
        [sys.executable, "-m", "supervisor.cli", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_readme_has_examples() -> None:
    """The other tests of this file look at something."""
    assert len(CONFIGS) >= 5
    assert len(COMMANDS) >= 10


@pytest.mark.parametrize("place", range(len(CONFIGS)))
def test_every_config_is_valid(place: int, tmp_path: Path) -> None:
    """Each YAML block is a whole config without an error or a warning."""
    files = Authority(tmp_path).leaf("localhost")
    files.cert.rename(tmp_path / "cert.pem")
    files.key.rename(tmp_path / "key.pem")
    name = f"README.md block {place + 1}"
    loaded = load_bytes(CONFIGS[place].encode(), name, "yaml", directory=tmp_path)
    assert loaded.config.routes
    assert [problem.text() for problem in loaded.warnings] == []


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("proxyctl ")])
def test_every_command_exists(line: str) -> None:
    """Each command and option that is shown is one that `--help` knows."""
    _, verb, *words = shlex.split(line)
    shown = proxyctl(verb, "--help")
    assert shown.returncode == 0
    options = {word for word in words if word.startswith("--")}
    assert options <= set(re.findall(r"--[a-z-]+", shown.stdout))


def test_the_probe_lines_are_accepted() -> None:
    """The probe commands fail to connect, and not because of how they are written."""
    for line in COMMANDS:
        words = shlex.split(line)
        if words[:2] == ["proxyctl", "probe"]:
            done = proxyctl("probe", "127.0.0.1:1", *words[3:])
            assert done.returncode == 1, done.stderr


def test_other_commands_only_look() -> None:
    """Every other line of the shell blocks is a plain request to the admin listener."""
    others = {line for line in COMMANDS if not line.startswith("proxyctl ")}
    assert others == {"curl http://127.0.0.1:9901/metrics"}


def test_links_lead_somewhere() -> None:
    """Files exist, and headings that are linked to are there."""
    headings = {
        "#" + re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if target.startswith("#"):
            assert target in headings
        else:
            assert (ROOT / target).exists(), target


def test_make_targets_exist() -> None:
    """Every `make TARGET` of the README is a target of the Makefile."""
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"(?:^    |`)make ([a-z]+)", README, re.MULTILINE))
    assert {"run", "test"} <= named <= targets
