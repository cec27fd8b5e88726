"""Durations, hosts, addresses and ports as operators write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.units import (
    Address,
    Ports,
    parse_address,
    parse_duration,
    parse_host,
    parse_ip,
    parse_ports,
    parse_unix_path,
    short,
)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("250ms", 0.25),
        ("5s", 5.0),
        ("2m", 120.0),
        ("4h", 14400.0),
        ("1.5s", 1.5),
        (7, 7.0),
        (0.5, 0.5),
        (0, 0.0),
        ("0s", 0.0),
    ],
)
def test_duration(value: object, seconds: float) -> None:
    """Every unit of the contract, and plain numbers as seconds."""
    assert parse_duration(value) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    [
        "5",
        "5 s",
        "s",
        "-5s",
        "5S",
        "5d",
        "",
        "1e3s",
        "٣s",
        "5s\n",
        -1,
        -0.1,
        True,
        None,
        [],
        {},
        float("nan"),
        float("inf"),
        10**400,
        "9" * 400 + "h",
        "99999h99",
    ],
)
def test_bad_duration(value: object) -> None:
    """What is no duration is a ValueError and nothing else."""
    with pytest.raises(ValueError, match=r"."):
        parse_duration(value)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("App2", "app2"),
        ("a.example.com.", "a.example.com"),
        ("bücher.de", "xn--bcher-kva.de"),
        ("Straße.de", "xn--strae-oqa.de"),
        ("faß。de", "xn--fa-hia.de"),
        ("my_service.bücher.de.", "my_service.xn--bcher-kva.de"),
        ("xn--a", "xn--a"),
        ("r3---sn-ab", "r3---sn-ab"),
        ("my_db-1.internal", "my_db-1.internal"),
        ("::FFFF:10.0.0.1", "10.0.0.1"),
        ("1.2.a", "1.2.a"),
    ],
)
def test_host(text: str, host: str) -> None:
    """Names become lower case ASCII, addresses canonical."""
    assert parse_host(text) == host


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "a..b",
        "-a",
        "a-",
        "a b",
        "10.0.0.300",
        "10.1",
        "127.0.0.0x1",
        "a" * 64,
        "a/b",
        "a." * 127 + "ab",
        "x\n",
        "ü" * 70,
        "ü..b",
        "-ü",
        "my_ü",
        "☃.de",
        "\uff110.0.0.1",
        "\ud800.de",
        "[::1]",
        "a:1",
    ],
)
def test_bad_host(text: str) -> None:
    """Names that no resolver takes, or that one might take for an address, are refused."""
    with pytest.raises(ValueError, match="host name"):
        parse_host(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("app2:9000", Address("app2", 9000)),
        ("127.0.0.1:1", Address("127.0.0.1", 1)),
        ("[::1]:65535", Address("::1", 65535)),
        ("[2001:DB8:0::1]:80", Address("2001:db8::1", 80)),
        ("unix:/run/a.sock", Address(path="/run/a.sock")),
    ],
)
def test_address(text: str, address: Address) -> None:
    """Each form of an address, in canonical form; its text reads back as the same address."""
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "app2",
        "app2:",
        ":80",
        "a:0",
        "a:65536",
        "a:+1",
        "a:01",
        "a:8_0",
        "::1:80",
        "[::1]",
        "[::1]80",
        "[app2]:80",
        "unix:",
        "unix:run/a",
        "unix:/",
        "unix:/a\x00b",
        "unix:/a/",
        "",
        "a:٣",
    ],
)
def test_bad_address(text: str) -> None:
    """What lacks a part, or has a strange one, is a ValueError."""
    with pytest.raises(ValueError, match=r"."):
        parse_address(text)


def test_unix_path_limit() -> None:
    """107 bytes fit into a socket address, 108 do not, counted in bytes of UTF-8."""
    assert parse_unix_path("unix:/" + "a" * 106) == "/" + "a" * 106
    for path in ("/" + "a" * 107, "/" + "ü" * 54):
        with pytest.raises(ValueError, match="at most 107"):
            parse_unix_path("unix:" + path)


@pytest.mark.parametrize(
    ("value", "ports"),
    [
        (443, Ports(443, 443)),
        ("443", Ports(443, 443)),
        ("8000-8010", Ports(8000, 8010)),
        ("1 - 65535", Ports(1, 65535)),
        ("unix:/a", Ports(path="/a")),
    ],
)
def test_ports(value: object, ports: Ports) -> None:
    """A number, a range and a Unix socket."""
    assert parse_ports(value) == ports


@pytest.mark.parametrize(
    "value", [0, 65536, -1, True, None, 80.0, "", "80-", "-80", "90-80", "a", "80-90-100", [80]]
)
def test_bad_ports(value: object) -> None:
    """No port, and ranges that are none."""
    with pytest.raises(ValueError, match=r"."):
        parse_ports(value)


def test_port_numbers() -> None:
    """A range holds both of its ends, a Unix socket no number."""
    assert list(Ports(80, 82).numbers()) == [80, 81, 82]
    assert list(Ports(path="/a").numbers()) == []
    assert Ports(80, 80).is_single
    assert Ports(path="/a").is_single
    assert not Ports(80, 81).is_single


@given(st.text())
def test_readers_raise_value_error_only(text: str) -> None:
    """Whatever the text, a reader gives a value or ValueError, never another exception."""
    said = []
    for reader in (parse_duration, parse_host, parse_address, parse_ports, parse_ip):
        try:
            said.append(str(reader(text)))
        except ValueError as exc:
            said.append(str(exc))
    assert all(said)


def test_short() -> None:
    """A value in a message is cut."""
    assert short("a") == "'a'"
    assert len(short("a" * 1000)) == 60
