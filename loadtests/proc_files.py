"""Parsers of the /proc files that the load tests read. Source: proc(5)."""

from __future__ import annotations

import re

from msgspec import Struct

_PSS = re.compile(r"^Pss:\s+(\d+) kB$", re.MULTILINE)


class Stat(Struct, frozen=True):
    """The fields of /proc/PID/stat that are used here; times in clock ticks."""

    parent: int
    user_ticks: int
    system_ticks: int
    start_ticks: int  # since boot; with the pid it names a process for good


def parse_stat(text: str) -> Stat:
    """Parse /proc/PID/stat. ValueError when it is not one.

    The name in field 2 may hold blanks and brackets: what follows its last ")" is field 3.
    """
    fields = text.rpartition(")")[2].split()
    if len(fields) < 20:
        raise ValueError(f"not a stat line: {text!r}")
    return Stat(
        parent=int(fields[1]),
        user_ticks=int(fields[11]),
        system_ticks=int(fields[12]),
        start_ticks=int(fields[19]),
    )


def parse_pss(text: str) -> int:
    """Pss of /proc/PID/smaps_rollup in bytes. ValueError when there is none."""
    found = _PSS.search(text)
    if found is None:
        raise ValueError("no Pss line")
    return int(found[1]) * 1024
