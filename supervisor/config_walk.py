"""Every structural problem of a config at once, with places.

msgspec stops at the first problem and loses map keys, so it decides (`msgspec.convert`), and only
where it refuses does this walk over the same struct types collect what is wrong. Leaves are put
to msgspec one by one, so that both have one mind; a container whose parts are all well is put to
it whole, so that nothing can slip through.
"""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal, Union, cast, get_args, get_origin

import msgspec
from msgspec import Struct
from msgspec.structs import fields as fields_of

from shared.config import Config, ConfigStruct, decode_hook
from shared.config.name_map import ByShape, NameMap
from shared.config.scalars import TextOrFields
from shared.errors import Problem
from shared.units import holds_private_key, kind_of, short
from supervisor.config_positions import Path, Positions, sort_key
from supervisor.config_secrets import is_secret

# msgspec lets this one through as it is: a text that cannot be written as UTF-8.
REFUSALS: Final = (msgspec.ValidationError, UnicodeEncodeError)
LONE_SURROGATE: Final = "the text holds half of a surrogate pair"
MAX_PROBLEMS: Final = 500  # nobody reads more; each costs a search for similar words
_MAX_CHOICES: Final = 16  # names that a hint lists
_WORDS: Final = {
    "object": "a mapping",
    "array": "a list",
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
}
_AT: Final = re.compile(r" - at `[^`]*`(?: in `[^`]*`)?\Z")


def check_structure(data: Any, positions: Positions, kind: Any = Config) -> list[Problem]:
    """The problems of plain ``data`` against a type, in the file's order; [] where msgspec is fine.

    Never [] where msgspec refuses.
    """
    reason = _refusal(data, kind)
    if reason is None:
        return []
    walker = _Walker(positions)
    walker.walk(data, kind, ())
    if not walker.problems:
        walker.add((), reason)
    return sorted(walker.problems, key=sort_key)


def _refusal(data: Any, kind: Any) -> str | None:
    """msgspec's reason to refuse, without its path; None where it accepts."""
    try:
        msgspec.convert(data, kind, dec_hook=decode_hook)
    except msgspec.ValidationError as exc:
        return _AT.sub("", str(exc))
    except UnicodeEncodeError:
        return LONE_SURROGATE
    return None


