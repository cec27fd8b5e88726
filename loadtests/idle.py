"""Idle connections: clients and the target at their other end, in one process on one epoll."""

from __future__ import annotations

import selectors
import socket
import ssl
from time import monotonic
from types import TracebackType
from typing import Final

from loadtests.processes import LoadTestError

BATCH: Final = 200  # dialled at once, well below every listen backlog
READ_BYTES: Final = 4096


class IdleConnections:
    """Opens connections to a proxy and holds both ends: the client's, and the target's.

    The target accepts and never sends, so every connection that counts is established through
    the proxy and silent. ``ended`` counts those that either side lost. With ``tls`` and
    ``server_name`` the clients speak TLS to the proxy, and count once the handshake is over.
    """

    def __init__(self, tls: ssl.SSLContext | None = None, server_name: str = "") -> None:
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._clients: list[socket.socket] = []
        self._accepted: list[socket.socket] = []
        self._tls = tls
        self._server_name = server_name
        self._shaken = 0  # handshakes that are over
        self.ended = 0
        self.target_port = int(self._listener.getsockname()[1])

    def __enter__(self) -> IdleConnections:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.drop()
        self._selector.close()
        self._listener.close()

    @property
    def is_tls(self) -> bool:
        """Whether the clients speak TLS."""
        return self._tls is not None

    @property
    def _open(self) -> int:
        """How many have reached the target, and are encrypted where they have to be."""
        return min(len(self._accepted), self._shaken) if self.is_tls else len(self._accepted)

    @property
    def established(self) -> int:
        """How many were open and not lost since."""
        return self._open - self.ended

    def open(self, port: int, count: int, timeout_s: float = 30.0) -> None:
        """Open ``count`` more through ``port``; LoadTestError when not all reach the target."""
        deadline = monotonic() + timeout_s
        goal = self._open + count
        while self._open < goal:
            behind = len(self._clients) - self._open
            for _ in range(min(goal - self._open, BATCH) - behind):
                self._dial(port)
            self.turn(0.05)
            if monotonic() > deadline or self.ended:
                raise LoadTestError(
                    f"idle connections: {self._open} of {goal} reached the target"
                    f" within {timeout_s:g} s, {self.ended} were lost"
                )

    def _dial(self, port: int) -> None:
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._clients.append(client)
        client.connect_ex(("127.0.0.1", port))  # its verdict comes as an event
        event = selectors.EVENT_WRITE if self.is_tls else selectors.EVENT_READ
        self._selector.register(client, event, len(self._clients) - 1)

    def turn(self, timeout_s: float) -> None:
        """Handle the events of at most ``timeout_s``: connections, handshakes, and ends."""
        for key, _ in self._selector.select(timeout_s):
            if key.fileobj is self._listener:
                self._accept()
            elif key.data is None or not self.is_tls:  # nothing is ever sent: readable means lost
                self._lose(key.fileobj)
            else:
                self._shake(key.data)

    def _lose(self, connection: object) -> None:
        self._selector.unregister(connection)  # type: ignore[arg-type]  # as selectors names it
        self.ended += 1

    def _shake(self, place: int) -> None:
        """The next step of a client's handshake; afterwards, its tickets."""
        client = self._clients[place]
        try:
            if not isinstance(client, ssl.SSLSocket):
                client = self._wrap(place)
            is_new = client.version() is None
            if is_new:
                client.do_handshake()
                self._selector.modify(client, selectors.EVENT_READ, place)
                self._shaken += 1
            while client.recv(READ_BYTES):
                pass
        except ssl.SSLWantReadError:
            self._selector.modify(client, selectors.EVENT_READ, place)
            return
        except ssl.SSLWantWriteError:
            self._selector.modify(client, selectors.EVENT_WRITE, place)
            return
        except OSError:  # every error of TLS is one
            pass
        self._lose(client)

    def _wrap(self, place: int) -> ssl.SSLSocket:
        """The socket of a client that has just been connected, as one of TLS."""
        assert self._tls is not None
        plain = self._clients[place]
        self._selector.unregister(plain)
        client = self._tls.wrap_socket(
            plain, server_hostname=self._server_name, do_handshake_on_connect=False
        )
        self._clients[place] = client
        self._selector.register(client, selectors.EVENT_READ, place)
        return client

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except BlockingIOError:
                return
            accepted.setblocking(False)
            self._accepted.append(accepted)
            self._selector.register(accepted, selectors.EVENT_READ)

    def drop(self) -> None:
        """Close both ends of all of them."""
        watched = self._selector.get_map()
        for connection in self._clients + self._accepted:
            if connection in watched:
                self._selector.unregister(connection)
            connection.close()
        self._clients.clear()
        self._accepted.clear()
        self._shaken = 0
