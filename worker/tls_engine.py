"""TLS without IO: ciphertext in, plaintext out, and back, for either end of a connection.

All TLS objects of a worker share one pair of memory BIOs. OpenSSL takes a record that is not whole
yet into the object's own buffer, so between two calls both BIOs are empty; each function here sees
to that, also where it raises. A pair for each connection would keep some 3 KiB for as long as it
lasts, the size of its largest flight.

Whoever calls gives all ciphertext that was read at once and takes all plaintext at once: nothing
that was fed waits inside, so no event is missed for it.
"""

from __future__ import annotations

from shared.errors import TlsError
from worker.openssl import ENDED, FLAGS
from worker.openssl_form import INCOMING, OUTGOING, PLAIN, close, decrypt, encrypt, shake
from worker.tls_material import TlsObject


class Tls:
    """One end of a TLS connection. ``has_ended``: the peer's close_notify was read.

    ``held``: records that may wait; they go ahead of whatever is to be sent next.
    """

    __slots__ = ("has_ended", "held", "object")

    def __init__(self, object_: TlsObject) -> None:
        """``object_``: made over INCOMING and OUTGOING."""
        self.object = object_
        self.has_ended = False
        self.held = b""

    def shake(self, data: bytes | memoryview) -> tuple[bool, bytes]:
        """Go on with the handshake: whether it is done, and what to send.

        What came behind it is left for `rest`, to be called at once. TlsError has an alert to send.
        """
        return shake(self.object, data)

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
        try:
            found = decrypt(self.object, data)
        except TlsError as error:
            self.put_held_before(error)
            raise
        return self.take_note(found) if found >= ENDED else found

    def take_note(self, found: int) -> int:
        """The size of a payload, with what flags say of it noted."""
        if found & ENDED:
            self.has_ended = True
        return found & ~FLAGS

    def put_held_before(self, error: TlsError) -> None:
        """An alert goes behind what is held: it was encrypted later."""
        error.alert = self.take_held() + error.alert

    def answer(self) -> bytes:
        """What `decrypt` gave rise to: the answer to a KeyUpdate; nearly always b""."""
        return self.take_held() + OUTGOING.read() if OUTGOING.pending else b""

    def encrypt(self, data: bytes | memoryview) -> bytes:
        """The records of this plaintext. TlsError, without an alert, where none may be sent."""
        try:
            made = encrypt(self.object, data)
        except TlsError as error:
            raise TlsError(str(error)) from None
        return self.take_held() + made if self.held else made

    def close(self) -> bytes:
        """Our close_notify; nothing may be encrypted after it. The peer may send on."""
        return self.take_held() + close(self.object)

    def take_held(self) -> bytes:
        """What was held, to be sent now."""
        held, self.held = self.held, b""
        return held


def clear() -> None:
    """Leave nothing of one connection for the next, where a bug has kept a call from its end."""
    INCOMING.read()
    OUTGOING.read()
