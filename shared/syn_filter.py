"""A filter on a listener that drops new SYNs and lets handshakes in flight complete.

For whoever retires a port: the supervisor, or a worker that has lost its supervisor. Classic BPF,
attached to our own socket, so no privilege is needed. A client whose SYN is dropped sends it again
after one second, and finds the port closed or served again by then.
"""

from __future__ import annotations

import _socket
import ipaddress
import socket
from typing import Final

from shared import socket_filter

SO_ATTACH_FILTER: Final = 26  # asm-generic/socket.h
SO_DETACH_FILTER: Final = 27

BACKLOG: Final = 4096  # net.core.somaxconn since Linux 5.4

# A round trip, and one more SYN-ACK, which is sent after a second (tcp_synack_retries in tcp(7)).
HANDSHAKE_S: Final = 1.2
LOOPBACK_HANDSHAKE_S: Final = 0.2  # on a machine so busy that softirqs wait for their turn

_FLAGS_OFFSET: Final = 13  # of the flags in a TCP header; the filter's data begins at that header
_SYN: Final = 0x02
_SYN_OR_ACK: Final = 0x12

_PROGRAM: Final = socket_filter.encode(
    (
        (0x30, 0, 0, _FLAGS_OFFSET),  # A = flags
        (0x54, 0, 0, _SYN_OR_ACK),  # A &= SYN|ACK
        (0x15, 0, 1, _SYN),  # if A == SYN
        (0x06, 0, 0, 0),  # drop
        (0x06, 0, 0, 0xFFFFFFFF),  # else keep all of it
    )
)


def attach(listener: _socket.socket) -> None:
    """Drop new SYNs on this TCP listener from now on; every holder of the socket is concerned."""
    socket_filter.attach(listener, SO_ATTACH_FILTER, _PROGRAM)


def detach(listener: _socket.socket) -> None:
    """Let SYNs in again; nothing where there is no filter."""
    socket_filter.detach(listener, SO_DETACH_FILTER)


def let_in(listener: _socket.socket) -> None:
    """Listen, where that was put off, and drop SYNs no more. OSError where it cannot listen."""
    if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listener.listen(BACKLOG)
    if listener.family != socket.AF_UNIX:
        detach(listener)


def handshake_s(host: str) -> float:
    """How long handshakes in flight at this address may take, in seconds; "": a Unix socket."""
    if not host:
        return 0.0
    address = ipaddress.ip_address(host.partition("%")[0])
    return LOOPBACK_HANDSHAKE_S if address.is_loopback else HANDSHAKE_S
