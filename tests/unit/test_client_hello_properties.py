"""Bounded fuzzing: whatever the bytes are, a ClientHello, None or ClientHelloError, by all ways."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.client_hello import MAX_RECORDS_BYTES, ClientHello, HelloReader, read_client_hello
from shared.errors import ClientHelloError
from shared.match_criteria import plain_domain
from tests.helpers.client_hello_builder import (
    alpn,
    extension,
    greased,
    message,
    post_quantum,
    record,
    records,
    server_name,
    signature_algorithms,
    supported_groups,
    supported_versions,
)

# No deadline: how long an example takes says nothing about the reader.
reader_settings = settings(deadline=None, max_examples=300)

CORPUS = Path(__file__).parent.parent / "corpus" / "client_hello" / "valid"
RECORDED = [path.read_bytes() for path in sorted(CORPUS.glob("*.bin"))]
SHORT = [data for data in RECORDED if len(data) < 2500]
BUILT = [records(post_quantum("pq.example")), records(greased("a.example"), 300)]

numbers16 = st.integers(0, 0xFFFF)
labels = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-_", min_size=1, max_size=20)
names = st.builds(
    lambda parts, end: ".".join(parts) + end,
    st.lists(labels, min_size=1, max_size=5),
    st.text(".:]0", max_size=6),
)
hellos = st.builds(
    lambda name, protocols, versions, groups, schemes, others, ciphers, session: message(
        server_name(name),
        alpn(*protocols),
        supported_versions(*versions),
        supported_groups(*groups),
        signature_algorithms(*schemes),
        *(extension(kind, value) for kind, value in others.items()),
        ciphers=ciphers,
        session_id=session,
    ),
    names,
    st.lists(st.text("h2/1.x\xff\0", min_size=1, max_size=9), min_size=1, max_size=5),
    st.lists(numbers16, min_size=1, max_size=9),
    st.lists(numbers16, min_size=1, max_size=9),
    st.lists(numbers16, min_size=1, max_size=9),
    st.dictionaries(st.integers(100, 0xFFFF), st.binary(max_size=40), max_size=5),
    st.lists(numbers16, min_size=1, max_size=20),
    st.binary(max_size=32),
)


def outcome(data: bytes | bytearray | memoryview) -> ClientHello | str | None:
    """What reading says; "refused" for ClientHelloError. Any other exception fails the test."""
    try:
        hello = read_client_hello(data)
    except ClientHelloError:
        return "refused"
    if hello is not None:
        assert 50 <= hello.size <= len(data)
        read_all(hello)
    return hello


def read_all(hello: ClientHello) -> None:
    """Read every property: of a hello that was taken none of them can fail."""
    assert set(hello.versions) <= {"1.0", "1.1", "1.2", "1.3"}
    assert all(hello.alpn) or hello.alpn == ()
    assert len(hello.ciphers) > 0
    assert all(0 <= n <= 0xFFFF for n in (*hello.groups, *hello.signature_algorithms))
    assert bool(hello.server_name) == bool(hello.sent_name)
    assert hello.sent_name.lower().startswith(hello.server_name)
    assert plain_domain(hello.server_name) == hello.server_name
    assert hello.sent_name.isascii()


def all_ways_agree(data: bytes) -> None:
    """Buffers of every type, and a reader that is fed as it asks, come to the same."""
    wanted = outcome(data)
    assert outcome(bytearray(data)) == wanted
    assert outcome(memoryview(data)) == wanted
    reader, found = HelloReader(), None
    try:
        while found is None and reader.needed <= len(data):
            before = reader.needed
            assert before <= MAX_RECORDS_BYTES
            found = reader.read(bytearray(data[:before]))
            assert found is not None or reader.needed > before
    except ClientHelloError:
        assert wanted == "refused"
    else:
        # What it did not ask for may make a beginning certain that it was not shown.
        assert found == wanted or (found is None and wanted == "refused")
    for end in range(0, len(data), max(1, len(data) // 20)):
        early = outcome(data[:end])
        assert early is None or early == wanted


@reader_settings
@given(st.binary(max_size=300))
def test_random_bytes(data: bytes) -> None:
    """Random bytes never raise anything else."""
    all_ways_agree(data)


@reader_settings
@given(st.binary(max_size=400))
def test_random_messages(data: bytes) -> None:
    """Random bytes behind heads that are right never raise anything else."""
    whole = b"\1" + len(data).to_bytes(3, "big") + data
    all_ways_agree(record(whole))
    all_ways_agree(records(whole, 20))


@reader_settings
@given(st.binary(max_size=400))
def test_random_extensions(data: bytes) -> None:
    """Random bytes in place of the extensions never raise anything else."""
    all_ways_agree(records(message(data)))


@reader_settings
@given(st.sampled_from((0, 10, 13, 16, 43)), st.binary(max_size=60))
def test_random_values(kind: int, value: bytes) -> None:
    """Random values of the extensions that are read never raise anything else."""
    all_ways_agree(records(message(extension(kind, value))))


@reader_settings
@given(
    st.sampled_from(SHORT + BUILT),
    st.lists(st.tuples(st.integers(0, 2500), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_changed_bytes(data: bytes, changes: list[tuple[int, int]]) -> None:
    """Real hellos with a few bytes changed never raise anything else."""
    changed = bytearray(data)
    for at, byte in changes:
        changed[at % len(data)] = byte
    all_ways_agree(bytes(changed))


@reader_settings
@given(
    st.sampled_from(SHORT + BUILT),
    st.integers(0, 2500),
    st.integers(0, 40),
    st.binary(max_size=40),
)
def test_cut_and_pasted(data: bytes, at: int, count: int, put: bytes) -> None:
    """Real hellos with bytes taken out or put in never raise anything else."""
    at %= len(data)
    all_ways_agree(data[:at] + put + data[at + count :])


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(RECORDED), st.data())
def test_cut_over_records_anywhere(data: bytes, draw: st.DataObject) -> None:
    """A real hello means the same over records of any lengths."""
    whole = read_client_hello(data)
    assert whole is not None
    hello, at = b"", 0
    while at < len(data):
        end = at + 5 + int.from_bytes(data[at + 3 : at + 5], "big")
        hello += data[at + 5 : end]
        at = end
    size = draw.draw(st.lists(st.integers(1, 16384), min_size=1, max_size=5))
    cut, at, turn = b"", 0, 0
    while at < len(hello):
        cut += record(hello[at : at + size[turn % len(size)]])
        at += size[turn % len(size)]
        turn += 1
    found = read_client_hello(cut)
    assert found is not None
    assert found.size == len(cut)
    assert (found.sent_name, found.alpn, found.ciphers, found.versions) == (
        whole.sent_name,
        whole.alpn,
        whole.ciphers,
        whole.versions,
    )


@reader_settings
@given(hellos, st.integers(1, 500))
def test_well_formed_ones_are_read(hello: bytes, size: int) -> None:
    """Every well-formed hello is read, whatever is in it and however it is cut."""
    found = outcome(records(hello, size))
    assert isinstance(found, ClientHello)
    assert found.size == len(records(hello, size))
