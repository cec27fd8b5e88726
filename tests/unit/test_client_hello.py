"""What a ClientHello may and may not be, by ones that were built for it."""

from __future__ import annotations

from typing import Any

import pytest

from shared.client_hello import (
    MAX_BYTES,
    MAX_RECORDS_BYTES,
    ClientHello,
    HelloReader,
    read_client_hello,
)
from shared.errors import ClientHelloError
from tests.helpers.client_hello_builder import (
    PADDING,
    X25519,
    alpn,
    extension,
    greased,
    message,
    numbers,
    post_quantum,
    record,
    records,
    server_name,
    signature_algorithms,
    sized,
    supported_groups,
    supported_versions,
    vector,
)

PLAIN = message(server_name("a.example"), alpn("h2"))
HEAD = b"\x16\x03\x01"
SIZES = (45, 400, 16384, 16385, 16389, 32768, 32769, 100_000, MAX_BYTES - 1, MAX_BYTES)


class Counted(bytearray):
    """Bytes that count how many of them were copied out."""

    copied = 0

    def __getitem__(self, key):  # type: ignore[no-untyped-def]  # the overloads add nothing here
        found = super().__getitem__(key)
        self.copied += len(found) if isinstance(found, bytearray) else 1
        return found


def read(data: bytes) -> ClientHello:
    """The ClientHello of bytes that hold a whole one."""
    hello = read_client_hello(data)
    assert hello is not None
    return hello


def read_as_asked(data: bytes) -> int:
    """Show a reader what it needs and no more; how many bytes it wants when these are too few."""
    reader = HelloReader()
    while reader.needed <= len(data):
        assert reader.needed <= MAX_RECORDS_BYTES
        assert reader.read(data[: reader.needed]) is None
    return reader.needed


def smallest() -> bytes:
    """The shortest message that there is: one cipher suite, no session id, no extensions."""
    return message(session_id=b"", ciphers=(0x1301,))


def body(rest: bytes) -> bytes:
    """A record with a message of which only what follows the random is given."""
    whole = numbers(0x0303) + bytes(32) + rest
    return record(b"\1" + vector(3, whole))


