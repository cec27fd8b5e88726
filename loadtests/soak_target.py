"""The targets of a soak: they read the PROXY header, say whose worker it was, and echo."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from loadtests.soak_client import HEAD, MAGIC, Client, Way
from loadtests.soak_loop import ENDED, IN, OUT, READ_BYTES
from loadtests.soak_wire import CONNECTIONS, TO_TARGET, Tally
from shared.proxy_protocol import ProxyHeaderError, TlvType, parse

if TYPE_CHECKING:
    from loadtests.soak_traffic import Traffic

_MOST_WAITING: Final = 1 << 20  # bytes to send; nothing more is read meanwhile
_ACCEPTS: Final = 64


class Targets:
    """Listens on every address, so that many names of one target share it."""

    def __init__(
        self,
        traffic: Traffic,
        listener: socket.socket,
        make: Callable[[Traffic, socket.socket], Target],
    ) -> None:
        """``make`` what takes a connection."""
        self._make = make
        self._traffic = traffic
        self._listener = listener
        self._listener.setblocking(False)
        self.port = int(listener.getsockname()[1])
        traffic.loop.add_listener(listener, self)

    def ready(self, _: int) -> None:
        """Accept what waits."""
        for _turn in range(_ACCEPTS):
            try:
                sock, _address = self._listener.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue  # gone before it was taken
            sock.setblocking(False)
            target = self._make(self._traffic, sock)
            self._traffic.loop.add(sock, target)
            target.ready(IN)


class Target:
    """One connection that proxyctl made."""

    __slots__ = (
        "_client",
        "_head",
        "_is_crowd",
        "_is_ended",
        "_is_finished",
        "_out",
        "_tally",
        "_total",
        "sock",
        "traffic",
    )

    def __init__(self, traffic: Traffic, sock: socket.socket) -> None:
        self.traffic = traffic
        traffic.targets_open += 1
        self.sock = sock
        self._head: bytes | None = b""  # of header and request, until both are read
        self._tally: Tally | None = None
        self._client: Client | None = None
        self._is_crowd = False
        self._out = bytearray()
        self._total = -1  # bytes after which this side ends first; -1: it does not
        self._is_ended = False  # the other side's FIN came
        self._is_finished = False  # ours went

    def ready(self, events: int) -> None:
        """The socket can be written, or there is something to read."""
        if events & OUT and self._out and not self._flush():
            return
        if events & (IN | ENDED) or len(self._out) < _MOST_WAITING:
            self._read(events)

    def _read(self, events: int) -> None:
        while len(self._out) < _MOST_WAITING and not self._is_ended:
            try:
                data = self.sock.recv(READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                self._close()
                return
            if not data:
                self._is_ended = True
                self._finish()
                return
            payload = self._payload(data)
            if payload is None or (payload and not self._echo(payload)):
                return
            if len(data) < READ_BYTES and not events & ENDED:
                return

    def _payload(self, data: bytes) -> bytes | None:
        """What is to be sent back of bytes that came; None: the connection is over."""
        if self._head is None:
            return data
        behind = data if self._tally is not None else self._header(data)
        return self._request(behind) if behind else behind

    def _header(self, data: bytes) -> bytes | None:
        """Bytes behind the PROXY header; None: the connection is over."""
        head = self._head = (self._head or b"") + data
        try:
            answer = parse(head)
        except ProxyHeaderError:
            self.traffic.account.wrong_headers += 1
            self._close()
            return None
        if answer is None:
            return b""
        header, size = answer
        ids = [value for kind, value in header.tlvs if kind == TlvType.UNIQUE_ID]
        key = (header.source, header.source_port, header.destination_port)
        unique_id = ids[0].decode("ascii", "replace") if ids else ""
        self._tally, self._client = self.traffic.names.named(key, unique_id, self.traffic.loop.now)
        if self._client is not None and self._client.kind == "crowd":
            self._is_crowd = True
            self.traffic.refusals.crowd_open += 1
        self._tally.add(self.traffic.loop.second, CONNECTIONS, 1)
        self._head = b""
        return head[size:]

    def _request(self, data: bytes) -> bytes:
        """The first bytes of payload, once the head is whole, and as they are behind it."""
        if self._head is None:
            return data
        head = self._head = self._head + data
        if len(head) < HEAD.size:
            return b""
        magic, _token, total, way = HEAD.unpack_from(head)
        if magic == MAGIC and total and way == Way.TARGET:
            self._total = total
        self._head = None
        return head

    def _got(self, size: int) -> None:
        """Count what came."""
        self.traffic.account.target_received += size
        if self._tally is not None:
            self._tally.add(self.traffic.loop.second, TO_TARGET, size)

    def _echo(self, data: bytes) -> bool:
        """Send back what came; False when the connection is over."""
        self._got(len(data))
        if self._total >= 0:
            self._total -= len(data)
        self._say(data)
        return self._flush()

    def _say(self, data: bytes) -> None:
        """Let it be sent."""
        self._out += data

    def _gave(self, size: int) -> None:
        """Count what was sent."""
        self.traffic.account.target_sent += size

    def _flush(self) -> bool:
        out = self._out
        while out:
            try:
                count = self.sock.send(out)
            except BlockingIOError:
                return True
            except OSError:
                self._close()
                return False
            self._gave(count)
            del out[:count]
        return self._finish()

    def _finish(self) -> bool:
        """End what can be ended; False when the connection is over."""
        if self._out:
            return True
        if self._is_ended:
            self._close()
            return False
        return self._shut() if self._total == 0 else True

    def _shut(self) -> bool:
        """Send FIN, once; False when the connection is over."""
        if not self._is_finished:
            self._is_finished = True
            try:
                self.sock.shutdown(socket.SHUT_WR)
            except OSError:
                self._close()
                return False
        return True

    def _close(self) -> None:
        self.traffic.loop.close(self.sock)
        self.traffic.targets_open -= 1
        self.traffic.refusals.crowd_open -= self._is_crowd
