"""List files of access rules (``file:lists/a.txt``): read whenever a config is checked.

One entry a line in any notation of `shared.address_set.parse_range`; what follows a ``#``, and
empty lines, do not count. A file is read once for a config, however many routes name it.
"""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Final

from msgspec import Struct

from shared.address_set import Range, build, parse_range
from shared.errors import Problem
from shared.plan import AddressSet
from shared.units import holds_private_key
from supervisor.config_read import ReadError, read_file

MAX_LIST_BYTES: Final = 64 << 20  # a million entries of the longest kind
MAX_ENTRIES: Final = 1_000_000  # ten times the largest public block lists
MAX_PROBLEMS: Final = 20  # lines of a file that are shown as wrong


class ListFile(Struct, frozen=True):
    """What a list file holds, and the lines of it that are wrong."""

    addresses: AddressSet
    problems: list[Problem]


class ListFiles:
    """The list files of one config. ``directory``: where relative paths start."""

    def __init__(self, directory: Path) -> None:
        self.directory: Final = directory
        self._files: dict[str, ListFile | ReadError] = {}

    def read(self, path: str) -> tuple[ListFile, bool]:
        """The file, and whether it is asked for the first time; ReadError where there is none."""
        is_new = path not in self._files
        if is_new:
            self._files[path] = self._read(path)
        file = self._files[path]
        if isinstance(file, ReadError):
            raise ReadError(file.reason, file.hint)
        return file, is_new

    def _read(self, path: str) -> ListFile | ReadError:
        place = self.directory / path
        try:
            data = read_file(place, MAX_LIST_BYTES)
            if len(data) > MAX_LIST_BYTES:
                return ReadError(f"is larger than {MAX_LIST_BYTES >> 20} MiB")
            return parse_list(data, str(place))
        except ReadError as error:
            return error


def parse_list(data: bytes, name: str) -> ListFile:
    """The bytes of a list file; ``name`` stands for it in messages.

    ReadError: too many entries, or a private key.
    """
    try:
        text = data.decode("utf-8-sig")  # a byte order mark is allowed: lists come from anywhere
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        message = f"byte 0x{data[exc.start]:02x} is no UTF-8; is this a text file?"
        return ListFile(build([]), [_problem(name, line, message, "file")])
    ranges: list[Range] = []
    wrong: list[Problem] = []
    entries = hidden = 0
    for number, row in enumerate(StringIO(text), 1):
        entry = row.partition("#")[0].strip()
        if not entry:
            continue
        entries += 1
        if entries > MAX_ENTRIES:
            raise ReadError(f"has more than {MAX_ENTRIES} entries")
        try:
            ranges.append(parse_range(entry))
        except ValueError as error:
            if len(wrong) < MAX_PROBLEMS:
                why = "a list cannot name another" if entry.startswith("file:") else str(error)
                wrong.append(_problem(name, number, why))
            else:
                hidden += 1
    if wrong and holds_private_key(text):
        raise ReadError("holds a private key, and is no list")  # each line would be quoted
    if hidden:
        wrong.append(_problem(name, wrong[-1].line + 1, f"and {hidden} more wrong lines below"))
    return ListFile(build([] if wrong else ranges), wrong)


def _problem(name: str, line: int, message: str, code: str = "value") -> Problem:
    return Problem(message=message, code=code, file=name, line=line)
