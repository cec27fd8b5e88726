"""PROXY protocol, versions 1 and 2: parse and encode headers, without any IO.

Follows "The PROXY protocol, versions 1 & 2" of HAProxy as of 2026-04-27; "section" in comments
means a section of it. The package needs msgspec and no socket, so it serves any kind of server.

    answer = parse(received)          # bytes, bytearray or memoryview
    if answer is None:                # read more
        ...
    header, size = answer             # received[size:] is what the client sent
    if header.has_addresses:          # else: use the addresses of the socket
        client = header.source_text, header.source_port

    out = encode_v2(source, source_port, destination, destination_port)

| parse  | `parse`, `could_begin`, `is_header_start`, `ProxyHeader`, `Family`, `Transport`      |
| encode | `encode_v1`, `encode_v2`                                                             |
| TLVs   | `decode_tlvs`, `Tlvs`, `Ssl`, `tlv`, `encode_tlvs`, `encode_*`, `parse_tlv_argument` |
| text   | `ipv4_packed`, `ipv6_packed`, `ipv4_text`, `ipv6_text`                               |

Parsers raise ProxyHeaderError for bytes that are wrong, encoders ValueError for wrong arguments.
A header is believed by its place, not by its look: call `parse` only for peers that are trusted
and configured to send one (section 2).
"""

from __future__ import annotations

from shared.errors import ProxyHeaderError
from shared.proxy_protocol.address import ipv4_packed, ipv4_text, ipv6_packed, ipv6_text
from shared.proxy_protocol.crc32c import crc32c
from shared.proxy_protocol.header import (
    V1_PREFIX,
    V2_SIGNATURE,
    Buffer,
    Family,
    ProxyHeader,
    Tlv,
    Transport,
)
from shared.proxy_protocol.parse import VERSIONS, could_begin, is_header_start, parse
from shared.proxy_protocol.tlv import (
    UNIQUE_ID_MAX_BYTES,
    Ssl,
    SslClient,
    SslSubType,
    Tlvs,
    TlvType,
    decode_ssl,
    decode_tlvs,
)
from shared.proxy_protocol.tlv_encode import (
    TLV_NAMES,
    encode_alpn,
    encode_authority,
    encode_aws_vpc_endpoint_id,
    encode_azure_private_link_id,
    encode_gcp_psc_connection_id,
    encode_netns,
    encode_noop,
    encode_ssl,
    encode_tlvs,
    encode_unique_id,
    parse_tlv_argument,
    tlv,
)
from shared.proxy_protocol.v1 import V1_MAX_BYTES, encode_v1
from shared.proxy_protocol.v2 import V2_MAX_LENGTH, encode_v2

__all__ = [
    "TLV_NAMES",
    "UNIQUE_ID_MAX_BYTES",
    "V1_MAX_BYTES",
    "V1_PREFIX",
    "V2_MAX_LENGTH",
    "V2_SIGNATURE",
    "VERSIONS",
    "Buffer",
    "Family",
    "ProxyHeader",
    "ProxyHeaderError",
    "Ssl",
    "SslClient",
    "SslSubType",
    "Tlv",
    "TlvType",
    "Tlvs",
    "Transport",
    "could_begin",
    "crc32c",
    "decode_ssl",
    "decode_tlvs",
    "encode_alpn",
    "encode_authority",
    "encode_aws_vpc_endpoint_id",
    "encode_azure_private_link_id",
    "encode_gcp_psc_connection_id",
    "encode_netns",
    "encode_noop",
    "encode_ssl",
    "encode_tlvs",
    "encode_unique_id",
    "encode_v1",
    "encode_v2",
    "ipv4_packed",
    "ipv4_text",
    "ipv6_packed",
    "ipv6_text",
    "is_header_start",
    "parse",
    "parse_tlv_argument",
    "tlv",
]
