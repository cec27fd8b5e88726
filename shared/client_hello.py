"""The ClientHello that opens a TLS connection, read from bytes and never decrypted.

`read_client_hello` is the whole answer where the bytes came in one piece. Where they did not,
keep one `HelloReader` for the connection and one growing bytearray, and look again when the bytes
have reached ``reader.needed``: then every byte is looked at once, however the client splits them.

TLS records (RFC 8446 section 5.1) hold a handshake message (section 4), the ClientHello (section
4.1.2) with its extensions (section 4.2). It has the same shape in TLS 1.0 to 1.2 (RFC 5246 sections
6.2.1 and 7.4.1.2).
"""

from __future__ import annotations

import struct
from struct import Struct as Packed
from typing import Final

from shared.errors import ClientHelloError
from shared.hello import (
    ALPN,
    MESSAGE_HEAD_BYTES,
    SERVER_NAME,
    SESSION_ID_AT,
    SIGNATURE_ALGORITHMS,
    SUPPORTED_GROUPS,
    SUPPORTED_VERSIONS,
    ClientHello,
)
from shared.hello_shape import Shapes

__all__ = [
    "MAX_BYTES", "MAX_RECORDS_BYTES", "RECORD_MAX_BYTES", "SERVER_NAME_MAX_BYTES", "Buffer",
    "ClientHello", "HelloReader", "read_client_hello",
]  # fmt: skip

Buffer = bytes | bytearray | memoryview  # memoryview: of single bytes

# Longest handshake message that is accepted, its four bytes of head included. Every vector at its
# longest would make 131,400; OpenSSL takes that much, real ones stay under 4 KiB.
MAX_BYTES: Final = 128 * 1024
# Most bytes of its records, which is what has to be held: room for heads of five bytes on fragments
# so small that no client sends them, and an end to it.
MAX_RECORDS_BYTES: Final = 2 * MAX_BYTES
RECORD_MAX_BYTES: Final = 16384  # RFC 8446 section 5.1, without the head of the record
SERVER_NAME_MAX_BYTES: Final = 255  # of a DNS name: RFC 1035 section 2.3.4; OpenSSL's limit too

_HANDSHAKE: Final = 22  # content type, RFC 8446 section 5.1
_CLIENT_HELLO: Final = 1  # handshake type, RFC 8446 section 4
_RECORD_HEAD_BYTES: Final = 5
# Its head, legacy_version, random, an empty session id, one cipher suite, one compression method.
_MESSAGE_MIN_BYTES: Final = MESSAGE_HEAD_BYTES + 2 + 32 + 1 + 2 + 2 + 1 + 1
_SESSION_ID_MAX_BYTES: Final = 32

_HOST_NAME: Final = 0  # NameType, RFC 6066 section 3

_LISTS: Final = (
    (SIGNATURE_ALGORITHMS, "signature_algorithms"),
    (SUPPORTED_GROUPS, "supported_groups"),
)
_SHAPES: Final = Shapes()

# The usual case, one whole record: content type and major version, length, handshake type and
# length in one number.
_START: Final = Packed("!HxHI").unpack_from
_RECORD: Final = Packed("!HxH").unpack_from  # content type and major version, length
_START_BYTES: Final = _RECORD_HEAD_BYTES + MESSAGE_HEAD_BYTES
_START_TYPE: Final = _HANDSHAKE << 8 | 3
# Handshake type and length, less the length of a record that holds this message and no more.
_START_OFFSET: Final = (_CLIENT_HELLO << 24) - MESSAGE_HEAD_BYTES
_SERVER_NAMES: Final = Packed("!HHBH").unpack_from  # lengths of extension and list; type, length
_PAIR: Final = Packed("!HH").unpack_from
_NUMBER: Final = Packed("!H").unpack_from
_VALUE_SHORT: Final = Packed("!HB").unpack_from  # length of an extension, of the list in it


