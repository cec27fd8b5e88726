"""One test for each MUST and MUST NOT of the specification that a codec can keep or break.

What concerns sockets and trust (timeouts, access filters, closing, one client per connection) is
tested where connections are handled. The TLVs have a file of their own.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

import pytest

from shared.errors import ProxyHeaderError
from shared.proxy_protocol import (
    V2_SIGNATURE,
    Family,
    Transport,
    encode_v1,
    encode_v2,
    ipv4_packed,
    ipv6_packed,
    parse,
    tlv,
)

CLIENT, SERVER = ipv4_packed(b"203.0.113.7"), ipv4_packed(b"192.0.2.10")
CLIENT6, SERVER6 = ipv6_packed(b"2001:db8::17:2"), ipv6_packed(b"2001:db8::1")
V1 = b"PROXY TCP4 203.0.113.7 192.0.2.10 5555 443\r\n"
BLOCK = CLIENT + SERVER + struct.pack("!HH", 5555, 443)
# Version 1 as sections 2.1 writes it down, kept apart from the parser.
V1_LINE = re.compile(
    rb"PROXY (UNKNOWN|TCP4( (0|[1-9]\d{0,2})(\.(0|[1-9]\d{0,2})){3}){2}( (0|[1-9]\d{0,4})){2}"
    rb"|TCP6( [0-9a-fA-F:]{2,39}){2}( (0|[1-9]\d{0,4})){2})\r\n"
)


def binary(version_command: int, family_transport: int, rest: bytes) -> bytes:
    """A v2 header put together by hand."""
    fixed = struct.pack("!BBH", version_command, family_transport, len(rest))
    return V2_SIGNATURE + fixed + rest


def sent() -> Iterator[bytes]:
    """Headers of every kind that the encoders make."""
    pairs = ((CLIENT, SERVER), (CLIENT6, SERVER6), (CLIENT, SERVER6), (None, None), (CLIENT, b""))
    for source, destination in pairs:
        for port in (0, 1, 65535):
            yield encode_v1(source, port, destination, 443)
            for local in (False, True):
                yield encode_v2(source, port, destination, 443, local=local)
                yield encode_v2(source, port, destination, 443, [tlv(1, b"h2")], True, local)


def refused(data: bytes) -> bool:
    """Whether ``data`` is refused, with anything behind it as well."""
    for payload in (b"", b"GET / HTTP/1.1\r\n\r\n"):
        with pytest.raises(ProxyHeaderError):
            parse(data + payload)
    return True


def test_both_formats_are_received() -> None:
    """Section 2: receivers MUST implement the format of their version; both are here."""
    for data in (V1, binary(0x21, 0x11, BLOCK)):
        answer = parse(data)
        assert answer is not None
        assert (answer[0].source, answer[0].destination_port) == (CLIENT, 443)


def test_nothing_before_the_header_is_complete() -> None:
    """Section 2: nothing MUST be processed before the header is complete and valid."""
    for data in sent():
        assert [parse(data[:end]) for end in range(len(data))] == [None] * len(data)
        assert parse(data) is not None


def test_header_is_one_piece() -> None:
    """Sections 2 and 2.2: the header must be sent at once, so it is one value that parses."""
    for data in sent():
        assert isinstance(data, bytes)
        answer = parse(data)
        assert answer is not None
        assert answer[1] == len(data)


def test_each_datagram_is_parsed_on_its_own() -> None:
    """Section 2: the header MUST be parsed independently per datagram, so nothing is remembered."""
    first, second = binary(0x21, 0x12, BLOCK), binary(0x21, 0x12, BLOCK[::-1])
    assert parse(first[:20]) is None
    assert parse(second) != parse(first)
    assert parse(first + b"payload") == parse(first)
    assert parse(first) == parse(bytes(first))


def test_presence_is_not_guessed() -> None:
    """Section 2: the receiver MUST not guess; what is no header is an error, never payload."""
    for data in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"SSH-2.0-x\r\n", b"\0", b" PROXY "):
        assert refused(data)


def test_v1_protocols() -> None:
    """Section 2.1: only TCP4, TCP6 and UNKNOWN are allowed, written exactly so."""
    for word in (b"TCP", b"TCP5", b"UDP4", b"UDP6", b"UNIX", b"tcp4", b"Unknown", b""):
        assert refused(V1.replace(b"TCP4", word))


def test_v1_unsupported_is_unknown() -> None:
    """Section 2.1: protocols that v1 has no name for must be sent as UNKNOWN."""
    assert encode_v1(None, 0, None, 0) == b"PROXY UNKNOWN\r\n"
    assert encode_v1(b"", 5555, SERVER, 443) == b"PROXY UNKNOWN\r\n"


def test_v1_unknown_ignores_the_rest() -> None:
    """Section 2.1: after UNKNOWN anything before the CRLF must be ignored, the socket's used."""
    for rest in (b"", b" ", b" ffff::1 x 99999 -1", b" \xff\x00", b" 203.0.113.7 192.0.2.10 1 2"):
        answer = parse(b"PROXY UNKNOWN" + rest + b"\r\npayload")
        assert answer is not None
        assert (answer[0].has_addresses, answer[1]) == (False, 15 + len(rest))
        assert (answer[0].source, answer[0].source_port) == (b"", 0)


