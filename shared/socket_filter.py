"""Classic BPF programs on our own sockets: encoded, attached, taken away again.

No privilege is needed. A program is a list of instructions, each (code, jump if true, jump if
false, value), as in ``struct sock_filter`` of linux/filter.h.
"""

from __future__ import annotations

import _socket
import ctypes
import errno
import socket
import struct
from collections.abc import Iterable

Instruction = tuple[int, int, int, int]


def encode(instructions: Iterable[Instruction]) -> bytes:
    """The program as the kernel reads it, 8 bytes an instruction."""
    return b"".join(struct.pack("=HBBI", *one) for one in instructions)


def length(program: bytes) -> int:
    """How many instructions an encoded program has."""
    return len(program) // 8


def attach(one: _socket.socket, option: int, program: bytes) -> None:
    """Set an encoded program by this SOL_SOCKET option; OSError where the kernel refuses.

    It takes the place of an earlier one in one step, and every holder of the socket is concerned.
    """
    buffer = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("HP", length(program), ctypes.addressof(buffer))  # struct sock_fprog
    one.setsockopt(socket.SOL_SOCKET, option, fprog)


def detach(one: _socket.socket, option: int) -> None:
    """Take the program away by this SOL_SOCKET option; nothing where there is none."""
    try:
        one.setsockopt(socket.SOL_SOCKET, option, 0)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
