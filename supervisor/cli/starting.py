"""`proxyctl start`: run the supervisor in this process, and say plainly why it cannot."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Final

from shared.config.structs import MAX_WORKERS
from shared.errors import ConfigError, StartError
from shared.messages import Reply
from supervisor.cli import output, views
from supervisor.cpu_count import usable_cpus
from supervisor.example import ADMIN, ECHO, PAGE, PORT_TAKEN_HINT
from supervisor.runtime_dir import choose

_EXAMPLE_PLACES: Final = (PAGE, ECHO, ADMIN)


def parse_workers(text: str | None) -> int | None:
    """``--workers`` as a number, None for what the config says; ValueError if it is neither."""
    if text is None:
        return None
    if text == "auto":
        return usable_cpus()
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MAX_WORKERS:
        raise ValueError(f"{text!r} is neither auto nor a number from 1 to {MAX_WORKERS}")
    return int(text)


def start(config: Path | None, workers: int | None, runtime_dir: Path | None, as_json: bool) -> int:
    """Run until stopped; returns the exit code, 0 after a stop by signal.

    With ``as_json`` the lines about listeners go to stderr, and the one object comes at the end.
    """
    from supervisor.supervisor import StartOptions
    from supervisor.supervisor import start as run

    options = StartOptions(config_path=config, workers=workers, runtime_dir=choose(runtime_dir))
    lines_to = contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()
    try:
        with lines_to:
            reply = Reply(exit_code=run(options))
    except ConfigError as error:
        reply = output.failed(error)
    except StartError as error:
        reply = output.failed(_with_way_out(error, config), code="start")
    return output.emit(reply, as_json=as_json, render=views.nothing)


def _with_way_out(error: StartError, config: Path | None) -> StartError:
    """The example has no config in which its ports could be changed: say what to do instead."""
    if config is None and any(place in error.message for place in _EXAMPLE_PLACES):
        return StartError(error.message, PORT_TAKEN_HINT)
    return error
