"""Which lines of a config are never shown, for they seem to hold a key or a password.

The config has fields for the names of such files alone. But operators write a key where its file
belongs, or misspell the field, and an error with its line would print the secret.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final

from shared.units import holds_private_key, secret_in

_WORDS: Final = ("password", "passwd", "passphrase", "secret", "authorization")
_WHOLE: Final = frozenset({"users"})  # whoever writes this has not seen `users_file`
_LIKENESS: Final = 0.8  # of a misspelt word; `pasword`, `passwort` and `secrets` are above it
_PARTS: Final = re.compile(r"[-_.\s]+")
# What gives a value to a name in YAML, JSON or TOML. Possessive, and from the start of a word only:
# a long one without a sign behind it would take the square of its length.
_NAME: Final = re.compile(r"(?<![\w.-])([\w.-]++)[\"']?\s*+[:=]")


@lru_cache(maxsize=1024)
def names_secret(name: str) -> bool:
    """Whether a field of this name is, or ends in, a word for a secret or a hash of one."""
    if name.lower() in _WHOLE:
        return True
    parts = [part for part in _PARTS.split(name.lower()) if part not in ("", "hash", "hashed")]
    last = parts[-1][:64] if parts else ""
    return last.endswith(_WORDS) or bool(difflib.get_close_matches(last, _WORDS, 1, _LIKENESS))


def is_secret(path: Iterable[str | int]) -> bool:
    """Whether a value stands below a field whose name says that it is a secret."""
    return any(isinstance(part, str) and names_secret(part) for part in path)


class SecretLines:
    """The lines that are not shown, by number from 1. Judges a line when it is asked for."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines
        self._of_keys = frozenset(_lines_of_keys(lines))
        self._judged: dict[int, bool] = {}  # a line may be long, and have many problems

    def __contains__(self, number: int) -> bool:
        if number in self._of_keys:
            return True
        if number not in self._judged:
            line = self._lines[number - 1]
            names = set(_NAME.findall(line))
            self._judged[number] = bool(secret_in(line)) or any(map(names_secret, names))
        return self._judged[number]


def _lines_of_keys(lines: Sequence[str]) -> Iterator[int]:
    """Those with the words, and all between the first line of a key in PEM and its last."""
    is_within = False
    for number, line in enumerate(lines, 1):
        if holds_private_key(line):
            text = line.upper()
            is_within = text.rfind("-----BEGIN") > text.rfind("-----END")
            yield number
        elif is_within:
            yield number
