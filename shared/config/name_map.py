"""Values of the config that are mappings with names of the operator's own, or of two shapes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, ClassVar, Final, Generic, Self, TypeVar

import msgspec

from shared.config.scalars import decode_hook
from shared.units import kind_of, short

V = TypeVar("V")

# RFC 9110 section 5.6.2; names of fields and cookies, methods, protocols of Upgrade.
TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)
MAX_TOKEN_CHARACTERS: Final = 256


def check_token(text: str, what: str) -> None:
    """ValueError where ``text`` is no token; ``what`` it should be, for the message."""
    if TOKEN.fullmatch(text) is None:
        raise ValueError(f"{short(text)} is no {what}; it has letters, digits and !#$%&'*+-.^_`|~")
    if len(text) > MAX_TOKEN_CHARACTERS:
        raise ValueError(f"{what} has {len(text)} characters, {MAX_TOKEN_CHARACTERS} at most")


class NameMap(Generic[V]):
    """A mapping from names to values of one type.

    ``value``: their type, as msgspec takes it. ``name_kind``: what a name is, for the reference.
    """

    kind: ClassVar[str]
    name_kind: ClassVar[str] = "name"
    value: ClassVar[Any]
    __slots__ = ("pairs",)

    def __init__(self, pairs: tuple[tuple[str, V], ...] = ()) -> None:
        self.pairs = pairs

    def __bool__(self) -> bool:
        return bool(self.pairs)

    def __iter__(self) -> Iterator[tuple[str, V]]:
        return iter(self.pairs)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self.pairs)!r})"

    @classmethod
    def check_name(cls, name: str) -> None:
        """ValueError for a name that is none."""
        check_token(name, "name of a field")

    @classmethod
    def same(cls, name: str) -> str:
        """Equal for names that mean the same."""
        return name.lower()

    @classmethod
    def bad_names(cls, value: dict[str, Any]) -> dict[str, str]:
        """What is wrong with names of the mapping: name to message."""
        wrong: dict[str, str] = {}
        seen: dict[str, str] = {}
        for name in value:
            try:
                cls.check_name(name)
            except ValueError as error:
                wrong[name] = str(error)
                continue
            first = seen.setdefault(cls.same(name), name)
            if first != name:
                wrong[name] = f"duplicate name {short(name)}, the same as {short(first)}"
        return wrong

    @classmethod
    def read(cls, value: object) -> Self:
        """ValueError where it is no mapping or a name is none; ValidationError for a value."""
        if not isinstance(value, dict):
            raise ValueError(f"expected a mapping, got {kind_of(value)}")
        for message in cls.bad_names(value).values():
            raise ValueError(message)
        kind = cls.value
        return cls(
            tuple(
                (str(name), msgspec.convert(each, kind, dec_hook=decode_hook))
                for name, each in value.items()
            )
        )


class ByShape:
    """Base of a value that may be a mapping of one of two types; ``shapes`` are both."""

    kind: ClassVar[str] = "mapping"
    shapes: ClassVar[tuple[Any, Any]]

    @classmethod
    def shape(cls, value: dict[str, Any]) -> Any:
        """The type that this mapping is meant to be."""
        raise NotImplementedError
