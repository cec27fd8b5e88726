"""Even shares where fewer workers answer than there are slots (design section 2).

A listener has one socket per slot, and the kernel shares new connections out evenly among the
sockets. Where a worker polls more sockets than others, or its own was adopted, shares would be as
uneven as the sockets are. So a classic BPF program picks, for each SYN, one of the answering
workers' own sockets at random. All other sockets stay held and polled: what waits there, or comes
by a race, is served too.

The program belongs to the whole group of sockets that share an address, and its answer is an
index: the order in which they began to listen, which is that of `HeldListener.sockets`, for none
of them is closed alone.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from typing import Final

from shared import socket_filter
from shared.socket_filter import Instruction

SO_ATTACH_REUSEPORT_CBPF: Final = 51  # asm-generic/socket.h
SO_DETACH_REUSEPORT_BPF: Final = 68

# linux/filter.h: loads from here on give facts of the kernel instead of bytes of the packet.
_SKF_AD_RANDOM: Final = 0xFFFFF000 + 56
_LOAD: Final = 0x20
_MODULO: Final = 0x94
_JUMP_IF_EQUAL: Final = 0x15
_RETURN: Final = 0x06
_RETURN_A: Final = 0x16
_INSTRUCTIONS_MAX: Final = 4096  # BPF_MAXINSNS of linux/bpf_common.h


def program(indexes: Sequence[int]) -> bytes:
    """Instructions that return one of ``indexes`` (at least one) at random, all as likely."""
    lines: list[Instruction] = []
    if list(indexes) == list(range(len(indexes))):
        return socket_filter.encode([*_random(len(indexes)), (_RETURN_A, 0, 0, 0)])
    for number, index in enumerate(indexes[:-1]):
        lines += [(_JUMP_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, index)]
    return socket_filter.encode([*_random(len(indexes)), *lines, (_RETURN, 0, 0, indexes[-1])])


def attach(one: socket.socket, indexes: Sequence[int]) -> None:
    """Steer the group of this socket; takes the place of an earlier program in one step.

    OSError where the kernel refuses.
    """
    instructions = program(indexes)
    if socket_filter.length(instructions) > _INSTRUCTIONS_MAX:
        raise OSError(errno.E2BIG, "too many workers for one program")
    socket_filter.attach(one, SO_ATTACH_REUSEPORT_CBPF, instructions)


def detach(one: socket.socket) -> None:
    """Let the kernel share out by its own hash again; nothing where there is no program."""
    socket_filter.detach(one, SO_DETACH_REUSEPORT_BPF)


def _random(choices: int) -> list[Instruction]:
    """A = a random number below ``choices``."""
    return [(_LOAD, 0, 0, _SKF_AD_RANDOM), (_MODULO, 0, 0, choices)]
