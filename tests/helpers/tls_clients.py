"""TLS clients for tests, over memory BIOs: close_notify, FIN and RST are told apart.

client = TlsClient(port, trusting(site.root), "a.example")
client.send(b"question")
client.finish()                 # close_notify: nothing more comes from here, reading goes on
client.read_to_end()            # client.ended is then "close_notify", "fin" or "reset"
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Final, NamedTuple

from cryptography import x509

from tests.helpers.certificates import Authority, Files
from tests.helpers.sockets import TIMEOUT_S
from tests.helpers.targets import HOSTS

TLS12: Final = ssl.TLSVersion.TLSv1_2
TLS13: Final = ssl.TLSVersion.TLSv1_3
VERSIONS: Final = {"1.2": TLS12, "1.3": TLS13}
_READ_BYTES: Final = 1 << 17
SHORT_S: Final = 0.3  # to see that nothing comes; whatever does come, comes far sooner


def trusting(
    root: Authority,
    *,
    version: ssl.TLSVersion | None = None,
    client: Files | None = None,
    alpn: Sequence[str] = (),
    ciphers: str = "",
) -> ssl.SSLContext:
    """A client's context that trusts ``root``. ``version``: this one alone. ``ciphers``: of 1.2."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(root.cert)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if client is not None:
        context.load_cert_chain(client.cert, client.key)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if ciphers:
        context.set_ciphers(ciphers)
    return context


