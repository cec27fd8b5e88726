"""The TLVs of a v2 header (sections 2.2.1 to 2.2.8) and those of three clouds, decoded.

A header carries them raw; `decode_tlvs` makes typed fields of them when somebody asks. Of a type
that comes twice the first one counts and the others end in ``unknown``. `encode_tlvs` and the
functions in `tlv_encode` are the way back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import IntEnum, IntFlag
from struct import Struct as Packed
from typing import Any, Final

import msgspec

from shared.errors import ProxyHeaderError
from shared.proxy_protocol.header import Buffer, Tlv


class TlvType(IntEnum):
    """Registered types (section 2.2); the last three are custom ones of cloud balancers."""

    ALPN = 0x01
    AUTHORITY = 0x02
    CRC32C = 0x03
    NOOP = 0x04
    UNIQUE_ID = 0x05
    SSL = 0x20
    NETNS = 0x30
    GCP = 0xE0
    AWS = 0xEA
    AZURE = 0xEE


class SslSubType(IntEnum):
    """Types of the TLVs inside an SSL TLV (section 2.2.6)."""

    VERSION = 0x21
    CN = 0x22
    CIPHER = 0x23
    SIG_ALG = 0x24
    KEY_ALG = 0x25
    GROUP = 0x26
    SIG_SCHEME = 0x27
    CLIENT_CERT = 0x28


class SslClient(IntFlag):
    """Bits of the client field of an SSL TLV (section 2.2.6)."""

    SSL = 0x01  # the client connected over TLS
    CERT_CONN = 0x02  # and gave a certificate over this connection
    CERT_SESS = 0x04  # or over the TLS session that this connection belongs to


AWS_VPC_ENDPOINT_ID: Final = 0x01  # first byte of an AWS value
AZURE_PRIVATE_LINK_ID: Final = 0x01  # first byte of an AZURE value
UNIQUE_ID_MAX_BYTES: Final = 128  # section 2.2.5
VALUE_MAX_BYTES: Final = 65535  # two bytes of length

TLV_HEAD: Final = Packed("!BH")  # type, length of the value
SSL_HEAD: Final = Packed("!BI")  # client, verify: packed, without alignment (section 2.2.6)
AZURE_VALUE: Final = Packed("<BI")  # sub-type, identifier; Azure sends it little endian
GCP_VALUE: Final = Packed("!Q")


class Ssl(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An SSL TLV. ``verify`` is 0 if the client gave a certificate and it was found valid."""

    client: SslClient = SslClient.SSL
    verify: int = 0  # 0..2**32-1
    version: str | None = None  # "TLSv1.3"
    cn: str | None = None  # common name of the client's certificate
    cipher: str | None = None
    sig_alg: str | None = None  # of the frontend's certificate
    key_alg: str | None = None  # of the frontend's certificate
    group: str | None = None  # of the key exchange
    sig_scheme: str | None = None
    client_cert: bytes | None = None  # DER
    unknown: tuple[Tlv, ...] = ()

    @property
    def is_tls(self) -> bool:
        """The client connected over TLS."""
        return bool(self.client & SslClient.SSL)

    @property
    def has_valid_certificate(self) -> bool:
        """The client gave a certificate, in this session or connection, and it was found valid."""
        return self.verify == 0 and bool(self.client & (SslClient.CERT_CONN | SslClient.CERT_SESS))


