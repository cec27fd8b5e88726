"""What is asked of sockets beyond read and write. None of it raises: a socket may be gone."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

from worker import syscalls

if TYPE_CHECKING:
    from worker.sockets import Socket

# First probe after 10 min, then one a minute, dead after 9: a NAT forgets after 15 min or more.
KEEP_ALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 600),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 9),
)


def probe_peer(sock: Socket) -> None:
    """Turn TCP keep-alive probes on; a Unix socket needs none."""
    if sock.family == socket.AF_UNIX:
        return
    for level, option, value in KEEP_ALIVE:
        try:
            sock.setsockopt(level, option, value)
        except OSError:
            return


def unacknowledged(sock: Socket) -> int:
    """Bytes written that the peer has not acknowledged; for a Unix socket, not read."""
    return syscalls.unacknowledged(sock, sock.fileno())


def reset_on_close(sock: Socket) -> None:
    """Make close send RST."""
    syscalls.reset_on_close(sock, sock.fileno())


def has_error(sock: Socket) -> bool:
    """Whether the socket has met an error (RST, a dead path); asking clears it."""
    try:
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0
    except OSError:
        return True
