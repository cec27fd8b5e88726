"""Targets at the end of a chain: they say what they saw, or behave badly on purpose."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Final

from shared.proxy_protocol import ProxyHeader, parse
from tests.helpers.ports import free_ports
from tests.helpers.sockets import TIMEOUT_S

HOSTS: Final = {"v4": "127.0.0.1", "v6": "::1"}
BULK_PIECE: Final = bytes(range(256)) * 1024  # 256 KiB; a lost or doubled read breaks its order


def literal(host: str, port: int) -> str:
    """``host:port`` as configs write it, with brackets around IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def dual_ports(count: int) -> list[int]:
    """Ports that are free on 127.0.0.1 and on ::1, all different."""
    return free_ports(count, tuple(HOSTS.values()))


def reset(sock: socket.socket) -> None:
    """Close with an RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def read_header(sock: socket.socket) -> tuple[ProxyHeader, bytes]:
    """The PROXY header that a connection begins with, and what came behind it."""
    received = b""
    while (answer := parse(received)) is None:
        part = sock.recv(4096)
        if not part:
            raise ConnectionError(f"the connection ended within the header: {received!r}")
        received += part
    header, size = answer
    return header, received[size:]


class Target:
    """A listener on loopback that runs ``serve`` in a thread for each connection."""

    def __init__(self, serve: Callable[[socket.socket], None], host: str = HOSTS["v4"]) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family, backlog=256)
        self.port = int(self._listener.getsockname()[1])
        self.address = literal(host, self.port)
        self.accepted = 0
        self.failures: list[str] = []  # what a connection ended with that was no clean end
        self._serve = serve
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def close(self) -> None:
        """End every connection and thread."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join(TIMEOUT_S)
        self._listener.close()
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(TIMEOUT_S)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            self._open.add(sock)
            thread = threading.Thread(target=self._run, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self, sock: socket.socket) -> None:
        with sock:
            try:
                self._serve(sock)
            except Exception as error:  # a broken connection must not end the test server
                self.failures.append(repr(error))
        self._open.discard(sock)


class HeaderTarget(Target):
    """Reads a PROXY header, says whom it names in one line, then sends back what it gets.

    With ``greets`` the line comes at once (a server-first protocol), else after a request that
    ends with an empty line. ``headers`` are those that were read.
    """

    def __init__(self, host: str = HOSTS["v4"], *, greets: bool = False) -> None:
        self.headers: list[ProxyHeader] = []
        self._greets = greets
        super().__init__(self._talk, host)

    def _talk(self, sock: socket.socket) -> None:
        header, received = read_header(sock)
        self.headers.append(header)
        if not self._greets:
            while b"\r\n\r\n" not in received:
                part = sock.recv(4096)
                if not part:
                    return
                received += part
            received = received.partition(b"\r\n\r\n")[2]
        line = (
            f"{header.source_text} {header.source_port}"
            f" {header.destination_text} {header.destination_port}\n"
        )
        sock.sendall(line.encode() + received)
        while data := sock.recv(65536):
            sock.sendall(data)


class BulkTarget(Target):
    """Takes and gives bulk at the same time; ``digest`` is of what the last connection sent."""

    def __init__(self, give_bytes: int) -> None:
        self._give_bytes = give_bytes
        self.digest = ""
        super().__init__(self._exchange)

    def _exchange(self, sock: socket.socket) -> None:
        digest = hashlib.sha256()
        _, rest = read_header(sock)
        digest.update(rest)
        giver = threading.Thread(target=give, args=(sock, self._give_bytes), daemon=True)
        giver.start()
        while data := sock.recv(1 << 18):
            digest.update(data)
        self.digest = digest.hexdigest()
        giver.join(TIMEOUT_S)


def give(sock: socket.socket, size: int) -> None:
    """Send ``size`` bytes of the bulk pattern, then FIN."""
    for _ in range(size // len(BULK_PIECE)):
        sock.sendall(BULK_PIECE)
    sock.sendall(BULK_PIECE[: size % len(BULK_PIECE)])
    sock.shutdown(socket.SHUT_WR)


def bulk_digest(size: int) -> str:
    """SHA-256 of ``size`` bytes of the bulk pattern."""
    digest = hashlib.sha256()
    for _ in range(size // len(BULK_PIECE)):
        digest.update(BULK_PIECE)
    digest.update(BULK_PIECE[: size % len(BULK_PIECE)])
    return digest.hexdigest()


def closes_at_once(sock: socket.socket) -> None:
    """FIN as soon as the header is here; unread bytes would make an RST of it."""
    read_header(sock)


def resets_at_once(sock: socket.socket) -> None:
    """RST without reading anything."""
    reset(sock)


class SilentTarget(Target):
    """Accepts, and neither reads nor answers, until it is closed."""

    def __init__(self) -> None:
        self._over = threading.Event()
        super().__init__(lambda _: self._hold())

    def _hold(self) -> None:
        self._over.wait()

    def close(self) -> None:
        """Let go of every connection."""
        self._over.set()
        super().close()


@contextlib.contextmanager
def blackhole() -> Iterator[int]:
    """A port whose listener has a full backlog, so that a SYN gets no answer."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((HOSTS["v4"], 0), backlog=0))
        port = int(listener.getsockname()[1])
        for _ in range(4):  # one fits; the others see to it that none fits any more
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((HOSTS["v4"], port))
        yield port


def closed_port() -> int:
    """A port that refuses connections: bound by nobody at the time of the call."""
    return dual_ports(1)[0]
