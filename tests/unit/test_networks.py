"""Networks, and sets of them."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.networks import Network, NetworkSet, parse_network, split_ip


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.1.2.3", "10.1.2.3/32"),
        ("::1", "::1/128"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("::ffff:10.0.0.1", "10.0.0.1/32"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::/0", "::/0"),
    ],
)
def test_parse_network(text: str, canonical: str) -> None:
    """Networks and addresses in canonical form, IPv4-mapped unfolded."""
    assert str(parse_network(text)) == canonical
    assert parse_network(canonical) == parse_network(text)


@pytest.mark.parametrize("text", ["", "10.0.0.0/33", "x", "10.0.0", "10.0.0.0/-1", "fe80::%eth0"])
def test_bad_network(text: str) -> None:
    """What is no network is a ValueError."""
    with pytest.raises(ValueError, match=r"network"):
        parse_network(text)


def test_bits_beyond_the_prefix_are_ignored() -> None:
    """``127.0.0.1/8`` means the network around the address, as in other proxies."""
    assert parse_network("10.0.0.1/8") == parse_network("10.0.0.0/8")
    assert parse_network("2001:db8::1/32") == parse_network("2001:db8::/32")


def test_set_contains() -> None:
    """Several prefix lengths and both families in one set."""
    networks = NetworkSet(["10.0.0.0/8", "192.168.1.7", "2001:db8::/32"])
    inside = ["10.255.0.1", "192.168.1.7", "2001:db8::9", "::ffff:10.0.0.1", "2001:db8::1%eth0"]
    outside = ["11.0.0.1", "192.168.1.8", "2001:db9::1", "::ffff:11.0.0.1", "::10.0.0.1"]
    assert [networks.contains(text) for text in inside] == [True] * 5
    assert [networks.contains(text) for text in outside] == [False] * 5
    assert networks
    assert not NetworkSet()
    assert not NetworkSet().contains("10.0.0.1")


def test_everyone_is_everyone_of_one_family() -> None:
    """0.0.0.0/0 holds mapped IPv4 and no IPv6; ::/0 holds no IPv4, mapped or not."""
    assert NetworkSet(["0.0.0.0/0"]).contains("::ffff:1.2.3.4")
    assert not NetworkSet(["0.0.0.0/0"]).contains("2001:db8::1")
    assert not NetworkSet(["::/0"]).contains("::ffff:1.2.3.4")


@given(st.ip_addresses(v=4), st.integers(0, 32), st.ip_addresses(v=4))
def test_contains_agrees_with_ipaddress(one: object, prefix: int, other: object) -> None:
    """Membership is what the standard library says."""
    network = ip_network(f"{one}/{prefix}", strict=False)
    expected = ip_address(str(other)) in network
    parsed = parse_network(str(network))
    assert parsed.contains(*split_ip(str(other))) == expected
    assert NetworkSet([str(network)]).contains(str(other)) == expected
    assert NetworkSet([parsed]).contains(f"::ffff:{other}") == expected


def test_split_ip_refuses_text() -> None:
    """A client address that is none is a ValueError."""
    with pytest.raises(ValueError, match="address"):
        split_ip("app2")
    assert split_ip("0.0.0.1") == (4, 1)
    assert Network(4, 1, 32).contains(*split_ip("0.0.0.1"))
