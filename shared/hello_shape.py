"""Shapes of ClientHellos: where each extension of a message lies, known from one like it.

Programs send the same extensions in the same order each time, with other keys and names in them.
One that has the lengths of a message that was checked field by field before is checked by one
comparison, which takes a tenth of the time. Messages without a shape (browsers mix the order) cost
nothing more, but for one in LEARNED_EVERY.
"""

from __future__ import annotations

from struct import Struct
from typing import Any, Final

Extensions = dict[int, int]  # by type: where the value begins in the message

LEARNED_EVERY: Final = 16
MOST_SHAPES: Final = 128  # then anew
_SERVER_NAME: Final = 0
_ALPN: Final = 16
_TWO_BYTE_LISTS: Final = (10, 13)  # supported_groups, signature_algorithms
_ONE_BYTE_LIST: Final = 43  # supported_versions


class Shapes:
    """What was learned, by place and end of the extensions in the message."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[Any, tuple[int, ...], Extensions]] = {}
        self._missed = 0

    def find(self, message: bytes, at: int, end: int) -> Extensions | None:
        """The extensions between ``at`` and ``end``; None: read them. Not to be changed."""
        known = self._known.get((at, end))
        if known is None:
            return None
        unpack, lengths, extensions = known
        return extensions if unpack(message, at) == lengths else None

    def learn(self, message: bytes, at: int, end: int, extensions: Extensions) -> None:
        """Remember a message whose extensions were read and found good."""
        self._missed += 1
        if self._missed % LEARNED_EVERY != 1 or not extensions:
            return
        if len(self._known) >= MOST_SHAPES:
            self._known.clear()
        fields = [_field(message, kind, place) for kind, place in extensions.items()]
        unpack = Struct("!H" + "".join(fields)).unpack_from  # H: the length of them all
        self._known[at, end] = (unpack, unpack(message, at), extensions)


def _field(message: bytes, kind: int, at: int) -> str:
    """What of an extension must be equal: its type, its length, and every length within it."""
    size = message[at - 2] << 8 | message[at - 1]
    if kind == _SERVER_NAME:
        return f"HHHBH{size - 5}x"
    if kind in _TWO_BYTE_LISTS:
        return f"HHH{size - 2}x"
    if kind == _ONE_BYTE_LIST:
        return f"HHB{size - 1}x"
    if kind == _ALPN:
        names = ""
        place = at + 2
        while place < at + size:
            names += f"B{message[place]}x"
            place += 1 + message[place]
        return f"HHH{names}"
    return f"HH{size}x"
