"""Round trips over all values, agreement with the system's own functions, and bounded fuzzing."""

from __future__ import annotations

import ipaddress
import random
import socket
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import ProxyHeaderError
from shared.proxy_protocol import (
    Family,
    Ssl,
    SslClient,
    Tlvs,
    could_begin,
    crc32c,
    decode_ssl,
    decode_tlvs,
    encode_ssl,
    encode_tlvs,
    encode_v1,
    encode_v2,
    ipv4_packed,
    ipv4_text,
    ipv6_packed,
    ipv6_text,
    parse,
)

# No deadline: how long an example takes says nothing about the codec.
codec_settings = settings(deadline=None, max_examples=200)

CORPUS = Path(__file__).parent.parent / "corpus" / "proxy_protocol"
ports = st.integers(0, 65535)
packed4 = st.binary(min_size=4, max_size=4)
# Zero groups are common in real addresses and hard for formatters: draw many of them.
packed16 = st.one_of(
    st.binary(min_size=16, max_size=16),
    st.lists(st.sampled_from([b"\0\0", b"\0\1", b"\xff\xff"]), min_size=8, max_size=8).map(
        b"".join
    ),
    packed4.map(lambda four: bytes(10) + b"\xff\xff" + four),
)
packed = packed4 | packed16
ascii_text = st.text(st.characters(max_codepoint=0x7F))
# Neither CRC32C (always computed anew) nor UNIQUE_ID (its size is limited) nor SSL (has a shape).
raw_tlvs = st.lists(
    st.tuples(st.integers(0, 255).filter(lambda kind: kind not in (3, 5, 0x20)), st.binary())
)
# No sub-types that have a name, or NOOP and CRC32C, which decoding leaves out.
unknown_sub_tlvs = st.lists(st.tuples(st.integers(0x40, 0xFF), st.binary()), max_size=3).map(tuple)
ssl_values = st.builds(
    Ssl,
    client=st.integers(0, 7).map(SslClient),
    verify=st.integers(0, 2**32 - 1),
    version=ascii_text,
    cn=st.none() | st.text(),
    cipher=st.none() | ascii_text,
    sig_alg=st.none() | ascii_text,
    key_alg=st.none() | ascii_text,
    group=st.none() | ascii_text,
    sig_scheme=st.none() | ascii_text,
    client_cert=st.none() | st.binary(),
    unknown=unknown_sub_tlvs,
)
tlv_values = st.builds(
    Tlvs,
    alpn=st.none() | st.binary(),
    authority=st.none() | st.text(),
    unique_id=st.none() | st.binary(max_size=128),
    ssl=st.none() | ssl_values,
    netns=st.none() | ascii_text,
    aws_vpc_endpoint_id=st.none() | ascii_text,
    azure_private_link_id=st.none() | st.integers(0, 2**32 - 1),
    gcp_psc_connection_id=st.none() | st.integers(0, 2**64 - 1),
    unknown=st.lists(st.tuples(st.integers(0xF0, 0xFF), st.binary()), max_size=3).map(tuple),
)


def as_ipv6(address: bytes) -> bytes:
    """``address``, IPv4-mapped if it is IPv4."""
    return bytes(10) + b"\xff\xff" + address if len(address) == 4 else address


@codec_settings
@given(packed, ports, packed, ports, st.binary())
def test_v1_round_trip(
    source: bytes, source_port: int, destination: bytes, destination_port: int, payload: bytes
) -> None:
    """What encode_v1 writes, parse reads; mixed families come back IPv4-mapped."""
    data = encode_v1(source, source_port, destination, destination_port)
    answer = parse(data + payload)
    assert answer is not None
    header, size = answer
    assert (size, header.version, header.has_addresses) == (len(data), 1, True)
    assert (header.source_port, header.destination_port) == (source_port, destination_port)
    if len(source) == len(destination):
        assert (header.source, header.destination) == (source, destination)
    else:
        assert (header.source, header.destination) == (as_ipv6(source), as_ipv6(destination))


