"""Pipes for splice(2), pooled.

A pipe keeps the kernel's default size: a uid may hold only 16,384 pages of pipe memory (64 pipes
of 1 MiB; pipe(7), pipe-user-pages-soft), and beyond that new pipes shrink to one page.
"""

from __future__ import annotations

import os
from typing import Final

MOST_PIPES: Final = 256  # a worker's; 256 x 64 KiB is a quarter of a uid's pipe memory
MOST_SPARE: Final = 32


class Pipe:
    """A kernel buffer that ``held`` bytes lie in."""

    __slots__ = ("held", "read_fd", "write_fd")

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.held = 0

    def close(self) -> None:
        """Give both descriptors back."""
        os.close(self.read_fd)
        os.close(self.write_fd)


class PipePool:
    """Lends pipes up to a cap; who gets none copies instead."""

    def __init__(self, most: int = MOST_PIPES) -> None:
        self._most = most
        self._spare: list[Pipe] = []
        self.lent = 0

    def take(self) -> Pipe | None:
        """An empty pipe, or None when the cap or the descriptor limit is reached."""
        if self.lent >= self._most:
            return None
        try:
            pipe = self._spare.pop() if self._spare else Pipe()
        except OSError:
            return None  # EMFILE, ENFILE: copying needs no descriptor
        self.lent += 1
        return pipe

    def give_back(self, pipe: Pipe) -> None:
        """A pipe that still holds bytes is closed: they must never meet another connection."""
        self.lent -= 1
        if pipe.held or len(self._spare) >= MOST_SPARE:
            pipe.close()
        else:
            self._spare.append(pipe)

    def close(self) -> None:
        """Close the spare pipes."""
        while self._spare:
            self._spare.pop().close()
