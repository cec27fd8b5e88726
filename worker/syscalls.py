"""The system calls that every connection and every message makes.

syscalls.c is compiled to a module of the same name, which does the same with the descriptors and
spares what Python puts around each call: arguments, slices, the GIL. This is what runs without it.
"""

from __future__ import annotations

import fcntl
import select
import socket
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from worker.reactor import Pollable
    from worker.sockets import Socket

EMPTY: Final = -1  # nothing was there to be read
LOST: Final = -2  # the socket cannot be read any more
REFUSED: Final = -3  # less what was read: nothing can be sent any more
LEFT_BITS: Final = 20
BATCH: Final = 256  # events a turn: bounds how long all else waits

_DONTWAIT: Final = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
_MORE: Final = int(socket.MSG_MORE)

_SIOCOUTQ: Final = 0x5411  # bytes not yet acknowledged by the peer, tcp(7)
_LINGER_RESET: Final = struct.pack("ii", 1, 0)  # close sends RST, socket(7)

_view = memoryview(b"")


def use(shared: bytearray) -> None:
    """Read into this buffer, of less than 1 << LEFT_BITS bytes, from now on."""
    global _view
    _view = memoryview(shared)


def dispatch(
    epoll: select.epoll,
    fd: int,
    table: Mapping[int, Pollable],
    on_bug: Callable[[object, Exception], None],
) -> None:
    """Hand each event that is there, BATCH at the most, to the handler of its descriptor.

    Python's own poll takes memory for a batch each time, and makes a list of pairs.
    """
    events = iter(epoll.poll(0, BATCH))
    handler: Pollable | None = None
    while True:
        try:
            for number, mask in events:
                handler = table.get(number)
                if handler is not None:
                    handler.ready(mask)
            return
        except Exception as error:
            on_bug(handler, error)


def watch(epoll: select.epoll, fd: int, watched: int, events: int) -> None:
    """Have the epoll, of descriptor ``fd``, tell of these events of the descriptor ``watched``."""
    epoll.register(watched, events)


def receive(sock: Socket, fd: int) -> int:
    """Read once: how many bytes, 0 at the end of the stream, EMPTY, or LOST.

    What is no exception here costs 4 us as one, with its message and its trace.
    """
    try:
        return sock.recv_into(_view, 0, _DONTWAIT)
    except BlockingIOError:
        return EMPTY
    except OSError:
        return LOST


def give(sock: Socket, fd: int, data: bytes | memoryview, is_last: bool) -> int:
    """Write once: how many bytes found room, or LOST. ``is_last``: as `pass_on` has it."""
    try:
        return sock.send(data, _DONTWAIT | _MORE if is_last else _DONTWAIT)
    except BlockingIOError:
        return 0
    except OSError:
        return LOST


def pass_on(sock: Socket, fd: int, to: Socket, to_fd: int, is_last: bool) -> int:
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


def unacknowledged(sock: Socket, fd: int) -> int:
    """Bytes written that the peer has not acknowledged; for a Unix socket, not read. 0: gone."""
    try:
        return int(struct.unpack("i", fcntl.ioctl(fd, _SIOCOUTQ, bytes(4)))[0])
    except (OSError, ValueError):  # of a descriptor below 0
        return 0


def reset_on_close(sock: Socket, fd: int) -> None:
    """Make close send RST."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
    except OSError:
        return