# What is wrong, the bytes, and after how many of them that must be known.
WRONG = [
    ("content type 23", record(PLAIN, kind=23), 1),
    ("content type 71", b"GET / HTTP/1.1\r\n\r\n", 1),
    ("content type 128", b"\x80\x2e\x01\x03\x01" + bytes(41), 1),  # the form of SSL 2.0
    ("record version 2", record(PLAIN, version=0x0200), 2),
    ("record version 4", record(PLAIN, version=0x0400), 2),
    ("empty record", HEAD + bytes(2) + record(PLAIN), 5),
    ("16385 bytes", HEAD + b"\x40\x01" + PLAIN, 5),
    ("65280 bytes", HEAD + b"\xff\x00" + PLAIN, 4),
    ("handshake type 2", record(message(kind=2)), 6),
    ("over the limit", HEAD + b"\x40\x00\x01\x02\x00\x00", 7),
    ("over the limit of 131072 bytes: 131073", HEAD + b"\x40\x00\x01\x01\xff\xfd", 9),
    ("too short", HEAD + b"\x00\x2c\x01\x00\x00\x28" + bytes(40), 9),
    ("too short", record(b"\1\0\0\0"), 9),
    ("other bytes follow", record(PLAIN + b"\x14"), 9),
    ("other bytes follow", record(PLAIN * 2), 9),
    ("content type 20", records(PLAIN, 60)[:65] + record(b"\1", kind=20), 66),
    ("record version 0", records(PLAIN, 60)[:65] + record(PLAIN[60:], version=0x0000), 67),
    ("empty record", records(PLAIN, 60)[:65] + record(b""), 70),
    ("other bytes follow", record(PLAIN[:60]) + record(PLAIN[60:] + b"\0"), 70),
    ("handshake type 0", record(b"\0") + record(PLAIN), 6),
    ("over the limit", record(b"\1\2") + record(PLAIN), 7),
    ("too short", record(b"\1\0") + record(b"\0\1") + record(b"\0"), 14),
]
MALFORMED = [
    ("malformed session id", message(server_name("a.example"), session_id=bytes(33))),
    ("malformed session id", message(ciphers=())),
    ("malformed session id", message(compression=b"")),
    ("ends within a field", b"\1" + vector(3, message()[4:] + b"\0")),
    ("extensions do not fill", b"\1" + vector(3, message()[4:] + b"\0\1")),
    ("ends within a field", message(b"\0\0\0")),
    ("extensions do not fill", message(extension(21, bytes(9))[:-1])),
    ("extension 21 comes twice", message(extension(21), extension(21))),
    ("extension 0 comes twice", message(server_name("a.example"), server_name("a.example"))),
    ("malformed supported_versions", message(extension(43), extension(21))),
    ("ends within a field", message(extension(43))),
    ("malformed supported_versions", message(supported_versions())),
    ("malformed supported_versions", message(extension(43, b"\3\3\4\3"))),
    ("malformed supported_versions", message(extension(43, b"\4\3\4"))),
    ("malformed supported_versions", message(extension(43, b"\2\3\4\0"))),
    ("malformed supported_groups", message(supported_groups())),
    ("malformed supported_groups", message(extension(10, b"\0\3\0\x1d\0"))),
    ("malformed supported_groups", message(extension(10, b"\0\2\0\x1d\0"))),
    ("malformed signature_algorithms", message(signature_algorithms())),
    ("malformed signature_algorithms", message(extension(13, b"\0\4\4\3"), extension(21))),
    ("malformed application_layer", message(alpn())),
    ("malformed application_layer", message(extension(16, b"\0\3\2h2\0"))),
    ("malformed application_layer", message(extension(16, b"\0\3\3h2"), extension(21))),
    ("malformed application_layer", message(extension(16, b"\0\3\1h2"), extension(21))),
    ("empty application protocol", message(alpn("h2", ""))),
    ("malformed server_name", message(extension(0), extension(21, bytes(9)))),
    ("ends within a field", message(extension(0))),
    ("malformed server_name", message(server_name(), extension(21))),
    ("malformed server_name", message(server_name("a.example", "b.example"))),
    ("malformed server_name", message(server_name("a.example", kind=1))),
    ("malformed server_name", message(extension(0, b"\0\4\0\0\2ab"))),
    ("malformed server_name", message(extension(0, b"\0\5\0\0\2ab\0"))),
    ("malformed server_name", message(extension(0, b"\0\5\0\0\3ab"), extension(21))),
    ("server name of 0 bytes", message(server_name(""))),
    ("server name of 256 bytes", message(server_name("a." * 128))),
    ("nothing but a port or dots", message(server_name("."))),
    ("nothing but a port or dots", message(server_name("..."))),
    ("nothing but a port or dots", message(server_name(":443"))),
    ("nothing but a port or dots", message(server_name(".:443."))),
    ("nothing but a port or dots", message(server_name(":"))),
    ("bytes that no name has", message(server_name("a b.example"))),
    ("bytes that no name has", message(server_name("a.example\0"))),
    ("bytes that no name has", message(server_name("a.example\n"))),
    ("bytes that no name has", message(server_name("a\x7f.example"))),
    ("bytes that no name has", message(server_name("b\xfccher.example".encode()))),
]


@pytest.mark.parametrize(("why", "data", "known_after"), WRONG, ids=[case[0] for case in WRONG])
def test_wrong_as_early_as_it_is_certain(why: str, data: bytes, known_after: int) -> None:
    """A head that cannot be right is refused at the byte that says so, and at all later ones."""
    for end in range(known_after):
        assert read_client_hello(data[:end]) is None, f"after {end} bytes"
    for end in range(known_after, len(data) + 1):
        with pytest.raises(ClientHelloError):
            read_client_hello(data[:end])
    with pytest.raises(ClientHelloError, match=why):
        read_client_hello(data[: max(known_after, 5)])


@pytest.mark.parametrize(("why", "data", "known_after"), WRONG, ids=[case[0] for case in WRONG])
def test_wrong_is_seen_without_looking_too_early(why: str, data: bytes, known_after: int) -> None:
    """Who looks only when the reader asks is told as well, with no byte more than its record."""
    assert known_after <= len(data)
    with pytest.raises(ClientHelloError, match=why):
        read_as_asked(data)


@pytest.mark.parametrize(("why", "hello"), MALFORMED, ids=[case[0] for case in MALFORMED])
@pytest.mark.parametrize("size", [16384, 50])
def test_malformed_once_it_is_whole(why: str, hello: bytes, size: int) -> None:
    """Lists that do not fill their fields are refused, however the message is cut."""
    data = records(hello, size)
    assert read_client_hello(data[:-1]) is None
    for following in (b"", b"\x17", data):
        with pytest.raises(ClientHelloError, match=why):
            read_client_hello(data + following)


