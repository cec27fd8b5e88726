"""Header rules of a route, as they are carried out: names to drop, lines to write."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from msgspec import Struct

from shared.http.forwarding import About
from shared.http.templates import Template, compile_template
from shared.plan import FieldRules

_UNSEEN: Final = str.maketrans("", "", "\r\n\0")  # such a name is refused by the config


class _Line(Struct, frozen=True, gc=False):
    start: bytes  # b"Name: "
    value: Template

    def render(self, about: About) -> bytes:
        return self.start + self.value.render(about) + b"\r\n"


class Lines:
    """Field lines, some of them the same for every request."""

    __slots__ = ("_varying", "constant", "is_constant")

    def __init__(
        self, pairs: Collection[tuple[str, str]], route: str, *, locations: Collection[str] = ()
    ) -> None:
        """``pairs``: (name, template); ``locations``: lower-case names whose value is a URL."""
        constant: list[bytes] = []
        varying: list[_Line] = []
        for name, text in pairs:
            template = compile_template(text, is_location=name.lower() in locations, route=route)
            line = _Line(f"{name.translate(_UNSEEN)}: ".encode(), template)
            if template.is_constant:
                constant.append(line.start + template.constant + b"\r\n")
            else:
                varying.append(line)
        self.constant = b"".join(constant)
        self._varying = tuple(varying)
        self.is_constant = not varying

    def varying(self, about: About) -> bytes:
        """The lines that differ, rendered."""
        return b"".join([line.render(about) for line in self._varying])


class Rules(Lines):
    """`FieldRules`, compiled. ``dropped``: lower-case names of which nothing that came is left."""

    __slots__ = ("dropped",)

    def __init__(self, rules: FieldRules, route: str) -> None:
        super().__init__((*rules.set, *rules.add), route)
        names = [*rules.remove, *(name for name, _ in rules.set)]
        self.dropped = frozenset(name.lower().encode() for name in names)


_NO_RULES: Final = Rules(FieldRules(), "")


def compile_rules(rules: FieldRules, route: str) -> Rules:
    """The rules of this route; most routes have none, and share that."""
    if rules.remove or rules.set or rules.add:
        return Rules(rules, route)
    return _NO_RULES


def without(block: bytes, dropped: Collection[bytes]) -> bytes:
    """The field lines of a block whose name, in lower case, is not among these."""
    return b"".join(
        [
            line + b"\r\n"
            for line in block.split(b"\r\n")
            if line and line.partition(b":")[0].lower() not in dropped
        ]
    )