class HelloReader:
    """Reads one ClientHello out of bytes that come in pieces.

    Call ``read`` with all the bytes so far, from the first one; what it has seen must not change.
    Before there are ``needed`` bytes in all, another call finds no ClientHello, only perhaps an
    error a few bytes sooner; it is MAX_RECORDS_BYTES at most. Keep the bytes in a bytearray that
    grows: joining bytes anew for every piece would cost more than reading them.
    """

    __slots__ = ("_at", "_fragments", "_length", "needed")

    def __init__(self) -> None:
        self.needed = _RECORD_HEAD_BYTES
        self._at = 0  # where the first record begins that has not been taken yet
        self._fragments = bytearray()  # what the records before it held
        self._length = 0  # of the message, its head included; 0: not known

    def read(self, data: Buffer) -> ClientHello | None:
        """The ClientHello; None for "more bytes needed".

        Raises ClientHelloError, and nothing else, whatever the bytes are: for a head of a record or
        of the message as soon as its bytes are there, for the rest once the message is whole.
        """
        start, wanted, fragments, have = self._at, self._length, self._fragments, len(data)
        while have >= (at := start + _RECORD_HEAD_BYTES):
            kind, length = _RECORD(data, start)
            if kind != _START_TYPE or not 0 < length <= RECORD_MAX_BYTES:
                _check_record_begun(data[start:at])  # raises
            end = at + length
            fragment = data[at:end]
            if not wanted:
                head = fragments + fragment[:MESSAGE_HEAD_BYTES]
                wanted = self._length = _message_length(head[:MESSAGE_HEAD_BYTES])
            if wanted:
                rest = wanted - len(fragments) - length
                # What is left needs one more head at least.
                if rest < 0 or end + rest + _RECORD_HEAD_BYTES > MAX_RECORDS_BYTES:
                    _check_room(rest, end)
            if have < end:
                # The message's head is judged before the record is whole.
                head_end = at + MESSAGE_HEAD_BYTES - len(fragments)
                self._at, self.needed = start, end if wanted else min(end, head_end)
                return None
            fragments += fragment
            start = end
            if len(fragments) == wanted:
                return _message(bytes(fragments), end)
        _check_record_begun(data[start:])
        self._at, self.needed = start, at
        return None


def read_client_hello(data: Buffer) -> ClientHello | None:
    """The ClientHello at the start of ``data``; None for "more bytes needed".

    Raises ClientHelloError, and nothing else, whatever the bytes are. ``data`` may go on behind it.
    """
    if len(data) >= _START_BYTES:
        kind, length, head = _START(data)
        if (
            kind == _START_TYPE
            and head - length == _START_OFFSET
            and _MESSAGE_MIN_BYTES <= length <= RECORD_MAX_BYTES
            and len(data) >= length + _RECORD_HEAD_BYTES
        ):
            end = length + _RECORD_HEAD_BYTES
            return _message(bytes(data[_RECORD_HEAD_BYTES:end]), end)
    return HelloReader().read(data)


def _check_record_begun(start: Buffer) -> None:
    """Raise for what the head of a record, or those bytes of it that are there, make certain."""
    if len(start) > 0 and start[0] != _HANDSHAKE:
        # RFC 8446 section 5.1: nothing comes between the records of one handshake message.
        raise ClientHelloError(f"content type {start[0]}, not a handshake")
    # RFC 5246 appendix E.1: any minor version is accepted in the record of a ClientHello.
    if len(start) > 1 and start[1] != 3:
        raise ClientHelloError(f"record version {start[1]}, not 3")
    if len(start) > 3:
        at_least = start[3] << 8 | (start[4] if len(start) > 4 else 0)
        if at_least > RECORD_MAX_BYTES:
            raise ClientHelloError(f"a record of {at_least} bytes, over {RECORD_MAX_BYTES}")
        if len(start) > 4 and not at_least:
            # RFC 8446 section 5.1: no handshake fragment is empty, not even as padding.
            raise ClientHelloError("an empty record")


def _message_length(head: Buffer) -> int:
    """Length of the message by its first bytes, at most 4 of them; 0 if that takes more."""
    if len(head) > 0 and head[0] != _CLIENT_HELLO:
        raise ClientHelloError(f"handshake type {head[0]}, not a ClientHello")
    # With the bytes that are missing as 0: the least that it can be.
    length = int.from_bytes(bytes(head[1:]).ljust(3, b"\0"), "big") + MESSAGE_HEAD_BYTES
    if length > MAX_BYTES:
        raise ClientHelloError(f"over the limit of {MAX_BYTES} bytes: {length}")
    if len(head) < MESSAGE_HEAD_BYTES:
        return 0
    if length < _MESSAGE_MIN_BYTES:
        raise ClientHelloError(f"a ClientHello of {length} bytes is too short")
    return length


def _check_room(rest: int, end: int) -> None:
    """Raise if a record that ends at ``end`` does not fit the message, or that our limit.

    ``rest``: bytes of the message that come after it.
    """
    if rest < 0:
        # RFC 8446 section 5.1: a message that keys may change after ends with its record.
        raise ClientHelloError("other bytes follow it in its record")
    if end + rest + (_RECORD_HEAD_BYTES if rest else 0) > MAX_RECORDS_BYTES:
        raise ClientHelloError(f"its records take over {MAX_RECORDS_BYTES} bytes")


