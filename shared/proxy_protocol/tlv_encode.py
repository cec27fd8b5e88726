"""TLVs to send: one function per type, and the text form that the command line takes.

Every function returns (type, raw value), ready for `encode_v2`, and raises ValueError for what
the specification does not allow.
"""

from __future__ import annotations

import struct
from typing import Final

from shared.proxy_protocol.header import Tlv
from shared.proxy_protocol.tlv import (
    AWS_VPC_ENDPOINT_ID,
    AZURE_PRIVATE_LINK_ID,
    AZURE_VALUE,
    GCP_VALUE,
    SSL_HEAD,
    TLV_HEAD,
    Ssl,
    SslClient,
    SslSubType,
    Tlvs,
    TlvType,
    check_tlv,
)

# Names that the command line takes.
TLV_NAMES: Final[dict[str, int]] = {
    "alpn": TlvType.ALPN,
    "authority": TlvType.AUTHORITY,
    "crc32c": TlvType.CRC32C,
    "noop": TlvType.NOOP,
    "unique_id": TlvType.UNIQUE_ID,
    "ssl": TlvType.SSL,
    "netns": TlvType.NETNS,
    "gcp_psc_connection_id": TlvType.GCP,
    "aws_vpc_endpoint_id": TlvType.AWS,
    "azure_private_link_id": TlvType.AZURE,
}
_ARGUMENT_FORMS: Final = "NAME=TEXT, NAME=hex:BYTES or 0xE1=hex:BYTES"


def tlv(kind: int, value: bytes) -> Tlv:
    """Any TLV: type 0..255, at most 65535 bytes, NULs and all (128 for a UNIQUE_ID)."""
    check_tlv(kind, value)
    return int(kind), bytes(value)


def encode_alpn(protocol: bytes) -> Tlv:
    """The protocol in use, ``b"h2"`` (section 2.2.1)."""
    return tlv(TlvType.ALPN, protocol)


def encode_authority(name: str) -> Tlv:
    """The host name that the client asked for, usually the SNI (section 2.2.2)."""
    return tlv(TlvType.AUTHORITY, name.encode())


def encode_noop(size: int) -> Tlv:
    """Padding: ``size`` bytes in the whole TLV, 3 at least (section 2.2.4)."""
    if size < TLV_HEAD.size:
        raise ValueError(f"a TLV has at least {TLV_HEAD.size} bytes: {size}")
    return tlv(TlvType.NOOP, bytes(size - TLV_HEAD.size))


def encode_unique_id(value: bytes) -> Tlv:
    """An opaque id of the connection, at most 128 bytes (section 2.2.5)."""
    return tlv(TlvType.UNIQUE_ID, value)


def encode_netns(name: str) -> Tlv:
    """The name of a network namespace, US-ASCII (section 2.2.7)."""
    return tlv(TlvType.NETNS, _ascii("netns", name))


def encode_aws_vpc_endpoint_id(name: str) -> Tlv:
    """The id of an AWS VPC endpoint, ``"vpce-08d2bf15fac5001c9"``."""
    return tlv(TlvType.AWS, bytes((AWS_VPC_ENDPOINT_ID,)) + _ascii("aws_vpc_endpoint_id", name))


def encode_azure_private_link_id(number: int) -> Tlv:
    """The link identifier of an Azure private endpoint, 0..2**32-1."""
    return tlv(TlvType.AZURE, _number(AZURE_VALUE, number, AZURE_PRIVATE_LINK_ID))


def encode_gcp_psc_connection_id(number: int) -> Tlv:
    """The connection id of Google's Private Service Connect, 0..2**64-1."""
    return tlv(TlvType.GCP, _number(GCP_VALUE, number))


def encode_ssl(ssl: Ssl) -> Tlv:
    """What is known of the client's TLS (section 2.2.6); the SSL bit goes with a ``version``."""
    if ssl.client & SslClient.SSL and ssl.version is None:
        raise ValueError("an SSL TLV of a TLS connection names its version (section 2.2.6)")
    texts = (
        (SslSubType.VERSION, ssl.version),
        (SslSubType.CIPHER, ssl.cipher),
        (SslSubType.SIG_ALG, ssl.sig_alg),
        (SslSubType.KEY_ALG, ssl.key_alg),
        (SslSubType.GROUP, ssl.group),
        (SslSubType.SIG_SCHEME, ssl.sig_scheme),
    )
    parts: list[Tlv] = [(kind, _ascii(kind.name, text)) for kind, text in texts if text is not None]
    if ssl.cn is not None:
        parts.append((SslSubType.CN, ssl.cn.encode()))
    if ssl.client_cert is not None:
        parts.append((SslSubType.CLIENT_CERT, ssl.client_cert))
    try:
        head = SSL_HEAD.pack(ssl.client, ssl.verify)
        body = [TLV_HEAD.pack(kind, len(value)) + value for kind, value in (*parts, *ssl.unknown)]
    except struct.error as exc:
        raise ValueError(f"an SSL TLV does not fit its fields: {exc}") from None
    return tlv(TlvType.SSL, head + b"".join(body))


