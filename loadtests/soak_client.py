"""The clients of a soak: each begins a connection, says what it must, and has one outcome.

What a client sends is worked out from its token, and must come back byte for byte: first a head
that tells the target how the connection is to end, then a piece of a block that both know.
"""

from __future__ import annotations

import errno
import random
import socket
from enum import IntEnum
from struct import Struct as Packed
from time import monotonic
from typing import TYPE_CHECKING, Final

from loadtests.soak_loop import ENDED, IN, IP_BIND_ADDRESS_NO_PORT, OUT, READ_BYTES
from loadtests.soak_wire import TO_CLIENT, ClientKind, Lost, Place, Tally

if TYPE_CHECKING:
    from loadtests.soak_traffic import Traffic

HEAD: Final = Packed("!4sQIB")  # magic, token, bytes in all (0: no end is told), way to end
MAGIC: Final = b"soak"
BLOCK_BYTES: Final = 1 << 19
_LONG_GAPS_S: Final = (0.1, 0.3)  # between an echo and the next message
LONG_ECHO_S: Final = 15.0  # for one echo: a worker may be stopped for 2 s, a SYN sent again twice

# connect(2) failed: there never was a connection. ECONNRESET instead means that there was one.
_NOT_ESTABLISHED: Final = {
    errno.ECONNREFUSED: "refused",
    errno.ETIMEDOUT: "timeout",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
}

Key = tuple[bytes, int, int]  # client's address and port, and the port that it dialled


class Way(IntEnum):
    """How a connection ends: who sends FIN first, and when."""

    CLIENT_EARLY = 0  # with the last byte of the request
    CLIENT_LATE = 1  # after the last byte of the echo
    TARGET = 2  # the target, after the last byte of the echo


def block(seed: int) -> bytes:
    """The block that all payload is cut from, twice in a row so that a cut never wraps."""
    return random.Random(seed).randbytes(BLOCK_BYTES) * 2


