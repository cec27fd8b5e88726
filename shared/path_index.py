"""Paths of routes: what one matches, how specific it is, and which of thousands may match.

In a path a star stands for anything, ``/`` and nothing included; ``:name`` stands for one segment
that is not empty. All else is literal, a colon within a segment too. A path without either is
exact. What is compared is the path as `shared.http` normalises it, with its other escapes left.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, Generic, TypeVar

from shared.units import short

T = TypeVar("T")

NO_PATH: Final = 1  # the rank of a route without paths, behind all that have some
_EXACT: Final = -(1 << 40)  # before every pattern, whose rank is the length of its literal prefix
NO_PARAMS: Final[Mapping[str, str]] = MappingProxyType({})

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_WILD: Final = re.compile(r"\*|(?<=/):")


class PathPattern:
    """One path of a route. ValueError, in words for the operator, for one that is none.

    ``prefix``: what is literal before the first star or parameter. ``params``: names of what it
    finds, in order; ``*`` is the last, where the path ends with a star.
    """

    __slots__ = ("_ends_with_param", "_is_prefix", "_regex", "is_exact", "params", "prefix", "text")

    def __init__(self, text: str) -> None:
        if not text.startswith(("/", "*")):
            raise ValueError(f"{short(text)} is no path: it begins with neither / nor *")
        self.text = text
        wild = _WILD.search(text)
        self.is_exact = wild is None
        size = len(text) if wild is None else wild.start()
        self.prefix = text[:size]
        self.params = _params(text)
        rest = text[size:]
        self._is_prefix = rest.strip("*") == "" and not self.is_exact
        self._ends_with_param = rest.startswith(":") and "/" not in rest
        self._regex: re.Pattern[str] | None = None  # made when it is needed first

    @property
    def rank(self) -> int:
        """Smaller is more specific: exact, then the longer literal prefix, then NO_PATH."""
        return _EXACT if self.is_exact else -len(self.prefix)

    def match(self, path: str) -> Mapping[str, str] | None:
        """What its parameters stand for in ``path``; None where it does not match."""
        prefix = self.prefix
        if self.is_exact:
            return NO_PARAMS if path == prefix else None
        if not path.startswith(prefix):
            return None
        if self._is_prefix:
            return {"*": path.removeprefix(prefix)}
        if self._ends_with_param:
            rest = path.removeprefix(prefix)
            return {self.params[0]: rest} if rest and "/" not in rest else None
        regex = self._regex
        if regex is None:
            regex = self._regex = _compiled(self.text)
        found = regex.fullmatch(path)
        if found is None:
            return None
        return dict(zip(self.params, found.groups(), strict=True)) if self.params else NO_PARAMS


def path_rank(text: str) -> int:
    """The rank of a path; ValueError as `PathPattern`."""
    return PathPattern(text).rank


def _params(text: str) -> tuple[str, ...]:
    names: list[str] = []
    for segment in text.split("/")[1:]:
        if not segment.startswith(":"):
            continue
        name = segment[1:]
        if _NAME.fullmatch(name) is None:
            raise ValueError(
                f"{short(text)} is no path: {short(segment)} names no parameter, which is a whole "
                "segment of letters, digits, _ and -"
            )
        if name in names:
            raise ValueError(f"{short(text)} is no path: it has two parameters {segment}")
        names.append(name)
    if text.endswith("*"):
        names.append("*")
    return tuple(names)


def _compiled(text: str) -> re.Pattern[str]:
    """Never goes back: what stands before the last star takes its first place for good, which is
    right for globs, and a segment is taken whole. So the time is linear in the path for each piece.
    """
    first, *middle = [_piece(piece) for piece in re.split(r"\*+", text)]
    if not middle:
        return re.compile(first, re.DOTALL)
    last = middle.pop()
    inner = "".join(f"(?>.*?{piece})" for piece in middle)
    # A path that ends with its star: the rest is its parameter.
    return re.compile(f"{first}{inner}" + (f".*{last}" if last else "(.*)"), re.DOTALL)


def _piece(text: str) -> str:
    """The regex of what has no star."""
    begin, *segments = text.split("/")
    parts = [re.escape(begin)]
    parts += [r"([^/]++)" if one.startswith(":") else re.escape(one) for one in segments]
    return "/".join(parts)


class PathIndex(Generic[T]):
    """What ``make`` gives, made at the first use of its place: a path's, or of those without one.

    A look-up asks for the path itself, for what it begins with up to each slash, and for each
    other length of a literal prefix that occurs.
    """

    __slots__ = ("_anyhow", "_by_length", "_by_slash", "_exact", "_lengths", "_make", "_slashes")

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._anyhow: T | None = None
        self._exact: dict[str, T] = {}
        self._by_slash: dict[str, Prefix[T]] = {}  # prefixes that end with a slash
        self._slashes = 0  # most of them in one
        self._by_length: dict[str, Prefix[T]] = {}
        self._lengths: list[int] = []  # that occur, the longest first

    def at(self, pattern: PathPattern | None) -> T:
        """The place of a path, which others may share; None: of routes without one."""
        if pattern is None:
            place = self._anyhow
            if place is None:
                place = self._anyhow = self._make()
            return place
        if pattern.is_exact:
            found = self._exact.get(pattern.text)
            if found is None:
                found = self._exact[pattern.text] = self._make()
            return found
        return self._prefix(pattern.prefix).at(pattern, self._make)

    def _prefix(self, text: str) -> Prefix[T]:
        is_folder = text.endswith("/")
        table = self._by_slash if is_folder else self._by_length
        found = table.get(text)
        if found is None:
            found = table[text] = Prefix()
            if is_folder:
                self._slashes = max(self._slashes, text.count("/"))
            elif len(text) not in self._lengths:
                self._lengths.append(len(text))
                self._lengths.sort(reverse=True)
        return found

    def over(self, path: str) -> list[T]:
        """All places whose paths may match; a pattern of one of them may still not."""
        found: list[T] = []
        exact = self._exact.get(path)
        if exact is not None:
            found.append(exact)
        end = 0
        for _ in range(self._slashes):
            end = path.find("/", end) + 1
            if end == 0:
                break
            prefix = self._by_slash.get(path[:end])
            if prefix is not None:
                prefix.collect(path, found)
        if self._lengths:
            size = len(path)
            for length in self._lengths:
                if length <= size:
                    prefix = self._by_length.get(path[:length])
                    if prefix is not None:
                        prefix.collect(path, found)
        if self._anyhow is not None:
            found.append(self._anyhow)
        return found

    def __iter__(self) -> Iterator[T]:
        """Every one that was made."""
        yield from self._exact.values()
        for table in (self._by_slash, self._by_length):
            for prefix in table.values():
                yield from prefix
        if self._anyhow is not None:
            yield self._anyhow


class Prefix(Generic[T]):
    """The patterns of one literal prefix, told apart by what else is literal in them: a later
    segment, by its place, or the end behind the last star.
    """

    __slots__ = ("_others", "_segments", "_tails")

    def __init__(self) -> None:
        self._segments: dict[int, dict[str, T]] = {}
        self._tails: dict[int, dict[str, T]] = {}  # by their length
        self._others: T | None = None

    def at(self, pattern: PathPattern, make: Callable[[], T]) -> T:
        """The place of a pattern that has this prefix."""
        table: dict[str, T] | None = None
        key = ""
        stem = pattern.text.rstrip("*")
        if "*" not in stem:  # so every segment before the end has its place
            before = pattern.prefix.count("/")
            for place, segment in enumerate(stem.split("/")):
                if place > before and segment and segment[0] != ":":
                    is_cut = place == stem.count("/") and stem != pattern.text
                    if not is_cut:
                        table = self._segments.setdefault(place, {})
                        key = segment
                        break
        elif stem == pattern.text:
            key = stem.rpartition("*")[2]
            if "/:" in key:  # only what is behind the last parameter is literal
                key = key.rpartition("/:")[2].partition("/")[2]
                key = f"/{key}" if key else ""
            if key:
                table = self._tails.setdefault(len(key), {})
        if table is None:
            place_of_others = self._others
            if place_of_others is None:
                place_of_others = self._others = make()
            return place_of_others
        found = table.get(key)
        if found is None:
            found = table[key] = make()
        return found

    def collect(self, path: str, found: list[T]) -> None:
        """Add the places whose patterns may match a path that begins with the prefix."""
        if self._others is not None:
            found.append(self._others)
        if self._segments:
            segments = path.split("/")
            count = len(segments)
            for place, table in self._segments.items():
                if place < count:
                    one = table.get(segments[place])
                    if one is not None:
                        found.append(one)
        for length, tails in self._tails.items():
            tail = path[-length:]
            one = tails.get(tail)
            if one is not None:
                found.append(one)

    def __iter__(self) -> Iterator[T]:
        """Every one that was made."""
        if self._others is not None:
            yield self._others
        for tables in (self._segments, self._tails):
            for table in tables.values():
                yield from table.values()