def test_v1_exactly_one_space() -> None:
    """Section 2.1: exactly one space between words, and none elsewhere."""
    spaces = [match.start() for match in re.finditer(b" ", V1)]
    assert len(spaces) == 5
    for at in spaces:
        assert refused(V1[:at] + b" " + V1[at:])
        assert refused(V1[:at] + b"\t" + V1[at + 1 :])
    assert refused(V1[:-2] + b" \r\n")
    assert refused(b" " + V1)


def test_v1_ipv4_form() -> None:
    """Section 2.1: IPv4 must be 4 integers 0..255, single dots, no heading zeros."""
    bad = (b"1.2.3", b"1.2.3.4.5", b"1..2.3", b"1.2.3.256", b"01.2.3.4", b"1.2.3.00", b"1.2.3.4.")
    for address in (*bad, b"0x1.2.3.4", b"+1.2.3.4", b"1.2.3.-4", b"16909060", b""):
        assert refused(V1.replace(b"203.0.113.7", address))
        assert refused(V1.replace(b"192.0.2.10", address))


def test_v1_ipv6_form() -> None:
    """Section 2.1: IPv6 is hexadecimal sets with one double colon, exactly 128 bits in all."""
    line = b"PROXY TCP6 %b 2001:db8::1 5555 443\r\n"
    bad = (b"1:2:3:4:5:6:7", b"1:2:3:4:5:6:7:8:9", b"1::2::3", b":::", b":1", b"1:", b"::12345")
    for address in (*bad, b"::g", b"[::1]", b"::1%1", b"::0x1", b"::+1", b"1:2:3:4:5:6:7::8", b""):
        assert refused(line % address)
    for address in (b"::", b"::1", b"1::", b"1:2:3:4:5:6:7:8", b"ABCD::abcd", b"1:2:3:4:5:6:7::"):
        answer = parse(line % address)
        assert answer is not None
        assert (answer[0].family, len(answer[0].source)) == (Family.INET6, 16)


def test_v1_family_dictates_the_address() -> None:
    """Section 2.1: the advertised family dictates which format both addresses have."""
    assert refused(V1.replace(b"TCP4", b"TCP6"))
    assert refused(V1.replace(b"203.0.113.7", b"::ffff:203.0.113.7"))
    assert refused(b"PROXY TCP6 2001:db8::1 192.0.2.10 5555 443\r\n")


def test_v1_ports() -> None:
    """Section 2.1: ports are decimal, 0..65535, without heading zeros."""
    for port in (
        b"65536",
        b"99999",
        b"100000",
        b"00",
        b"0443",
        b"+1",
        b"-1",
        b"1.0",
        b"0x1",
        b"1e3",
    ):
        assert refused(V1.replace(b"5555", port))
        assert refused(V1.replace(b"443\r", port + b"\r"))
    for number in (0, 1, 9, 65535):
        answer = parse(V1.replace(b"5555", b"%d" % number))
        assert answer is not None
        assert answer[0].source_port == number


def test_v1_longest_lines() -> None:
    """Section 2.1: lines of 56, 104, 15 and 107 bytes must be supported."""
    v6 = b":".join([b"ffff"] * 8)
    lines = {
        56: b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
        104: b"PROXY TCP6 %b %b 65535 65535\r\n" % (v6, v6),
        15: b"PROXY UNKNOWN\r\n",
        107: b"PROXY UNKNOWN %b %b 65535 65535\r\n" % (v6, v6),
    }
    for size, line in lines.items():
        assert len(line) == size
        answer = parse(line)
        assert answer is not None
        assert answer[1] == size
    assert refused(lines[107].replace(b" 65535 ", b" 655355 "))


def test_v1_waits_for_crlf() -> None:
    """Section 2.1: addresses must not be decoded before the CRLF: the last port may go on."""
    assert parse(V1[:-2]) is None
    assert parse(V1[:-1]) is None
    answer = parse(V1[:-2] + b"0\r\n")
    assert answer is not None
    assert answer[0].destination_port == 4430


def test_v1_single_cr_or_lf_ends_nothing() -> None:
    """Section 2.1: a single CR or LF must not be tolerated as the end of the line."""
    for end in (b"\n", b"\r", b"\n\r", b"\r\r\n", b"\n\r\n"):
        with pytest.raises(ProxyHeaderError):
            parse(V1[:-2] + end + b"payload\r\n")
        with pytest.raises(ProxyHeaderError):
            parse(b"PROXY UNKNOWN" + end + b"payload\r\n")


def test_v1_anything_else_is_refused() -> None:
    """Section 2.1: what does not exactly match must be discarded: any one byte that is changed."""
    for at in range(len(V1)):
        for byte in b"\x00\x0a\x0d\x20/:_Z\x80\xff":
            changed = V1[:at] + bytes((byte,)) + V1[at + 1 :]
            if changed != V1:
                assert refused(changed)