def similar(word: object, choices: Iterable[str]) -> str:
    """A hint: the choice that was meant, or all of them where they are few; else ""."""
    options = sorted(choices)
    close = difflib.get_close_matches(str(word)[:64], options, 1, 0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    if options and len(options) <= _MAX_CHOICES:
        return "one of: " + ", ".join(options)
    return ""


def _plain(kind: Any) -> Any:
    """The type without Annotated around it."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    return kind


def _members(kind: Any) -> list[Any]:
    """The types of a union, flat; the type itself where it is none."""
    kind = _plain(kind)
    if get_origin(kind) in (Union, types.UnionType):
        return [member for part in get_args(kind) for member in _members(part)]
    return [kind]


def _is_class(kind: Any, base: type) -> bool:
    return isinstance(kind, type) and issubclass(kind, base)


def words_of(kind: Any) -> list[str]:
    """The texts that the Literals of a type allow."""
    return [
        word
        for member in _members(kind)
        if get_origin(member) is Literal
        for word in get_args(member)
        if isinstance(word, str)
    ]


def _needed(struct: type[ConfigStruct], kind: object) -> str:
    """The key that a mapping of this ``type`` cannot do without; "": none. Without a type that is
    known, that of the first one.
    """
    words = words_of(next((item.type for item in fields_of(struct) if item.name == "type"), None))
    if kind in words:
        return struct.needed.get(str(kind), "")
    return next(iter(struct.needed.values()), "")


class _Walker:
    def __init__(self, positions: Positions) -> None:
        self.problems: list[Problem] = []
        self._positions = positions

    def add(
        self, path: Path, message: str, *, code: str = "value", hint: str = "", at_key: bool = False
    ) -> None:
        """Note one problem, up to MAX_PROBLEMS."""
        if len(self.problems) < MAX_PROBLEMS:
            found = self._positions.problem(path, message, code=code, hint=hint, at_key=at_key)
            self.problems.append(found)

    def walk(self, value: Any, kind: Any, path: Path) -> None:
        """Note what is wrong with a value of this type."""
        if len(self.problems) >= MAX_PROBLEMS or (reason := _refusal(value, kind)) is None:
            return
        before = len(self.problems)
        for member in _members(kind):
            if isinstance(value, dict) and _is_class(member, Struct):
                self._struct(value, member, path)
            elif isinstance(value, dict) and _is_class(member, TextOrFields):
                self._struct(value, member.fields, path)
            elif isinstance(value, dict) and _is_class(member, NameMap):
                self._names(value, member, path)
            elif isinstance(value, dict) and _is_class(member, ByShape):
                self.walk(value, member.shape(value), path)
            elif isinstance(value, list) and get_origin(member) is list:
                for index, item in enumerate(value):
                    self.walk(item, get_args(member)[0], (*path, index))
        if len(self.problems) == before:
            self._leaf(value, kind, path, reason)

    def _leaf(self, value: Any, kind: Any, path: Path, reason: str) -> None:
        if isinstance(value, str) and holds_private_key(value):
            hint = "write a key to a file, and name that"
            self.add(path, "the value seems to be a private key, and is not shown", hint=hint)
            return
        if is_secret(path):
            got = f"{kind_of(value)} is refused here, and not shown: the name is that of a secret"
            self.add(path, got)
            return
        words = words_of(kind)
        if words and isinstance(value, str):
            self.add(path, f"unknown value {short(value)}", hint=similar(value, words))
            return
        wanted = re.fullmatch(r"Expected `([^`]*)`, got `[^`]*`", reason)
        if wanted is not None:
            expected = " or ".join(_WORDS.get(word, word) for word in wanted[1].split(" | "))
            reason = f"expected {expected}, got {kind_of(value)}"
        elif reason.startswith("Expected `"):
            reason = "e" + reason[1:].replace("`", "").replace("array", "list")
            if isinstance(value, str | int | float):
                reason += f", got {short(value)}"
        self.add(path, reason, hint=", ".join(words) and "or: " + ", ".join(words))

    def _struct(self, value: dict[str, Any], kind: type[Struct], path: Path) -> None:
        struct = cast(type[ConfigStruct], kind)
        fields = {item.encode_name: item for item in fields_of(kind)}
        kinds = struct.not_yet_values.get("type", frozenset())
        if isinstance(value.get("type"), str) and value["type"] in kinds:
            self._not_available(value["type"], (*path, "type"), at_key=False)
            return  # its other keys belong to a type that is not here yet
        unknown = [key for key in value if key not in fields]
        for key in unknown:
            self._unknown(key, struct, list(fields), path)
        needed = _needed(struct, value.get("type"))
        for name, item in fields.items():
            if name in value:
                self._value(value[name], item.type, struct.not_yet_values.get(name), (*path, name))
            elif (item.required or name == needed) and not difflib.get_close_matches(
                name, unknown, 1, 0.6
            ):
                self.add(path, f"missing field '{name}'", code="missing_field", at_key=True)

    def _names(self, value: dict[str, Any], kind: type[NameMap[Any]], path: Path) -> None:
        wrong = kind.bad_names(value)
        for name, each in value.items():
            if name in wrong:
                self.add((*path, name), wrong[name], at_key=True)
            self.walk(each, kind.value, (*path, name))

    def _value(self, value: Any, kind: Any, not_yet: frozenset[str] | None, path: Path) -> None:
        if not_yet and isinstance(value, str) and value in not_yet:
            self._not_available(value, path, at_key=False)
        else:
            self.walk(value, kind, path)

    def _not_available(self, word: str, path: Path, at_key: bool) -> None:
        self.add(path, f"`{word}` is not available yet", code="not_available", at_key=at_key)

    def _unknown(self, key: str, kind: type[ConfigStruct], known: list[str], path: Path) -> None:
        if key in kind.not_yet:
            self._not_available(key, (*path, key), at_key=True)
            return
        hint = kind.elsewhere.get(key) or similar(key, known)
        message = f"unknown field {short(key)}"
        self.add((*path, key), message, code="unknown_field", hint=hint, at_key=True)