@codec_settings
@given(packed, ports, packed, ports, raw_tlvs, st.booleans(), st.binary())
def test_v2_round_trip(
    source: bytes,
    source_port: int,
    destination: bytes,
    destination_port: int,
    tlvs: list[tuple[int, bytes]],
    checksum: bool,
    payload: bytes,
) -> None:
    """What encode_v2 writes, parse reads, TLVs whole and in order, checksum verified."""
    data = encode_v2(source, source_port, destination, destination_port, tlvs, crc32c=checksum)
    answer = parse(data + payload)
    assert answer is not None
    header, size = answer
    assert (size, header.version, header.has_addresses) == (len(data), 2, True)
    assert (header.source_port, header.destination_port) == (source_port, destination_port)
    if len(source) == len(destination):
        assert (header.source, header.destination) == (source, destination)
    else:
        assert header.family is Family.INET6
        assert (header.source, header.destination) == (as_ipv6(source), as_ipv6(destination))
    assert list(header.tlvs[: len(tlvs)]) == tlvs
    assert [kind for kind, _ in header.tlvs[len(tlvs) :]] == [3] * checksum


@codec_settings
@given(ssl_values)
def test_ssl_round_trip(ssl: Ssl) -> None:
    """What encode_ssl writes, decode_ssl reads."""
    kind, value = encode_ssl(ssl)
    assert kind == 0x20
    assert decode_ssl(value) == ssl


@codec_settings
@given(tlv_values)
def test_tlvs_round_trip(tlvs: Tlvs) -> None:
    """What encode_tlvs writes, decode_tlvs reads, also through a header."""
    encoded = encode_tlvs(tlvs)
    assert decode_tlvs(encoded) == tlvs
    data = encode_v2(bytes(4), 1, bytes(4), 2, encoded, crc32c=True)
    answer = parse(data)
    assert answer is not None
    assert decode_tlvs(answer[0].tlvs) == tlvs


@codec_settings
@given(packed16)
def test_ipv6_text_is_canonical(address: bytes) -> None:
    """ipv6_text agrees with inet_ntop, except for the form that RFC 5952 does not know."""
    text = ipv6_text(address)
    assert ipv6_packed(text.encode()) == address
    system = socket.inet_ntop(socket.AF_INET6, address)
    if "." in system and not system.startswith("::ffff:"):
        system = str(ipaddress.IPv6Address(address))  # ::192.0.2.1 was given up (RFC 4291)
    assert text == system


@codec_settings
@given(
    packed16.map(lambda address: socket.inet_ntop(socket.AF_INET6, address))
    | packed16.map(lambda address: ipaddress.IPv6Address(address).exploded)
    | st.lists(st.sampled_from(["0", "00a", "FFFF", ":", "::", "1.2.3.4", "12345", ".", "g"])).map(
        "".join
    )
    | st.lists(st.sampled_from(["", "0", "1", "abcd", "1.2.3.4"]), max_size=10).map(":".join)
)
def test_ipv6_packed_agrees_with_inet_pton(text: str) -> None:
    """ipv6_packed accepts what inet_pton accepts, with the same result, and refuses the rest."""
    try:
        expected = socket.inet_pton(socket.AF_INET6, text)
    except OSError:
        with pytest.raises(ValueError, match="not an IPv6 address"):
            ipv6_packed(text.encode())
    else:
        assert ipv6_packed(text.encode()) == expected


@codec_settings
@given(
    packed4.map(socket.inet_ntoa)
    | st.lists(st.sampled_from(["", "0", "00", "1", "255", "256", "+1", "x"]), max_size=6).map(
        ".".join
    )
)
def test_ipv4_packed_agrees_with_inet_pton(text: str) -> None:
    """ipv4_packed accepts what inet_pton accepts, with the same result, and refuses the rest."""
    try:
        expected = socket.inet_pton(socket.AF_INET, text)
    except OSError:
        with pytest.raises(ValueError, match="not an IPv4 address"):
            ipv4_packed(text.encode())
    else:
        assert ipv4_packed(text.encode()) == expected
        assert ipv4_text(expected) == text


