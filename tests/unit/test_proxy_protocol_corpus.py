"""Replays tests/corpus/proxy_protocol: whole, at every split, with payload, in every buffer type.

Each ``NNN-what.bin`` is one header and nothing else; the ``.toml`` beside it says what it means,
or for an invalid one the error and the number of bytes after which it must be known.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.errors import ProxyHeaderError
from shared.proxy_protocol import (
    Buffer,
    Ssl,
    could_begin,
    decode_tlvs,
    encode_v1,
    encode_v2,
    is_header_start,
    parse,
)

CORPUS = Path(__file__).parent.parent / "corpus" / "proxy_protocol"
PAYLOADS = (
    b"x",
    b"\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"PROXY TCP4 6.6.6.6 7.7.7.7 1 2\r\n",
    b"\0" * 99,
)
BUFFERS: tuple[Callable[[bytes], Buffer], ...] = (
    bytes,
    bytearray,
    memoryview,
    lambda data: memoryview(bytearray(b"##" + data + b"##"))[2:-2],
)


def cases(kind: str) -> list[Any]:
    """Every pair of files as (bytes, expectation)."""
    found = [
        pytest.param(
            path.read_bytes(), tomllib.loads(path.with_suffix(".toml").read_text()), id=path.stem
        )
        for path in sorted((CORPUS / kind).glob("*.bin"))
    ]
    if not found:
        raise FileNotFoundError(CORPUS / kind)
    return found


valid = pytest.mark.parametrize(("data", "expected"), cases("valid"))
invalid = pytest.mark.parametrize(("data", "expected"), cases("invalid"))


@valid
def test_valid_means(data: bytes, expected: dict[str, Any]) -> None:
    """Every field of a valid header is what its description says, and all bytes are used."""
    answer = parse(data)
    assert answer is not None
    header, size = answer
    assert size == len(data)
    found = {
        "version": header.version,
        "command": header.command,
        "family": header.family.name,
        "transport": header.transport.name,
        "source": header.source_text,
        "source_port": header.source_port,
        "destination": header.destination_text,
        "destination_port": header.destination_port,
        "has_addresses": header.has_addresses,
        "tlvs": [[kind, value.hex()] for kind, value in header.tlvs],
    }
    wanted = {key: value for key, value in expected.items() if key not in ("what", "decoded")}
    assert found == {"tlvs": []} | wanted


@valid
def test_valid_tlvs_decode(data: bytes, expected: dict[str, Any]) -> None:
    """The TLVs of a valid header decode to the fields of its description."""
    answer = parse(data)
    assert answer is not None
    decoded = decode_tlvs(answer[0].tlvs)
    wanted = dict(expected.get("decoded", {}))
    ssl = wanted.pop("ssl", None)
    for name, value in wanted.items():
        found = getattr(decoded, name)
        assert (found.decode("latin-1") if isinstance(found, bytes) else found) == value
    if ssl is not None:
        if "client_cert" in ssl:
            ssl["client_cert"] = bytes.fromhex(ssl["client_cert"])
        assert decoded.ssl == Ssl(**ssl)


@valid
@pytest.mark.parametrize("buffer", BUFFERS)
def test_valid_at_every_split(
    data: bytes, expected: dict[str, Any], buffer: Callable[[bytes], Buffer]
) -> None:
    """Every proper beginning of a valid header asks for more bytes, in every buffer type."""
    for end in range(len(data)):
        assert parse(buffer(data[:end])) is None, f"after {end} bytes: {expected['what']}"
        assert could_begin(buffer(data[:end]))
        prefix = 6 if data.startswith(b"PROXY ") else 12
        assert is_header_start(buffer(data[:end])) == (end >= prefix)


@valid
@pytest.mark.parametrize("buffer", BUFFERS)
def test_valid_with_payload(
    data: bytes, expected: dict[str, Any], buffer: Callable[[bytes], Buffer]
) -> None:
    """Whatever follows a valid header, the answer is the same, in every buffer type."""
    whole = parse(data)
    assert whole is not None
    assert whole[0].version == expected["version"]
    for payload in (b"", *PAYLOADS):
        assert parse(buffer(data + payload)) == whole


@valid
def test_valid_is_copied(data: bytes, expected: dict[str, Any]) -> None:
    """The result stays as it is when the buffer it was parsed from is overwritten."""
    received = bytearray(data)
    answer = parse(memoryview(received))
    received[:] = bytes(len(received))
    assert answer == parse(data)
    assert answer is not None
    assert answer[0].version == expected["version"]


@valid
def test_valid_only_in_its_version(data: bytes, expected: dict[str, Any]) -> None:
    """A header is refused by the name of its version where only the other one is accepted."""
    own, other = (f"v{expected['version']}", f"v{3 - expected['version']}")
    assert parse(data, (own,)) == parse(data)
    for end in range(1, len(data) + 1):
        with pytest.raises(ProxyHeaderError, match=f"PROXY {own} is not accepted"):
            parse(data[:end], frozenset((other,)))


@valid
def test_valid_encodes_again(data: bytes, expected: dict[str, Any]) -> None:
    """Encoding what was parsed and parsing it again gives the same header."""
    answer = parse(data)
    assert answer is not None
    header = answer[0]
    ends = (header.source, header.source_port, header.destination, header.destination_port)
    if header.has_addresses and header.version == 1:
        assert parse(encode_v1(*ends)) == (header, len(encode_v1(*ends)))
    elif header.has_addresses and header.transport.name == "STREAM":
        again = parse(encode_v2(*ends, tlvs=header.tlvs))
        assert again is not None
        assert decode_tlvs(again[0].tlvs) == decode_tlvs(header.tlvs)
        assert (again[0].source_text, again[0].source_port) == (
            expected["source"],
            expected["source_port"],
        )
    else:
        bare = encode_v2(None, 0, None, 0, local=header.command == "LOCAL")
        again = parse(bare)
        assert again is not None
        assert (again[0].command, again[0].has_addresses) == (expected["command"], False)


@invalid
@pytest.mark.parametrize("buffer", BUFFERS)
def test_invalid_at_every_split(
    data: bytes, expected: dict[str, Any], buffer: Callable[[bytes], Buffer]
) -> None:
    """A bad header is refused at the first byte that makes it certain, and at all later ones."""
    for end in range(len(data) + 1):
        if end < expected["known_after"]:
            assert parse(buffer(data[:end])) is None, f"after {end} bytes"
        else:
            with pytest.raises(ProxyHeaderError):
                parse(buffer(data[:end]))


@invalid
def test_invalid_says_why(data: bytes, expected: dict[str, Any]) -> None:
    """The error of a bad header names what is wrong, early and late, payload or not."""
    with pytest.raises(ProxyHeaderError, match=expected["error"]):
        parse(data[: expected["known_after"]])
    for payload in PAYLOADS:
        with pytest.raises(ProxyHeaderError):
            parse(data + payload)
