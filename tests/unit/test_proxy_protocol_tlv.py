"""TLVs: what decoding refuses, what encoding refuses, and the text form of the command line."""

from __future__ import annotations

import pytest

from shared.errors import ProxyHeaderError
from shared.proxy_protocol import (
    TLV_NAMES,
    Ssl,
    SslClient,
    Tlvs,
    decode_ssl,
    decode_tlvs,
    encode_authority,
    encode_aws_vpc_endpoint_id,
    encode_azure_private_link_id,
    encode_gcp_psc_connection_id,
    encode_netns,
    encode_noop,
    encode_ssl,
    encode_tlvs,
    encode_v1,
    encode_v2,
    parse,
    parse_tlv_argument,
    tlv,
)


@pytest.mark.parametrize(
    ("kind", "value", "error"),
    [
        (0x02, b"\xff", "AUTHORITY: not utf-8 at byte 0"),
        (0x02, "ü".encode("latin-1"), "AUTHORITY: not utf-8"),
        (0x05, b"u" * 129, "UNIQUE_ID: 129 bytes"),
        (0x30, "ü".encode(), "NETNS: not ascii"),
        (0x20, b"", "0 bytes, at least 5"),
        (0x20, b"\x01\0\0\0", "4 bytes, at least 5"),
        (0x20, b"\x01\0\0\0\0\x21", "do not fill"),
        (0x20, b"\x01\0\0\0\0\x21\x00\x08TLSv1.3", "do not fill"),
        (0x20, b"\x01\0\0\0\0\x21\x00\x01\xff", "SSL VERSION: not ascii"),
        (0x20, b"\x01\0\0\0\0\x22\x00\x01\xff", "SSL CN: not utf-8"),
        (0x20, b"\x01\0\0\0\0\x23\x00\x01\xff", "SSL CIPHER: not ascii"),
    ],
)
def test_decode_refuses(kind: int, value: bytes, error: str) -> None:
    """A value that its definition rules out is an error that names the field."""
    with pytest.raises(ProxyHeaderError, match=error):
        decode_tlvs([(0x01, b"h2"), (kind, value)])


def test_decode_keeps_what_it_does_not_know() -> None:
    """Unknown types, repeated types and cloud values of another shape stay raw, in order."""
    tlvs = [
        (0x01, b"h2"),
        (0xE0, b"short"),
        (0xEA, b"\x02other"),
        (0xEA, b""),
        (0xEA, b"\x01\xff"),
        (0xEE, b"\x02\x00\x00\x00\x00"),
        (0xEE, b"\x01\x00"),
        (0x01, b"http/1.1"),
        (0xFF, b"\0"),
    ]
    decoded = decode_tlvs(tlvs)
    assert decoded.alpn == b"h2"
    assert decoded.unknown == tuple(tlvs[1:])
    assert encode_tlvs(decoded) == tuple(tlvs)


def test_decode_leaves_checksum_and_padding_out() -> None:
    """CRC32C and NOOP are no information: nothing of them is left."""
    assert decode_tlvs([(0x03, bytes(4)), (0x04, b"pad"), (0x04, b"")]) == Tlvs()


def test_values_may_hold_nul() -> None:
    """A value with NULs passes whole through sending, parsing and decoding."""
    sent = [(0x01, b"\0h\0"), (0x05, b"\0" * 128), (0xE1, b"\0\0"), encode_authority("a\0b")]
    answer = parse(encode_v2(bytes(4), 1, bytes(4), 2, sent, crc32c=True))
    assert answer is not None
    assert list(answer[0].tlvs[:4]) == sent
    decoded = decode_tlvs(answer[0].tlvs)
    assert (decoded.alpn, decoded.authority, decoded.unique_id) == (b"\0h\0", "a\0b", b"\0" * 128)


def test_ssl_properties() -> None:
    """is_tls and has_valid_certificate read the bits and the result of the verification."""
    assert decode_ssl(b"\x00\0\0\0\0").is_tls is False
    assert decode_ssl(b"\x01\0\0\0\0").is_tls is True
    assert decode_ssl(b"\x01\0\0\0\0").has_valid_certificate is False
    assert decode_ssl(b"\x05\0\0\0\0").has_valid_certificate is True
    assert decode_ssl(b"\xff\0\0\0\1").client & SslClient.CERT_SESS


