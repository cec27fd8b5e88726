"""A ClientHello of a known shape is read as one that nobody has seen: the same result or error."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from shared import client_hello
from shared.client_hello import read_client_hello
from shared.errors import ClientHelloError
from shared.hello_shape import LEARNED_EVERY, MOST_SHAPES, Shapes

CORPUS = Path(__file__).parents[1] / "corpus" / "client_hello" / "valid"
HELLOS = {path.stem: path.read_bytes() for path in sorted(CORPUS.glob("*.bin"))}
assert HELLOS


@pytest.fixture(autouse=True)
def shapes(monkeypatch: pytest.MonkeyPatch) -> Shapes:
    """Nothing is known at first."""
    known = Shapes()
    monkeypatch.setattr(client_hello, "_SHAPES", known)
    return known


def outcome(data: bytes) -> object:
    """All that is read of a hello, or why it is refused."""
    try:
        hello = read_client_hello(data)
    except ClientHelloError as error:
        return str(error)
    if hello is None:
        return None
    return (
        hello, hello.versions, hello.alpn, hello.ciphers, hello.signature_algorithms, hello.groups,
    )  # fmt: skip


@pytest.mark.parametrize("name", HELLOS)
def test_known_or_not_it_is_the_same(
    name: str, shapes: Shapes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each recorded hello, and a thousand that differ from it in some bytes."""
    hello = HELLOS[name]
    for _ in range(LEARNED_EVERY + 1):
        read_client_hello(hello)
    chance = random.Random(name)
    for _ in range(1000):
        changed = bytearray(hello)
        for _ in range(chance.choice([0, 1, 1, 2, 5])):
            changed[chance.randrange(len(changed))] = chance.choice(
                [0, 1, 0xFF, chance.randrange(256)]
            )
        known = outcome(bytes(changed))
        monkeypatch.setattr(client_hello, "_SHAPES", Shapes())
        assert outcome(bytes(changed)) == known
        monkeypatch.setattr(client_hello, "_SHAPES", shapes)


def test_a_shape_is_learned_and_found() -> None:
    """The first that comes is learned, others only now and then; another length is another one."""
    shapes = Shapes()
    message, at = b"\x00\x04\x00\x17\x00\x00", 0
    assert shapes.find(message, at, len(message)) is None
    shapes.learn(message, at, len(message), {0x17: 6})
    assert shapes.find(message, at, len(message)) == {0x17: 6}
    assert shapes.find(message[:-1] + b"\x01", at, len(message)) is None
    other = b"\x00\x05\x00\x17\x00\x01x"
    shapes.learn(other, at, len(other), {0x17: 6})
    assert shapes.find(other, at, len(other)) is None


def test_shapes_do_not_grow_without_end() -> None:
    """Clients that send a new shape each time take a bounded place."""
    shapes = Shapes()
    for size in range(3 * MOST_SHAPES * LEARNED_EVERY):
        message = (
            (4 + size).to_bytes(2, "big") + b"\x00\x17" + size.to_bytes(2, "big") + bytes(size)
        )
        shapes.learn(message, 0, len(message), {0x17: 6})
    assert 0 < len(shapes._known) <= MOST_SHAPES
