"""TLS that stays closed: chosen by what the ClientHello says, and passed on to the last byte."""

from __future__ import annotations

import hashlib
import socket
import threading
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from tests.helpers.certificates import Authority, Files
from tests.helpers.chain import send_slowly
from tests.helpers.client_hello_builder import (
    PADDING,
    alpn,
    extension,
    greased,
    message,
    post_quantum,
    record,
    records,
    server_name,
    sized,
    supported_versions,
    vector,
)
from tests.helpers.targets import HOSTS, Target, dual_ports
from tests.helpers.tls_clients import TlsClient, plain, read_exactly, trusting, way_of
from tests.helpers.tls_site import Site, route
from tests.helpers.tls_targets import TlsTarget, tagged

CORPUS: Final = Path(__file__).parent.parent / "corpus" / "client_hello" / "valid"
BEHIND: Final = b"\x17\x03\x03\x00\x0bfirst words"  # comes in one go with the ClientHello
LONG: Final = message(server_name("exact.example"), extension(PADDING, bytes(40_000)))
KINDS: Final = ("exact", "wild", "deeper", "brand", "old", "mail")
PIECES: Final = 4


class Names(Site):
    """A port of names with a target for each kind of match, and one that takes any name."""

    by_name: int
    anything: int
    real: int
    tls: TlsTarget
    root: Authority
    files: Files


def make(directory: Path, stack: ExitStack) -> Names:
    """Start it all."""
    targets = {kind: Target(tagged(f"<{kind}>".encode())) for kind in (*KINDS, "any")}
    for target in targets.values():
        stack.callback(target.close)
    root = Authority(directory)
    files = root.leaf("real.example", "*.real.example")
    secure = TlsTarget(files)
    stack.callback(secure.close)
    by_name, anything, real = dual_ports(3)
    matches: dict[str, dict[str, Any]] = {
        "exact": {"domains": ["exact.example", "bücher.example"]},
        "wild": {"domains": ["*.wild.example"]},
        "deeper": {"domains": ["*.deeper.wild.example"]},
        "brand": {"domains": ["brand.*"]},
        "old": {"tls_versions": ["1.0", "1.1"], "domains": ["*.versions.example"]},
        "mail": {"alpn": ["imap", "pop3"], "domains": ["*.versions.example"]},
    }
    routes = [
        route(kind, by_name, targets[kind].address, match=match) for kind, match in matches.items()
    ]
    routes.append(route("any", anything, targets["any"].address, match={"tls": True}))
    routes.append(
        route("real", real, secure.address, match={"domains": ["real.example", "*.real.example"]})
    )
    names = Names(directory / "site", routes)
    stack.callback(names.end)
    names.start()
    names.by_name, names.anything, names.real = by_name, anything, real
    names.tls, names.root, names.files = secure, root, files
    return names


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Names]:
    """Started once: these tests change nothing of it."""
    with ExitStack() as stack:
        yield make(tmp_path_factory.mktemp("names"), stack)


def who_has(port: int, data: bytes, family: str = "v4") -> str:
    """Which target gets these bytes, all of them and in order; "" where nobody does."""
    with plain(port, family) as client:
        client.sendall(data)
        got = read_exactly(client, 1)
        if not got:
            return ""
        while not got.endswith(b">"):
            got += read_exactly(client, 1)
        assert read_exactly(client, len(data)) == data
        return got.strip(b"<>").decode()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("exact.example", "exact"),
        ("EXACT.Example.", "exact"),
        ("xn--bcher-kva.example", "exact"),
        ("a.wild.example", "wild"),
        ("a.b.c.wild.example", "wild"),
        ("wild.example", ""),
        ("x.deeper.wild.example", "deeper"),
        ("brand.org", "brand"),
        ("brand.co.uk", "brand"),
        ("www.brand.org", ""),
        ("unknown.test", ""),
        ("", ""),
    ],
)
@pytest.mark.parametrize("family", HOSTS)
def test_the_name_chooses(names: Names, name: str, kind: str, family: str) -> None:
    """Exact, wildcard, several labels deep, in any case; a name that no route has gets nobody."""
    hello = records(message(server_name(name), supported_versions(0x0304)) if name else message())
    assert who_has(names.by_name, hello + BEHIND, family) == kind


@pytest.mark.parametrize(
    ("versions", "protocols", "kind"),
    [
        ((0x0301, 0x0302), (), "old"),
        ((0x0303, 0x0304), (), ""),
        ((0x0304,), ("h2", "imap"), "mail"),
        ((0x0304,), ("h2",), ""),
    ],
)
def test_version_and_protocol_choose(
    names: Names, versions: tuple[int, ...], protocols: tuple[str, ...], kind: str
) -> None:
    """One of those that the route names must be on offer."""
    parts = [server_name("a.versions.example"), supported_versions(*versions)]
    if protocols:
        parts.append(alpn(*protocols))
    assert who_has(names.by_name, records(message(*parts)) + BEHIND) == kind


@pytest.mark.parametrize(
    "hello",
    [
        pytest.param(records(post_quantum("exact.example")), id="post-quantum"),
        pytest.param(records(greased("exact.example")), id="greased"),
        pytest.param(records(LONG), id="over-16-KiB"),
        pytest.param(records(LONG, 100), id="400-records"),
        pytest.param(records(message(server_name("exact.example")), 1), id="records-of-a-byte"),
    ],
)
def test_large_and_scattered_hellos(names: Names, hello: bytes) -> None:
    """Whatever it takes to hold one, it arrives as it was sent, with what follows."""
    assert who_has(names.by_name, hello + BEHIND) == "exact"