def encode_tlvs(tlvs: Tlvs) -> tuple[Tlv, ...]:
    """All fields that are set, by rising type, then the unknown ones."""
    found: list[Tlv] = []
    if tlvs.alpn is not None:
        found.append(encode_alpn(tlvs.alpn))
    if tlvs.authority is not None:
        found.append(encode_authority(tlvs.authority))
    if tlvs.unique_id is not None:
        found.append(encode_unique_id(tlvs.unique_id))
    if tlvs.ssl is not None:
        found.append(encode_ssl(tlvs.ssl))
    if tlvs.netns is not None:
        found.append(encode_netns(tlvs.netns))
    if tlvs.gcp_psc_connection_id is not None:
        found.append(encode_gcp_psc_connection_id(tlvs.gcp_psc_connection_id))
    if tlvs.aws_vpc_endpoint_id is not None:
        found.append(encode_aws_vpc_endpoint_id(tlvs.aws_vpc_endpoint_id))
    if tlvs.azure_private_link_id is not None:
        found.append(encode_azure_private_link_id(tlvs.azure_private_link_id))
    found += [tlv(kind, value) for kind, value in tlvs.unknown]
    return tuple(found)


def parse_tlv_argument(text: str) -> Tlv:
    """One TLV of a command line: ``authority=TEXT``, ``0xE1=hex:00ff``, ``crc32c``.

    The left side is a name of TLV_NAMES or a number 0..255. ``hex:`` gives the raw value of any
    type; other text is UTF-8, the number of the two cloud ids that are numbers, or the size of a
    ``noop`` in bytes. ``crc32c`` takes no value: `encode_v2` computes it.
    """
    name, has_value, value = text.partition("=")
    kind = _kind(name.strip())
    if kind == TlvType.CRC32C and name.strip() in TLV_NAMES:
        if value:
            raise ValueError(f"{text!r}: crc32c takes no value, it is computed")
        return kind, bytes(4)
    if not has_value:
        raise ValueError(f"{text!r} has no '=': a TLV is {_ARGUMENT_FORMS}")
    if value.startswith("hex:"):
        try:
            return tlv(kind, bytes.fromhex(value[4:]))
        except ValueError as exc:
            raise ValueError(f"{text!r}: {exc}") from None
    if name.strip() not in TLV_NAMES:
        return tlv(kind, value.encode())
    return _named(kind, text, value)


def _named(kind: int, text: str, value: str) -> Tlv:
    """The TLV of a type that was given by its name, from plain text."""
    if kind == TlvType.SSL:
        raise ValueError(f"{text!r}: an SSL TLV is binary, give it as ssl=hex:BYTES")
    if kind in (TlvType.NOOP, TlvType.AZURE, TlvType.GCP):
        if not (value.isascii() and value.isdigit()):
            raise ValueError(f"{text!r}: {value!r} is not a number")
        number = int(value)
        if kind == TlvType.NOOP:
            return encode_noop(number)
        if kind == TlvType.AZURE:
            return encode_azure_private_link_id(number)
        return encode_gcp_psc_connection_id(number)
    if kind == TlvType.AWS:
        return encode_aws_vpc_endpoint_id(value)
    if kind == TlvType.NETNS:
        return encode_netns(value)
    return tlv(kind, value.encode())


def _kind(name: str) -> int:
    """The type that ``name`` means, by name or by number."""
    if name in TLV_NAMES:
        return int(TLV_NAMES[name])
    try:
        kind = int(name, 0)
    except ValueError:
        raise ValueError(
            f"{name!r} is no TLV: known are {', '.join(TLV_NAMES)}, or a number such as 0xE1"
        ) from None
    if not 0 <= kind <= 0xFF:
        raise ValueError(f"a TLV type is 0..255: {name}")
    return kind


def _ascii(name: str, text: str) -> bytes:
    try:
        return text.encode("ascii")
    except UnicodeEncodeError:
        raise ValueError(f"{name} is US-ASCII: {text!r}") from None


def _number(packed: struct.Struct, number: int, *before: int) -> bytes:
    try:
        return packed.pack(*before, number)
    except struct.error:
        raise ValueError(f"{number} is out of range") from None
