"""Free ports for tests.

From a range below the one that the kernel gives to clients and to whoever binds port 0, and in
turn: so nobody else is given a port between the test that found it and the server that is to have
it. Each process of a test run has a part of the range for itself.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import random
import socket
from collections.abc import Iterator, Sequence
from typing import Final

_FIRST: Final = 10_000
_END: Final = 32_000


def _in_turn() -> Iterator[int]:
    """The ports of this process over and over; runs besides this one begin somewhere else."""
    size = (_END - _FIRST) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    first = _FIRST + size * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    begin = random.randrange(size)
    return (first + (begin + step) % size for step in itertools.count())


_PORTS: Final = _in_turn()


def free_ports(count: int, hosts: Sequence[str] = ("127.0.0.1",)) -> list[int]:
    """TCP ports that nobody has on any of ``hosts``, all different, in rising order mostly."""
    return list(itertools.islice((one for one in _PORTS if _is_free(one, hosts)), count))


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody has."""
    return free_ports(1)[0]


def free_range(count: int) -> int:
    """The first of so many free ports of 127.0.0.1 in a row."""
    while True:
        ports = free_ports(count)
        if ports[-1] - ports[0] == count - 1:
            return ports[0]


def _is_free(port: int, hosts: Sequence[str]) -> bool:
    with contextlib.ExitStack() as stack:
        for host in hosts:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            one = stack.enter_context(socket.socket(family))
            try:
                one.bind((host, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                return False
    return True
