"""Sets of IP addresses for access rules: read from text, packed for the wire, asked by workers.

Sorted ranges that neither touch nor overlap, found by bisection. Measured with 100,000 random
entries on CPython 3.11, beside the tries that PyPI has (IPv4, IPv6):

                    look-up, µs     made in a worker, ms    memory, MB
    this            0.8, 1.0        0.1, 2.7                0.8, 7.3
    pytricia 1.3    0.3, 0.4        52, 59                  16, 16
    py-radix 1.1    0.5, 0.5        145, 207                45, 52
    netaddr 1.3     15, 43          744, 1262               40, 26

A trie would save half a microsecond of the 25 that a connection takes, but it holds the loop of
every worker at each reload, and has to cut "a-b" ranges into networks. So: no dependency.

IPv4-mapped IPv6 is unfolded on both sides, as in `shared/networks.py`.
"""

from __future__ import annotations

import re
import struct

# Two C functions that turn text into bytes and back; `socket` itself would bring all the rest.
from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from array import array
from bisect import bisect_right
from collections.abc import Iterable
from typing import Final, NamedTuple

from shared.networks import parse_network
from shared.plan import AddressSet
from shared.units import short

_GLOB: Final = re.compile(r"((?:[0-9]{1,3}\.){1,3})\*(?:\.\*)*", re.ASCII)
_PREFIX: Final = re.compile(r"0|[1-9][0-9]{0,2}", re.ASCII)
_MAPPED: Final = bytes(10) + b"\xff\xff"  # RFC 4291 section 2.5.5.2
_V6_BYTES: Final = 16
_BLOCK: Final = struct.Struct("16s" * 1024)  # cuts packed addresses five times faster than slices
_U32: Final = "I"
_number: Final = int.from_bytes  # of network order, its default since Python 3.11
assert array(_U32).itemsize == 4


class Range(NamedTuple):
    """Addresses ``first``..``last`` of one family, both of them included, as numbers."""

    version: int  # 4 or 6
    first: int
    last: int

    def __str__(self) -> str:
        """``10.1.2.3``, ``10.0.0.0/8`` where it is one network, else ``10.0.0.1-10.0.0.9``."""
        first = _text(self.version, self.first)
        size = self.last - self.first + 1
        if size == 1:
            return first
        if size & (size - 1) == 0 and self.first % size == 0:
            return f"{first}/{(32 if self.version == 4 else 128) - size.bit_length() + 1}"
        return f"{first}-{_text(self.version, self.last)}"


def _text(version: int, number: int) -> str:
    if version == 4:
        return inet_ntop(AF_INET, number.to_bytes(4, "big"))
    return inet_ntop(AF_INET6, number.to_bytes(_V6_BYTES, "big"))


def pack_ip(text: str) -> bytes:
    """4 or 16 bytes of an IP address, network order; mapped unfolded, a zone (``%eth0``) left out.

    ValueError where the text is no IP address.
    """
    try:
        if ":" not in text:
            return inet_pton(AF_INET, text)
        packed = inet_pton(AF_INET6, text.partition("%")[0])
    except (OSError, ValueError):  # ValueError: a NUL in the text
        raise ValueError(f"{short(text)} is no IP address") from None
    return packed[12:] if packed.startswith(_MAPPED) else packed


def parse_range(text: str) -> Range:
    """An address, a CIDR, ``"10.0.0.1-10.0.0.9"`` or a glob such as ``"192.168.1.*"``.

    ValueError with a message fit for the operator.
    """
    if "*" in text:
        return _glob(text)
    first, dash, last = text.partition("-")
    if dash:
        return _between(text, first.strip(), last.strip())
    if "%" in text:
        raise ValueError(f"{short(text)}: an entry has no zone")
    address, slash, prefix = text.partition("/")
    try:
        packed = pack_ip(address)
    except ValueError:
        raise _unknown(text) from None
    number = _number(packed)
    version = 4 if len(packed) == 4 else 6
    if not slash:
        return Range(version, number, number)
    bits = 8 * len(packed)
    if (":" in address and version == 4) or _PREFIX.fullmatch(prefix) is None or int(prefix) > bits:
        return _network(text)
    size = 1 << (bits - int(prefix))
    first_number = number & -size  # bits beyond the prefix are ignored, as in `parse_network`
    return Range(version, first_number, first_number + size - 1)


def _unknown(text: str) -> ValueError:
    return ValueError(
        f"{short(text)} is no IP address, CIDR (10.0.0.0/8), range (10.0.0.1-10.0.0.9) or glob"
        " (192.168.1.*)"
    )


def _network(text: str) -> Range:
    """What is rare: a network of mapped addresses, a netmask in place of the prefix."""
    try:
        network = parse_network(text)
    except ValueError:
        raise _unknown(text) from None
    size = 1 << ((32 if network.version == 4 else 128) - network.prefix)
    first = network.base & -size
    return Range(network.version, first, first + size - 1)


def _between(text: str, first: str, last: str) -> Range:
    ends = []
    for end in (first, last):
        if "%" in end:
            raise ValueError(f"{short(text)}: an entry has no zone")
        try:
            ends.append(pack_ip(end))
        except ValueError:
            raise _unknown(text) from None
    if len(ends[0]) != len(ends[1]):
        raise ValueError(f"the range {short(text)} begins in one address family, ends in another")
    if ends[0] > ends[1]:
        raise ValueError(f"the range {short(text)} ends before it begins")
    version = 4 if len(ends[0]) == 4 else 6
    return Range(version, _number(ends[0]), _number(ends[1]))


