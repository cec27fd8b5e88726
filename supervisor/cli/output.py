"""What a command prints: one JSON object, or text for people.

Data goes to stdout, everything about it to stderr. The JSON shape and the exit codes are those of
design section 4.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from shared.errors import ConfigError, Problem, ProxyctlError, StartError
from shared.messages import Reply

DEGRADED_EXIT = 4


def emit(reply: Reply, *, as_json: bool, render: Callable[[dict[str, Any]], str]) -> int:
    """Print a reply and return its exit code; ``render`` makes text of the data.

    The text is printed when the command did what it was asked; for `status` that is also so when
    what it shows is degraded.
    """
    if as_json:
        print(to_json(reply), flush=True)
        return reply.exit_code
    for problem in reply.warnings:
        say("warning", problem)
    for problem in reply.errors:
        say("error", problem)
    if reply.exit_code in {0, DEGRADED_EXIT}:
        text = render(reply.data)
        if text:
            print(text, flush=True)
    return reply.exit_code


def to_json(reply: Reply) -> str:
    """The one object that `--json` prints, without the line end."""
    import msgspec

    return msgspec.json.encode(
        {
            "schema": 1,
            "ok": reply.exit_code == 0,
            "data": reply.data,
            "errors": [_as_object(problem) for problem in reply.errors],
            "warnings": [_as_object(problem) for problem in reply.warnings],
        }
    ).decode()


def _as_object(problem: Problem) -> dict[str, Any]:
    names = ("file", "line", "col", "path", "code", "message", "hint")
    return {name: getattr(problem, name) for name in names}


def failed(error: ProxyctlError, *, code: str = "failed") -> Reply:
    """An exception as a reply with exit code 1."""
    if isinstance(error, ConfigError):
        return Reply(exit_code=1, errors=error.problems)
    hint = error.hint if isinstance(error, StartError) else ""
    message = error.message if isinstance(error, StartError) else str(error)
    return Reply(exit_code=1, errors=[Problem(message=message, code=code, hint=hint)])


def say(kind: str, problem: Problem) -> None:
    """Print one finding to stderr, with its line of the file and a caret where that is known."""
    if problem.file:
        from supervisor.config_positions import render  # only what concerns a file needs it

        text = render(problem, kind)
    else:
        text = f"proxyctl: {kind}: {problem.text()}"
    print(colour(text, kind, sys.stderr), file=sys.stderr, flush=True)


def colour(text: str, kind: str, stream: TextIO) -> str:
    """``text`` with the word ``kind`` in colour, on a terminal only; NO_COLOR switches it off."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return text
    tint = {"error": "31", "warning": "33"}.get(kind, "0")
    return text.replace(f"{kind}:", f"\x1b[1;{tint}m{kind}:\x1b[0m", 1)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns with two spaces between; numbers to the right."""
    cells = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    is_number = [
        bool(rows) and all(isinstance(row[column], int | float) for row in rows)
        for column in range(len(header))
    ]
    lines = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, is_number, strict=True)
        ).rstrip()
        for row in cells
    ]
    return "\n".join(lines)


def size(count: int) -> str:
    """Bytes for people: ``912 B``, ``1.2 MiB``."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"


def span(seconds: float) -> str:
    """A duration for people: ``42s``, ``3m 7s``, ``5h 12m``, ``2d 4h``."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60}m"
    return f"{whole // 86400}d {whole % 86400 // 3600}h"


def latency(seconds: float | None) -> str:
    """A short duration for people: ``0.4 ms``, ``120 ms``, ``2.5 s``; a dash for none."""
    if seconds is None:
        return "-"
    if seconds < 0.01:
        return f"{seconds * 1000:.1f} ms"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def moment(seconds: float) -> str:
    """A time since 1970 for people, in the local zone: ``2026-11-21 10:41:07``."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
