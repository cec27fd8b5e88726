"""IP addresses between text and packed bytes, without `ipaddress` objects or sockets.

Text is bytes on the way in, as it stands on the wire, and str on the way out. The parsers raise
ValueError and accept what inet_pton(3) accepts.
"""

from __future__ import annotations

from binascii import unhexlify
from struct import Struct
from typing import Final

# One dict lookup per octet refuses signs, spaces, leading zeros and what is over 255.
_OCTETS: Final = {b"%d" % number: number for number in range(256)}
_GROUPS: Final = Struct("!8H")
_MAPPED: Final = bytes(10) + b"\xff\xff"  # ::ffff:0:0/96, RFC 4291 section 2.5.5.2
# Longest first; a single zero group is not shortened (RFC 5952 section 4.2.2).
_ZERO_RUNS: Final = tuple(":" + "0:" * count for count in range(8, 1, -1))


def ipv4_packed(text: bytes) -> bytes:
    """``b"192.0.2.1"`` to 4 bytes. ValueError unless it is a dotted quad without leading zeros."""
    try:
        first, second, third, fourth = text.split(b".")
        return bytes((_OCTETS[first], _OCTETS[second], _OCTETS[third], _OCTETS[fourth]))
    except (KeyError, ValueError):
        raise ValueError(f"{text!r} is not an IPv4 address") from None


def ipv6_packed(text: bytes) -> bytes:
    """``b"2001:db8::1"`` to 16 bytes: any form of RFC 4291 section 2.2, no zone, no brackets."""
    groups_text = text
    if b"." in text:  # RFC 4291 section 2.2, form 3: the last 32 bits as a dotted quad
        colon = text.rfind(b":") + 1
        try:
            quad = ipv4_packed(text[colon:])
        except ValueError:
            raise ValueError(f"{text!r} is not an IPv6 address") from None
        groups_text = text[:colon] + b"%x:%x" % (
            quad[0] << 8 | quad[1],
            quad[2] << 8 | quad[3],
        )
    head, gap, tail = groups_text.partition(b"::")
    groups = head.split(b":") if head else []
    if gap:
        rest = tail.split(b":") if tail else []
        missing = 8 - len(groups) - len(rest)
        if missing < 1:  # "::" stands for one group at least
            raise ValueError(f"{text!r} is not an IPv6 address")
        groups += [b"0"] * missing + rest
    digits = b"".join([group.rjust(4, b"0") for group in groups])
    if len(groups) != 8 or len(digits) != 32 or b"" in groups:
        raise ValueError(f"{text!r} is not an IPv6 address")
    try:
        return unhexlify(digits)  # takes hexadecimal digits only, no signs, spaces, underscores
    except ValueError:
        raise ValueError(f"{text!r} is not an IPv6 address") from None


def ipv4_text(packed: bytes) -> str:
    """4 bytes to ``"192.0.2.1"``."""
    first, second, third, fourth = packed
    return f"{first}.{second}.{third}.{fourth}"


def ipv6_hex_text(packed: bytes) -> str:
    """16 bytes to hexadecimal groups only, shortened as RFC 5952 section 4 says."""
    text = ":{:x}:{:x}:{:x}:{:x}:{:x}:{:x}:{:x}:{:x}:".format(*_GROUPS.unpack(packed))
    if ":0:0:" in text:
        for run in _ZERO_RUNS:
            if run in text:
                text = text.replace(run, "::", 1)
                break
    # The outer colons were there to find whole groups; one that belongs to a "::" stays.
    return text[not text.startswith("::") : len(text) - (not text.endswith("::"))]


def ipv6_text(packed: bytes) -> str:
    """16 bytes to canonical text: RFC 5952, IPv4-mapped addresses as ``::ffff:192.0.2.1``."""
    if packed.startswith(_MAPPED):  # RFC 5952 section 5
        return "::ffff:" + ipv4_text(packed[12:])
    return ipv6_hex_text(packed)


def mapped(packed: bytes) -> bytes:
    """Either kind of address as IPv6: 16 bytes; 4 bytes become IPv4-mapped."""
    return _MAPPED + packed if len(packed) == 4 else packed