@pytest.mark.parametrize(
    "cut", [b"", b"\0", b"\0\0", b"\0\4\x13\1", b"\0\2\x13\1", b"\0\2\x13\1\5"]
)
def test_ends_within_a_field(cut: bytes) -> None:
    """A message that ends before its compression methods is refused, whatever is missing."""
    with pytest.raises(ClientHelloError):
        read_client_hello(body(cut))
    with pytest.raises(ClientHelloError):
        read_client_hello(body(cut.ljust(7, b"\xff")))


@pytest.mark.parametrize("length", SIZES)
@pytest.mark.parametrize("size", [16384, 16383, 1000, 20])
def test_every_size_up_to_the_limit(length: int, size: int) -> None:
    """A message of up to 128 KiB is read from any records that a client would cut it into."""
    hello = smallest() if length == 45 else sized(length)
    assert len(hello) == length
    data = records(hello, size)
    found = read(data + b"\x17\x03\x03")
    assert found.size == len(data)
    assert found == read_client_hello(memoryview(data))
    assert read_client_hello(data[:-1]) is None


@pytest.mark.parametrize("size", [16384, 16383, 1000, 20, 4, 3, 1])
def test_one_byte_over_the_limit(size: int) -> None:
    """One byte more is refused as soon as its length is there, whatever the records."""
    data = records(sized(MAX_BYTES + 1), size)
    known_after = 9 + 5 * (3 // size)
    assert read_client_hello(data[: known_after - 1]) is None
    with pytest.raises(ClientHelloError, match="over the limit of 131072 bytes: 131073"):
        read_client_hello(data[:known_after])
    with pytest.raises(ClientHelloError):
        read_client_hello(data)


def test_records_have_a_limit_of_their_own() -> None:
    """Fragments so small that their heads take most of the room end at twice the limit."""
    fits = MAX_RECORDS_BYTES // 6
    assert read(records(sized(fits), 1)).size == 6 * fits
    data = records(sized(fits + 1), 1)
    assert len(data) > MAX_RECORDS_BYTES
    with pytest.raises(ClientHelloError, match="its records take over 262144 bytes"):
        read_client_hello(data)
    with pytest.raises(ClientHelloError, match="its records take over 262144 bytes"):
        read_as_asked(data)


@pytest.mark.parametrize("size", [16384, 100, 5, 1])
def test_slow_pieces_cost_no_more(size: int) -> None:
    """A long hello one byte at a time is copied once, not again with every byte."""
    hello = sized(MAX_RECORDS_BYTES // 6 if size == 1 else MAX_BYTES // 2)
    data = records(hello, size)
    reader, seen, looks = HelloReader(), Counted(), 0
    for count, byte in enumerate(data, 1):
        seen.append(byte)
        if count >= reader.needed:
            looks += 1
            found = reader.read(seen)
    assert found == read(data)
    assert looks <= 2 * -(-len(hello) // size) + 2
    assert seen.copied <= 4 * len(data)


@pytest.mark.parametrize("pieces", [(1, 2, 3, 4), (1, 1, 1, 1), (3, 1), (2, 2), (4,)])
def test_the_head_of_the_message_over_records(pieces: tuple[int, ...]) -> None:
    """The four bytes of type and length may lie in several records."""
    data, at = b"", 0
    for piece in pieces:
        data += record(PLAIN[at : at + piece])
        at += piece
    data += record(PLAIN[at:])
    assert read(data).server_name == "a.example"
    assert read_as_asked(data[:-1]) == len(data)
    assert HelloReader().read(data) == read(data)


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("a.example", "a.example"),
        ("WwW.Example.COM", "www.example.com"),
        ("a.example.", "a.example"),
        ("a.example..", "a.example"),
        ("A.Example:443", "a.example"),
        ("a.example.:443", "a.example"),
        ("a.example..:443", "a.example"),
        ("a.example:443..", "a.example"),
        ("a.example:", "a.example"),
        ("a.example:x", "a.example:x"),
        ("a.example:1:2", "a.example:1:2"),
        ("_dmarc.a_b.example", "_dmarc.a_b.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("192.0.2.1", "192.0.2.1"),
        ("a" * 255, "a" * 255),
        ("A", "a"),
        ("*.example", "*.example"),
        ("[2001:DB8::1]:443", "[2001:db8::1]"),
        ("2001:db8::1", "2001:db8::1"),
    ],
)
def test_server_names(sent: str, name: str) -> None:
    """A name is lower case without port or dots at its end, and kept as it came beside that."""
    hello = read(records(message(server_name(sent))))
    assert (hello.server_name, hello.sent_name) == (name, sent)


@pytest.mark.parametrize(
    ("legacy", "offered", "versions"),
    [
        (0x0300, None, ()),
        (0x0301, None, ("1.0",)),
        (0x0302, None, ("1.1", "1.0")),
        (0x0303, None, ("1.2", "1.1", "1.0")),
        (0x0304, None, ("1.2", "1.1", "1.0")),  # RFC 8446 section 4.2.1: 1.2 at most
        (0x7F1C, None, ("1.2", "1.1", "1.0")),
        (0x0303, (0x0304,), ("1.3",)),
        (0x0303, (0x0303, 0x0304), ("1.2", "1.3")),
        (0x0301, (0x0304, 0x0303, 0x0302, 0x0301), ("1.3", "1.2", "1.1", "1.0")),
        (0x0303, (0x0A0A, 0x0304, 0xFAFA), ("1.3",)),
        (0x0303, (0x0305, 0x7F1C, 0x0300), ()),
    ],
)
def test_versions(legacy: int, offered: tuple[int, ...] | None, versions: tuple[str, ...]) -> None:
    """supported_versions counts where it came, else everything down from legacy_version."""
    extensions = () if offered is None else (supported_versions(*offered),)
    hello = read(records(message(*extensions, legacy_version=legacy)))
    assert hello.versions == versions


def test_nothing_but_what_must_be_there() -> None:
    """Without extensions there are no names, protocols, groups or algorithms."""
    for hello in (smallest(), message(b"", session_id=b"", ciphers=(0x1301,))):
        found = read(records(hello))
        assert (found.server_name, found.sent_name, found.alpn) == ("", "", ())
        assert (found.groups, found.signature_algorithms) == ((), ())
        assert (found.ciphers, found.versions) == ((0x1301,), ("1.2", "1.1", "1.0"))


def test_grease_and_encrypted_hello() -> None:
    """GREASE is passed over in versions and kept in lists; the outer name of ECH is the name."""
    hello = read(records(greased("public.example")))
    assert hello.server_name == "public.example"
    assert hello.versions == ("1.3", "1.2")
    assert hello.alpn == ("\x5a\x5a", "h2")
    assert hello.ciphers == (0xCACA, 0x1301, 0x1302, 0xC02B)
    assert hello.signature_algorithms == (0x9A9A, 0x0403, 0x0804)
    assert hello.groups == (0x5A5A, 0x11EC, 0x001D)
    assert hello.size > 1500


def test_post_quantum() -> None:
    """A key share of 1216 bytes makes it longer than one segment; nothing else changes."""
    data = records(post_quantum("pq.example"))
    assert len(data) > 1500
    assert read_client_hello(data[:1448]) is None
    hello = read(data)
    assert (hello.server_name, hello.groups[-1]) == ("pq.example", X25519)
    assert hello.alpn == ("h2", "http/1.1")


def test_protocols_of_any_bytes() -> None:
    """Protocol names are bytes: each becomes one character, and 255 of them are a name."""
    names = ("\x00\xff", "\n", "h" * 255, "\xe9")
    assert read(records(message(alpn(*names)))).alpn == names


def test_thousands_of_extensions() -> None:
    """As many extensions as fit, each of its own type, are passed over."""
    kinds = range(1000, 1000 + 65535 // 4 - 5)
    hello = message(server_name("a.example"), *(extension(kind) for kind in kinds))
    assert read(records(hello)).server_name == "a.example"
    again = message(*(extension(kind) for kind in kinds), extension(kinds[0]))
    with pytest.raises(ClientHelloError, match="comes twice"):
        read_client_hello(records(again))


@pytest.mark.parametrize("version", [0x0300, 0x0301, 0x0303, 0x0304, 0x03FF])
def test_any_minor_version_of_the_record(version: int) -> None:
    """The record of a ClientHello may carry any minor version (RFC 5246 appendix E.1)."""
    assert read(record(PLAIN, version=version)).server_name == "a.example"


def test_its_repr_is_short() -> None:
    """What ends in a log or a failed test is the name and the size, not the bytes."""
    padded = message(server_name("A.example"), extension(PADDING, bytes(9000)))
    assert repr(read(records(padded))) == f"ClientHello('a.example', {len(padded) + 5} bytes)"


def test_what_was_read_cannot_be_changed() -> None:
    """Rules, routes and certificates go by it: compiled or not, it is frozen and has a hash."""
    fields: dict[str, Any] = {
        "size": 5,
        "server_name": "",
        "sent_name": "",
        "_message": b"",
        "_extensions": {},
    }
    hello = ClientHello(**fields)
    with pytest.raises(AttributeError):
        hello.server_name = "other"  # type: ignore[misc]
    assert not ClientHello.__struct_config__.gc
