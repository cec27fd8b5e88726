"""TLS without IO: ciphertext in, plaintext out, and back, for either end of a connection.

All TLS objects of a worker share one pair of memory BIOs. OpenSSL takes a record that is not whole
yet into the object's own buffer, so between two calls both BIOs are empty; each function here sees
to that, also where it raises. A pair for each connection would keep some 3 KiB for as long as it
lasts, the size of its largest flight.

Whoever calls gives all ciphertext that was read at once and takes all plaintext at once: nothing
that was fed waits inside, so no event is missed for it.
"""

from __future__ import annotations

import ssl
from typing import Final

from shared.errors import TlsError
from worker.relay import SIZE
from worker.tls_material import TlsObject

RECORD_BYTES: Final = 16384  # of plaintext, RFC 8446 section 5.1
INCOMING: Final = ssl.MemoryBIO()
OUTGOING: Final = ssl.MemoryBIO()
# What one read of the socket can hold, and a record that was begun before it.
PLAIN: Final = memoryview(bytearray(SIZE + 2 * RECORD_BYTES))

_ROOM: Final = len(PLAIN)


class Tls:
    """One end of a TLS connection. ``has_ended``: the peer's close_notify was read.

    ``held``: records that may wait; they go ahead of whatever is to be sent next.
    """

    __slots__ = ("_pending", "_read", "_write", "has_ended", "held", "object")

    def __init__(self, object_: TlsObject) -> None:
        """``object_``: made over INCOMING and OUTGOING."""
        self.object = object_
        self._read, self._write, self._pending = object_.read, object_.write, object_.pending
        self.has_ended = False
        self.held = b""

    def shake(self, data: bytes | memoryview) -> tuple[bool, bytes]:
        """Go on with the handshake: whether it is done, and what to send.

        What came behind it is left for `rest`, to be called at once. TlsError has an alert to send.
        """
        INCOMING.write(data)
        try:
            self.object.do_handshake()
        except ssl.SSLWantReadError:
            return False, OUTGOING.read()
        except ssl.SSLError as error:
            raise self._failure(error) from None
        return True, OUTGOING.read()

    def rest(self) -> bytes:
        """Plaintext that came behind the handshake; TlsError as of `decrypt`."""
        if not INCOMING.pending and not self.object.pending():
            return b""
        size = self.decrypt(b"")
        return bytes(PLAIN[:size])

    def decrypt(self, data: bytes | memoryview) -> int:
        """How many bytes of plaintext lie in PLAIN now; TlsError for records that are not good.

        Feed SIZE bytes at the most. See `has_ended`, and `answer` for what is to be sent back.
        """
        INCOMING.write(data)
        try:
            size: int = self._read(_ROOM, PLAIN)
        except ssl.SSLError as error:
            return self._no_more(error)
        if size and not INCOMING.pending and not self._pending():
            return size  # a small message is one record
        return self._more(size)

    def _more(self, size: int) -> int:
        """Read on behind ``size`` bytes, until all is in PLAIN."""
        last = size
        try:
            while last:
                if not INCOMING.pending and not self._pending():
                    return size
                last = self._read(_ROOM, PLAIN[size:])
                size += last
        except ssl.SSLError as error:
            self._no_more(error)
            return size
        self._end()
        return size

    def _no_more(self, error: ssl.SSLError) -> int:
        """0 where that is no error; else TlsError."""
        if isinstance(error, ssl.SSLZeroReturnError):
            self._end()
        elif not isinstance(error, ssl.SSLWantReadError):
            raise self._failure(error) from None
        return 0

    def _end(self) -> None:
        self.has_ended = True
        INCOMING.read()  # RFC 8446 section 6.1: what follows a close_notify is ignored

    def answer(self) -> bytes:
        """What `decrypt` gave rise to: the answer to a KeyUpdate; nearly always b""."""
        return self.take_held() + OUTGOING.read() if OUTGOING.pending else b""

    def encrypt(self, data: bytes | memoryview) -> bytes:
        """The records of this plaintext. TlsError, without an alert, where none may be sent."""
        try:
            sent = self._write(data)
            if sent < len(data):  # a record at a time
                self._write_rest(memoryview(data), sent)
        except ssl.SSLError as error:
            raise TlsError(str(self._failure(error))) from None
        return self.take_held() + OUTGOING.read() if self.held else OUTGOING.read()

    def _write_rest(self, data: memoryview, sent: int) -> None:
        size = len(data)
        while sent < size:
            sent += self._write(data[sent:])

    def close(self) -> bytes:
        """Our close_notify; nothing may be encrypted after it. The peer may send on."""
        try:
            self.object.shutdown()
        except ssl.SSLError:
            pass  # it wants the peer's, which `decrypt` will read
        return self.take_held() + OUTGOING.read()

    def take_held(self) -> bytes:
        """What was held, to be sent now."""
        held, self.held = self.held, b""
        return held

    def _failure(self, error: ssl.SSLError) -> TlsError:
        """The error for the log, with the alert that OpenSSL has written."""
        INCOMING.read()
        return TlsError(reason_of(error), self.take_held() + OUTGOING.read())


def clear() -> None:
    """Leave nothing of one connection for the next, where a bug has kept a call from its end."""
    INCOMING.read()
    OUTGOING.read()


def reason_of(error: OSError) -> str:
    """OpenSSL's words for an error, "tlsv1 alert unknown ca", without its numbers."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    if isinstance(error, ssl.SSLZeroReturnError):
        return "closed by a close_notify within the handshake"
    # Declared as text, and None where OpenSSL has no reason: a compiled read of that would raise.
    reason: object = getattr(error, "reason", None)
    if isinstance(reason, str) and reason:
        return reason.lower().replace("_", " ")
    return error.strerror or " ".join(map(str, error.args))  # as text, ours would be a tuple
