"""Ranges of addresses, and sets of them, against the standard library."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    collapse_addresses,
    ip_address,
    ip_network,
    summarize_address_range,
)
from itertools import pairwise

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.address_set import (
    Addresses,
    Range,
    build,
    everyone_of,
    pack_ip,
    parse_range,
    ranges_of,
    union,
)
from shared.plan import AddressSet

# Numbers that lie close together, so that ranges touch and overlap, and those at the ends.
V4_LAST = 0xFFFF_FFFF
V6_LAST = (1 << 128) - 1
NUMBERS = st.one_of(st.integers(0, 40), st.integers(V4_LAST - 40, V4_LAST), st.integers(0, V4_LAST))


@st.composite
def some_ranges(draw: st.DrawFn) -> list[Range]:
    """Ranges of both families in any order."""
    found = []
    for version in draw(st.lists(st.sampled_from([4, 6]), max_size=12)):
        first, last = sorted((draw(NUMBERS), draw(NUMBERS)))
        if version == 6 and draw(st.booleans()):
            first, last = first + (0x20010DB8 << 96), last + (0x20010DB8 << 96)
        if version == 6 and draw(st.booleans()):
            first, last = V6_LAST - last, V6_LAST - first
        found.append(Range(version, first, last))
    return found


def text(version: int, number: int) -> str:
    """An address as the standard library prints it."""
    return str(IPv4Address(number) if version == 4 else IPv6Address(number))


def is_mapped(version: int, number: int) -> bool:
    """Whether these are IPv4 addresses in an IPv6 one, which no IPv6 range holds."""
    return version == 6 and IPv6Address(number).ipv4_mapped is not None


@pytest.mark.parametrize(
    ("entry", "first", "last", "shown"),
    [
        ("10.1.2.3", "10.1.2.3", "10.1.2.3", "10.1.2.3"),
        ("10.1.2.3/32", "10.1.2.3", "10.1.2.3", "10.1.2.3"),
        ("10.1.2.3/8", "10.0.0.0", "10.255.255.255", "10.0.0.0/8"),
        ("10.0.0.0/255.0.0.0", "10.0.0.0", "10.255.255.255", "10.0.0.0/8"),
        ("0.0.0.0/0", "0.0.0.0", "255.255.255.255", "0.0.0.0/0"),
        ("10.0.0.1-10.0.0.9", "10.0.0.1", "10.0.0.9", "10.0.0.1-10.0.0.9"),
        ("10.0.0.1 - 10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.0.1"),
        ("10.0.0.0-10.0.0.255", "10.0.0.0", "10.0.0.255", "10.0.0.0/24"),
        ("10.0.0.1-10.0.1.0", "10.0.0.1", "10.0.1.0", "10.0.0.1-10.0.1.0"),
        ("192.168.1.*", "192.168.1.0", "192.168.1.255", "192.168.1.0/24"),
        ("10.*", "10.0.0.0", "10.255.255.255", "10.0.0.0/8"),
        ("10.1.*.*", "10.1.0.0", "10.1.255.255", "10.1.0.0/16"),
        ("10.*.*.*", "10.0.0.0", "10.255.255.255", "10.0.0.0/8"),
        ("::1", "::1", "::1", "::1"),
        ("2001:DB8::/32", "2001:db8::", "2001:db8:" + ":".join(["ffff"] * 6), "2001:db8::/32"),
        ("2001:db8::1-2001:db8::9", "2001:db8::1", "2001:db8::9", "2001:db8::1-2001:db8::9"),
        ("::/0", "::", ":".join(["ffff"] * 8), "::/0"),
        ("::ffff:10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.0/104", "10.0.0.0", "10.255.255.255", "10.0.0.0/8"),
        ("::ffff:10.0.0.1-10.0.0.9", "10.0.0.1", "10.0.0.9", "10.0.0.1-10.0.0.9"),
        ("::ffff:0:0/96", "0.0.0.0", "255.255.255.255", "0.0.0.0/0"),
        ("::10.0.0.1", "::a00:1", "::a00:1", "::10.0.0.1"),
    ],
)
def test_notations(entry: str, first: str, last: str, shown: str) -> None:
    """Each notation gives both ends, and is shown in the shortest form."""
    found = parse_range(entry)
    one, other = ip_address(first), ip_address(last)
    assert found == Range(one.version, int(one), int(other))
    assert str(found) == shown
    assert parse_range(shown) == found


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("", "is no IP address, CIDR"),
        ("app2", "is no IP address, CIDR"),
        ("10.0.0", "is no IP address, CIDR"),
        ("10.0.0.256", "is no IP address, CIDR"),
        ("10.0.0.01", "is no IP address, CIDR"),
        ("10.0.0.1\0", "is no IP address, CIDR"),
        ("10.0.0.0/33", "is no IP address, CIDR"),
        ("10.0.0.0/-1", "is no IP address, CIDR"),
        ("10.0.0.0/", "is no IP address, CIDR"),
        ("10.0.0.0/8/8", "is no IP address, CIDR"),
        ("10.0.0.0/٣", "is no IP address, CIDR"),
        ("::1/129", "is no IP address, CIDR"),
        ("[::1]", "is no IP address, CIDR"),
        ("10.0.0.1:80", "is no IP address, CIDR"),
        ("-", "is no IP address, CIDR"),
        ("10.0.0.1-", "is no IP address, CIDR"),
        ("10.0.0.1-9", "is no IP address, CIDR"),
        ("10.0.0.0/24-10.0.1.0/24", "is no IP address, CIDR"),
        ("a-b.example", "is no IP address, CIDR"),
        ("10.0.0.9-10.0.0.1", "ends before it begins"),
        ("::9-::1", "ends before it begins"),
        ("10.0.0.1-::1", "begins in one address family, ends in another"),
        ("::-::ffff:10.0.0.1", "begins in one address family, ends in another"),
        ("fe80::1%eth0", "an entry has no zone"),
        ("fe80::1%eth0-fe80::9%eth0", "an entry has no zone"),
        ("*", "for everyone write 0.0.0.0/0 and ::/0"),
        ("*.*.*.*", "for everyone write 0.0.0.0/0 and ::/0"),
        ("10.*.1", "whole numbers at the end"),
        ("10.*.1.1", "whole numbers at the end"),
        ("10.1*", "whole numbers at the end"),
        ("10.0.0.1.*", "whole numbers at the end"),
        ("10.0.*.*.*", "whole numbers at the end"),
        ("10.0.0.*/24", "whole numbers at the end"),
        ("10.0.0.*-10.0.1.*", "whole numbers at the end"),
        ("2001:db8:*", "for IPv6 write a CIDR"),
        ("300.*", "is no IP address, CIDR"),
        ("010.*", "is no IP address, CIDR"),
    ],
)
def test_what_is_no_entry(entry: str, why: str) -> None:
    """Anything else is a ValueError that says what could be written."""
    with pytest.raises(ValueError, match=re.escape(why)) as caught:
        parse_range(entry)
    assert len(str(caught.value)) < 200


@given(st.text(alphabet="0123456789abcdef.:/*-% \0é", max_size=24))
def test_any_text(entry: str) -> None:
    """Whatever stands in a list is a range that can be shown, or a ValueError."""
    why = ""
    try:
        found = parse_range(entry)
    except ValueError as error:
        why = str(error)
        found = None
    assert why.isprintable()
    if found is not None:
        assert 0 <= found.first <= found.last <= (V4_LAST if found.version == 4 else V6_LAST)
        assert parse_range(str(found)) == found


@given(st.ip_addresses(), st.integers(0, 128))
@example(IPv6Address("::"), 80)
@example(IPv6Address("::ffff:0:0"), 95)
def test_networks_agree_with_ipaddress(address: IPv4Address | IPv6Address, prefix: int) -> None:
    """A CIDR holds what the standard library says it holds."""
    network = ip_network(f"{address}/{min(prefix, address.max_prefixlen)}", strict=False)
    if network.version == 6 and is_mapped(6, int(network[0])) and network.prefixlen >= 96:
        return  # unfolded, see test_notations
    expected = Range(network.version, int(network[0]), int(network[-1]))
    assert parse_range(str(network)) == expected
    if not is_mapped(6, int(network[-1])):  # one that ends there, as ::/80 does, is refused
        assert parse_range(f"{network[0]}-{network[-1]}") == expected


@given(some_ranges(), st.lists(NUMBERS, max_size=12))
def test_sets_hold_what_was_put_in(ranges: list[Range], probes: list[int]) -> None:
    """Membership of the ends, their neighbours and any others is that of the single ranges."""
    addresses = Addresses(build(ranges))
    places = {(version, number) for version in (4, 6) for number in probes}
    for version, first, last in ranges:
        most = V4_LAST if version == 4 else V6_LAST
        near = {first - 1, first, first + 1, last - 1, last, last + 1}
        places |= {(version, number) for number in near if 0 <= number <= most}
    for version, number in places:
        if is_mapped(version, number):
            continue
        holder = [item for item in ranges if item[0] == version and item[1] <= number <= item[2]]
        ip = text(version, number)
        assert addresses.contains(ip) == bool(holder)
        if version == 4:
            assert addresses.contains(f"::ffff:{ip}") == bool(holder)
        shown = addresses.range_of(ip)
        assert bool(shown) == bool(holder)
        if shown:
            merged = parse_range(shown)
            assert merged.first <= min(item.first for item in holder)
            assert merged.last >= max(item.last for item in holder)


@given(some_ranges())
def test_building_is_canonical(ranges: list[Range]) -> None:
    """Ranges come out sorted and apart, and the set is the same in whatever order they came."""
    packed = build(ranges)
    merged = ranges_of(packed)
    assert merged == sorted(merged)
    for one, other in pairwise(merged):
        assert one.version != other.version or one.last + 1 < other.first
    assert build(merged) == packed == build(reversed(ranges))
    assert len(Addresses(packed)) == len(merged)
    given_networks = [block for item in ranges if item.version == 4 for block in networks(item)]
    built_networks = [block for item in merged if item.version == 4 for block in networks(item)]
    assert list(collapse_addresses(built_networks)) == list(collapse_addresses(given_networks))


def networks(item: Range) -> Iterator[IPv4Network]:
    """The networks that make up a range of IPv4."""
    return summarize_address_range(IPv4Address(item.first), IPv4Address(item.last))


@given(some_ranges(), some_ranges())
def test_union(one: list[Range], other: list[Range]) -> None:
    """A union is the set of all ranges; of one set it is that set."""
    assert union([build(one), build(other)]) == build(one + other)
    assert union([build(one)]) == build(one)
    assert union([]) == AddressSet()


def test_many_entries() -> None:
    """A hundred thousand entries of both families: each is found, and its neighbours are not."""
    dice = random.Random(7)
    v4 = dice.sample(range(0, V4_LAST, 4), 50_000)
    v6 = [dice.getrandbits(128) & ~7 for _ in range(50_000)]
    packed = build([*(Range(4, each, each) for each in v4), *(Range(6, each, each) for each in v6)])
    addresses = Addresses(msgspec.msgpack.decode(msgspec.msgpack.encode(packed), type=AddressSet))
    assert len(addresses) == 50_000 + len(set(v6))
    for version, numbers in ((4, v4), (6, v6)):
        for number in dice.sample(numbers, 2000):
            assert addresses.contains(text(version, number))
            assert addresses.range_of(text(version, number)) == text(version, number)
            assert not addresses.contains(text(version, number + 1))
            assert addresses.range_of(text(version, number + 1)) == ""


def test_one_packed_block_and_its_neighbours() -> None:
    """IPv6 sets of about the size in which packed addresses are cut keep every entry."""
    for count in (1, 1023, 1024, 1025, 2048):
        packed = build(Range(6, 2 * each, 2 * each) for each in range(count))
        assert len(Addresses(packed)) == count
        assert Addresses(packed).contains(text(6, 2 * count - 2))
        assert not Addresses(packed).contains(text(6, 2 * count))


def test_unix_peers_zones_and_nonsense() -> None:
    """A client without an address is in no set, a zone does not count, a name is an error."""
    everyone = Addresses(build([Range(4, 0, V4_LAST), Range(6, 0, V6_LAST)]))
    assert not everyone.contains("")
    assert everyone.range_of("") == ""
    assert Addresses(build([parse_range("fe80::1")])).contains("fe80::1%eth0")
    assert pack_ip("::ffff:10.0.0.1%1") == b"\n\x00\x00\x01"
    for nonsense in ("app2", "10.0.0", "::x", "1\0", "10.0.0.1%eth0"):
        with pytest.raises(ValueError, match="is no IP address"):
            everyone.contains(nonsense)


def test_empty_sets() -> None:
    """An empty set holds nobody, which differs from having no list at all."""
    nobody = Addresses(AddressSet())
    assert len(nobody) == 0
    assert not nobody.contains("10.0.0.1")
    assert not nobody.contains("::1")
    assert nobody.range_of("::1") == ""
    assert everyone_of(AddressSet()) == []


def test_everyone() -> None:
    """Whole families are told, also where several entries make them up."""
    assert everyone_of(build([parse_range("0.0.0.0/1"), parse_range("128.0.0.0/1")])) == [4]
    assert everyone_of(build([parse_range("::/0"), parse_range("::ffff:0:0/96")])) == [4, 6]
    assert everyone_of(build([parse_range("::1-" + ":".join(["ffff"] * 8))])) == []
