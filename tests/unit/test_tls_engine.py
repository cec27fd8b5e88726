"""TLS over memory: every split of a flight, and hundreds of connections over one pair of BIOs."""

from __future__ import annotations

import random
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.errors import TlsError
from tests.helpers.certificates import Authority
from worker.openssl_form import INCOMING, OUTGOING, PLAIN, reason_of
from worker.tls_contexts import wrap_server
from worker.tls_engine import Tls

NAME = "engine.example"
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context and a client's."""
    directory: Path = tmp_path_factory.mktemp("engine")
    authority = Authority(directory, "ca")
    leaf = authority.leaf(NAME, key="ec")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(leaf.cert, leaf.key)
    server.options |= ssl.OP_NO_RENEGOTIATION
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(authority.cert)
    return server, client


@pytest.fixture(autouse=True)
def _both_are_empty() -> Iterator[None]:
    """Whatever a test does, nothing of it is left for another connection."""
    yield
    assert INCOMING.pending == OUTGOING.pending == 0


class Pair:
    """Python's client and an engine; ``feed`` hands the client's bytes over in pieces."""

    def __init__(self, contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
        server, client = contexts
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client.wrap_bio(self.incoming, self.outgoing, server_hostname=NAME)
        self.tls = Tls(wrap_server(server, INCOMING, OUTGOING))
        self.is_shaken = self.is_done = False  # the client's view, the engine's
        self.got = b""  # by the engine
        self.back = b""  # by the client

    def shake_client(self) -> None:
        """As far as the client can go on."""
        if self.is_shaken:
            return
        try:
            self.client.do_handshake()
            self.is_shaken = True
        except ssl.SSLWantReadError:
            pass

    def feed(self, *cuts: int) -> None:
        """All that the client has to say, cut at these places."""
        said = self.outgoing.read()
        for start, end in zip((0, *cuts), (*cuts, len(said)), strict=True):
            self._give(said[start:end])

    def _give(self, data: bytes) -> None:
        if not self.is_done:
            self.is_done, answer = self.tls.shake(data)
            if self.is_done:
                self.got += self.tls.rest()
        else:
            self.got += bytes(PLAIN[: self.tls.decrypt(data)])
            answer = self.tls.answer()
        self.incoming.write(answer)
        assert INCOMING.pending == OUTGOING.pending == 0

    def read_client(self) -> None:
        """All that is there for the client."""
        try:
            while part := self.client.read(1 << 16):
                self.back += part
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            pass

    def shake(self) -> None:
        """The whole handshake."""
        while not (self.is_shaken and self.is_done):
            self.shake_client()
            self.feed()


@pytest.fixture(params=VERSIONS, ids=lambda version: str(version.name))
def pair(
    request: pytest.FixtureRequest, contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> Iterator[Pair]:
    """One connection of each version."""
    client = contexts[1]
    client.minimum_version = client.maximum_version = request.param
    yield Pair(contexts)
    client.minimum_version, client.maximum_version = VERSIONS


def test_every_split_of_the_handshake(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    """Wherever a flight of the client is cut, the handshake comes to its end, with what follows."""
    sizes = []
    probe = Pair(contexts)
    while not (probe.is_shaken and probe.is_done):
        probe.shake_client()
        sizes.append(probe.outgoing.pending)
        probe.feed()
    for flight, size in enumerate(sizes):
        for cut in range(1, size):
            one = Pair(contexts)
            for number in range(len(sizes)):
                one.shake_client()
                if one.is_shaken and not one.is_done:
                    one.client.write(b"early")  # in one segment with Finished
                one.feed(*([cut] if number == flight else []))
            assert one.is_done
            assert one.got == b"early"


@pytest.mark.parametrize("size", [1, 16384, 16385, 131072])
def test_payload_goes_both_ways(pair: Pair, size: int) -> None:
    """Whole, and in pieces of any size, up to what one read of a socket holds."""
    payload = random.Random(size).randbytes(size)
    pair.shake()
    for _ in range(3):
        pair.client.write(payload[:1])
        for start in range(1, size, 16384):
            pair.client.write(payload[start : start + 16384])
        pair.feed(*sorted(random.Random(7).sample(range(1, size), min(5, size - 1))))
        pair.incoming.write(pair.tls.encrypt(memoryview(payload)))
        pair.read_client()
    assert pair.got == pair.back == payload * 3


def test_close_notify_ends_one_direction(pair: Pair) -> None:
    """The client says goodbye, and is still answered; what it says after that is ignored."""
    pair.shake()
    pair.client.write(b"last words")
    with pytest.raises(ssl.SSLWantReadError):
        pair.client.unwrap()
    pair.feed()
    assert pair.got == b"last words"
    assert pair.tls.has_ended
    pair.incoming.write(pair.tls.encrypt(b"answer"))
    pair.read_client()
    assert pair.back == b"answer"
    assert pair.tls.close()


def test_our_goodbye_leaves_the_client_its_say(pair: Pair) -> None:
    """After our close_notify its payload is still read."""
    pair.shake()
    pair.incoming.write(pair.tls.close())
    assert pair.client.read(1) == b""
    pair.client.write(b"more")
    pair.feed()
    assert pair.got == b"more"
    assert not pair.tls.has_ended


def test_garbage_is_an_error_with_an_alert(pair: Pair) -> None:
    """In the handshake and after it; the BIOs are empty for the next connection."""
    with pytest.raises(TlsError) as at_first:
        pair.tls.shake(b"GET / HTTP/1.1\r\n\r\n" * 10)
    assert str(at_first.value)
    other = Pair(contexts_of(pair))
    other.shake()
    with pytest.raises(TlsError) as later:
        other.tls.decrypt(b"\x17\x03\x03\x00\x20" + bytes(32))
    assert later.value.alert[:1] in (b"\x15", b"\x17")  # an alert, encrypted with TLS 1.3


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ssl.SSLError(1, "[SSL: TLSV1_ALERT_UNKNOWN_CA] x"), "[SSL: TLSV1_ALERT_UNKNOWN_CA] x"),
        (ssl.SSLError("ours, without a number"), "ours, without a number"),
        (ssl.SSLZeroReturnError(6, "closed"), "closed by a close_notify within the handshake"),
        (OSError(24, "Too many open files"), "Too many open files"),
    ],
)
def test_an_error_without_a_reason_has_words(error: OSError, words: str) -> None:
    """OpenSSL does not give one for every error."""
    assert reason_of(error) == words


