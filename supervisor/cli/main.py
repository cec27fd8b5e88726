"""The entry of `proxyctl`: what has to be done before anything is imported that takes time."""

from __future__ import annotations

import sys


def main() -> None:
    """Console entry."""
    if sys.argv[1:2] == ["start"]:
        from supervisor import early_signals

        early_signals.note()
    from supervisor.cli.descriptors import fill_closed

    fill_closed()
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command; returns its exit code."""
    from supervisor.cli import app

    return app.run(arguments)
