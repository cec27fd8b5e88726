"""Standard input, output and error, where whoever started us closed them."""

from __future__ import annotations

import os
import sys
from typing import Final

_NAMES: Final = ("stdin", "stdout", "stderr")


def fill_closed() -> None:
    """Open /dev/null on each descriptor from 0 to 2 that is closed.

    The next file or socket would get that number, and be written to as if it were ours to print
    on; the event loop does not run at all then.
    """
    for fd, name in enumerate(_NAMES):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            os.set_inheritable(fd, True)  # our processes need it as much
            mode = "w" if fd else "r"
            setattr(sys, name, open(fd, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
