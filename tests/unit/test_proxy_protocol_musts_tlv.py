"""One test for each rule of sections 2.2 to 2.2.8 of the specification about TLVs."""

from __future__ import annotations

import struct

import pytest

from shared.errors import ProxyHeaderError
from shared.proxy_protocol import (
    V2_SIGNATURE,
    SslClient,
    crc32c,
    decode_tlvs,
    encode_noop,
    encode_v2,
    ipv4_packed,
    ipv6_packed,
    parse,
    tlv,
)

CLIENT, SERVER = ipv4_packed(b"203.0.113.7"), ipv4_packed(b"192.0.2.10")
CLIENT6, SERVER6 = ipv6_packed(b"2001:db8::17:2"), ipv6_packed(b"2001:db8::1")


def with_tlvs(tlvs: bytes) -> bytes:
    """A v2 header over TCP4 put together by hand."""
    block = CLIENT + SERVER + struct.pack("!HH", 5555, 443) + tlvs
    return V2_SIGNATURE + b"\x21\x11" + struct.pack("!H", len(block)) + block


def test_tlvs_fill_the_header() -> None:
    """Section 2.2: a TLV is a type, two bytes of length and that many bytes: no byte is left."""
    whole = b"\x01\x00\x02h2" + b"\x02\x00\x01a"
    for end in range(len(whole) + 1):
        if end in (0, 5, 9):
            assert parse(with_tlvs(whole[:end])) is not None
        else:
            with pytest.raises(ProxyHeaderError, match="do not fill"):
                parse(with_tlvs(whole[:end]))


def test_crc32c_sent() -> None:
    """Section 2.2.3: the sender MUST compute the checksum over the header with its field zeroed."""
    for data in (
        encode_v2(CLIENT, 5555, SERVER, 443, crc32c=True),
        encode_v2(CLIENT6, 5555, SERVER6, 443, [tlv(2, b"a.example")], crc32c=True),
        encode_v2(None, 0, None, 0, [tlv(3, b"\xff" * 4)]),
    ):
        at = data.index(b"\x03\x00\x04") + 3
        zeroed = data[:at] + bytes(4) + data[at + 4 :]
        assert data[at : at + 4] == struct.pack("!I", crc32c(zeroed))
        assert parse(data) is not None


def test_crc32c_verified() -> None:
    """Section 2.2.3: a wrong checksum MUST make the connection invalid: any bit that is changed."""
    data = encode_v2(CLIENT, 5555, SERVER, 443, [tlv(2, b"a.example")], crc32c=True)
    for at in range(16, len(data)):
        for bit in range(8):
            changed = data[:at] + bytes((data[at] ^ 1 << bit,)) + data[at + 1 :]
            was_checksum_type = at == len(data) - 7  # another type: no checksum is left to verify
            if not was_checksum_type:
                with pytest.raises(ProxyHeaderError):
                    parse(changed)


def test_noop_is_ignored() -> None:
    """Section 2.2.4: NOOP is ignored, zero or more bytes; no TLV is smaller than 3 bytes."""
    for size in (3, 4, 100):
        answer = parse(encode_v2(CLIENT, 1, SERVER, 2, [encode_noop(size)]))
        assert answer is not None
        assert answer[1] == 28 + size
        assert decode_tlvs(answer[0].tlvs) == decode_tlvs(())
    with pytest.raises(ValueError, match="at least 3"):
        encode_noop(2)


def test_unique_id_size() -> None:
    """Section 2.2.5: a unique id has up to 128 bytes, sent and received."""
    answer = parse(with_tlvs(b"\x05\x00\x80" + b"u" * 128))
    assert answer is not None
    assert decode_tlvs(answer[0].tlvs).unique_id == b"u" * 128
    with pytest.raises(ProxyHeaderError, match="over 128"):
        parse(with_tlvs(b"\x05\x00\x81" + b"u" * 129))
    with pytest.raises(ValueError, match="at most 128"):
        encode_v2(CLIENT, 1, SERVER, 2, [(5, b"u" * 129)])


def test_ssl_is_packed() -> None:
    """Section 2.2.6: one byte and four, without padding; verify is 0 only if it was verified."""
    ssl = decode_tlvs([(0x20, b"\x07\x00\x00\x00\x00\x21\x00\x07TLSv1.2")]).ssl
    assert ssl is not None
    assert ssl.client == SslClient.SSL | SslClient.CERT_CONN | SslClient.CERT_SESS
    assert (ssl.verify, ssl.version, ssl.has_valid_certificate) == (0, "TLSv1.2", True)
    refused_certificate = decode_tlvs([(0x20, b"\x03\x00\x00\x00\x0a")]).ssl
    assert refused_certificate is not None
    assert (refused_certificate.verify, refused_certificate.has_valid_certificate) == (10, False)


def test_reserved_types_pass_whole() -> None:
    """Sections 2.2 and 2.2.8: types that are not understood are skipped, and kept as they came."""
    for kind in (0x00, 0x06, 0x1F, 0x31, 0xE1, 0xEF, 0xF0, 0xF7, 0xF8, 0xFF):
        answer = parse(encode_v2(CLIENT, 1, SERVER, 2, [(kind, b"\x00a\x00"), (1, b"h2")]))
        assert answer is not None
        decoded = decode_tlvs(answer[0].tlvs)
        assert (decoded.unknown, decoded.alpn) == (((kind, b"\x00a\x00"),), b"h2")
