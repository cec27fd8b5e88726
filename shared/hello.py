"""What a ClientHello says; `shared/client_hello.py` reads one from bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from struct import Struct as Packed
from typing import Final

import msgspec

MESSAGE_HEAD_BYTES: Final = 4
SESSION_ID_AT: Final = 38  # in the message: its head, legacy_version, random

# Extensions, RFC 8446 section 4.2.
SERVER_NAME: Final = 0  # RFC 6066 section 3
SUPPORTED_GROUPS: Final = 10  # section 4.2.7
SIGNATURE_ALGORITHMS: Final = 13  # section 4.2.3
ALPN: Final = 16  # RFC 7301 section 3.1
SUPPORTED_VERSIONS: Final = 43  # section 4.2.1

_VERSIONS: Final = {0x0301: "1.0", 0x0302: "1.1", 0x0303: "1.2", 0x0304: "1.3"}
# Without supported_versions nothing later than 1.2 may be negotiated (RFC 8446 section 4.2.1), and
# everything down from legacy_version may (RFC 5246 appendix E.1).
_LEGACY: Final = ((0x0303, "1.2"), (0x0302, "1.1"), (0x0301, "1.0"))

_NUMBER: Final = Packed("!H").unpack_from


class ClientHello(msgspec.Struct, frozen=True, gc=False):
    """A whole ClientHello. It holds copies, never a view of the buffer that it was read from.

    ``size``: bytes of the records that it spans; what follows them is not part of it.
    ``server_name``: as names are compared, lower case without a port or dots at the end; "" if none
    came. Routes, rules and certificates are chosen by it as it is, so that all mean the same name.
    ``sent_name``: the same as the client wrote it, for who must pass on an exact copy.
    The properties are read anew at each use, from bytes that have been checked: they raise nothing.
    """

    size: int
    server_name: str
    sent_name: str
    _message: bytes  # the handshake message, its head included
    _extensions: dict[int, int]  # by type: where the value begins in the message

    def __repr__(self) -> str:
        return f"ClientHello({self.server_name!r}, {self.size} bytes)"

    @property
    def versions(self) -> tuple[str, ...]:
        """TLS versions on offer, of "1.0" to "1.3", in the client's order; others are left out.

        RFC 8446 section 4.2.1; GREASE (RFC 8701) is among the others.
        """
        message = self._message
        at = self._extensions.get(SUPPORTED_VERSIONS)
        if at is None:
            (highest,) = _NUMBER(message, MESSAGE_HEAD_BYTES)
            return tuple(name for number, name in _LEGACY if number <= highest)
        offered = struct.unpack_from(f"!{message[at] // 2}H", message, at + 1)
        return tuple(_VERSIONS[number] for number in offered if number in _VERSIONS)

    @property
    def alpn(self) -> tuple[str, ...]:
        """Application protocols on offer, in the client's order, one character for each byte."""
        at = self._extensions.get(ALPN)
        if at is None:
            return ()
        (length,) = _NUMBER(self._message, at)
        names = self._message[at + 2 : at + 2 + length]
        return tuple(names[begin:end].decode("latin-1") for begin, end in _names(names))

    @property
    def ciphers(self) -> tuple[int, ...]:
        """Cipher suites by number, in the client's order, GREASE included."""
        return _numbers(self._message, SESSION_ID_AT + 1 + self._message[SESSION_ID_AT])

    @property
    def signature_algorithms(self) -> tuple[int, ...]:
        """SignatureSchemes (RFC 8446 section 4.2.3), in the client's order; () if none came."""
        at = self._extensions.get(SIGNATURE_ALGORITHMS)
        return () if at is None else _numbers(self._message, at)

    @property
    def groups(self) -> tuple[int, ...]:
        """NamedGroups (RFC 8446 section 4.2.7), in the client's order; () if none came."""
        at = self._extensions.get(SUPPORTED_GROUPS)
        return () if at is None else _numbers(self._message, at)


def _names(names: bytes) -> Iterator[tuple[int, int]]:
    """Where each of the names begins and ends that one byte of length precedes."""
    at = 0
    while at < len(names):
        end = at + 1 + names[at]
        yield at + 1, end
        at = end


def _numbers(message: bytes, at: int) -> tuple[int, ...]:
    """The 16-bit numbers of the list at ``at``, that two bytes of length precede."""
    (length,) = _NUMBER(message, at)
    return struct.unpack_from(f"!{length // 2}H", message, at + 2)