def _glob(text: str) -> Range:
    match = _GLOB.fullmatch(text)
    known = match[1].split(".")[:-1] if match else []
    stars = text.count("*")
    if not known or len(known) + stars > 4:
        hint = "for IPv6 write a CIDR" if ":" in text else "for everyone write 0.0.0.0/0 and ::/0"
        raise ValueError(
            f"{short(text)} is no glob: `*` stands for whole numbers at the end of an IPv4 address,"
            f" as in 192.168.1.* or 10.*; {hint}"
        )
    missing = 4 - len(known)
    try:
        packed = inet_pton(AF_INET, ".".join(known + ["0"] * missing))
    except OSError:
        raise _unknown(text) from None
    first = _number(packed)
    return Range(4, first, first + (1 << 8 * missing) - 1)


def build(ranges: Iterable[Range]) -> AddressSet:
    """The set of all addresses of these ranges, which may come in any order and overlap.

    Equal sets of addresses give equal bytes, however they were written.
    """
    v4: list[tuple[int, int]] = []
    v6: list[tuple[int, int]] = []
    for version, first, last in sorted(ranges):
        merged = v4 if version == 4 else v6
        if merged and first <= merged[-1][1] + 1:
            if last > merged[-1][1]:
                merged[-1] = (merged[-1][0], last)
        else:
            merged.append((first, last))
    return AddressSet(
        v4_first=array(_U32, [first for first, _ in v4]).tobytes(),
        v4_last=array(_U32, [last for _, last in v4]).tobytes(),
        v6_first=b"".join([first.to_bytes(_V6_BYTES, "big") for first, _ in v6]),
        v6_last=b"".join([last.to_bytes(_V6_BYTES, "big") for _, last in v6]),
    )


def ranges_of(addresses: AddressSet) -> list[Range]:
    """What `build` was given, sorted and merged."""
    v4 = zip(_numbers(addresses.v4_first), _numbers(addresses.v4_last), strict=True)
    v6 = zip(_cut(addresses.v6_first), _cut(addresses.v6_last), strict=True)
    return [
        *(Range(4, first, last) for first, last in v4),
        *(Range(6, _number(first), _number(last)) for first, last in v6),
    ]


def union(sets: Iterable[AddressSet]) -> AddressSet:
    """Everything that is in any of the sets."""
    several = list(sets)
    if len(several) == 1:
        return several[0]
    return build([item for addresses in several for item in ranges_of(addresses)])


def everyone_of(addresses: AddressSet) -> list[int]:
    """The IP versions of which the set holds every address."""
    whole = {4: (bytes(4), b"\xff" * 4), 6: (bytes(_V6_BYTES), b"\xff" * _V6_BYTES)}
    held = {
        4: (addresses.v4_first, addresses.v4_last),
        6: (addresses.v6_first, addresses.v6_last),
    }
    return [version for version in (4, 6) if held[version] == whole[version]]


def _numbers(packed: bytes) -> array[int]:
    numbers = array(_U32)
    numbers.frombytes(packed)
    return numbers


def _cut(packed: bytes) -> list[bytes]:
    """16 bytes each. A list and no array: comparing bytes is faster than boxing numbers."""
    entries: list[bytes] = []
    whole = len(packed) - len(packed) % _BLOCK.size
    for offset in range(0, whole, _BLOCK.size):
        entries.extend(_BLOCK.unpack_from(packed, offset))
    entries.extend(
        packed[offset : offset + _V6_BYTES] for offset in range(whole, len(packed), _V6_BYTES)
    )
    return entries


class Addresses:
    """A set to be asked about single addresses: once for each connection.

    An empty one holds nobody, and is false; "no list" is None, so test for that by ``is None``.
    """

    __slots__ = ("_v4_first", "_v4_last", "_v6_first", "_v6_last")

    def __init__(self, addresses: AddressSet) -> None:
        """Takes 2 ms for 100,000 ranges of IPv6."""
        self._v4_first: Final = _numbers(addresses.v4_first)
        self._v4_last: Final = _numbers(addresses.v4_last)
        self._v6_first: Final = _cut(addresses.v6_first)
        self._v6_last: Final = addresses.v6_last  # cut at the one place that a look-up needs

    def __len__(self) -> int:
        """How many ranges there are."""
        return len(self._v4_first) + len(self._v6_first)

    def contains(self, ip: str) -> bool:
        """Whether the address is in the set; "" (a client on a Unix socket) is in none.

        ValueError where the text is no IP address.
        """
        if not ip:
            return False
        try:
            packed = inet_pton(AF_INET6 if ":" in ip else AF_INET, ip)
        except (OSError, ValueError):
            packed = pack_ip(ip)  # without its zone, or with an error that says what is wrong
        if len(packed) == _V6_BYTES:
            if not packed.startswith(_MAPPED):
                end = bisect_right(self._v6_first, packed) * _V6_BYTES
                return end > 0 and packed <= self._v6_last[end - _V6_BYTES : end]
            packed = packed[12:]
        number = _number(packed)
        place = bisect_right(self._v4_first, number)
        return place > 0 and number <= self._v4_last[place - 1]

    def range_of(self, ip: str) -> str:
        """The range that holds the address, as `Range` prints it, for messages; "" where none.

        Ranges that touch were merged, so it may be wider than what stands in the config.
        """
        if not self.contains(ip):
            return ""
        packed = pack_ip(ip)
        if len(packed) == 4:
            place = bisect_right(self._v4_first, _number(packed)) - 1
            return str(Range(4, self._v4_first[place], self._v4_last[place]))
        place = bisect_right(self._v6_first, packed) - 1
        last = self._v6_last[place * _V6_BYTES : (place + 1) * _V6_BYTES]
        return str(Range(6, _number(self._v6_first[place]), _number(last)))
