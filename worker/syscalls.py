"""The system calls that every message makes.

syscalls.c is compiled to a module of the same name, which does the same with the descriptors and
spares what Python puts around each call: arguments, slices, the GIL. This is what runs without it.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import _socket

EMPTY: Final = -1  # nothing was there to be read
LOST: Final = -2  # the socket cannot be read any more
REFUSED: Final = -3  # less what was read: nothing can be sent any more
LEFT_BITS: Final = 20

_DONTWAIT: Final = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
_MORE: Final = int(socket.MSG_MORE)

_view = memoryview(b"")


def use(shared: bytearray) -> None:
    """Read into this buffer, of less than 1 << LEFT_BITS bytes, from now on."""
    global _view
    _view = memoryview(shared)


def pass_on(sock: _socket.socket, fd: int, to: _socket.socket, to_fd: int, is_last: bool) -> int:
    """Read once, write once: 0 at the end of the stream, EMPTY, LOST, or REFUSED - size.

    Otherwise size | left << LEFT_BITS, with ``left`` bytes at the end of what was read unsent.
    ``is_last``: FIN follows at once, tcp(7) TCP_CORK, unless the buffer is full.
    """
    try:
        size = sock.recv_into(_view, 0, _DONTWAIT)
    except BlockingIOError:
        return EMPTY
    except OSError:
        return LOST
    if size == 0:
        return 0
    flags = _DONTWAIT | _MORE if is_last and size < len(_view) else _DONTWAIT
    try:
        sent = to.send(_view[:size], flags)
    except BlockingIOError:
        sent = 0
    except OSError:
        return REFUSED - size
    return size | (size - sent) << LEFT_BITS
