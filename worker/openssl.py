"""What each TLS handshake and record takes of OpenSSL, over one pair of BIOs for all objects.

openssl.c is compiled to a module of the same name, which calls libssl itself and spares what
Python's ssl puts around it: an exception wherever nothing waits, the GIL, a copy of every message.
This is what runs where that is not compiled, or does not find ssl as it expects it.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from shared.errors import TlsError
from worker import syscalls

if TYPE_CHECKING:
    from worker.sockets import Socket
    from worker.tls_material import TlsObject

EMPTY: Final = -1  # nothing was there to be read
LOST: Final = -2  # the socket cannot be read any more
ODD: Final = -3  # `found` has more than payload, or none
UNSENT: Final = -4  # the payload is `found`, and nothing can be sent any more
NO_RECORD: Final = -5  # the payload is `found`, and `failure` is why it cannot be encrypted
PARTLY: Final = -6  # the payload is `found`, and `rest` is what had no room
FULL: Final = -7  # the payload is `found`; the buffer was full, so more may wait

ENDED: Final = 1 << 24  # the peer's close_notify was read
ANSWER: Final = 1 << 25  # there is something to be sent back
WAS_FULL: Final = 1 << 26  # as FULL
FLAGS: Final = ENDED | ANSWER | WAS_FULL

Fail = Callable[[ssl.SSLError], "TlsError"]

_incoming = _outgoing = ssl.MemoryBIO()
_buffer = _plain = memoryview(b"")
_fail: Fail
_found = 0
_rest = b""
_failure: TlsError | None = None


def use(
    path: str,
    sample: TlsObject,
    context: ssl.SSLContext,
    incoming: ssl.MemoryBIO,
    outgoing: ssl.MemoryBIO,
    buffer: bytearray,
    plain: bytearray,
    fail: Fail,
) -> str:
    """Why this form cannot be used, "" where it can; then with these from now on.

    ``path``: of Python's `_ssl`. ``sample``: made of ``context`` over the two BIOs, as all objects
    will be. ``buffer``: what `relay` reads into. ``plain``: what is decrypted goes there; it has
    room for a full buffer and two records, less than 1 << 24 bytes in all. ``fail`` makes the error
    of what has failed; what is compiled has no ssl.SSLError, and calls it with the object, whether
    a close_notify was read, OpenSSL's code and words, its verdict on a certificate and its words.
    """
    global _incoming, _outgoing, _buffer, _plain, _fail
    _incoming, _outgoing, _fail = incoming, outgoing, fail
    _buffer, _plain = memoryview(buffer), memoryview(plain)
    return ""


def shake(object_: TlsObject, data: bytes | memoryview) -> tuple[bool, bytes]:
    """Go on with the handshake: whether it is done, and what to send. TlsError as ``fail`` has it.

    What came behind it stays in the incoming BIO.
    """
    _incoming.write(data)
    try:
        object_.do_handshake()
    except ssl.SSLWantReadError:
        return False, _outgoing.read()
    except ssl.SSLError as error:
        raise _fail(error) from None
    return True, _outgoing.read()


def decrypt(object_: TlsObject, data: bytes | memoryview) -> int:
    """How many bytes of plaintext lie in ``plain`` now, and flags. TlsError as ``fail`` has it."""
    _incoming.write(data)
    size = flags = 0
    try:
        while True:
            last = object_.read(len(_plain), _plain[size:])
            if not last:
                flags = _end()
                break
            size += last
            if not _incoming.pending and not object_.pending():
                break
    except ssl.SSLZeroReturnError:
        flags = _end()
    except ssl.SSLWantReadError:
        pass
    except ssl.SSLError as error:
        raise _fail(error) from None
    return size | flags | (ANSWER if _outgoing.pending else 0)


def _end() -> int:
    _incoming.read()  # RFC 8446 section 6.1: what follows a close_notify is ignored
    return ENDED


def encrypt(object_: TlsObject, data: bytes | memoryview) -> bytes:
    """The records of this plaintext. TlsError as ``fail`` has it."""
    left = memoryview(data)
    try:
        while left:  # a record at a time
            left = left[object_.write(left) :]
    except ssl.SSLError as error:
        raise _fail(error) from None
    return _outgoing.read()


def close(object_: TlsObject) -> bytes:
    """Our close_notify; b"" before the end of the handshake."""
    try:
        object_.shutdown()
    except ssl.SSLError:
        pass  # it wants the peer's, which `decrypt` will read
    return _outgoing.read()


def relay(
    sock: Socket,
    fd: int,
    object_: TlsObject | None,
    to: Socket,
    to_fd: int,
    to_object: TlsObject | None,
) -> int:
    """Read once, decrypt, encrypt, write once: how many bytes of payload all went on their way.

    None for an object: plain bytes there. 0 at the end of the stream; EMPTY, LOST, ODD, UNSENT,
    NO_RECORD, PARTLY or FULL where something else is to be done. TlsError as `decrypt`.
    """
    global _found, _rest, _failure
    count = syscalls.receive(sock, fd)
    if count <= 0:
        return count
    was_full = count == len(_buffer)
    _found = count
    data: bytes | memoryview = _buffer[:count]
    if object_ is not None:
        _found = decrypt(object_, data) | (WAS_FULL if was_full else 0)
        if not _found & ~WAS_FULL or _found & (ENDED | ANSWER):
            return ODD
        _found &= ~FLAGS
        data = _plain[:_found]
    if to_object is not None:
        try:
            data = encrypt(to_object, data)
        except TlsError as error:
            _failure = error
            return NO_RECORD
    sent = syscalls.give(to, to_fd, data, False)
    if sent == LOST:
        return UNSENT
    if sent < len(data):
        _rest = bytes(data[sent:])
        return PARTLY
    return FULL if was_full else _found


def found() -> int:
    """The payload of the last `relay` in bytes; after ODD with flags."""
    return _found


def rest() -> bytes:
    """What had no room."""
    return _rest


def failure() -> TlsError | None:
    """Why there is no record."""
    return _failure
