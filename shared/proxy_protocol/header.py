"""What a PROXY protocol header says, whatever its version: the value that the parsers return."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, Literal

from msgspec import Struct

from shared.proxy_protocol.address import ipv4_text, ipv6_text

Buffer = bytes | bytearray | memoryview  # memoryview: of single bytes, as over a bytearray
Tlv = tuple[int, bytes]  # type and raw value
Command = Literal["PROXY", "LOCAL"]

V1_PREFIX: Final = b"PROXY "
V2_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"  # section 2.2


class Family(IntEnum):
    """Address family, with the numbers of v2 (section 2.2, high four bits of byte 14)."""

    UNSPEC = 0
    INET = 1
    INET6 = 2
    UNIX = 3


class Transport(IntEnum):
    """Transport protocol, with the numbers of v2 (section 2.2, low four bits of byte 14)."""

    UNSPEC = 0
    STREAM = 1
    DGRAM = 2


class ProxyHeader(Struct, frozen=True, gc=False):
    """One parsed header. It holds copies, never a view of the buffer that it was parsed from.

    ``source`` and ``destination`` are packed: 4 bytes with INET, 16 with INET6, with UNIX the
    path without the NULs that pad it; b"" where the header names none, or none that counts.
    Ports are 0..65535, and 0 without addresses. ``tlvs`` are raw and in the order sent (v2 only);
    see `decode_tlvs`. For LOCAL the family is UNSPEC and there are no TLVs, because the receiver
    must discard the whole block (section 2.2).
    """

    version: int  # 1 or 2
    command: Command = "PROXY"
    family: Family = Family.UNSPEC
    transport: Transport = Transport.UNSPEC
    source: bytes = b""
    source_port: int = 0
    destination: bytes = b""
    destination_port: int = 0
    tlvs: tuple[Tlv, ...] = ()

    @property
    def has_addresses(self) -> bool:
        """True: source and destination are the client's; False: use those of the socket.

        False for LOCAL, UNKNOWN, UNSPEC (sections 2.1 and 2.2) and for UNIX, whose paths name
        nothing on this host.
        """
        return 0 < self.family < 3 and self.source != b""

    @property
    def source_text(self) -> str:
        """The source address as text, without its port; "" if there is none."""
        return _address_text(self.family, self.source)

    @property
    def destination_text(self) -> str:
        """The destination address as text, without its port; "" if there is none."""
        return _address_text(self.family, self.destination)


def _address_text(family: Family, address: bytes) -> str:
    """Dotted quad, RFC 5952, or a path in which a leading NUL (abstract socket) reads "@"."""
    if not address:
        return ""
    if family == Family.INET:
        return ipv4_text(address)
    if family == Family.INET6:
        return ipv6_text(address)
    path = b"@" + address[1:] if address.startswith(b"\0") else address
    return path.decode("utf-8", "backslashreplace")
