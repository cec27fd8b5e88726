"""Arguments of `proxyctl probe`, and the header that it makes of them."""

from __future__ import annotations

from typing import Any

import pytest

from shared.proxy_protocol import ProxyHeader
from shared.proxy_protocol import parse as parse_header
from supervisor.cli.probe import Outcome, Place, Probe, header, parse, parse_place, reply, unescape

OWN: Place = (bytes([127, 0, 0, 1]), 40000)
PEER: Place = (bytes([127, 0, 0, 1]), 80)


def probe(**given: Any) -> Probe:
    """A probe of 127.0.0.1:80 with these arguments."""
    arguments: dict[str, Any] = {
        "target": "127.0.0.1:80",
        "proxy": None,
        "source": None,
        "destination": None,
        "tlvs": [],
        "is_local": False,
        "send": "",
        "timeout_s": 5.0,
    }
    return parse(**{**arguments, **given})


def sent(wanted: Probe) -> ProxyHeader:
    """The header of a probe, as a receiver reads it."""
    raw = header(wanted, OWN, PEER)
    answer = parse_header(raw)
    assert answer is not None
    assert answer[1] == len(raw)
    return answer[0]


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_header_claims_the_source(version: str) -> None:
    """The claimed source is sent; the destination is what was dialled unless one is given."""
    found = sent(probe(proxy=version, source="203.0.113.7:5555"))
    assert (found.source_text, found.source_port) == ("203.0.113.7", 5555)
    assert (found.destination_text, found.destination_port) == ("127.0.0.1", 80)
    found = sent(probe(proxy=version, source="[2001:db8::1]:0", destination="[2001:db8::2]:443"))
    assert (found.source_text, found.source_port) == ("2001:db8::1", 0)
    assert (found.destination_text, found.destination_port) == ("2001:db8::2", 443)
    assert found.version == int(version[1])


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_families_that_differ_go_out_as_ipv6(version: str) -> None:
    """An IPv6 source with an IPv4 destination makes one header of mapped addresses."""
    found = sent(probe(proxy=version, source="[2001:db8::1]:1"))
    assert (found.source_text, found.destination_text) == ("2001:db8::1", "::ffff:127.0.0.1")


def test_without_a_source_the_socket_speaks() -> None:
    """The header then names the probe's own socket, and no header goes out unasked."""
    found = sent(probe(proxy="v2"))
    assert (found.source_text, found.source_port) == ("127.0.0.1", 40000)
    assert header(probe(), OWN, PEER) == b""


def test_tlvs_and_local_make_it_version_two() -> None:
    """What only v2 can carry chooses v2; LOCAL is sent as such."""
    found = sent(probe(source="203.0.113.7:1", tlvs=["authority=a.example", "0xE1=hex:00ff"]))
    assert found.tlvs == ((2, b"a.example"), (0xE1, b"\x00\xff"))
    assert sent(probe(is_local=True)).command == "LOCAL"
    assert header(probe(target="unix:/x", is_local=True), None, None)[12] == 0x20


@pytest.mark.parametrize(
    "given",
    [
        {"proxy": "v1", "tlvs": ["authority=a"]},
        {"proxy": "v1", "is_local": True},
        {"destination": "10.0.0.1:1"},
        {"source": "10.0.0.1"},
        {"source": "10.0.0.1:65536"},
        {"source": "2001:db8::1:5555"},
        {"source": "example.com:80"},
        {"target": "127.0.0.1"},
        {"target": "unix:/x", "source": "10.0.0.1:1"},
        {"tlvs": ["nonsense"]},
        {"send": "\\q"},
    ],
)
def test_arguments_that_cannot_be_sent_are_refused(given: dict[str, Any]) -> None:
    """Each is a ValueError with a message, before anything is dialled."""
    with pytest.raises(ValueError, match=r"\w"):
        probe(**given)


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("", b""),
        ("GET / HTTP/1.0\\r\\n\\r\\n", b"GET / HTTP/1.0\r\n\r\n"),
        ("\\x00\\xfF\\\\n\\t\\0", b"\x00\xff\\n\t\x00"),
        ("ü", "ü".encode()),
    ],
)
def test_escapes(text: str, data: bytes) -> None:
    """Escapes become the bytes they name, anything else stays as it is."""
    assert unescape(text) == data


def test_places() -> None:
    """Both families, and ports from 0 to 65535."""
    assert parse_place("1.2.3.4:0") == (bytes([1, 2, 3, 4]), 0)
    assert parse_place("[::1]:65535") == (bytes(15) + b"\x01", 65535)


@pytest.mark.parametrize(
    ("end", "count", "exit_code"),
    [
        ("closed", 0, 0),
        ("closed", 5, 0),
        ("timeout", 5, 0),
        ("timeout", 0, 5),
        ("reset", 5, 1),
        ("connect_failed", 0, 1),
    ],
)
def test_exit_codes(end: str, count: int, exit_code: int) -> None:
    """0 when something was learnt, 1 for a failure, 5 when nothing came at all."""
    outcome = Outcome(end=end, received=bytearray(b"x" * count), received_bytes=count)
    answer = reply(probe(), outcome)
    assert answer.exit_code == exit_code
    assert bool(answer.errors) == (exit_code != 0)
    assert answer.data["end"] == end
