"""One socket that speaks HTTP: read from, written to, plain or with TLS."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

from shared.errors import TlsError
from worker.openssl_form import PLAIN
from worker.reactor import WRITING
from worker.relay import DONTWAIT, LAST, SIZE, VIEW
from worker.syscalls import EMPTY, give, receive

if TYPE_CHECKING:
    from worker.reactor import Reactor
    from worker.sockets import Socket
    from worker.tls_engine import Tls

# What `Wire.receive` says beside a number of bytes.
NOTHING: Final = 0  # for now
ENDED: Final = -1  # FIN, or close_notify
MOST_ROUNDS: Final = 64  # of reading without payload
MOST_ANSWERS_BYTES: Final = 2 * SIZE  # that wait for a peer who does not read
LOST: Final = -2  # RST, a dead path, records that are not good


class Wire:
    """What was read lies in ``view`` until the next read of whatever wire.

    ``outbox``: bytes for the socket as they are, which found no room yet. ``is_lost``: nothing can
    be written any more. ``is_drained``: the last read took all that the socket had, and no end is
    known of, so that an event tells of more. ``why``: what TLS did not like.
    """

    __slots__ = (
        "_reactor", "fd", "has_ended", "is_drained", "is_lost", "outbox", "sock", "tls", "view",
        "wants_out", "why",
    )  # fmt: skip

    def __init__(
        self, reactor: Reactor, sock: Socket, fd: int, tls: Tls | None, *, wants_out: bool
    ) -> None:
        self._reactor = reactor
        self.sock = sock
        self.fd = fd
        self.tls = tls
        self.view: memoryview = VIEW if tls is None else PLAIN
        self.outbox = b""
        self.wants_out = wants_out
        self.has_ended = False
        self.is_drained = False
        self.is_lost = False
        self.why = ""

    def receive(self) -> int:
        """Read once: how many bytes lie in ``view``, or NOTHING, ENDED, LOST.

        The socket is edge-triggered: ask again until one of these comes, or leave it to whoever
        comes back.
        """
        rounds = 0
        while not self.has_ended:
            rounds += 1
            if rounds > MOST_ROUNDS:
                self.why = "records without payload, and no end of them"
                self.is_lost = True
                return LOST
            count = receive(self.sock, self.fd)
            if count <= 0:
                if count == EMPTY:
                    return NOTHING
                if count == 0:
                    self.has_ended = True
                    return ENDED
                self.is_lost = True
                return LOST
            self.is_drained = count < SIZE
            if self.tls is None:
                return count
            size = self._decrypt(self.tls, count)
            if size:
                return size
        return ENDED

    def _decrypt(self, tls: Tls, count: int) -> int:
        try:
            size = tls.decrypt(VIEW[:count])
        except TlsError as error:
            self.why = str(error)
            self.is_lost = True
            if error.alert:
                self._send(error.alert)
            return LOST
        answer = tls.answer()
        if answer:
            if len(self.outbox) > MOST_ANSWERS_BYTES:
                self.why = "it asks for key updates and does not read them"
                self.is_lost = True
                return LOST
            self._send(answer)
        if tls.has_ended:
            self.has_ended = True
            self.is_drained = False
        return size

    def send(self, data: bytes | memoryview) -> None:
        """Send payload, behind what waits; see ``outbox`` and ``is_lost`` for what became of it."""
        tls = self.tls
        if tls is None:
            self._send(data)
            return
        try:
            coded = tls.encrypt(data)
        except TlsError as error:
            self.why = str(error)
            self.is_lost = True
            return
        self._send(coded)

    def _send(self, data: bytes | memoryview) -> None:
        if self.outbox:
            self.outbox += data
            return
        sent = give(self.sock, self.fd, data, False)
        if sent < 0:
            self.is_lost = True
        elif sent < len(data):
            self.outbox = bytes(data[sent:])
            if not self.wants_out:
                self.wants_out = True
                self._reactor.modify(self.fd, WRITING)

    def flush(self) -> None:
        """Send what waits."""
        try:
            sent = self.sock.send(self.outbox, DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            self.is_lost = True
            self.outbox = b""
            return
        self.outbox = self.outbox[sent:]

    def tell_held(self) -> None:
        """Send the session ticket that found nothing to go with (`worker/handshake.py`)."""
        tls = self.tls
        if tls is not None and tls.held:
            self._send(tls.take_held())

    def say_last(self) -> None:
        """Send close_notify; the FIN of close(2) follows."""
        assert self.tls is not None
        try:
            self.sock.send(self.tls.close(), LAST)
        except OSError:
            self.is_lost = True

    def shut(self) -> None:
        """Send our end, behind what was sent: close_notify, FIN."""
        if self.tls is not None:
            self._send(self.tls.close())
        if self.is_lost or self.outbox:
            return
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.is_lost = True  # its RST has come


MOST_READ: Final = SIZE  # of one `receive`
