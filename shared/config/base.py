"""What every struct of the config has."""

from __future__ import annotations

from typing import ClassVar

from msgspec import Meta, Struct
from msgspec.structs import force_setattr


def doc(text: str) -> Meta:
    """The description of a key, for the reference."""
    return Meta(description=text)


class ConfigStruct(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base: immutable, and a misspelt key is an error.

    ``elsewhere`` names keys that belong to another place, for the hint. ``plain`` names fields
    whose checked values become plain float, str or list of str, which msgspec can encode.
    ``needed``: the key that a value of ``type`` cannot do without.
    """

    not_yet: ClassVar[frozenset[str]] = frozenset()
    not_yet_values: ClassVar[dict[str, frozenset[str]]] = {}
    elsewhere: ClassVar[dict[str, str]] = {}
    plain: ClassVar[tuple[str, ...]] = ()
    needed: ClassVar[dict[str, str]] = {}

    def __post_init__(self) -> None:
        """Let go of the classes that checked the values (`shared.config.scalars`)."""
        for name in self.plain:
            value = getattr(self, name)
            if isinstance(value, float):
                force_setattr(self, name, float(value))
            elif isinstance(value, str):
                force_setattr(self, name, str(value))
            elif isinstance(value, list):
                force_setattr(self, name, [str(item) for item in value])