class Client:
    """One connection: short (one message), long (a message every while, ``until`` an instant), or
    gone (a short one to a place that has left, which may be turned away). One of a crowd is as a
    long one, a guest as a short one (soak_rules.py).

    It is in `Traffic.clients` from its dial to its outcome.
    """

    __slots__ = (
        "_is_ending",
        "_message",
        "_next_at",
        "_position",
        "_received",
        "_sent",
        "_way",
        "begun_at",
        "ended_at",
        "how",
        "is_established",
        "is_held",
        "key",
        "kind",
        "moved_at",
        "place",
        "received",
        "sent",
        "sock",
        "source",
        "tally",
        "token",
        "traffic",
        "unique_id",
        "until",
    )

    def __init__(
        self,
        traffic: Traffic,
        place: Place,
        token: int,
        size: int,
        way: Way,
        kind: ClientKind = "short",
        until: float | None = None,
    ) -> None:
        self.traffic = traffic
        self.place = place
        self.token = token
        self.kind: ClientKind = kind
        self.until = until  # no more messages after this instant; inf: until it is told to end
        self.sent = self.received = 0  # over the whole connection
        self.tally: Tally | None = None  # of its worker, once a target has named it
        self.unique_id = ""
        self.is_established = False
        self.is_held = False  # a long one between two messages, while all is to stand still
        self.begun_at = self.moved_at = self.ended_at = traffic.loop.now
        self.how = ""  # the outcome, once it has one
        self.source = ""
        self._next_at = 0.0
        self._is_ending = False
        self._way = way
        self._message = b""
        self._sent = self._received = 0  # of the message
        self._position = token * 7919 % BLOCK_BYTES
        self._say(HEAD.pack(MAGIC, token, size if until is None else 0, way), size - HEAD.size)
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.key: Key = (b"", 0, place.port)

    def dial(self, source: str) -> None:
        """Connect from ``source``, with a port that the kernel chooses."""
        sock, self.source = self.sock, source
        try:
            sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((source, 0))
            self.begun_at = monotonic()  # exact: a reload may return at this very moment
            code = sock.connect_ex((self.place.host, self.place.port))
            self.key = (socket.inet_aton(source), sock.getsockname()[1], self.place.port)
        except OSError as error:
            self._over(f"no socket ({error.strerror})")
            return
        self.traffic.names.add(self)
        if code not in (0, errno.EINPROGRESS):
            self._over(_NOT_ESTABLISHED.get(code, errno.errorcode.get(code, str(code))))
            return
        self.traffic.loop.add(sock, self)

    def ready(self, events: int) -> None:
        """The socket can be written, or there is something to read."""
        if events & OUT and self._sent < len(self._message) and not self._flush():
            return
        if events & (IN | ENDED):
            self._read(events)

    def look(self, now: float) -> None:
        """Once in a while, for long ones: the next message, or too long a wait for an echo."""
        if self._is_idle():
            if self.is_held or now < self._next_at or self.until is None:
                return
            if now >= self.until:
                self.finish()
            else:
                self._say(b"", self.traffic.random.randrange(16, 512))
                self._flush()
        elif now - self.moved_at > LONG_ECHO_S:
            self._over("timeout")

    def is_still(self) -> bool:
        """Held between two messages."""
        return self.is_held and self._is_idle()

    def is_answered(self) -> bool:
        """Everything that was said has come back, and there is more to say."""
        return self._is_idle()

    def finish(self) -> None:
        """Say no more, and wait for the other side's end."""
        if not self.how:
            self.moved_at = self.traffic.loop.now  # it may have been held for long
            self._end()

    def timed_out(self) -> None:
        """It has taken too long."""
        self._over("timeout")

    def _is_idle(self) -> bool:
        return (
            self.is_established
            and not self._is_ending
            and self._received == len(self._message) == self._sent
        )

    def _say(self, head: bytes, size: int) -> None:
        start = self._position
        self._message = head + self.traffic.block[start : start + size]
        self._position = (start + size) % BLOCK_BYTES
        self._sent = self._received = 0
        self.moved_at = self.traffic.loop.now

    def _flush(self) -> bool:
        """Send what can be sent; False when the connection has ended by that."""
        message = self._message
        try:
            count = self.sock.send(message[self._sent :] if self._sent else message)
        except BlockingIOError:
            return True
        except OSError as error:
            self._failed(error.errno or 0)
            return False
        self._established()
        self._sent += count
        self._gave(count)
        if self._sent < len(message):
            return self._flush()
        if self._way is Way.CLIENT_EARLY and self.until is None:
            self._end()
        return True

    def _gave(self, size: int) -> None:
        """Count what was sent."""
        self.sent += size
        self.traffic.account.sent += size

    def _established(self) -> None:
        if not self.is_established:
            self.is_established = True
            established = self.traffic.account.established
            established[self.place.route] = established.get(self.place.route, 0) + 1

    def _read(self, events: int) -> None:
        while True:
            try:
                data = self.sock.recv(READ_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                self._failed(error.errno or 0)
                return
            if not data:
                self._on_end()
                return
            if not self._came(data):
                return
            if len(data) < READ_BYTES and not events & ENDED:
                return

    def _failed(self, code: int) -> None:
        if not self.is_established and code in _NOT_ESTABLISHED:
            self._over(_NOT_ESTABLISHED[code])
        else:
            self._established()
            self._over("reset")

    def _came(self, data: bytes) -> bool:
        """Bytes from the socket; False when the connection has ended by them."""
        return self._take(data)

    def _take(self, data: bytes) -> bool:
        """Compare an echo; False when it is wrong."""
        traffic, at = self.traffic, self._received
        if data != self._message[at : at + len(data)]:
            self._over("wrong")
            return False
        self._received = at + len(data)
        self.moved_at = traffic.loop.now
        self._got(len(data))
        if self._received == len(self._message):
            if self.until is not None:
                self._next_at = traffic.loop.now + traffic.random.uniform(*_LONG_GAPS_S)
            elif self._way is Way.CLIENT_LATE:
                self._end()
        return True

    def _got(self, size: int) -> None:
        """Count what came."""
        traffic = self.traffic
        self.received += size
        traffic.account.received += size
        if self.tally is not None:
            self.tally.add(traffic.loop.second, TO_CLIENT, size)

    def _end(self) -> None:
        """Send FIN."""
        if self._is_ending:
            return
        self._is_ending = True
        self._shut()

    def _shut(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            return  # the other side was faster; reading tells how

    def _on_end(self) -> None:
        """The other side's FIN."""
        is_whole = self._sent == self._received == len(self._message)
        if not is_whole or not (self._is_ending or self._way is Way.TARGET):
            self._established()
            self._over("truncated")
            return
        traffic = self.traffic
        who = "client" if self._is_ending else "target"
        traffic.account.first[who] = traffic.account.first.get(who, 0) + 1
        if self.until is None:
            seconds = traffic.loop.now - self.begun_at
            traffic.account.longest_s = max(traffic.account.longest_s, seconds)
            traffic.account.slow += seconds > 1.0
        self._over("ok")

    def _over(self, how: str) -> None:
        self.how = how
        self.ended_at = self.traffic.loop.now
        self.traffic.loop.close(self.sock)
        self.traffic.over(self)

    def lost(self) -> Lost:
        """All that is known of a connection that failed."""
        return Lost(
            token=self.token,
            kind=self.kind,
            place=self.place,
            client=f"{socket.inet_ntoa(self.key[0])}:{self.key[1]}" if self.key[0] else "?",
            how=self.how,
            begun_at=self.begun_at,
            ended_at=self.ended_at,
            is_established=self.is_established,
            sent=self.sent,
            received=self.received,
            unique_id=self.unique_id,
        )