def test_v1_sent_line_is_exact() -> None:
    """Section 2.1: a sent line must match the block of the specification exactly."""
    lines = [data for data in sent() if data.startswith(b"PROXY")]
    assert len(lines) == 15
    for line in lines:
        assert V1_LINE.fullmatch(line)
        assert len(line) <= 107


def test_v2_signature_has_a_nul() -> None:
    """Section 2.2: the signature must not be handled as NUL-terminated: all 12 bytes count."""
    data = binary(0x21, 0x11, BLOCK)
    assert data[:12] == bytes.fromhex("0d0a0d0a000d0a515549540a")
    for at in range(12):
        assert refused(data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :])


def test_v2_version() -> None:
    """Section 2.2: the version must always be sent as 2, and only 2 is accepted."""
    for version in set(range(16)) - {2}:
        assert refused(binary(version << 4 | 1, 0x11, BLOCK))
        assert refused(binary(version << 4, 0x00, b""))
    for data in sent():
        assert data.startswith(b"PROXY") or data[12] >> 4 == 2


def test_v2_local_is_accepted() -> None:
    """Section 2.2: LOCAL must be accepted, its block and family discarded, whatever they are."""
    for family_transport in range(256):
        answer = parse(binary(0x20, family_transport, BLOCK + b"\xff"))
        assert answer is not None
        header, size = answer
        assert (header.command, header.has_addresses, size) == ("LOCAL", False, 29)
        assert (header.family, header.source, header.tlvs) == (Family.UNSPEC, b"", ())


def test_v2_proxy_is_used() -> None:
    """Section 2.2: with PROXY the addresses of the block must be used, source first."""
    answer = parse(binary(0x21, 0x11, BLOCK))
    assert answer is not None
    header = answer[0]
    assert header.has_addresses
    assert (header.source, header.source_port) == (CLIENT, 5555)
    assert (header.destination, header.destination_port) == (SERVER, 443)


def test_v2_unassigned_commands() -> None:
    """Section 2.2: unassigned commands must be dropped by receivers and not sent."""
    for command in range(2, 16):
        assert refused(binary(0x20 | command, 0x11, BLOCK))
        assert refused(binary(0x20 | command, 0x00, b""))
    assert {data[12] & 0x0F for data in sent() if data[0] == 0x0D} == {0, 1}


def test_v2_unassigned_families() -> None:
    """Section 2.2: unspecified families must be rejected by receivers and not sent."""
    for family in range(4, 16):
        for transport in range(3):
            assert refused(binary(0x21, family << 4 | transport, bytes(216)))
    assert {data[13] for data in sent() if data[0] == 0x0D} == {0x00, 0x11, 0x21}


def test_v2_unassigned_transports() -> None:
    """Section 2.2: unspecified transports must be rejected by receivers."""
    for transport in range(3, 16):
        for family in range(4):
            assert refused(binary(0x21, family << 4 | transport, bytes(216)))


def test_v2_valid_combinations() -> None:
    """Section 2.2: UNSPEC is mandatory; every valid combination is read or falls back to it."""
    sizes = {Family.UNSPEC: 0, Family.INET: 12, Family.INET6: 36, Family.UNIX: 216}
    for family, size in sizes.items():
        for transport in Transport:
            answer = parse(binary(0x21, family << 4 | transport, bytes(size)))
            assert answer is not None
            header = answer[0]
            assert (header.family, header.transport, answer[1]) == (family, transport, 16 + size)
            names_client = family in (Family.INET, Family.INET6) and transport != Transport.UNSPEC
            assert header.has_addresses == names_client


def test_v2_address_sizes() -> None:
    """Section 2.2: 4, 16 and 108 bytes for each address, exactly; less is no address block."""
    for family_transport, size in ((0x11, 12), (0x12, 12), (0x21, 36), (0x22, 36), (0x31, 216)):
        assert parse(binary(0x21, family_transport, bytes(size))) is not None
        assert refused(binary(0x21, family_transport, bytes(size - 1)))


def test_v2_length_is_always_considered() -> None:
    """Section 2.2: the header is always 16 + length bytes; zero must not be assumed for LOCAL."""
    for version_command, family_transport in ((0x20, 0x00), (0x20, 0x11), (0x21, 0x00)):
        for length in (0, 1, 12, 36, 216, 4096):
            data = binary(version_command, family_transport, b"\xff" * length)
            answer = parse(data + b"payload")
            assert answer is not None
            assert answer[1] == 16 + length


def test_v2_waits_for_the_whole_block() -> None:
    """Section 2.2: no address must be parsed before the whole block, TLVs too, is received."""
    data = binary(0x21, 0x11, BLOCK + b"\x04\x00\x05abcde")
    assert [parse(data[:end]) for end in range(len(data))] == [None] * len(data)
    assert parse(data) is not None


def test_v2_other_bytes_are_dropped() -> None:
    """Section 2.2: what is neither version must be dropped: any other first byte."""
    for byte in set(range(256)) - {0x0D, 0x50}:
        assert refused(bytes((byte,)) + V1[1:])
        assert refused(bytes((byte,)) + binary(0x21, 0x11, BLOCK)[1:])