def nameless(root: Authority, *, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """The same for clients that ask for no name, or for one that the certificate lacks."""
    context = trusting(root, version=version)
    context.check_hostname = False
    return context


class TlsClient:
    """One TLS connection. ``ended``: how the other side has ended."""

    def __init__(
        self,
        port: int | str,
        context: ssl.SSLContext,
        name: str | None = "a.example",
        *,
        family: str = "v4",
        session: ssl.SSLSession | None = None,
        before: bytes = b"",
        shakes: bool = True,
    ) -> None:
        """``before`` is sent ahead of TLS. The handshake is done unless ``shakes`` is false.

        ``port`` may be the path of a Unix socket.
        """
        self.sock = _dial(port, family)
        self.way = way_of(self.sock)
        self.ended = ""
        self.is_shaken = False
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=name, session=session
        )
        try:
            if before:
                self.sock.sendall(before)
            if shakes:
                self.shake()
        except BaseException:
            self.sock.close()
            raise

    def __enter__(self) -> TlsClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def flight(self) -> bytes:
        """The next bytes of a handshake that is done step by step; they are not sent."""
        try:
            self.tls.do_handshake()
            self.is_shaken = True
        except ssl.SSLWantReadError:
            pass
        return self._outgoing.read()

    def shake(self) -> None:
        """The handshake; ssl.SSLError where a side refuses, ConnectionError where it is cut."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self.feed()
                if self.ended:
                    raise ConnectionError(f"handshake: {self.ended}") from None
            except ssl.SSLError:
                self._flush()
                raise
            else:
                self._flush()
                return

    def send(self, data: bytes) -> None:
        """Encrypt and send all of it."""
        self.tls.write(data)
        self._flush()

    def seal(self, data: bytes, *, ends: bool = False) -> bytes:
        """The records of ``data``, not sent; with ``ends`` a close_notify behind them."""
        self.tls.write(data)
        if ends:
            self._notify()
        return self._outgoing.read()

    def receive(self) -> bytes:
        """What is there, or the next that comes; b"" at the end, which ``ended`` tells."""
        while True:
            try:
                data = self.tls.read(_READ_BYTES)
            except ssl.SSLWantReadError:
                self._flush()  # the answer to a KeyUpdate
                if self.ended:
                    return b""
                self.feed()
            except ssl.SSLZeroReturnError:
                self.ended = "close_notify"
                return b""
            else:
                if not data:
                    self.ended = self.ended or "close_notify"
                return data

    def read_exactly(self, size: int) -> bytes:
        """So many bytes; fewer where the other side ends."""
        parts = bytearray()
        while len(parts) < size and (data := self.receive()):
            parts += data
        assert len(parts) <= size, bytes(parts[size:])
        return bytes(parts)

    def read_line(self) -> bytes:
        """The bytes until a line's end, which is the last that has come."""
        line = b""
        while not line.endswith(b"\n"):
            data = self.receive()
            assert data, f"ended ({self.ended}) after {line!r}"
            line += data
        return line

    def read_to_end(self) -> bytes:
        """Everything until the other side ends."""
        parts = bytearray()
        while data := self.receive():
            parts += data
        return bytes(parts)

    def wait_fin(self) -> None:
        """Read on until the socket itself has ended; ``ended`` is then "fin" or "reset".

        Behind a close_notify that came all the way from a target, only its FIN says that whoever
        is between has seen the target end before this client does.
        """
        self.ended = ""
        while not self.ended:
            self.feed()

    def echoes(self, data: bytes = b"still there") -> bool:
        """Whether the other end sends back what it gets."""
        try:
            self.send(data)
            return self.read_exactly(len(data)) == data
        except OSError:
            return False

    def talks(self, data: bytes = b"anyone there") -> bool:
        """Whether the handshake is done, and the other end sends back what it gets."""
        try:
            self.shake()
        except OSError:  # ssl.SSLError is one
            return False
        return self.echoes(data)

    def finish(self) -> None:
        """close_notify; reading goes on."""
        self._notify()
        self._flush()

    def is_silent(self) -> bool:
        """Whether nothing comes for a moment."""
        self.sock.settimeout(SHORT_S)
        try:
            self.receive()
        except TimeoutError:
            return True
        finally:
            self.sock.settimeout(TIMEOUT_S)
        return False

    def peer(self) -> x509.Certificate:
        """The certificate that was shown."""
        shown = self.tls.getpeercert(True)
        assert shown
        return x509.load_der_x509_certificate(shown)

    def session(self) -> ssl.SSLSession:
        """The session to resume; TLS 1.3 brings it behind the handshake, so read before."""
        found = self.tls.session
        assert found is not None
        return found

    def close(self) -> None:
        """FIN, without a close_notify."""
        self.sock.close()

    def reset(self) -> None:
        """RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def _notify(self) -> None:
        try:
            self.tls.unwrap()
        except ssl.SSLError:
            pass  # it wants the other side's

    def _flush(self) -> None:
        if self._outgoing.pending:
            self.sock.sendall(self._outgoing.read())

    def feed(self) -> None:
        """Read from the socket once."""
        try:
            data = self.sock.recv(_READ_BYTES)
        except ConnectionResetError:
            self.ended = "reset"
            return
        if data:
            self._incoming.write(data)
        else:
            self.ended = "fin"


class Way(NamedTuple):
    """Both ends of a client's socket, as the access log writes them; one alone may come again.

    ``since``: when it was connected, as the log writes times: the kernel gives ports out again.
    """

    own: str
    peer: str
    since: str


def way_of(sock: socket.socket) -> Way:
    """The ends of a connected socket. All clients of a Unix socket look alike but for the time."""
    since = datetime.now(UTC) - timedelta(seconds=1)  # it may have ended by now
    text = since.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Way(_text(sock.getsockname()), _text(sock.getpeername()), text)


def _text(address: tuple[str, int] | str) -> str:
    if isinstance(address, str):
        return f"unix:{address}" if address else ""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextmanager
def plain(port: int | str, family: str = "v4") -> Iterator[socket.socket]:
    """A connection without TLS. ``port`` may be the path of a Unix socket."""
    with _dial(port, family) as sock:
        yield sock


def _dial(port: int | str, family: str) -> socket.socket:
    if isinstance(port, int):
        sock = socket.create_connection((HOSTS[family], port), TIMEOUT_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(TIMEOUT_S)
        sock.connect(port)
    except BaseException:
        sock.close()
        raise
    return sock


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """So many bytes; fewer where the other side ends, by FIN or by RST."""
    received = bytearray()
    with suppress(ConnectionResetError):
        while len(received) < size and (part := sock.recv(size - len(received))):
            received += part
    return bytes(received)
