"""Entries for the access log, what became of them, and a process that writes some.

    python -m tests.helpers.access_lines PATH PREFIX LINES [LIMIT_BYTES]

With LIMIT_BYTES the process may not make a file larger than that (setrlimit(2)) for the first half
of its lines: to it the disk is full there. It prints how many lines it wrote, and dropped.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

from shared.access_format import Entry
from shared.plan import AccessPlan
from tests.helpers.waiting import DEADLINE_S, wait_until
from worker.access_log import AccessLog

PEER: Final = ("192.0.2.1", 40000)
DESTINATION: Final = ("203.0.113.9", 443)
BACKLOG_LINES: Final = 5000  # far below what the buffer holds

Notes: TypeAlias = list[tuple[str, str, dict[str, str]]]


def entry(number: int, route: str = "r") -> Entry:
    """What a line is made of; the number tells lines apart."""
    return (
        number, PEER, PEER, DESTINATION, "0.0.0.0:443", route, "app:9000", "client_closed",
        number, 2 * number, None, None, 0.001, 0.002, 0.5,
    )  # fmt: skip


@contextmanager
def access_log(path: Path, format: str = "json", notes: Notes | None = None) -> Iterator[AccessLog]:
    """A log that is closed in the end."""
    said = [] if notes is None else notes
    log = AccessLog(
        AccessPlan(file=str(path), format=format), "0-1-", lambda *note: said.append(note)
    )
    try:
        yield log
    finally:
        log.close(DEADLINE_S)


def write_fast(log: AccessLog, numbers: Iterable[int]) -> None:
    """Write without ever waiting for anything."""
    for number in numbers:
        log.write(time.monotonic(), entry(number))


def write_lines(log: AccessLog, numbers: Iterable[int]) -> None:
    """Write these as fast as the log's thread can keep up, with a tick now and then."""
    known = accounted(log)
    for count, number in enumerate(numbers):
        log.write(time.monotonic(), entry(number))
        if count % 500 == 0:
            log.tick(time.monotonic())
            wait_for_lines(log, known + count - BACKLOG_LINES)


def accounted(log: AccessLog) -> int:
    """Lines of which the outcome is known."""
    return log.lines + log.dropped


def wait_for_lines(log: AccessLog, lines: int) -> None:
    """Wait until the outcome of so many is known."""
    wait_until(lambda: accounted(log) >= lines, f"{lines} lines are written or dropped")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines as objects; each must be whole. Lines of blanks are where others were torn."""
    text = path.read_text()
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def numbers_of(path: Path) -> list[int]:
    """The numbers of the lines."""
    return [line["received"] for line in read_lines(path)]


def main(path: str, prefix: str, lines: str, limit_bytes: str = "") -> None:
    """See above."""
    log = AccessLog(AccessPlan(file=path), prefix, lambda *_: None)
    half = int(lines) // 2
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit_bytes), hard))
    write_lines(log, range(half))
    assert log.reopen() == ""  # all that was written so far is done with
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    write_lines(log, range(half, int(lines)))
    log.close(10.0)
    print(log.lines, log.dropped)


if __name__ == "__main__":
    main(*sys.argv[1:])
