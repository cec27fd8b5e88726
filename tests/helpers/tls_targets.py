"""Targets for tests of TLS: they tag what they echo, speak first, or speak TLS themselves."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from shared.proxy_protocol import ProxyHeader, parse
from tests.helpers.certificates import Authority, Files
from tests.helpers.targets import HOSTS, Target, read_header
from tests.helpers.tls_clients import read_exactly

GREETING: Final = b"220 hello from the server\r\n"
_HEAD_BYTES: Final = 16  # of a PROXY v2 header, with its length at the end


def echo(sock: socket.socket) -> None:
    """Send back what comes, then FIN."""
    while data := sock.recv(65536):
        sock.sendall(data)


def greet(sock: socket.socket) -> None:
    """Speak first, then send back what comes."""
    sock.sendall(GREETING)
    echo(sock)


def tagged(tag: bytes) -> Callable[[socket.socket], None]:
    """Send the tag before the first bytes that come back, so that a client knows who has it."""

    def serve(sock: socket.socket) -> None:
        data = sock.recv(65536)
        if data:
            sock.sendall(tag + data)
            echo(sock)

    return serve


def sends_and_ends(size: int) -> Callable[[socket.socket], None]:
    """Send so many bytes, then FIN, and read on to the client's end."""

    def serve(sock: socket.socket) -> None:
        sock.sendall(bytes(size))
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass

    return serve


def digest_at_end(sock: socket.socket) -> None:
    """Read to the client's end, then send what that was as SHA-256, in hexadecimal."""
    digest = hashlib.sha256()
    while data := sock.recv(1 << 18):
        digest.update(data)
    sock.sendall(digest.hexdigest().encode())


class HeaderEcho(Target):
    """Reads a PROXY header, notes it, and sends back what follows. ``received``: all of that."""

    def __init__(self, host: str = HOSTS["v4"]) -> None:
        self.headers: list[ProxyHeader] = []
        self.received: list[bytes] = []
        super().__init__(self._talk, host)

    def _talk(self, sock: socket.socket) -> None:
        header, rest = read_header(sock)
        self.headers.append(header)
        place = len(self.received)
        self.received.append(rest)
        if rest:
            sock.sendall(rest)
        while data := sock.recv(65536):
            self.received[place] += data
            sock.sendall(data)


class Spoken(Struct, kw_only=True):
    """What a TLS target knows of one connection."""

    server_name: str
    version: str
    alpn: str
    client: str  # common name of the client's certificate
    reused: bool
    header: ProxyHeader | None = None


class TlsTarget(Target):
    """Speaks TLS, and then sends back what it gets. ``spoken``: of every handshake that was done.

    ``reads_header``: a PROXY v2 header comes before TLS. ``ends`` has "close_notify" or "fin" of
    every connection that the other side ended in order.
    """

    def __init__(
        self,
        files: Files,
        *,
        client_ca: Authority | None = None,
        alpn: tuple[str, ...] = (),
        reads_header: bool = False,
        talk: Callable[[ssl.SSLSocket], None] | None = None,
    ) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.cert, files.key)
        if client_ca is not None:
            context.load_verify_locations(client_ca.cert)
            context.verify_mode = ssl.CERT_REQUIRED
        if alpn:
            context.set_alpn_protocols(list(alpn))
        context.sni_callback = self._asked
        self._context = context
        self._names = threading.local()
        self._reads_header = reads_header
        self._talk_to = talk
        self.spoken: list[Spoken] = []
        self.ends: list[str] = []
        super().__init__(self._talk)

    def _asked(self, _: object, name: str | None, __: object) -> None:
        self._names.name = name or ""

    def _talk(self, sock: socket.socket) -> None:
        header = read_v2_header(sock) if self._reads_header else None
        self._names.name = ""
        with self._context.wrap_socket(
            sock, server_side=True, suppress_ragged_eofs=False
        ) as secure:
            certificate = secure.getpeercert() or {}
            names = (pair for part in certificate.get("subject", ()) for pair in part)
            self.spoken.append(
                Spoken(
                    server_name=self._names.name,
                    version=secure.version() or "",
                    alpn=secure.selected_alpn_protocol() or "",
                    client=str(dict(names).get("commonName", "")),  # type: ignore[arg-type]
                    reused=bool(secure.session_reused),
                    header=header,
                )
            )
            if self._talk_to is not None:
                self._talk_to(secure)
                return
            try:
                while data := secure.recv(65536):
                    secure.sendall(data)
                self.ends.append("close_notify")
            except ssl.SSLEOFError:
                self.ends.append("fin")
                return
            with contextlib.suppress(OSError):
                secure.unwrap()


def read_v2_header(sock: socket.socket) -> ProxyHeader:
    """A PROXY v2 header, and not a byte of what follows."""
    head = read_exactly(sock, _HEAD_BYTES)
    rest = read_exactly(sock, int.from_bytes(head[-2:], "big"))
    found = parse(head + rest)
    assert found is not None
    return found[0]