@pytest.mark.parametrize(
    "ssl",
    [
        Ssl(),
        Ssl(version="TLSv1.3", verify=-1),
        Ssl(version="TLSv1.3", verify=2**32),
        Ssl(version="TLS ü"),
        Ssl(version="TLSv1.3", client_cert=bytes(65536)),
        Ssl(version="TLSv1.3", client_cert=bytes(65530)),
        Ssl(client=SslClient(0), unknown=((256, b""),)),
    ],
)
def test_encode_ssl_refuses(ssl: Ssl) -> None:
    """An SSL TLV that does not fit, or of a TLS connection without its version, is ValueError."""
    with pytest.raises(ValueError, match=r"SSL|VERSION|65535"):
        encode_ssl(ssl)


def test_encoders_refuse() -> None:
    """Values that a TLV cannot hold are ValueError."""
    for kind in (-1, 256):
        with pytest.raises(ValueError, match=r"0\.\.255"):
            tlv(kind, b"")
    with pytest.raises(ValueError, match="at most 65535"):
        tlv(0xE1, bytes(65536))
    for number in (-1, 2**32):
        with pytest.raises(ValueError, match="out of range"):
            encode_azure_private_link_id(number)
    for number in (-1, 2**64):
        with pytest.raises(ValueError, match="out of range"):
            encode_gcp_psc_connection_id(number)
    with pytest.raises(ValueError, match="US-ASCII"):
        encode_netns("ü")
    with pytest.raises(ValueError, match="US-ASCII"):
        encode_aws_vpc_endpoint_id("ü")


@pytest.mark.parametrize("source", [b"abc", bytes(5), bytes(15), bytes(17), bytes(108)])
def test_encode_refuses_other_addresses(source: bytes) -> None:
    """Addresses of other lengths than 4 and 16 bytes are ValueError, on either side."""
    for encode in (encode_v1, encode_v2):
        with pytest.raises(ValueError, match="4 or 16 bytes"):
            encode(source, 1, bytes(4), 2)
        with pytest.raises(ValueError, match="4 or 16 bytes"):
            encode(bytes(16), 1, source, 2)


@pytest.mark.parametrize("port", [-1, 65536, 2**40])
@pytest.mark.parametrize("address", [bytes(4), bytes(16)])
def test_encode_refuses_other_ports(port: int, address: bytes) -> None:
    """Ports outside 0..65535 are ValueError, on either side."""
    for encode in (encode_v1, encode_v2):
        with pytest.raises(ValueError, match=str(port)):
            encode(address, port, address, 2)
        with pytest.raises(ValueError, match=str(port)):
            encode(address, 1, address, port)


def test_encode_v2_refuses_too_much() -> None:
    """More than the length field can say is ValueError; as much as it can say is not."""
    room = 65535 - 12 - 3
    assert len(encode_v2(bytes(4), 1, bytes(4), 2, [(0xE1, bytes(room))])) == 16 + 65535
    with pytest.raises(ValueError, match="65535"):
        encode_v2(bytes(4), 1, bytes(4), 2, [(0xE1, bytes(room + 1))])
    with pytest.raises(ValueError, match="65535"):
        encode_v2(bytes(4), 1, bytes(4), 2, [(0xE1, bytes(room))], crc32c=True)


def test_encode_v2_without_an_address() -> None:
    """Without both addresses the family is UNSPEC, LOCAL or not; the ports are left out."""
    for source, destination in ((None, None), (b"", b""), (bytes(4), None), (None, bytes(16))):
        for local in (False, True):
            data = encode_v2(source, 1, destination, 2, local=local)
            assert data[12:] == bytes((0x20 if local else 0x21, 0, 0, 0))


