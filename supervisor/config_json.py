"""JSON text to plain data and positions.

msgspec judges what is JSON; the scanner here only follows a text that msgspec has accepted, for
the places of keys and values and for duplicate keys. It takes many times as long, and so runs only
where there is something to say. (libyaml is no help: it refuses the valid escape of a surrogate
pair, ``"\\ud83d\\ude00"``.)
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from typing import Any, Final

import msgspec

from shared.errors import ConfigError, Problem
from supervisor.config_positions import Mark, Path, Positions
from supervisor.config_yaml import MAX_DEPTH, duplicate_key

_TOKEN: Final = re.compile(
    r'[ \t\r\n]*(?:(?P<text>"[^"\\]*(?:\\.[^"\\]*)*")'
    r'|(?P<mark>[\[\]{},:])|(?P<word>[^\s\[\]{},:"]+))'
)
_BYTE: Final = re.compile(r"\(byte ([0-9]+)\)")


def parse_json(text: str, positions: Positions) -> tuple[Any, list[Problem]]:
    """Plain data of a JSON text, and problems that leave the rest usable.

    ConfigError where the text is no JSON. ``positions`` get their places when one is asked for;
    that the text is nested too deep may be said only then: nothing so deep is a config.
    """
    raw = text.encode()
    scanner = _Scanner(text, positions)
    try:
        data = msgspec.json.decode(raw)
    except RecursionError:
        data = None  # the scanner says where
    except msgspec.DecodeError as exc:
        raise ConfigError([_syntax_problem(str(exc), raw, positions, scanner)]) from None
    if data is None or _has_duplicates(text):
        scanner.scan()
    else:
        positions.later = scanner.scan
    return data, scanner.problems


def _has_duplicates(text: str) -> bool:
    """Whether a mapping of a valid text has a key twice; also True where it is too deep to tell."""
    found = False

    def look(pairs: list[tuple[str, Any]]) -> None:
        nonlocal found
        found = found or len(dict(pairs)) < len(pairs)

    try:
        # As floats, numbers may have any length.
        json.loads(text, object_pairs_hook=look, strict=False, parse_int=float)
    except RecursionError:
        return True
    return found


def _syntax_problem(reason: str, raw: bytes, positions: Positions, scanner: _Scanner) -> Problem:
    match = _BYTE.search(reason)
    at = len(raw[: int(match[1])].decode(errors="replace")) if match else None
    message = _BYTE.sub("", reason).strip()
    if at is None and "truncated" in message:
        # msgspec says so of a lone surrogate as well, whose place it does not tell.
        message, at = "the JSON ends too early, or has a broken escape", len(raw.decode().rstrip())
    elif at is None:
        message = message.partition(" - at ")[0]
    mark = None if at is None else scanner.mark(at)
    return positions.problem_at(mark, message, code="syntax")


class _Frame:
    """A list or mapping that is open: its path, and the key or index that comes next."""

    __slots__ = ("is_list", "key", "path", "seen", "wants_key")

    def __init__(self, path: Path, is_list: bool) -> None:
        self.path = path
        self.is_list = is_list
        self.key: str | int = 0 if is_list else ""
        self.seen: set[str] = set()
        self.wants_key = not is_list


class _Scanner:
    """Follows the tokens of a valid text with a stack of its own, so depth is no matter."""

    def __init__(self, text: str, positions: Positions) -> None:
        self.problems: list[Problem] = []
        self._text = text
        self._positions = positions
        self._line_starts: list[int] = []
        self._stack: list[_Frame] = []

    def mark(self, offset: int, width: int = 1) -> Mark:
        """Line and column of a place given in characters."""
        if not self._line_starts:
            self._line_starts = [0, *(match.end() for match in re.finditer("\n", self._text))]
        line = bisect_right(self._line_starts, offset)
        return Mark(line, offset - self._line_starts[line - 1] + 1, width)

    def scan(self) -> None:
        """Note every place. ConfigError where the nesting is too deep."""
        place = 0
        while (match := _TOKEN.match(self._text, place)) is not None:
            kind = match.lastgroup or ""
            token = match[kind]
            self._token(kind, token, match.start(kind))
            place = match.end()

    def _token(self, kind: str, token: str, offset: int) -> None:
        frame = self._stack[-1] if self._stack else None
        if token in ("]", "}") and kind == "mark":
            self._stack.pop()
        elif token == "," and frame is not None:
            if isinstance(frame.key, int):
                frame.key += 1
            frame.wants_key = not frame.is_list
        elif token == ":":
            return
        elif frame is not None and frame.wants_key:
            self._key(frame, token, offset)
        else:
            self._value(frame, kind, token, offset)

    def _key(self, frame: _Frame, token: str, offset: int) -> None:
        key = json.loads(token, strict=False) if "\\" in token else token[1:-1]
        path = (*frame.path, key)
        mark = self.mark(offset, len(token))
        if key in frame.seen:
            self.problems.append(duplicate_key(self._positions, path, mark))
        frame.seen.add(key)
        frame.key = key
        frame.wants_key = False
        self._positions.keys[path] = mark  # the last one wins, as it does in msgspec

    def _value(self, frame: _Frame | None, kind: str, token: str, offset: int) -> None:
        path = () if frame is None else (*frame.path, frame.key)
        mark = self.mark(offset, 1 if kind == "mark" else len(token))
        self._positions.values[path] = mark
        if kind != "mark":
            return
        if len(self._stack) >= MAX_DEPTH:
            problem = self._positions.problem_at(
                mark, f"nested deeper than {MAX_DEPTH} levels", code="syntax"
            )
            raise ConfigError([*self.problems, problem])
        self._stack.append(_Frame(path, token == "["))
