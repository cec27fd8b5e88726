"""YAML text to plain data and positions, by the core schema of YAML 1.2 (section 10.3).

PyYAML's own loader follows YAML 1.1, where ``no`` is false, ``22:22`` is 1342 and a duplicate key
silently wins. So only its parser is used, which yields events; values are resolved here. Tags,
merge keys and keys that are no plain text are refused; aliases work within a budget of nodes, or
six lines of nested aliases would expand to millions of nodes.

There are two readers: one that notes places, expands aliases and says what is wrong, and, tried
first, one that is more than twice as fast and gives up on all that it does not expect.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import yaml

from shared.errors import ConfigError, Problem
from shared.units import short
from supervisor.config_positions import Mark, Path, Positions, path_text

MAX_DEPTH: Final = 32  # of nesting; the config itself needs 7
MIN_NODE_BUDGET: Final = 20_000  # nodes with aliases expanded; grows with the size of the text
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is 10 times as fast

_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL: Final = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INT: Final = re.compile(r"[-+]?[0-9]{1,40}", re.ASCII)
_HEX: Final = re.compile(r"0x[0-9a-fA-F]{1,40}", re.ASCII)
_OCTAL: Final = re.compile(r"0o[0-7]{1,40}", re.ASCII)
_FLOAT: Final = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII
)  # fmt: skip
_NUMBERS_BEGIN: Final = frozenset("-+.0123456789")
_INFINITE: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


def resolve(text: str) -> Any:
    """The value of a plain (unquoted) scalar: null, bool, int, float or text."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if text[0] not in _NUMBERS_BEGIN:
        return text
    if _INT.fullmatch(text):
        return int(text)
    if _HEX.fullmatch(text):
        return int(text, 16)
    if _OCTAL.fullmatch(text):
        return int(text, 8)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INFINITE.fullmatch(text):
        return float(text.replace(".", "", 1))
    return text


class _Node:
    """A scalar (``value`` is resolved), list (of nodes) or mapping (of key and value nodes)."""

    __slots__ = ("kind", "mark", "value")

    def __init__(self, kind: str, value: Any, mark: Mark) -> None:
        self.kind = kind  # scalar, list, mapping
        self.value = value
        self.mark = mark


def parse_yaml(text: str, positions: Positions) -> tuple[Any, list[Problem]]:
    """Plain data of a YAML text, and problems that leave the rest usable.

    ConfigError where the text cannot be read at all. ``positions`` get their places when one is
    asked for.
    """
    try:
        data = _read_plain(text)
    except (_NotPlainError, yaml.YAMLError):
        return _read_all(text, positions)

    def note_places() -> None:
        _read_all(text, positions)

    positions.later = note_places
    return data, []


def _read_all(text: str, positions: Positions) -> tuple[Any, list[Problem]]:
    """Data and problems; fills ``positions``."""
    loader = None
    try:
        loader = _LOADER(text)  # the one without libyaml looks at every character here
        reader = _Reader(loader, positions, budget=max(MIN_NODE_BUDGET, len(text)))
        root = reader.document()
        return reader.build(root, ()), reader.problems
    except yaml.reader.ReaderError as exc:
        position = exc.position if isinstance(exc.position, int) else 0
        mark = mark_of_offset(text, position)
        code = exc.character if isinstance(exc.character, int) else ord(str(exc.character)[:1])
        problem = positions.problem_at(
            mark, f"the character U+{code:04X} is not allowed in YAML", code="syntax"
        )
        raise ConfigError([problem]) from None
    except yaml.MarkedYAMLError as exc:
        raise ConfigError([_syntax_problem(exc, positions)]) from None
    finally:
        if loader is not None:
            loader.dispose()


class _NotPlainError(Exception):
    """The text holds something that the other reader must judge."""


def _read_plain(text: str) -> Any:
    """Data of a text without tags, anchors, duplicate keys, and whatever else is doubtful.

    _NotPlainError and yaml.YAMLError for all others.
    """
    loader = _LOADER(text)
    next_event = loader.get_event
    try:
        next_event()  # of the stream's start
        if type(next_event()) is not yaml.DocumentStartEvent:
            raise _NotPlainError
        data = _plain_value(next_event, next_event(), 0)
        next_event()  # of the document's end
        if type(next_event()) is not yaml.StreamEndEvent:
            raise _NotPlainError
        return data
    finally:
        loader.dispose()


def _plain_value(next_event: Callable[[], Any], event: Any, depth: int) -> Any:
    kind = type(event)
    if kind is yaml.AliasEvent or event.tag is not None or event.anchor is not None:
        raise _NotPlainError
    if kind is yaml.ScalarEvent:
        return resolve(event.value) if event.implicit[0] else event.value
    if depth >= MAX_DEPTH:
        raise _NotPlainError
    if kind is yaml.SequenceStartEvent:
        items = []
        while type(event := next_event()) is not yaml.SequenceEndEvent:
            items.append(_plain_value(next_event, event, depth + 1))
        return items
    data: dict[str, Any] = {}
    while type(event := next_event()) is not yaml.MappingEndEvent:
        if type(event) is not yaml.ScalarEvent or event.tag or event.anchor:
            raise _NotPlainError
        key = event.value
        if key in data or key == "<<":
            raise _NotPlainError
        data[key] = _plain_value(next_event, next_event(), depth + 1)
    return data