def contexts_of(pair: Pair) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The contexts that a pair was made of."""
    server = pair.tls.object.context  # type: ignore[attr-defined]
    return server, pair.client.context


def test_connections_over_one_pair_of_bios_do_not_meet(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    """Hundreds of connections at any stage, begun, fed in pieces and dropped in any order."""
    chance = random.Random(11)
    pairs: list[tuple[Pair, bytes]] = []
    total = 0
    for _ in range(3000):
        if not pairs or chance.random() < 0.1:
            pairs.append((Pair(contexts), chance.randbytes(8)))
        if len(pairs) > 60 or chance.random() < 0.05:
            pairs.pop(chance.randrange(len(pairs)))
            continue
        pair, mark = chance.choice(pairs)
        pair.shake_client()
        if pair.is_shaken:
            pair.client.write(mark * chance.choice([1, 50, 3000]))
        waiting = pair.outgoing.pending
        pair.feed(*([chance.randrange(1, waiting)] if waiting > 1 else []))
        if pair.is_done:
            pair.incoming.write(pair.tls.encrypt(mark * chance.choice([1, 5000])))
        if pair.is_shaken:
            pair.read_client()
        for seen in (pair.got, pair.back):
            assert seen == mark * (len(seen) // len(mark))
        total += len(pair.got) + len(pair.back)
    assert total > 0
