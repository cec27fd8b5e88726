"""Version 2, the binary header (section 2.2)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from struct import Struct
from typing import Final

from shared.errors import ProxyHeaderError
from shared.proxy_protocol.address import mapped
from shared.proxy_protocol.crc32c import crc32c as checksum_of
from shared.proxy_protocol.header import V2_SIGNATURE, Buffer, Family, ProxyHeader, Tlv, Transport
from shared.proxy_protocol.tlv import UNIQUE_ID_MAX_BYTES, TlvType, check_tlv, split_tlvs

V2_FIXED_BYTES: Final = 16  # signature, version and command, family and transport, length
# Largest length field that is accepted. Real headers stay far below: addresses take 36 bytes (216
# for UNIX), and a client certificate of 2 KiB in the SSL TLV still fits. The field would allow
# 64 KiB, that anyone who is trusted could make us hold; nginx reads at most 4096 bytes as well.
V2_MAX_LENGTH: Final = 4096
V2_LENGTH_FIELD_MAX: Final = 65535

_FIXED: Final = Struct("!12sBBH")
# Section 2.2: source address, destination address, source port, destination port
_INET: Final = Struct("!4s4sHH")
_INET6: Final = Struct("!16s16sHH")
_UNIX: Final = Struct("!108s108s")
_TLV_HEAD: Final = Struct("!BH")
_CHECKSUM: Final = Struct("!I")  # network byte order, as HAProxy and AWS send it

_LOCAL_BYTE: Final = 0x20  # version 2 in the high four bits, command in the low four
_PROXY_BYTE: Final = 0x21
_COMMANDS: Final = (_LOCAL_BYTE, _PROXY_BYTE)
_INET_STREAM: Final = 0x11
_INET6_STREAM: Final = 0x21
_CRC32C: Final = int(TlvType.CRC32C)
_UNIQUE_ID: Final = int(TlvType.UNIQUE_ID)
_FAMILY_UNIX: Final = Family.UNIX

# By byte 14: family, transport, unpacker of the address block, its size.
_BLOCKS: Final = {
    family << 4 | transport: (family, transport, block.unpack_from, block.size)
    for family, block in ((Family.INET, _INET), (Family.INET6, _INET6), (Family.UNIX, _UNIX))
    for transport in (Transport.STREAM, Transport.DGRAM)
}
# With an UNSPEC family or transport the addresses should be ignored (section 2.2), so they are.
_UNSPECIFIED: Final = {
    family << 4 | transport: (family, transport, size)
    for family, size in (
        (Family.UNSPEC, 0),
        (Family.INET, _INET.size),
        (Family.INET6, _INET6.size),
        (Family.UNIX, _UNIX.size),
    )
    for transport in Transport
    if Family.UNSPEC in (family, transport)
}
_LOCAL: Final = ProxyHeader(2, "LOCAL")
_IP_BYTES: Final = (4, 16)
_HEAD_UNSPEC: Final = V2_SIGNATURE + bytes((_PROXY_BYTE, 0, 0, 0))
_HEAD_INET: Final = V2_SIGNATURE + bytes((_PROXY_BYTE, _INET_STREAM, 0, _INET.size))
_HEAD_INET6: Final = V2_SIGNATURE + bytes((_PROXY_BYTE, _INET6_STREAM, 0, _INET6.size))
_EMPTY_CHECKSUM: Final = _TLV_HEAD.pack(_CRC32C, _CHECKSUM.size) + bytes(_CHECKSUM.size)


def parse_v2(data: Buffer) -> tuple[ProxyHeader, int] | None:
    """The header and its size; None for "more bytes needed" (section 2.2).

    Raises ProxyHeaderError, also when the first bytes already rule out a valid header.
    """
    if len(data) < V2_FIXED_BYTES:
        _check_begun(bytes(data))
        return None
    signature, version_command, family_transport, length = _FIXED.unpack_from(data)
    if (
        signature != V2_SIGNATURE
        or version_command not in _COMMANDS
        or length > V2_MAX_LENGTH
        or (family_transport not in _BLOCKS and version_command == _PROXY_BYTE)
    ):
        _check_begun(bytes(data[:V2_FIXED_BYTES]))  # raises, except for the UNSPEC combinations
    size: int = V2_FIXED_BYTES + length
    if version_command == _LOCAL_BYTE:
        # Section 2.2: discard the block, its family included, and skip what the length says.
        return (_LOCAL, size) if len(data) >= size else None
    block = _BLOCKS.get(family_transport)
    if block is None:
        return _parse_unspecified(data, family_transport, size) if len(data) >= size else None
    family, transport, unpack_from, block_size = block
    if length < block_size:
        raise ProxyHeaderError(
            f"PROXY v2: length {length} is less than the {block_size} bytes of {family.name}"
        )
    if len(data) < size:  # section 2.2: no address is parsed before all of it is there
        return None
    tlvs: tuple[Tlv, ...] = ()
    if length > block_size:
        offset = V2_FIXED_BYTES + block_size
        found = split_tlvs(data, offset, size)
        if found is None:
            raise ProxyHeaderError("PROXY v2: the TLVs do not fill the header exactly")
        tlvs = found
        _check_tlvs(tlvs, data, offset, size)
    if family is _FAMILY_UNIX:
        source, destination = unpack_from(data, V2_FIXED_BYTES)
        # Padded with NULs; one in front is that of an abstract socket (unix(7)).
        source, destination = source.rstrip(b"\0"), destination.rstrip(b"\0")
        return ProxyHeader(2, "PROXY", family, transport, source, 0, destination, 0, tlvs), size
    source, destination, source_port, destination_port = unpack_from(data, V2_FIXED_BYTES)
    return (
        ProxyHeader(
            2, "PROXY", family, transport, source, source_port, destination, destination_port, tlvs
        ),
        size,
    )


def _check_begun(start: bytes) -> None:
    """Raise for what the first 16 bytes, or those of them that are there, make certain."""
    if not start.startswith(V2_SIGNATURE[: len(start)]):
        raise ProxyHeaderError(f"PROXY v2: wrong signature {start[:12]!r}")
    if len(start) > 12:
        if start[12] >> 4 != 2:
            raise ProxyHeaderError(f"PROXY v2: version {start[12] >> 4} in the binary header")
        if start[12] not in _COMMANDS:
            raise ProxyHeaderError(f"PROXY v2: unassigned command {start[12] & 0x0F:#x}")
    if len(start) > 13 and start[12] == _PROXY_BYTE:
        if start[13] >> 4 > Family.UNIX:
            raise ProxyHeaderError(f"PROXY v2: unassigned address family {start[13] >> 4:#x}")
        if start[13] & 0x0F > Transport.DGRAM:
            raise ProxyHeaderError(f"PROXY v2: unassigned transport {start[13] & 0x0F:#x}")
    if len(start) > 14:
        at_least = start[14] << 8 | (start[15] if len(start) > 15 else 0)
        if at_least > V2_MAX_LENGTH:
            raise ProxyHeaderError(
                f"PROXY v2: length {at_least} is over the limit of {V2_MAX_LENGTH} bytes"
            )


def _parse_unspecified(data: Buffer, family_transport: int, size: int) -> tuple[ProxyHeader, int]:
    """UNSPEC family or transport (section 2.2): no addresses, TLVs where there are any.

    What precedes the TLVs is not defined then. Bytes that are no row of TLVs are an address of a
    kind that we do not know, and are skipped.
    """
    family, transport, block_size = _UNSPECIFIED[family_transport]
    offset = V2_FIXED_BYTES + block_size
    tlvs = split_tlvs(data, offset, size) or ()
    _check_tlvs(tlvs, data, offset, size)
    return ProxyHeader(2, "PROXY", family, transport, tlvs=tlvs), size


def _check_tlvs(tlvs: tuple[Tlv, ...], data: Buffer, offset: int, size: int) -> None:
    """Refuse a wrong checksum and a UNIQUE_ID that is too long; the TLVs begin at ``offset``."""
    checksum_at = 0
    for kind, value in tlvs:
        if kind == _CRC32C:
            if checksum_at:
                raise ProxyHeaderError("PROXY v2: more than one CRC32C")
            if len(value) != _CHECKSUM.size:
                raise ProxyHeaderError(f"PROXY v2: CRC32C has {len(value)} bytes, not 4")
            checksum_at = offset + _TLV_HEAD.size
        elif kind == _UNIQUE_ID and len(value) > UNIQUE_ID_MAX_BYTES:  # section 2.2.5
            raise ProxyHeaderError(
                f"PROXY v2: UNIQUE_ID has {len(value)} bytes, over {UNIQUE_ID_MAX_BYTES}"
            )
        offset += _TLV_HEAD.size + len(value)
    if checksum_at:
        _verify(bytes(data[:size]), checksum_at)


def _verify(header: bytes, checksum_at: int) -> None:
    """Section 2.2.3: the checksum is that of the whole header with its own field zeroed."""
    after = checksum_at + _CHECKSUM.size
    (received,) = _CHECKSUM.unpack_from(header, checksum_at)
    computed = checksum_of(header[:checksum_at] + bytes(_CHECKSUM.size) + header[after:])
    if received != computed:
        raise ProxyHeaderError(f"PROXY v2: CRC32C is {received:#010x}, not {computed:#010x}")


def encode_v2(
    source: bytes | None,
    source_port: int,
    destination: bytes | None,
    destination_port: int,
    tlvs: Sequence[Tlv] = (),
    crc32c: bool = False,
    local: bool = False,
) -> bytes:
    """The header of one TCP connection (section 2.2): packed addresses, ports 0..65535.

    Without one of the addresses (None or b"") the family is UNSPEC; if the families differ, the
    IPv4 address goes out IPv4-mapped. ``local``: command LOCAL, for a connection of our own; the
    specification asks for no addresses then. With ``crc32c``, or a CRC32C among ``tlvs``
    (whatever its value: that was for other bytes), one fresh checksum is the last TLV.
    Raises ValueError for other addresses and ports, for a TLV that does not fit its fields, for a
    UNIQUE_ID over 128 bytes and for more than 65535 bytes after the first 16. A receiver may
    accept less: `parse` takes 4096.
    """
    try:
        if not source or not destination:
            header = _HEAD_UNSPEC
        elif len(source) == 4 and len(destination) == 4:
            header = _HEAD_INET + _INET.pack(source, destination, source_port, destination_port)
        elif len(source) in _IP_BYTES and len(destination) in _IP_BYTES:
            header = _HEAD_INET6 + _INET6.pack(
                mapped(source), mapped(destination), source_port, destination_port
            )
        else:
            raise ValueError(
                f"addresses are packed, 4 or 16 bytes: got {len(source)} and {len(destination)}"
            )
    except struct.error as exc:
        raise ValueError(f"ports {source_port}, {destination_port}: {exc}") from None
    if tlvs or crc32c or local:
        return _complete(header, tlvs, crc32c, local)
    return header


def _complete(header: bytes, tlvs: Sequence[Tlv], has_checksum: bool, is_local: bool) -> bytes:
    """``header`` with its TLVs, command and length, and the checksum over all of it."""
    parts = [header[V2_FIXED_BYTES:]]
    for kind, value in tlvs:
        if kind == _CRC32C:
            has_checksum = True
        else:
            check_tlv(kind, value)
            parts.append(_TLV_HEAD.pack(kind, len(value)) + value)
    if has_checksum:
        parts.append(_EMPTY_CHECKSUM)
    rest = b"".join(parts)
    if len(rest) > V2_LENGTH_FIELD_MAX:
        raise ValueError(f"the header has {len(rest)} bytes, its length field ends at 65535")
    command = _LOCAL_BYTE if is_local else _PROXY_BYTE
    whole = _FIXED.pack(V2_SIGNATURE, command, header[13], len(rest)) + rest
    if has_checksum:  # section 2.2.3: computed with its own field zeroed
        return whole[: -_CHECKSUM.size] + _CHECKSUM.pack(checksum_of(whole))
    return whole
