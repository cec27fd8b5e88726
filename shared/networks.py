"""Sets of IP networks: who is trusted, which clients a route is for.

IPv4-mapped IPv6 (``::ffff:10.0.0.1``) is unfolded on both sides, so that one entry stands for a
client whichever family it comes in by (design section 5).
"""

from __future__ import annotations

from _socket import AF_INET, inet_pton  # the converter alone, as `shared/address_set.py`
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from msgspec import Struct

from shared.units import short

_CACHED_ADDRESSES: Final = 4096  # of clients seen lately; 100 bytes each
BITS: Final = {4: 32, 6: 128}
_MAPPED: Final = IPv6Network("::ffff:0:0/96")  # RFC 4291 section 2.5.5.2


class Network(Struct, frozen=True, order=True):
    """One network: IP ``version`` 4 or 6, its first address as a number, ``prefix`` bits."""

    version: int
    base: int
    prefix: int

    def contains(self, version: int, number: int) -> bool:
        """Whether an address, as `split_ip` gives it, lies within."""
        shift = BITS[self.version] - self.prefix
        return version == self.version and number >> shift == self.base >> shift

    def __str__(self) -> str:
        """As ``10.0.0.0/8``."""
        address = (IPv4Address if self.version == 4 else IPv6Address)(self.base)
        return f"{address}/{self.prefix}"


def parse_network(text: str) -> Network:
    """``"10.0.0.0/8"`` or a single address; bits beyond the prefix are ignored, as everywhere.

    ValueError with a message fit for the operator.
    """
    found = _parse_v4(text)
    if found is not None:
        return found
    if "%" in text:
        raise ValueError(f"{short(text)}: a network has no zone")
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{short(text)} is no IP address or network") from None
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        base = int(network.network_address) & 0xFFFFFFFF
        return Network(4, base, network.prefixlen - _MAPPED.prefixlen)
    return Network(network.version, int(network.network_address), network.prefixlen)


def _parse_v4(text: str) -> Network | None:
    """What nearly all are, at a fifth of the cost; None: look more closely."""
    address, slash, prefix = text.partition("/")
    if slash and not (prefix.isascii() and prefix.isdigit() and len(prefix) <= 2):
        return None
    bits = int(prefix) if slash else BITS[4]
    try:
        number = int.from_bytes(inet_pton(AF_INET, address), "big")
    except (OSError, ValueError):  # ValueError: a NUL in the text
        return None
    host_bits = BITS[4] - bits
    return Network(4, number >> host_bits << host_bits, bits) if host_bits >= 0 else None


@lru_cache(maxsize=_CACHED_ADDRESSES)
def split_ip(text: str) -> tuple[int, int]:
    """(IP version, address as a number), IPv4-mapped unfolded, a zone (``%eth0``) left out.

    ValueError where the text is no IP address.
    """
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.version, int(address)


class NetworkSet:
    """Networks by prefix length: a look-up costs one set test per length that occurs."""

    __slots__ = ("_by_shift",)

    def __init__(self, networks: Iterable[str | Network] = ()) -> None:
        """Texts as `parse_network` takes them; ValueError for one that is none."""
        by_shift: dict[tuple[int, int], set[int]] = {}
        for entry in networks:
            network = parse_network(entry) if isinstance(entry, str) else entry
            shift = BITS[network.version] - network.prefix
            by_shift.setdefault((network.version, shift), set()).add(network.base >> shift)
        self._by_shift: Final = [(*key, bases) for key, bases in by_shift.items()]

    def __bool__(self) -> bool:
        """False where the set is empty."""
        return bool(self._by_shift)

    def contains(self, text: str) -> bool:
        """Whether the IP address lies in any of the networks; ValueError where it is none."""
        if not self._by_shift:
            return False
        version, number = split_ip(text)
        return any(
            family == version and number >> shift in bases
            for family, shift, bases in self._by_shift
        )
