"""Clients and targets for tests, on loopback and free ports."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Final

TIMEOUT_S: Final = 10.0


def connect(port: int) -> socket.socket:
    """A connection to a port of 127.0.0.1."""
    return socket.create_connection(("127.0.0.1", port), TIMEOUT_S)


def exchange(client: socket.socket, data: bytes) -> bytes:
    """Send, and read as many bytes back; fewer when the other end stops."""
    client.sendall(data)
    received = b""
    while len(received) < len(data):
        chunk = client.recv(len(data) - len(received))
        if not chunk:
            break
        received += chunk
    return received


def echoes(port: int, data: bytes = b"hello") -> bool:
    """Whether a new connection to ``port`` sends back what it gets."""
    try:
        with connect(port) as client:
            return exchange(client, data) == data
    except OSError:
        return False


def is_refused(port: int) -> bool:
    """Whether nobody listens on ``port``."""
    try:
        with connect(port):
            return False
    except ConnectionRefusedError:
        return True
    except OSError:
        return False


class EchoServer:
    """Sends back what it gets, on ``port``, until the end of the context."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = int(self._listener.getsockname()[1])
        self._open: set[socket.socket] = set()
        self._accepting = threading.Thread(target=self._accept, daemon=True)

    @property
    def address(self) -> str:
        """As a target of a route."""
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> EchoServer:
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join(TIMEOUT_S)
        self._listener.close()
        for client in list(self._open):
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._open.add(client)
            threading.Thread(target=self._echo, args=(client,), daemon=True).start()

    def _echo(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            while data := client.recv(65536):
                client.sendall(data)
        self._open.discard(client)


@contextlib.contextmanager
def occupied_port() -> Iterator[int]:
    """A port that someone else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])
