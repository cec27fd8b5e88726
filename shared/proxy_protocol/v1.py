"""Version 1, the line of text (section 2.1)."""

from __future__ import annotations

from typing import Final

from shared.errors import ProxyHeaderError
from shared.proxy_protocol.address import (
    ipv4_packed,
    ipv6_hex_text,
    ipv6_packed,
    mapped,
)
from shared.proxy_protocol.header import Buffer, Family, ProxyHeader, Transport

V1_MAX_BYTES: Final = 107  # section 2.1: the longest line, UNKNOWN with two long addresses
V1_TCP4_MAX_BYTES: Final = 56  # section 2.1: no TCP4 line is longer
IPV6_MAX_CHARS: Final = 45  # ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255
PORT_MAX: Final = 65535

_UNKNOWN_LINE: Final = b"PROXY UNKNOWN\r\n"
_UNKNOWN: Final = ProxyHeader(1)
# What a line may begin with; the part after the second space is judged on its own.
_KEYWORDS: Final = (b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN ", b"PROXY UNKNOWN\r\n")
_IPV6_CHARS: Final = b"0123456789abcdefABCDEF:."

_STREAM: Final = Transport.STREAM
# family, parser of an address; by the third word of the line
_PROTOCOLS: Final = {
    b"TCP4": (Family.INET, ipv4_packed),
    b"TCP6": (Family.INET6, ipv6_packed),
}


def parse_v1(data: Buffer) -> tuple[ProxyHeader, int] | None:
    """The header and its size, CRLF included; None for "more bytes needed" (section 2.1).

    Raises ProxyHeaderError, also for a line whose first bytes already rule out a valid one.
    """
    start = bytes(data[:V1_MAX_BYTES])
    end = start.find(b"\r\n")
    if end < 0:
        _check_begun(start)
        return None
    line = start[:end]
    words = line.split(b" ")
    if len(words) == 6 and words[0] == b"PROXY" and words[1] in _PROTOCOLS:
        family, packed = _PROTOCOLS[words[1]]
        try:
            source, destination = packed(words[2]), packed(words[3])
        except ValueError as exc:
            raise ProxyHeaderError(f"PROXY v1: {exc} in {line!r}") from None
        source_port, destination_port = _port(words[4], line), _port(words[5], line)
        return (
            ProxyHeader(
                1, "PROXY", family, _STREAM, source, source_port, destination, destination_port
            ),
            end + 2,
        )
    if len(words) > 1 and words[0] == b"PROXY" and words[1] == b"UNKNOWN":
        # Section 2.1: ignore what stands before the CRLF, but a single CR or LF ends no line.
        _refuse_lone_line_end(line)
        return _UNKNOWN, end + 2
    raise ProxyHeaderError(f"PROXY v1: malformed line {line!r}")


def _port(text: bytes, line: bytes) -> int:
    """Decimal, 0..65535, no sign, no leading zero (section 2.1)."""
    if text.isdigit() and len(text) <= 5 and (text[0] != 0x30 or len(text) == 1):
        port = int(text)
        if port <= PORT_MAX:
            return port
    raise ProxyHeaderError(f"PROXY v1: {text!r} is not a port in {line!r}")


def _refuse_lone_line_end(line: bytes) -> None:
    """``line`` has no CRLF in it; a single CR or LF must not be tolerated (section 2.1)."""
    if b"\n" in line or b"\r" in line:
        raise ProxyHeaderError(f"PROXY v1: single CR or LF in {line!r}")


def _check_begun(start: bytes) -> None:
    """Raise unless some bytes after ``start``, which has no CRLF, make a valid line of it."""
    if len(start) >= V1_MAX_BYTES:
        raise ProxyHeaderError(f"PROXY v1: no CRLF in the first {V1_MAX_BYTES} bytes: {start!r}")
    keyword = next((word for word in _KEYWORDS if start.startswith(word)), b"")
    if not keyword:
        if not any(word.startswith(start) for word in _KEYWORDS):
            raise ProxyHeaderError(f"PROXY v1: malformed line {start!r}")
        return
    # A CR at the very end may still become the CRLF.
    has_cr = start.endswith(b"\r")
    line = start[:-1] if has_cr else start
    _refuse_lone_line_end(line)
    family, _ = _PROTOCOLS.get(keyword[6:-1], (Family.UNSPEC, None))
    if family is Family.UNSPEC:
        return
    if family is Family.INET and len(start) >= V1_TCP4_MAX_BYTES:
        raise ProxyHeaderError(f"PROXY v1: TCP4 line over {V1_TCP4_MAX_BYTES} bytes: {start!r}")
    words = line.split(b" ")[2:]
    if len(words) > 4 or (has_cr and len(words) < 4):
        raise ProxyHeaderError(f"PROXY v1: malformed line {start!r}")
    _check_words(family, words, line, is_complete=has_cr)


def _check_words(family: Family, words: list[bytes], line: bytes, *, is_complete: bool) -> None:
    """Judge the words so far, two addresses and two ports; only the last may be unfinished."""
    last = len(words) - 1
    for index, word in enumerate(words):
        is_begun = index == last and not is_complete
        if index >= 2:
            if word or not is_begun:
                _port(word, line)  # every beginning of a port is a port
        elif is_begun:
            if not _could_be_address(family, word):
                raise ProxyHeaderError(f"PROXY v1: {word!r} is no address in {line!r}")
        else:
            packed = ipv4_packed if family is Family.INET else ipv6_packed
            try:
                packed(word)
            except ValueError as exc:
                raise ProxyHeaderError(f"PROXY v1: {exc} in {line!r}") from None


def _could_be_address(family: Family, word: bytes) -> bool:
    """Whether more bytes may make an address of ``word``; a wrong True is found later."""
    if family is Family.INET6:
        return not word.translate(None, _IPV6_CHARS) and len(word) <= IPV6_MAX_CHARS
    octets = word.split(b".")
    if octets[-1] == b"":
        octets[-1] = b"0"  # the next octet has not begun
    octets += [b"0"] * (4 - len(octets))
    try:
        ipv4_packed(b".".join(octets))
    except ValueError:
        return False
    return True


def encode_v1(
    source: bytes | None,
    source_port: int,
    destination: bytes | None,
    destination_port: int,
) -> bytes:
    """The line for one connection (section 2.1): addresses packed, 4 or 16 bytes, ports 0..65535.

    Without one of the addresses (None or b"") it is ``PROXY UNKNOWN``. If the families differ,
    the IPv4 address goes out IPv4-mapped in a TCP6 line. Raises ValueError for other lengths
    and ports.
    """
    if not source or not destination:
        return _UNKNOWN_LINE
    if not (0 <= source_port <= PORT_MAX and 0 <= destination_port <= PORT_MAX):
        raise ValueError(f"ports are 0..{PORT_MAX}: {source_port}, {destination_port}")
    lengths = len(source), len(destination)
    if lengths == (4, 4):
        return b"PROXY TCP4 %d.%d.%d.%d %d.%d.%d.%d %d %d\r\n" % (
            *source,
            *destination,
            source_port,
            destination_port,
        )
    if lengths in ((16, 16), (4, 16), (16, 4)):
        # Hexadecimal groups only: the grammar of section 2.1 has no dotted form in TCP6.
        source_text = ipv6_hex_text(mapped(source))
        destination_text = ipv6_hex_text(mapped(destination))
        return (
            f"PROXY TCP6 {source_text} {destination_text} {source_port} {destination_port}\r\n"
        ).encode("ascii")
    raise ValueError(f"addresses are packed, 4 or 16 bytes: got {lengths[0]} and {lengths[1]}")