def mark_of_offset(text: str, offset: int) -> Mark:
    """Line and column of a place that is given as a number of characters."""
    before = text[:offset]
    return Mark(before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1)


def _syntax_problem(exc: yaml.MarkedYAMLError, positions: Positions) -> Problem:
    place = exc.problem_mark or exc.context_mark
    mark = None
    if place is not None:
        line = min(place.line, max(0, len(positions.lines) - 1))  # "end of text" is past the end
        beyond = place.line != line
        mark = Mark(line + 1, len(positions.lines[line]) + 1 if beyond else place.column + 1)
    hint = exc.context or ""
    if exc.context and exc.context_mark is not None:
        hint = f"{exc.context} that begins on line {exc.context_mark.line + 1}"
    return positions.problem_at(mark, str(exc.problem or "bad YAML"), code="syntax", hint=hint)


class _Reader:
    """One pass over the events makes nodes, a second over the nodes makes data and positions."""

    def __init__(self, loader: Any, positions: Positions, budget: int) -> None:
        self.problems: list[Problem] = []
        self._positions = positions
        self._loader = loader
        self._anchors: dict[str, _Node] = {}
        self._budget = budget  # of nodes, with aliases expanded

    def document(self) -> _Node:
        """The root node of the only document; null where the text has none."""
        self._loader.get_event()  # of the stream's start
        empty = _Node("scalar", None, Mark(1, 1))
        if isinstance(self._loader.get_event(), yaml.StreamEndEvent):
            return empty
        root = self._node(self._loader.get_event(), 0)
        self._loader.get_event()  # of the document's end
        event = self._loader.get_event()
        if not isinstance(event, yaml.StreamEndEvent):
            raise self._refuse(_mark(event), "a second document begins here; one is read")
        return root

    def _note(self, mark: Mark, message: str, hint: str) -> None:
        problem = self._positions.problem_at(mark, message, code="syntax", hint=hint)
        self.problems.append(problem)

    def _refuse(self, mark: Mark, message: str, hint: str = "") -> ConfigError:
        problem = self._positions.problem_at(mark, message, code="syntax", hint=hint)
        return ConfigError([*self.problems, problem])

    def _node(self, event: Any, depth: int) -> _Node:
        mark = _mark(event)
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise self._refuse(mark, f"the alias {short(event.anchor)} has no anchor before it")
            return self._anchors[event.anchor]
        if event.tag is not None:
            hint = "quote a value to make it text"
            self._note(mark, f"the tag {short(event.tag)} is not allowed", hint)
        if depth > MAX_DEPTH:
            raise self._refuse(mark, f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.ScalarEvent):
            value = resolve(event.value) if event.implicit[0] else event.value
            node = _Node("scalar", value, mark)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = _Node("list", self._items(yaml.SequenceEndEvent, depth), mark)
        else:
            node = _Node("mapping", self._pairs(depth), mark)
        if event.anchor is not None:  # known only from its end on: an alias cannot lie within
            self._anchors[event.anchor] = node
        return node

    def _items(self, end: type, depth: int) -> list[_Node]:
        items = []
        while not isinstance(event := self._loader.get_event(), end):
            items.append(self._node(event, depth + 1))
        return items

    def _pairs(self, depth: int) -> list[tuple[str, Mark, _Node]]:
        pairs = []
        while not isinstance(event := self._loader.get_event(), yaml.MappingEndEvent):
            mark = _mark(event)
            if not isinstance(event, yaml.ScalarEvent) or event.tag is not None:
                raise self._refuse(mark, "a key must be plain text")
            if event.anchor is not None:
                self._anchors[event.anchor] = _Node("scalar", event.value, mark)
            value = self._node(self._loader.get_event(), depth + 1)
            if event.value == "<<" and event.implicit[0]:
                self._note(mark, "merge keys are not supported", "write the keys out")
            else:
                pairs.append((event.value, mark, value))
        return pairs

    def build(self, node: _Node, path: Path) -> Any:
        """Data of a node; notes the places of everything in it."""
        self._budget -= 1
        # An alias may hold an alias: a tree of nodes within MAX_DEPTH can be deeper when expanded.
        if self._budget < 0 or len(path) > MAX_DEPTH:
            raise self._refuse(node.mark, "aliases expand to too many values")
        self._positions.values[path] = node.mark
        if node.kind == "scalar":
            return node.value
        if node.kind == "list":
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        data: dict[str, Any] = {}
        for key, mark, value in node.value:
            inner = (*path, key)
            if key in data:
                self.problems.append(duplicate_key(self._positions, inner, mark))
                continue
            self._positions.keys[inner] = mark
            data[key] = self.build(value, inner)
        return data


def duplicate_key(positions: Positions, path: Path, mark: Mark) -> Problem:
    """The key at ``path`` stands a second time at ``mark``."""
    first = positions.keys[path]
    return positions.problem_at(
        mark,
        f"duplicate key {short(path[-1])}, on line {mark.line}",
        code="duplicate_key",
        hint=f"first on line {first.line}",
        path=path_text(path),
    )


def _mark(event: Any) -> Mark:
    start, end = event.start_mark, event.end_mark
    is_inline = end.line == start.line and isinstance(event, yaml.ScalarEvent | yaml.AliasEvent)
    return Mark(
        start.line + 1, start.column + 1, max(1, end.column - start.column) if is_inline else 1
    )
