"""The operational log of both processes: structlog, one line per event, never in the way.

A line goes out with one write and is dropped, and counted, where that would block or fail: a full
disk, a terminal that is stopped or a log reader that hangs must not stop traffic.
"""

from __future__ import annotations

import json
import os
import select
import stat
import sys
from typing import Any, Final

import msgspec
import structlog
from msgspec import Struct
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

Logger = FilteringBoundLogger

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}  # sd-daemon(3)

# poll(2) promises that this much fits a pipe that is writable (PIPE_BUF on Linux).
LINE_MAX_BYTES: Final = 4096
_STDERR: Final = 2


class LogSettings(Struct, frozen=True, kw_only=True):
    """``format``: console, json, journald or auto. ``file`` "": standard error.

    auto: console on a terminal, journald where standard error is the journal's, else json.
    """

    level: str = "info"
    format: str = "auto"
    file: str = ""


class _Sink:
    """A file by path, reopened on request, or standard error. ``dropped`` counts lost lines."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.dropped = 0
        self._fd = _open(path)
        self._may_block = _may_block(self._fd)

    def reopen(self, path: str) -> None:
        """Open ``path`` anew; OSError leaves everything as it was."""
        fd = _open(path)
        old, self._fd, self.path = self._fd, fd, path
        self._may_block = _may_block(fd)
        if old != _STDERR:
            os.close(old)

    def is_terminal(self) -> bool:
        return os.isatty(self._fd)

    def is_journal(self) -> bool:
        """systemd.exec(5): JOURNAL_STREAM names the device and inode of what the journal reads."""
        try:
            found = os.fstat(self._fd)
        except OSError:
            return False
        return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"

    def write(self, line: str) -> None:
        raw = line.encode("utf-8", "backslashreplace")
        if self._may_block:
            raw = raw[: LINE_MAX_BYTES - 1]
        try:
            if self._may_block and not self._has_room():
                raise BlockingIOError
            if os.write(self._fd, raw + b"\n") <= len(raw):
                self.dropped += 1  # the rest of it found no room
        except OSError:
            self.dropped += 1

    def _has_room(self) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return bool(poll.poll(0))


def _open(path: str) -> int:
    return open_for_append(path) if path else _STDERR


def open_for_append(path: str) -> int:
    """Open a log file, made with mode 0640 where it is not there; OSError.

    O_NONBLOCK: nothing to a file; a FIFO that nobody reads is an error, not a wait.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    return os.open(path, flags, 0o640)


def _may_block(fd: int) -> bool:
    try:
        return not stat.S_ISREG(os.fstat(fd).st_mode)
    except OSError:
        return False  # closed: each write fails, and is counted


class _SinkLogger:
    """The end of structlog's chain: every level is a line."""

    def __init__(self, sink: _Sink) -> None:
        self.msg = sink.write

    debug = info = warning = error = critical = property(lambda self: self.msg)


class Logging:
    """The log of one process. ``logger`` is to be bound with component, slot and so on."""

    def __init__(self, settings: LogSettings, **fields: Any) -> None:
        """OSError when the file cannot be opened."""
        self.settings = settings
        self._sink = _Sink(settings.file)
        self._level = LEVELS[settings.level]
        self._render: Any = _renderer(settings.format, self._sink)
        self.logger: Logger = structlog.wrap_logger(
            _SinkLogger(self._sink),
            processors=[
                self._filter,
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                self._to_text,
            ],
            wrapper_class=structlog.make_filtering_bound_logger(LEVELS["debug"]),
        ).bind(**fields)

    @property
    def dropped(self) -> int:
        """Lines lost so far."""
        return self._sink.dropped

    def apply(self, settings: LogSettings) -> None:
        """Change level, format and file, for every bound logger; OSError changes nothing."""
        self._sink.reopen(settings.file)
        self.settings = settings
        self._level = LEVELS[settings.level]
        self._render = _renderer(settings.format, self._sink)

    def reopen(self) -> str:
        """Open the file again by its path, after a rotation; says what went wrong, or ""."""
        try:
            self._sink.reopen(self._sink.path)
        except OSError as error:
            return f"{self._sink.path}: {error.strerror}"
        return ""

    def _filter(self, _: WrappedLogger, method: str, event: EventDict) -> EventDict:
        if LEVELS.get(method, LEVELS["critical"]) < self._level:
            raise structlog.DropEvent
        return event

    def _to_text(self, logger: WrappedLogger, method: str, event: EventDict) -> str:
        text: str = self._render(logger, method, event)
        return text


def _renderer(kind: str, sink: _Sink) -> Any:
    if kind == "auto":
        kind = "console" if sink.is_terminal() else "journald" if sink.is_journal() else "json"
    if kind == "console":
        return structlog.dev.ConsoleRenderer(
            colors=sink.is_terminal() and "NO_COLOR" not in os.environ,
            exception_formatter=structlog.dev.plain_traceback,
        )
    return _as_journal if kind == "journald" else _as_json


def _as_json(logger: WrappedLogger, method: str, event: EventDict) -> str:
    event = structlog.processors.format_exc_info(logger, method, event)
    ordered = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}
    return msgspec.json.encode({**ordered, **event}, enc_hook=str).decode()


def _as_journal(logger: WrappedLogger, method: str, event: EventDict) -> str:
    """``<4>event key=value``: the journal has the time, and takes the level from the number.

    Each line of a traceback is an entry of its own, so each begins with the level.
    """
    event = structlog.processors.format_exc_info(logger, method, event)
    level = event.pop("level", "info")
    event.pop("timestamp", None)
    trace = str(event.pop("exception", ""))
    said = str(event.pop("event", "")).splitlines() or [""]
    pairs = [f"{key}={_value_text(value)}" for key, value in event.items()]
    text = [" ".join([said[0], *pairs]), *said[1:], *trace.splitlines()]
    return "\n".join(f"<{PRIORITIES.get(level, 6)}>{line}" for line in text)


def _value_text(value: object) -> str:
    """As it is where it is one plain word, else in quotes."""
    if not isinstance(value, (str, bytes, int, float, bool, type(None))):
        return msgspec.json.encode(value, enc_hook=str).decode()
    text = str(value)
    if text and text.isprintable() and not set(text) & {" ", '"', "="}:
        return text
    return json.dumps(text, ensure_ascii=False)


def die_note(text: str) -> None:
    """A last line on standard error, for where no log stands."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        return  # nobody reads it any more
