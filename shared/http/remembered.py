"""What was worked out of some bytes, kept for when the same bytes come again.

Most heads of one client repeat: the whole field block, or the request line. Clients choose these
bytes, so what is kept is bounded in number and in size, and thrown away as a whole when it is full:
then the ones in use are back after one miss each, and nobody has to count uses.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

V = TypeVar("V")

MAX_KEY_BYTES: Final = 4096  # longer ones are worked out each time: big cookies, rare ones
MAX_TOTAL_BYTES: Final = 1024 * 1024  # of keys; what is kept for them is a small multiple


class Remembered(Generic[V]):
    """``by_bytes``: to be read by whoever looks something up; `keep` is the only way in."""

    __slots__ = ("_key_bytes", "_most", "by_bytes")

    def __init__(self, most: int) -> None:
        self.by_bytes: dict[bytes, V] = {}
        self._most = most
        self._key_bytes = 0

    def keep(self, key: bytes, value: V) -> None:
        """Remember ``value`` unless its key is too long; ``key`` must not be there yet."""
        size = len(key)
        if size > MAX_KEY_BYTES:
            return
        if len(self.by_bytes) >= self._most or self._key_bytes + size > MAX_TOTAL_BYTES:
            self.by_bytes.clear()
            self._key_bytes = 0
        self.by_bytes[key] = value
        self._key_bytes += size