def _message(message: bytes, size: int) -> ClientHello:
    """The ClientHello of a whole handshake message, every vector of ours in it checked."""
    try:
        # RFC 8446 section 4.1.2
        session = message[SESSION_ID_AT]
        at = SESSION_ID_AT + 1 + session
        (length,) = _NUMBER(message, at)
        at += 2 + length
        methods = message[at]
        at += 1 + methods
        if session > _SESSION_ID_MAX_BYTES or length == 0 or length & 1 or methods == 0:
            raise ClientHelloError("malformed session id, cipher suites or compression methods")
        end = len(message)
        extensions = _SHAPES.find(message, at, end)
        if extensions is None:
            extensions = _extensions(message, at, end)
            _SHAPES.learn(message, at, end, extensions)
        sent = name = ""
        if SERVER_NAME in extensions:
            sent = _server_name(message, extensions[SERVER_NAME])
            name = sent.lower()
            if ":" in name or name[-1] == ".":
                name = _without_port_and_dots(name)
        return ClientHello(size, name, sent, message, extensions)
    except (IndexError, struct.error):
        raise ClientHelloError("it ends within a field") from None


def _extensions(message: bytes, at: int, end: int) -> dict[int, int]:
    """The extensions, whose length is at ``at``, every vector of ours in them checked."""
    extensions: dict[int, int] = {}
    if at == end:  # before TLS 1.3 there need not be any (RFC 5246 section 7.4.1.2)
        return extensions
    (length,) = _NUMBER(message, at)
    at += 2
    if at + length != end:
        raise ClientHelloError("its extensions do not fill it exactly")
    while at < end:
        kind, length = _PAIR(message, at)
        at += 4
        if kind in extensions:
            raise ClientHelloError(f"extension {kind} comes twice")
        extensions[kind] = at
        at += length
    if at != end:
        raise ClientHelloError("its extensions do not fill it exactly")
    if SERVER_NAME in extensions:
        _server_name(message, extensions[SERVER_NAME])
    if ALPN in extensions:
        _check_alpn(message, extensions[ALPN])
    if SUPPORTED_VERSIONS in extensions:
        length, values = _VALUE_SHORT(message, extensions[SUPPORTED_VERSIONS] - 2)
        if length != values + 1 or values == 0 or values & 1:
            raise ClientHelloError("malformed supported_versions")
    for kind, what in _LISTS:
        if kind in extensions:
            length, values = _PAIR(message, extensions[kind] - 2)
            if length != values + 2 or values == 0 or values & 1:
                raise ClientHelloError(f"malformed {what}")
    return extensions


def _server_name(message: bytes, at: int) -> str:
    """The host name of a server_name extension whose value is at ``at`` (RFC 6066 section 3)."""
    size, list_length, kind, length = _SERVER_NAMES(message, at - 2)
    if size != length + 5 or list_length != length + 3 or kind != _HOST_NAME:
        # Another type of name, or several: OpenSSL and BoringSSL refuse both as well. No other type
        # was ever registered, and of one type there is one name at most.
        raise ClientHelloError("malformed server_name")
    if not 0 < length <= SERVER_NAME_MAX_BYTES:
        raise ClientHelloError(f"a server name of {length} bytes")
    name = message[at + 5 : at + 5 + length].decode("latin-1")
    if not name.isascii() or not name.isprintable() or " " in name:
        raise ClientHelloError("a server name with bytes that no name has")
    return name


def _without_port_and_dots(name: str) -> str:
    """What is left of a name; a second look at that would take nothing more away."""
    name = name.rstrip(".")
    host, colon, port = name.rpartition(":")
    if colon and (not port or port.isdigit()) and (":" not in host or host.endswith("]")):
        name = host.rstrip(".")
    if not name:
        raise ClientHelloError("a server name that is nothing but a port or dots")
    return name


def _check_alpn(message: bytes, at: int) -> None:
    """Raise unless the protocol names at ``at`` fill their extension (RFC 7301 section 3.1)."""
    size, length = _PAIR(message, at - 2)
    end = at + size
    if length == 0 or length + 2 != size:
        raise ClientHelloError("malformed application_layer_protocol_negotiation")
    at += 2
    while at < end:
        if message[at] == 0:
            raise ClientHelloError("an empty application protocol")
        at += 1 + message[at]
    if at != end:
        raise ClientHelloError("malformed application_layer_protocol_negotiation")