def test_the_longest_hello_passes(names: Names) -> None:
    """128 KiB are not too long, and all of them come out."""
    assert who_has(names.anything, records(sized(128 * 1024)) + BEHIND) == "any"


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.bin")), ids=lambda path: path.stem)
def test_recorded_hellos(names: Names, path: Path) -> None:
    """What real clients send, browsers and Go among them, whole and in pieces."""
    hello = path.read_bytes()
    assert tomllib.loads(path.with_suffix(".toml").read_text())["what"]
    assert who_has(names.anything, hello + BEHIND) == "any"
    with plain(names.anything) as client:
        step = len(hello) // PIECES + 1
        pause = threading.Event()
        for at in range(0, len(hello), step):
            client.sendall(hello[at : at + step])
            pause.wait(0.005)  # so that each piece is read by itself
        client.sendall(BEHIND)
        wanted = b"<any>" + hello + BEHIND
        assert read_exactly(client, len(wanted)) == wanted


@pytest.mark.parametrize("size", [16384, 50], ids=["a-record", "records"])
def test_byte_by_byte(names: Names, size: int) -> None:
    """Each byte in a segment of its own, also within the heads of records."""
    hello = records(message(server_name("a.wild.example"), alpn("h2")), size)
    with plain(names.by_name) as client:
        send_slowly(client, hello)
        wanted = b"<wild>" + hello
        assert read_exactly(client, len(wanted)) == wanted


def test_every_split_of_a_hello(names: Names) -> None:
    """Two pieces, cut anywhere, many at a time: none is lost or doubled."""
    hello = records(message(server_name("exact.example")))
    with ExitStack() as stack:
        clients = [(stack.enter_context(plain(names.by_name)), at) for at in range(1, len(hello))]
        for client, at in clients:
            client.sendall(hello[:at])
        for client, at in clients:
            client.sendall(hello[at:] + BEHIND)
        wanted = b"<exact>" + hello + BEHIND
        for client, at in clients:
            assert read_exactly(client, len(wanted)) == wanted, at


def test_fin_behind_the_hello(names: Names) -> None:
    """A client that says all it has and ends still gets the answer."""
    hello = records(message(server_name("exact.example")))
    with plain(names.by_name) as client:
        way = way_of(client)
        client.sendall(hello + BEHIND)
        client.shutdown(socket.SHUT_WR)
        received = b""
        while part := client.recv(65536):
            received += part
        assert received == b"<exact>" + hello + BEHIND
    assert names.end_of(way) == "client_closed"


@pytest.mark.parametrize("family", HOSTS)
def test_real_tls_passes(names: Names, family: str) -> None:
    """The target shows its own certificate to the client, and sees the name and the protocol."""
    context = trusting(names.root)
    data = hashlib.shake_256(b"tls").digest(1 << 20)
    with TlsClient(names.real, context, "www.real.example", family=family) as client:
        assert client.peer() == names.files.certificate
        sender = threading.Thread(target=client.sock.sendall, args=(client.seal(data),))
        sender.start()
        assert client.read_exactly(len(data)) == data
        sender.join()
        client.finish()
        assert (client.read_to_end(), client.ended) == (b"", "close_notify")
        client.wait_fin()
        assert client.ended == "fin"
    line = names.line_of(client.way)
    assert (line["route"], line["end"]) == ("real", "target_closed")  # a FIN; the rest is theirs
    assert line["t_tls"] is None
    assert names.tls.spoken[-1].server_name == "www.real.example"


def test_nobody_s_name_is_told(names: Names) -> None:
    """The log says which name was asked for, and no target was dialled."""
    dialled = names.totals()["dialled"]
    with plain(names.by_name) as client:
        way = way_of(client)
        client.sendall(records(message(server_name("nobody.knows.test"))))
        assert client.recv(1) == b""
    line = names.line_of(way)
    assert (line["end"], line["route"], line["target"]) == ("no_route", None, None)
    assert "nobody.knows.test" in names.logged('"end":"no_route"', way.own)
    assert names.totals()["dialled"] == dialled


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(record(b"\x02\0\0\x04abcd"), id="another-message"),
        pytest.param(records(b"\x01" + vector(3, b"\xff" * 80)), id="torn"),
        pytest.param(b"\x16\x03\x01\xff\xff" + b"x" * 100, id="a-record-too-long"),
        pytest.param(b"\x16\x09\x09\x00\x10" + b"\0" * 16, id="no-such-version"),
        pytest.param(records(b"\x01" + (131_069).to_bytes(3, "big") + bytes(200)), id="over-limit"),
        pytest.param(records(b"\x01\xff\xff\xff" + bytes(131_200)), id="far-over-limit"),
    ],
)
def test_no_hello_at_all(names: Names, data: bytes) -> None:
    """What begins as TLS and is none, or is over 128 KiB, ends as tls_failed, and is logged."""
    with plain(names.by_name) as client:
        way = way_of(client)
        try:
            client.sendall(data)
            assert client.recv(1) == b""
        except ConnectionError:
            pass  # it was closed with bytes of ours still unread
    assert names.end_of(way) == "tls_failed"
    assert names.logged('"end":"tls_failed"', "detail")
