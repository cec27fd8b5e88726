"""The sockets of connections: how they are made.

sockets.c is compiled to a module of the same name. Its Socket has only what is used of one here:
close, fileno, family, send and recv_into with flags, shutdown, setblocking, setsockopt with a
number, getsockopt, getsockname. It spares what Python does for each call and each new socket:
arguments, the GIL, what the kernel is asked for. This is what runs without it.
"""

from __future__ import annotations

import _socket
import socket
from typing import Final

Socket = _socket.socket
Address = str | tuple[str, int]  # of a Unix socket; an IP address and a port

_STREAM: Final = int(socket.SOCK_STREAM)
_DIALLED: Final = int(socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
_AF_UNIX: Final = int(socket.AF_UNIX)


def accept(listening: _socket.socket, fd: int) -> tuple[Socket, int, object] | None:
    """Accept one connection; None: none waits.

    Its socket, its descriptor and its peer, as `socket.accept` of Python has it. The listening
    socket, of descriptor ``fd``, does not block. OSError for all else that accept(2) says.
    """
    try:
        found, peer = listening._accept()  # type: ignore[attr-defined]
    except BlockingIOError:
        return None
    return Socket(listening.family, _STREAM, 0, found), found, peer


def dial(family: int, address: Address) -> tuple[Socket, int, int]:
    """Begin to connect: the socket, its descriptor, and what connect(2) says: 0 or an errno.

    It does not block, and TCP sends small messages at once. OSError where there is no socket.
    """
    sock = Socket(family, _DIALLED, 0)
    if family != _AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        return sock, sock.fileno(), sock.connect_ex(address)
    except BaseException:  # it is no address
        sock.close()
        raise