class Tlvs(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The TLVs of one header by name. None: not sent. CRC32C and NOOP say nothing and are left out.

    ``unknown``: types without a name here, repeated ones, and cloud values of another shape, raw.
    """

    alpn: bytes | None = None  # b"h2"
    authority: str | None = None  # host name that the client asked for, usually the SNI
    unique_id: bytes | None = None
    ssl: Ssl | None = None
    netns: str | None = None
    aws_vpc_endpoint_id: str | None = None  # "vpce-..."
    azure_private_link_id: int | None = None  # 0..2**32-1
    gcp_psc_connection_id: int | None = None  # 0..2**64-1
    unknown: tuple[Tlv, ...] = ()


def split_tlvs(data: Buffer, offset: int, end: int) -> tuple[Tlv, ...] | None:
    """The TLVs of ``data[offset:end]``, or None if TLVs do not fill it exactly (section 2.2)."""
    found = []
    while offset + 3 <= end:
        kind, length = TLV_HEAD.unpack_from(data, offset)
        value_at = offset + 3
        offset = value_at + length
        if offset > end:
            return None
        found.append((kind, bytes(data[value_at:offset])))
    return tuple(found) if offset >= end else None


def decode_tlvs(tlvs: Iterable[Tlv]) -> Tlvs:
    """Raw TLVs to named fields. ProxyHeaderError for a value that its definition rules out."""
    fields, unknown = _by_name(tlvs, _DECODERS)
    return Tlvs(**fields, unknown=unknown)


def decode_ssl(value: bytes) -> Ssl:
    """The value of an SSL TLV (section 2.2.6). ProxyHeaderError if it is malformed."""
    if len(value) < SSL_HEAD.size:
        raise ProxyHeaderError(f"SSL TLV: {len(value)} bytes, at least {SSL_HEAD.size} are needed")
    client, verify = SSL_HEAD.unpack_from(value)
    tlvs = split_tlvs(value, SSL_HEAD.size, len(value))
    if tlvs is None:
        raise ProxyHeaderError("SSL TLV: its sub-TLVs do not fill it exactly")
    fields, unknown = _by_name(tlvs, _SSL_DECODERS)
    return Ssl(client=SslClient(client), verify=verify, **fields, unknown=unknown)


def check_tlv(kind: int, value: bytes) -> None:
    """ValueError unless this TLV may be sent at the top level of a header."""
    if not 0 <= kind <= 0xFF:
        raise ValueError(f"a TLV type is 0..255: {kind}")
    if len(value) > VALUE_MAX_BYTES:
        raise ValueError(f"a TLV value has at most {VALUE_MAX_BYTES} bytes: {len(value)}")
    if kind == TlvType.UNIQUE_ID and len(value) > UNIQUE_ID_MAX_BYTES:
        raise ValueError(f"a unique id has at most {UNIQUE_ID_MAX_BYTES} bytes: {len(value)}")


# A decoder returns None for a value of another shape, which goes to `unknown` then.
_Decoders = dict[int, tuple[str, Callable[[bytes], object]]]


def _by_name(tlvs: Iterable[Tlv], decoders: _Decoders) -> tuple[dict[str, Any], tuple[Tlv, ...]]:
    """Fields by name, and what has no name."""
    fields: dict[str, Any] = {}
    unknown: list[Tlv] = []
    for kind, value in tlvs:
        if kind in _IGNORED:
            continue
        name, decode = decoders.get(kind, _NAMELESS)
        decoded = None if name in fields else decode(value)
        if decoded is None:
            unknown.append((kind, value))
        else:
            fields[name] = decoded
    return fields, tuple(unknown)


def _text(name: str, charset: str) -> Callable[[bytes], str]:
    def decode(value: bytes) -> str:
        try:
            return value.decode(charset)
        except UnicodeDecodeError as exc:
            raise ProxyHeaderError(f"TLV {name}: not {charset} at byte {exc.start}") from None

    return decode


def _unique_id(value: bytes) -> bytes:
    if len(value) > UNIQUE_ID_MAX_BYTES:
        raise ProxyHeaderError(
            f"TLV UNIQUE_ID: {len(value)} bytes, at most {UNIQUE_ID_MAX_BYTES} are allowed"
        )
    return value


def _aws(value: bytes) -> str | None:
    # The custom range (section 2.2.8) is anyone's: another shape is another application's.
    if value[:1] == bytes((AWS_VPC_ENDPOINT_ID,)) and value.isascii():
        return value[1:].decode("ascii")
    return None


def _azure(value: bytes) -> int | None:
    if len(value) == AZURE_VALUE.size and value[0] == AZURE_PRIVATE_LINK_ID:
        return int.from_bytes(value[1:], "little")
    return None


def _gcp(value: bytes) -> int | None:
    return int.from_bytes(value, "big") if len(value) == GCP_VALUE.size else None


_IGNORED: Final = frozenset((TlvType.CRC32C, TlvType.NOOP))  # sections 2.2.3 and 2.2.4
_NAMELESS: Final[tuple[str, Callable[[bytes], object]]] = ("", lambda value: None)
_DECODERS: Final[_Decoders] = {
    TlvType.ALPN: ("alpn", bytes),
    TlvType.AUTHORITY: ("authority", _text("AUTHORITY", "utf-8")),
    TlvType.UNIQUE_ID: ("unique_id", _unique_id),
    TlvType.SSL: ("ssl", decode_ssl),
    TlvType.NETNS: ("netns", _text("NETNS", "ascii")),
    TlvType.GCP: ("gcp_psc_connection_id", _gcp),
    TlvType.AWS: ("aws_vpc_endpoint_id", _aws),
    TlvType.AZURE: ("azure_private_link_id", _azure),
}
# Section 2.2.6: US-ASCII, except for the common name, which is UTF-8.
_SSL_DECODERS: Final[_Decoders] = {
    SslSubType.VERSION: ("version", _text("SSL VERSION", "ascii")),
    SslSubType.CN: ("cn", _text("SSL CN", "utf-8")),
    SslSubType.CIPHER: ("cipher", _text("SSL CIPHER", "ascii")),
    SslSubType.SIG_ALG: ("sig_alg", _text("SSL SIG_ALG", "ascii")),
    SslSubType.KEY_ALG: ("key_alg", _text("SSL KEY_ALG", "ascii")),
    SslSubType.GROUP: ("group", _text("SSL GROUP", "ascii")),
    SslSubType.SIG_SCHEME: ("sig_scheme", _text("SSL SIG_SCHEME", "ascii")),
    SslSubType.CLIENT_CERT: ("client_cert", bytes),
}
