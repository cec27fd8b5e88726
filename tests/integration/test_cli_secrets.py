"""A private key or password that stands in the config: nothing that is told of it shows it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.certificates import Authority
from tests.helpers.ports import free_port
from tests.helpers.processes import PROXYCTL, Proxyctl, config_of

PASSWORD = "correct horse battery staple"


def printed(*arguments: str) -> str:
    """All that a command prints that ends with 1."""
    done = subprocess.run(
        [*PROXYCTL, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(params=["json", "yaml"])
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Proxyctl]:
    """Started with a good config in either format; JSON is YAML with double quotes, too."""
    config = config_of({"a": (free_port(), "127.0.0.1:9")})
    running = Proxyctl(tmp_path, config, workers=1)
    running.config_path = tmp_path / f"proxyctl.{request.param}"
    running.write(config)
    try:
        running.start()
        yield running
    finally:
        running.end()


def test_no_secret_is_told(running: Proxyctl, tmp_path: Path) -> None:
    """`validate`, `reload` as text and as JSON, `status` and the log name the field alone."""
    leaf = Authority(tmp_path).leaf("a.example")
    key = leaf.key.read_text()
    config: dict[str, Any] = json.loads(running.config_path.read_text())
    for name, secret in (("key", key), ("keyy", key), ("password", PASSWORD)):
        certificate = {"cert": str(leaf.cert), name: secret}
        tls = {"mode": "terminate", "certificates": [certificate]}
        config["routes"][0]["action"]["tls"] = tls
        running.write(config)
        directory = ("--runtime-dir", str(running.runtime_dir))
        told = {
            "validate": printed("validate", str(running.config_path)),
            "validate --json": printed("validate", "--json", str(running.config_path)),
            "reload": printed("reload", *directory),
            "reload --json": printed("reload", "--json", *directory),
            "status": json.dumps(running.status()),
            "log": running.log() + running.output(),
        }
        parts = [line[:12] for line in secret.splitlines() if not line.startswith("-----")]
        for what, text in told.items():
            assert f"certificates[0].{name}" in text, what
            assert not [part for part in parts if part in text], (what, text)
