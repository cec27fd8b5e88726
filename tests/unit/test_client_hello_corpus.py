"""Replays tests/corpus/client_hello: whole, at every split, over other records, as every buffer.

Each ``NNN-what.bin`` is what a client sent until its ClientHello was whole, and nothing else. The
``.toml`` beside it says what OpenSSL's own trace (``openssl s_server -trace``) reads in it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.client_hello import Buffer, ClientHello, HelloReader, read_client_hello
from tests.helpers.client_hello_builder import records

CORPUS = Path(__file__).parent.parent / "corpus" / "client_hello" / "valid"
FOLLOWING = (b"x", b"\x14\x03\x03\x00\x01\x01", b"\x17\x03\x03\x00\x05hello", b"\0" * 99)
BUFFERS: tuple[Callable[[bytes], Buffer], ...] = (
    bytes,
    bytearray,
    memoryview,
    lambda data: memoryview(bytearray(b"##" + data + b"##"))[2:-2],
)
# A prime, so that the places that are tried in long ones are of all kinds.
LONG_BYTES, STEP = 2500, 151


def cases() -> list[Any]:
    """Every pair of files as (bytes, expectation)."""
    found = [
        pytest.param(
            path.read_bytes(), tomllib.loads(path.with_suffix(".toml").read_text()), id=path.stem
        )
        for path in sorted(CORPUS.glob("*.bin"))
    ]
    if not found:
        raise FileNotFoundError(CORPUS)
    return found


recorded = pytest.mark.parametrize(("data", "expected"), cases())


def places(size: int) -> range:
    """Where to cut: everywhere, in long ones at some places."""
    return range(1, size, 1 if size < LONG_BYTES else STEP)


def read(data: Buffer) -> ClientHello:
    """The ClientHello of bytes that hold a whole one."""
    hello = read_client_hello(data)
    assert hello is not None
    return hello


def facts(hello: ClientHello) -> dict[str, Any]:
    """All that is read, apart from the size."""
    return {
        "sent_name": hello.sent_name,
        "server_name": hello.server_name,
        "versions": hello.versions,
        "alpn": hello.alpn,
        "ciphers": hello.ciphers,
        "signature_algorithms": hello.signature_algorithms,
        "groups": hello.groups,
    }


def joined(data: bytes) -> tuple[bytes, int]:
    """The handshake message without its records, and their number."""
    message, at, count = b"", 0, 0
    while at < len(data):
        end = at + 5 + int.from_bytes(data[at + 3 : at + 5], "big")
        message += data[at + 5 : end]
        at, count = end, count + 1
    return message, count


@recorded
def test_recorded_means(data: bytes, expected: dict[str, Any]) -> None:
    """Every field is what OpenSSL reads, and all bytes are used."""
    hello = read(data)
    assert hello.size == len(data)
    assert joined(data)[1] == expected["records"]
    found = {name: _listed(value) for name, value in facts(hello).items()}
    if "alpn_count" in expected:
        protocols = hello.alpn
        found |= {"alpn_count": len(protocols)}
        found |= {"alpn_first": protocols[0], "alpn_last": protocols[-1]}
        del found["alpn"]
    assert found == {key: expected[key] for key in expected if key not in ("what", "records")}


def _listed(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


@recorded
@pytest.mark.parametrize("buffer", BUFFERS)
def test_recorded_with_more_behind(
    data: bytes, expected: dict[str, Any], buffer: Callable[[bytes], Buffer]
) -> None:
    """Whatever follows, and whatever buffer holds it, the answer is the same."""
    whole = read(data)
    assert whole.server_name == expected["server_name"]
    for following in (b"", *FOLLOWING, data):
        assert read(buffer(data + following)) == whole


@recorded
def test_recorded_is_copied(data: bytes, expected: dict[str, Any]) -> None:
    """The result stays as it is when the buffer that it was read from is overwritten."""
    received = bytearray(data)
    hello = read(memoryview(received))
    received[:] = bytes(len(received))
    assert facts(hello) == facts(read(data))
    assert hello.sent_name == expected["sent_name"]


@recorded
def test_recorded_in_two_pieces(data: bytes, expected: dict[str, Any]) -> None:
    """Cut anywhere, the first piece asks for more, and both together give the whole."""
    whole = read(data)
    assert whole.sent_name == expected["sent_name"]
    for end in places(len(data)):
        reader = HelloReader()
        first = data[:end]
        assert read_client_hello(first) is None, f"after {end} bytes"
        assert reader.read(first) is None, f"after {end} bytes"
        assert end < reader.needed <= len(data)
        assert reader.read(data) == whole


@recorded
@pytest.mark.parametrize("asks_early", [True, False])
def test_recorded_byte_by_byte(data: bytes, expected: dict[str, Any], asks_early: bool) -> None:
    """One byte at a time the reader needs the last one, whether or not it is asked too early."""
    reader, seen, looks = HelloReader(), bytearray(), 0
    for count, byte in enumerate(data, 1):
        seen.append(byte)
        if asks_early or count >= reader.needed:
            looks += 1
            hello = reader.read(seen)
            assert (hello is None) == (count < len(data))
    assert hello == read(data)
    # A look for each head, one for the message's, and one for each record.
    assert asks_early or looks <= 2 * expected["records"] + 1


@recorded
def test_recorded_over_other_records(data: bytes, expected: dict[str, Any]) -> None:
    """The same message cut over records in any way means the same."""
    message, _ = joined(data)
    wanted = facts(read(data))
    assert wanted["sent_name"] == expected["sent_name"]
    cuts = [records(message, size) for size in (1, 2, 3, 4, 5, 1000, 16384)]
    cuts += [
        records(message[:at]) + records(message[at:])
        for at in places(len(message))
        if at <= 16384 and len(message) - at <= 16384
    ]
    for cut in cuts:
        hello = read(cut + b"\x17")
        assert hello.size == len(cut)
        assert facts(hello) == wanted
        assert read_client_hello(cut[:-1]) is None
