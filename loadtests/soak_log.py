"""The access log of a soak: read while it is written, over rotations, and judged at each rest.

Every connection has one line, known by its id. Sets of ids are one bit a connection, so that a
long run costs the reader a megabyte and not a gigabyte.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Final

import msgspec
from msgspec import Struct, field

from loadtests.soak_thread import Looking
from loadtests.soak_verdict import REPORTED_S, Killed
from loadtests.soak_wire import CONNECTIONS, Account, Numbers, parse_id, union, without

READ_S: Final = 0.25  # from one look at the file to the next
CHUNK_BYTES: Final = 1 << 20
OLD_S: Final = 10.0  # a stopped worker has the old file open until it wakes, or is killed
# Lines about long and crowded connections that a worker had made and not written when it was
# killed: it writes every 0.2 s, and the driver knows when such a connection began, not its end.
UNWRITTEN: Final = 12


class Line(Struct):
    """What is looked at of a line."""

    id: str
    end: str | None
    target: str | None


class LogSums(Struct, kw_only=True):
    """What was read so far."""

    lines: int = 0
    undialled: int = 0  # lines of connections that had no target
    malformed: int = 0
    twice: int = 0  # ids that had a line before
    rotations: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    ids: dict[int, bytes] = field(default_factory=dict)  # dialled, by incarnation, as in Numbers


class _File:
    """One file that somebody may still append to."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.rest = b""
        self.rotated_at = float("inf")


class LogReader(Looking):
    """A thread that reads all that is written."""

    def __init__(self, path: Path) -> None:
        super().__init__("access log", READ_S)
        self.path = path
        self._sums = LogSums()
        self._numbers: dict[int, Numbers] = {}
        self._files: list[_File] = []
        self._decode = msgspec.json.Decoder(Line).decode

    def stop(self) -> None:
        """Read no more, and close the files."""
        super().stop()
        for file in self._files:
            os.close(file.fd)
        self._files.clear()

    def rotate(self) -> bool:
        """Rename the file, as logrotate does; whoever has it open is to be told next.

        False, and nothing is done, while the last rotation's new file has not been opened yet.
        """
        with self._lock:
            self._open()
            if not self._files or self._files[-1].rotated_at != float("inf"):
                return False
            self._sums.rotations += 1
            moved = self.path.with_name(f"{self.path.name}.{self._sums.rotations}")
            self.path.rename(moved)
            moved.unlink()  # what is open can still be written, and read here
            self._files[-1].rotated_at = monotonic()
            return True

    def read(self) -> LogSums:
        """Everything that is there by now."""
        with self._lock:
            self._open()
            for file in list(self._files):
                self._drain(file)
                if monotonic() - file.rotated_at > OLD_S:
                    self._sums.malformed += bool(file.rest)
                    os.close(file.fd)
                    self._files.remove(file)
            ids = {one: bytes(found.bits) for one, found in self._numbers.items()}
            return msgspec.structs.replace(self._sums, ends=dict(self._sums.ends), ids=ids)

    def look(self) -> None:
        """Read what has come."""
        with self._lock:
            self._open()
            for file in self._files:
                self._drain(file)

    def _open(self) -> None:
        """The file of now, once it is there."""
        if self._files and self._files[-1].rotated_at == float("inf"):
            return
        try:
            self._files.append(_File(os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)))
        except FileNotFoundError:
            return

    def _drain(self, file: _File) -> None:
        while data := os.read(file.fd, CHUNK_BYTES):
            *whole, file.rest = (file.rest + data).split(b"\n")
            for text in whole:
                self._take(text)

    def _take(self, text: bytes) -> None:
        sums = self._sums
        try:
            line = self._decode(text)
        except msgspec.DecodeError:
            sums.malformed += bool(text)
            return
        sums.lines += 1
        if line.end is not None:
            sums.ends[line.end] = sums.ends.get(line.end, 0) + 1
        known = parse_id(line.id)
        if known is None:
            sums.malformed += 1
        elif line.target is None:
            sums.undialled += 1
        else:
            numbers = self._numbers.get(known[0])
            if numbers is None:
                numbers = self._numbers[known[0]] = Numbers()
            sums.twice += not numbers.add(known[1])


def judge_log(
    sums: LogSums, account: Account, killed: Killed, held: Mapping[int, int]
) -> list[str]:
    """Compare lines with what the targets saw; exact but for workers that were killed.

    ``held``: by incarnation, connections that failed because their worker was killed.
    """
    wrong = []
    if sums.malformed > len(killed.at):
        wrong.append(f"access log: {sums.malformed} lines are malformed")
    if sums.twice:
        wrong.append(f"access log: {sums.twice} ids have a second line")
    still_open: dict[int, Numbers] = {}
    for unique_id in account.open_ids:
        if (known := parse_id(unique_id)) is not None:
            still_open.setdefault(known[0], Numbers()).add(known[1])
    for incarnation in sorted({*sums.ids, *account.ids}):
        logged = sums.ids.get(incarnation, b"")
        seen = account.ids.get(incarnation, b"")
        if unknown := without(logged, seen):
            wrong.append(f"access log: {unknown} lines of worker {incarnation} are of nobody")
        going_on = bytes(still_open[incarnation].bits) if incarnation in still_open else b""
        missing = without(seen, union(logged, going_on))
        most = _unwritten(incarnation, account, killed, held)
        if missing > most:
            wrong.append(
                f"access log: {missing} lines of worker {incarnation} are missing, at most {most}"
                " may"
            )
    refused = account.outcomes.get("limited", 0) + account.outcomes.get("blocked", 0)
    least = refused - (killed.undialled + len(killed.at) if killed.at else 0)
    most = refused + (killed.held if killed.at else 0)
    if not least <= sums.undialled <= most:
        wrong.append(f"access log: {sums.undialled} lines without a target, not {least} to {most}")
    return wrong


def _unwritten(incarnation: int, account: Account, killed: Killed, held: Mapping[int, int]) -> int:
    """Lines that a worker may owe: of what it held, and of its last moments."""
    at = killed.at.get(incarnation)
    if at is None:
        return 0
    tally = account.incarnations.get(incarnation)
    if tally is None:
        return 0
    recent = tally.until(None)[CONNECTIONS] - tally.until(at - REPORTED_S)[CONNECTIONS]
    return recent + held.get(incarnation, 0) + UNWRITTEN