@codec_settings
@given(st.binary(max_size=100))
def test_crc32c_agrees_with_its_definition(data: bytes) -> None:
    """The checksum by tables is the one by the bits of the polynomial."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    assert crc32c(data) == crc ^ 0xFFFFFFFF


def test_crc32c_known_values() -> None:
    """The checksum has the values that RFC 3720 appendix B.4 and the usual check string give."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(b"") == 0


def judge(data: bytes) -> None:
    """Parse every beginning: nothing but ProxyHeaderError, and a verdict that never changes."""
    verdict: object = None
    for end in range(len(data) + 1):
        try:
            found: object = parse(data[:end])
        except ProxyHeaderError:
            found = ProxyHeaderError
        if verdict is not None:
            assert found == verdict, (end, data)
        elif found is not None:
            verdict = found
        if found is not ProxyHeaderError:
            assert could_begin(data[:end])
        elif not could_begin(data[:end]):
            break  # it stays so: no need to look at the rest
    if isinstance(verdict, tuple):
        decode_or_refuse(verdict[0].tlvs)
        assert 0 < verdict[1] <= len(data)


def decode_or_refuse(tlvs: tuple[tuple[int, bytes], ...]) -> None:
    """Decode: nothing but ProxyHeaderError."""
    try:
        decode_tlvs(tlvs)
    except ProxyHeaderError:
        return


@codec_settings
@given(st.binary(max_size=300))
def test_random_bytes(data: bytes) -> None:
    """Random bytes are a header, an error or too few, at every split alike."""
    judge(data)


@codec_settings
@given(st.sampled_from([b"PROXY ", b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN"]), st.data())
def test_random_v1_lines(start: bytes, data: st.DataObject) -> None:
    """Lines made of the right pieces in any order are judged alike at every split."""
    pieces = [
        b" ",
        b"1.2.3.4",
        b"::1",
        b"0",
        b"443",
        b"65536",
        b"\r",
        b"\n",
        b"\r\n",
        b":",
        b".",
        b"f",
    ]
    judge(start + b"".join(data.draw(st.lists(st.sampled_from(pieces), max_size=12))))


@codec_settings
@given(st.sampled_from([0x20, 0x21]), st.integers(0, 0x33), st.binary(max_size=300), st.data())
def test_random_v2_headers(
    version_command: int, family_transport: int, rest: bytes, data: st.DataObject
) -> None:
    """Random blocks behind a right signature are judged alike at every split."""
    length = data.draw(st.sampled_from([len(rest), len(rest) // 2, len(rest) + 1]))
    fixed = bytes((version_command, family_transport)) + length.to_bytes(2, "big")
    judge(b"\r\n\r\n\x00\r\nQUIT\n" + fixed + rest)


@codec_settings
@given(st.lists(st.tuples(st.integers(0, 255) | st.just(0x20), st.binary())))
def test_random_tlvs_decode(tlvs: list[tuple[int, bytes]]) -> None:
    """Decoding random TLVs raises ProxyHeaderError or nothing."""
    decode_or_refuse(tuple(tlvs))


def test_mutated_headers() -> None:
    """The corpus with bytes changed, cut out and doubled is judged alike at every split."""
    chance = random.Random(20260427)
    originals = [path.read_bytes()[:400] for path in sorted(CORPUS.glob("*/*.bin"))]
    assert originals
    for _ in range(3000):
        data = bytearray(chance.choice(originals))
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(data) + 1)
            match chance.randrange(4):
                case 0 if at < len(data):
                    data[at] = chance.choice((chance.randrange(256), data[at] ^ 1, 0, 255))
                case 1:
                    del data[at : at + chance.randint(1, 4)]
                case 2:
                    data[at:at] = data[at : at + chance.randint(1, 8)]
                case _:
                    data[at:] = chance.choice(originals)[at:]
        judge(bytes(data))
