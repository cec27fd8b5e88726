"""Listening descriptors from the supervisor, over the worker's socket pair.

Each datagram is a ListenerSockets with as many descriptors as it has entries. The end of the
stream tells that the supervisor is gone (design section 3).
"""

from __future__ import annotations

import array
import asyncio
import os
import socket
from collections.abc import Callable
from typing import Final

from shared.errors import ControlError
from shared.messages import DESCRIPTORS_PER_MESSAGE, decode_listener_sockets

_MESSAGE_MAX_BYTES: Final = 65536
_INT_BYTES: Final = array.array("i").itemsize
_MESSAGES_A_WAKE: Final = 8

# Listener id, socket index, descriptor, generation that it is lent for.
OnSocket = Callable[[int, int, int, int], None]


class DescriptorChannel:
    """Calls ``on_socket`` for each descriptor, and ``on_end`` once when the supervisor is gone."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        channel: socket.socket,
        on_socket: OnSocket,
        on_end: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._channel = channel
        self._on_socket = on_socket
        self._on_end = on_end
        channel.setblocking(False)
        loop.add_reader(channel.fileno(), self._on_readable)

    def close(self) -> None:
        """Stop reading."""
        if self._channel.fileno() >= 0:
            self._loop.remove_reader(self._channel.fileno())
            self._channel.close()

    def _on_readable(self) -> None:
        for _ in range(_MESSAGES_A_WAKE):
            try:
                data, ancillary, flags, _ = self._channel.recvmsg(
                    _MESSAGE_MAX_BYTES,
                    socket.CMSG_SPACE(DESCRIPTORS_PER_MESSAGE * _INT_BYTES),
                    socket.MSG_CMSG_CLOEXEC,
                )
            except BlockingIOError:
                return
            except ConnectionResetError:
                data, ancillary, flags = b"", [], 0
            if not data:
                self.close()
                self._on_end()
                return
            self._take(data, ancillary, flags)

    def _take(self, data: bytes, ancillary: list[tuple[int, int, bytes]], flags: int) -> None:
        found = array.array("i")
        for level, kind, raw in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                found.frombytes(raw[: len(raw) - len(raw) % _INT_BYTES])
        message = decode_listener_sockets(data)
        sockets = message.sockets
        if flags & socket.MSG_CTRUNC or len(sockets) != len(found):
            for fd in found:
                os.close(fd)
            # The kernel cuts the list short when the process has no descriptor left.
            raise ControlError(
                f"{len(sockets)} listening sockets were announced, {len(found)} came:"
                " the limit of open files is too low"
            )
        for (listener, index), fd in zip(sockets, found, strict=True):
            self._on_socket(listener, index, fd, message.generation)
