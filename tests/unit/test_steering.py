"""The program that picks a socket for each new connection, run by the real kernel."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from supervisor import steering

SLOTS = 4


@pytest.fixture(params=["127.0.0.1", "::1"])
def group(request: pytest.FixtureRequest) -> Iterator[list[socket.socket]]:
    """SLOTS sockets that share one port."""
    host = str(request.param)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sockets: list[socket.socket] = []
    port = 0
    for _ in range(SLOTS):
        one = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        sockets.append(one)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind((host, port))
        port = one.getsockname()[1]
        one.listen(512)
    yield sockets
    for one in sockets:
        one.close()


def accepted(group: list[socket.socket], connections: int = 200) -> list[int]:
    """How many of so many new connections came to each socket."""
    for _ in range(connections):
        socket.create_connection(group[0].getsockname()[:2], 5.0).close()
    return [_accept_all(one) for one in group]


def _accept_all(one: socket.socket) -> int:
    count = 0
    while True:
        try:
            one.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


@pytest.mark.parametrize("indexes", [(0,), (2,), (0, 1), (1, 3), (0, 2, 3), (0, 1, 2, 3)])
def test_only_these_sockets_get_new_connections(
    group: list[socket.socket], indexes: tuple[int, ...]
) -> None:
    """Each of them some, no other any; the order is that in which they began to listen."""
    steering.attach(group[0], indexes)
    counts = accepted(group)
    assert sum(counts) == 200
    assert {index for index, count in enumerate(counts) if count} == set(indexes)


def test_a_program_is_replaced_and_taken_away(group: list[socket.socket]) -> None:
    """Through any socket of the group; without a program the kernel's hash shares out again."""
    steering.attach(group[0], (1,))
    steering.attach(group[3], (2,))
    assert accepted(group, 20) == [0, 0, 20, 0]
    steering.detach(group[1])
    steering.detach(group[1])
    assert all(accepted(group))


def test_a_program_that_is_too_long_is_refused() -> None:
    """The kernel takes 4,096 instructions; more sockets than those can name is an OSError."""
    with socket.socket() as one, pytest.raises(OSError, match="too many"):
        steering.attach(one, range(1, 4000))
