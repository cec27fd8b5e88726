"""Clients and targets for tests of the data plane: blocking sockets, read by hand.

Every call has a timeout, so that a test that waits for what never comes fails instead of hanging.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from shared.plan import TargetPlan

TIMEOUT_S: Final = 20.0  # of every blocking call
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: close sends RST


def reset(sock: socket.socket) -> None:
    """Close with an RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.close()


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """``size`` bytes; fewer where the stream ends before."""
    parts: list[bytes] = []
    left = size
    while left:
        part = sock.recv(min(left, 1 << 20))
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def read_to_end(sock: socket.socket) -> bytes:
    """All bytes up to the FIN; an RST raises ConnectionResetError."""
    parts: list[bytes] = []
    while part := sock.recv(1 << 20):
        parts.append(part)
    return b"".join(parts)


def read_to_reset(sock: socket.socket) -> bytes:
    """All bytes up to the RST; AssertionError where a FIN comes instead."""
    parts: list[bytes] = []
    while True:
        try:
            part = sock.recv(1 << 20)
        except ConnectionResetError:
            return b"".join(parts)
        assert part, "FIN where an RST was expected"
        parts.append(part)


def send_until_full(sock: socket.socket, data: bytes) -> int:
    """Send until nothing more goes for a while; returns how many bytes went."""
    view, sent = memoryview(data), 0
    sock.settimeout(0.25)
    try:
        while sent < len(data):
            sent += sock.send(view[sent : sent + 256 * 1024])
    except TimeoutError:
        pass
    sock.settimeout(TIMEOUT_S)
    return sent


def read_what_is_there(sock: socket.socket) -> bytes:
    """What can be read without waiting, 4 MiB at the most."""
    parts: list[bytes] = []
    sock.setblocking(False)
    try:
        while len(parts) < 64 and (part := sock.recv(1 << 16)):
            parts.append(part)
    except BlockingIOError:
        pass
    sock.settimeout(TIMEOUT_S)
    return b"".join(parts)


def is_silent(sock: socket.socket) -> bool:
    """Whether there is neither a byte nor an end to be read from it now."""
    sock.setblocking(False)
    try:
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    finally:
        sock.settimeout(TIMEOUT_S)
    return False


def descriptors() -> int:
    """Open descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


def leave(client: socket.socket, server: socket.socket) -> None:
    """The client ends, and the target once it has seen that."""
    client.close()
    assert read_to_end(server) == b""
    server.close()


def in_turn(*steps: Callable[[], object]) -> Callable[[], None]:
    """One function that takes these steps, one after the other."""

    def run() -> None:
        for step in steps:
            step()

    return run


@contextmanager
def in_thread(*steps: Callable[[], object]) -> Iterator[None]:
    """Run the steps beside the block and wait for them; an exception in one fails the test."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            in_turn(*steps)()
        except BaseException as exc:
            errors.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join(TIMEOUT_S)
    assert errors == []
    assert not thread.is_alive()


class Target:
    """A listening socket whose connections the test accepts by hand."""

    def __init__(
        self, host: str, path: str, port: int, keep: Callable[[socket.socket], socket.socket]
    ) -> None:
        self._keep = keep
        self.host = host
        self.path = path
        if path:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.bind(path)
            self.sock.listen(128)
        else:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self.sock = socket.create_server((host, port), family=family, backlog=2048)
        self.port = 0 if path else int(self.sock.getsockname()[1])
        self.sock.settimeout(TIMEOUT_S)

    @property
    def name(self) -> str:
        """The label in counters."""
        return f"unix:{self.path}" if self.path else f"{self.host}:{self.port}"

    def plan(self, **settings: Any) -> TargetPlan:
        """As a target of a route."""
        where: dict[str, Any] = {"host": self.host, "port": self.port, "path": self.path}
        return TargetPlan(**{"name": self.name, **where, **settings})

    def accept(self) -> socket.socket:
        """The next connection of the data plane."""
        server, _ = self.sock.accept()
        server.settimeout(TIMEOUT_S)
        return self._keep(server)

    def has_none(self) -> bool:
        """Whether no connection waits to be accepted."""
        self.sock.setblocking(False)
        try:
            server, _ = self.sock.accept()
        except BlockingIOError:
            return True
        finally:
            self.sock.settimeout(TIMEOUT_S)
        server.close()
        return False
