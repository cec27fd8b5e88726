"""Listening descriptors that this worker holds, and for which generation each was lent.

Descriptors and messages come on channels of their own, so a socket may be here before the Prepare
that needs it, and before the Abort of the generation before that. What is lent for one generation
is therefore never closed on account of another that may still come (design section 3).
"""

from __future__ import annotations

import _socket
from collections.abc import Callable, Iterable

Key = tuple[int, int]  # listener id, socket index


class HeldSockets:
    """Sockets by listener and index. ``is_in_use``: a Listener was made of it, and owns it."""

    def __init__(self, is_in_use: Callable[[int], bool]) -> None:
        self._is_in_use = is_in_use
        self._sockets: dict[Key, _socket.socket] = {}
        self._lent_for: dict[Key, int] = {}
        self._aborted = 0  # the last generation that was given up; its number does not return
        self._committed = 0

    def __contains__(self, key: Key) -> bool:
        return key in self._sockets

    def __getitem__(self, key: Key) -> _socket.socket:
        return self._sockets[key]

    def add(self, key: Key, fd: int, generation: int) -> None:
        """Take over a descriptor that was lent for this generation."""
        sock = _socket.socket(fileno=fd)
        is_late = generation == self._aborted or generation < self._committed
        if is_late or self._is_in_use(key[0]):
            sock.close()  # nobody needs it any more, or another copy of it serves
            return
        old = self._sockets.get(key)
        if old is not None:
            old.close()
        self._sockets[key] = sock
        self._lent_for[key] = generation

    def abort(self, generation: int) -> None:
        """Close what was lent for this generation and is not in use; it does not return."""
        self._aborted = generation
        self._close_where(lambda lent_for: lent_for == generation)

    def committed(self, generation: int) -> None:
        """Close what was lent for an older generation and has not come into use."""
        self._committed = generation
        self._close_where(lambda lent_for: lent_for < generation)

    def give_up(self) -> None:
        """Close what is not in use: nobody is left to commit what it was lent for."""
        self._close_where(lambda lent_for: True)

    def retire(self, listener: int) -> None:
        """Close all of this listener, in use or not."""
        self._close([key for key in self._sockets if key[0] == listener])

    def close(self) -> None:
        """Close all."""
        self._close(list(self._sockets))

    def _close_where(self, is_over: Callable[[int], bool]) -> None:
        self._close(
            key
            for key, lent_for in list(self._lent_for.items())
            if is_over(lent_for) and not self._is_in_use(key[0])
        )

    def _close(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self._sockets.pop(key).close()
            del self._lent_for[key]