def test_encode_v2_local_with_addresses() -> None:
    """LOCAL with addresses carries them, and a receiver still uses those of the socket."""
    data = encode_v2(bytes(4), 1, bytes(4), 2, local=True)
    assert data[12:16] == b"\x20\x11\x00\x0c"
    answer = parse(data)
    assert answer is not None
    assert (answer[0].command, answer[0].has_addresses, answer[1]) == ("LOCAL", False, 28)


def test_received_checksum_is_never_passed_on() -> None:
    """A CRC32C that came with other bytes is replaced by one fresh checksum at the end."""
    first = parse(encode_v2(bytes(4), 1, bytes(4), 2, [(0x05, b"id")], crc32c=True))
    assert first is not None
    again = parse(
        encode_v2(bytes(16), 3, bytes(16), 4, (*first[0].tlvs, (0xE1, b"x")), crc32c=True)
    )
    assert again is not None
    assert [kind for kind, _ in again[0].tlvs] == [0x05, 0xE1, 0x03]
    assert again[0].tlvs[2] != first[0].tlvs[1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("authority=api.example.com", (0x02, b"api.example.com")),
        ("authority=bücher.example", (0x02, "bücher.example".encode())),
        ("authority=a=b", (0x02, b"a=b")),
        ("authority=", (0x02, b"")),
        ("alpn=h2", (0x01, b"h2")),
        ("alpn=hex:6832", (0x01, b"h2")),
        ("unique_id=hex:00 ff", (0x05, b"\x00\xff")),
        ("netns=blue", (0x30, b"blue")),
        ("crc32c", (0x03, bytes(4))),
        ("crc32c=", (0x03, bytes(4))),
        ("noop=3", (0x04, b"")),
        ("noop=hex:0000", (0x04, bytes(2))),
        ("ssl=hex:0100000000", (0x20, b"\x01\0\0\0\0")),
        ("aws_vpc_endpoint_id=vpce-1", (0xEA, b"\x01vpce-1")),
        ("azure_private_link_id=258", (0xEE, b"\x01\x02\x01\0\0")),
        ("gcp_psc_connection_id=258", (0xE0, b"\0\0\0\0\0\0\x01\x02")),
        ("0xE1=hex:00ff00", (0xE1, b"\x00\xff\x00")),
        ("0xe1=text", (0xE1, b"text")),
        ("225=text", (0xE1, b"text")),
        ("0x02=name", (0x02, b"name")),
    ],
)
def test_argument(text: str, expected: tuple[int, bytes]) -> None:
    """Every form of a TLV on the command line gives type and raw value."""
    assert parse_tlv_argument(text) == expected


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "is no TLV: known are alpn, authority"),
        ("autority=x", "'autority' is no TLV: known are alpn, authority"),
        ("authority", "has no '='"),
        ("256=x", r"0\.\.255"),
        ("-1=x", r"0\.\.255"),
        ("alpn=hex:6", "alpn=hex:6"),
        ("alpn=hex:zz", "alpn=hex:zz"),
        ("crc32c=1", "takes no value"),
        ("noop=2", "at least 3"),
        ("noop=x", "is not a number"),
        ("ssl=TLSv1.3", "ssl=hex:BYTES"),
        ("netns=ü", "US-ASCII"),
        ("azure_private_link_id=4294967296", "out of range"),
        ("azure_private_link_id=-1", "is not a number"),
        ("gcp_psc_connection_id=٣", "is not a number"),
        ("unique_id=" + "u" * 129, "at most 128"),
        ("unique_id=hex:" + "00" * 129, "at most 128"),
    ],
)
def test_argument_refused(text: str, error: str) -> None:
    """A wrong TLV on the command line is ValueError that says what would be right."""
    with pytest.raises(ValueError, match=error):
        parse_tlv_argument(text)


def test_every_name_is_known_to_the_decoder() -> None:
    """Each name of the command line is a field of the decoded TLVs, but for the two without use."""
    assert set(TLV_NAMES) - {"crc32c", "noop"} == set(Tlvs.__struct_fields__) - {"unknown"}
    assert encode_noop(3) == (TLV_NAMES["noop"], b"")
