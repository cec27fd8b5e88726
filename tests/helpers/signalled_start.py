"""The real `proxyctl start`, which gets signals at one chosen step before it is ready.

Started as ``python -m tests.helpers.signalled_start STEP NAMES start ...`` in place of proxyctl;
NAMES are those of signals, with commas between. This program adds nothing but the moment.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

from supervisor.cli.main import main

# Where the signals come: before this module is imported, or before this call.
IMPORT: Final = "supervisor.supervisor"
CALLS: Final = {
    "read": ("supervisor.config_file", "load"),
    "lock": ("supervisor.runtime_dir", "RuntimeDir.open"),
    "listen": ("supervisor.listeners", "Listeners.open"),
    "run": ("supervisor.signals", "install"),
}
STEPS: Final = ("import", *CALLS)


class _AtImport:
    """A finder of modules that finds none."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act

    def find_spec(self, name: str, *_: object) -> None:
        """Asked before a module is imported."""
        if name == IMPORT:
            self._act()


def _wrap(step: str, act: Callable[[], None]) -> None:
    module, path = CALLS[step]
    *holders, name = path.split(".")
    place: Any = importlib.import_module(module)
    for holder in holders:
        place = getattr(place, holder)
    call = getattr(place, name)

    def wrapped(*arguments: Any) -> Any:
        act()
        return call(*arguments)

    setattr(place, name, wrapped)


def signal_at(step: str, numbers: list[signal.Signals]) -> None:
    """Have each signal sent once, at this step."""

    def act() -> None:
        while numbers:
            os.kill(os.getpid(), numbers.pop(0))

    if step == "import":
        sys.meta_path.insert(0, _AtImport(act))
    else:
        _wrap(step, act)


if __name__ == "__main__":
    signal_at(sys.argv.pop(1), [signal.Signals[name] for name in sys.argv.pop(1).split(",")])
    main()
