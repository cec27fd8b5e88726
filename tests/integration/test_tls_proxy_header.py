"""PROXY headers and TLS: read before it, and sent with what the client's TLS was."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Final

import pytest

from shared.proxy_protocol import (
    ProxyHeader,
    Ssl,
    SslClient,
    TlvType,
    decode_tlvs,
    encode_alpn,
    encode_authority,
    encode_ssl,
    encode_v1,
    encode_v2,
)
from tests.helpers.certificates import Authority, Files
from tests.helpers.chain import read_to_end, send_slowly
from tests.helpers.client_hello_builder import message, records, server_name
from tests.helpers.targets import HOSTS, dual_ports
from tests.helpers.tls_clients import TLS12, TLS13, TlsClient, nameless, plain, trusting
from tests.helpers.tls_site import Site, client_auth, route, terminate
from tests.helpers.tls_targets import HeaderEcho
from tests.helpers.waiting import wait_until

SOURCE: Final = (bytes([203, 0, 113, 7]), 5555, bytes([198, 51, 100, 1]), 443)
V1: Final = encode_v1(*SOURCE)
V2: Final = encode_v2(*SOURCE, tlvs=[encode_authority("from.before")], crc32c=True)
# Of a front that ended TLS of its own.
OTHER_TLS: Final = (
    encode_authority("from.before"),
    encode_alpn(b"h2"),
    encode_ssl(Ssl(client=SslClient.SSL, verify=0, version="TLSv1.1")),
    (0xE1, b"more"),
)
V2_TLS: Final = encode_v2(*SOURCE, tlvs=OTHER_TLS)
ID: Final = re.compile(rb"\d+-\d+-\d+")
ALL: Final = ["authority", "alpn", "ssl", "unique_id", "crc32c"]
PORTS: Final = (
    "ended", "asks", "rsa", "passed", "trusting", "bare", "received", "first", "last",
    "closed", "closed_received",
)  # fmt: skip
TRUSTING: Final = ("trusting", "received", "first", "last", "closed", "closed_received")
CERT: Final = SslClient.SSL | SslClient.CERT_CONN | SslClient.CERT_SESS
RESUMED: Final = SslClient.SSL | SslClient.CERT_SESS


class Headers(Site):
    """A port for each kind of route, with one target that notes the headers it gets."""

    port: dict[str, int]
    root: Authority
    alice: Files
    target: HeaderEcho

    def header(self, kind: str, client: TlsClient) -> ProxyHeader:
        """The header that came for this client, whose words go there and back."""
        assert client.echoes(), kind
        return self.target.headers[-1]


def routes_of(site: Headers, files: Files, rsa: Files) -> list[dict[str, Any]]:
    """All TLVs of each, but for one route that sends none and one that passes some on."""
    plain_tls = terminate(files, alpn=["h2", "http/1.1"])
    asks = terminate(files, client_auth=client_auth("optional", site.root))
    actions: dict[str, tuple[dict[str, Any] | None, list[str]]] = {
        "ended": (plain_tls, ALL),
        "asks": (asks, ALL),
        "rsa": (terminate(rsa), ALL),
        "passed": ({"mode": "passthrough"}, ALL),
        "trusting": (plain_tls, ALL),
        "bare": (plain_tls, []),
        "received": (plain_tls, ["received", "ssl"]),
        "first": (plain_tls, ["received", "authority", "alpn", "ssl"]),
        "last": (plain_tls, ["authority", "alpn", "ssl", "received"]),
        "closed": ({"mode": "passthrough"}, ["authority", "alpn", "ssl"]),
        "closed_received": ({"mode": "passthrough"}, ["received", "authority", "alpn"]),
    }
    return [
        route(
            kind,
            site.port[kind],
            site.target.address,
            tls=tls,
            send_proxy="v2",
            send_proxy_tlvs=tlvs,
        )
        for kind, (tls, tlvs) in actions.items()
    ]


@pytest.fixture(scope="module")
def headers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Headers]:
    """Started once: these tests change nothing of it."""
    directory = tmp_path_factory.mktemp("headers")
    with ExitStack() as stack:
        site = Headers(directory / "site", [], trusted=["127.0.0.0/8", "::1"])
        site.root = Authority(directory)
        site.alice = site.root.client("alice")
        site.target = HeaderEcho()
        stack.callback(site.target.close)
        site.port = dict(zip(PORTS, dual_ports(len(PORTS)), strict=True))
        routes = routes_of(
            site,
            site.root.leaf("a.example", stem="ec"),
            site.root.leaf("a.example", key="rsa", stem="rsa"),
        )
        by_peer = [site.port[kind] for kind in PORTS if kind not in TRUSTING]
        listeners = [{"ports": by_peer, "proxy_protocol": {"trusted": []}}]
        site.write(site.config(routes, listeners=listeners))
        stack.callback(site.end)
        site.start()
        yield site


def ssl_of(header: ProxyHeader) -> Ssl:
    """Its SSL TLV."""
    found = decode_tlvs(header.tlvs).ssl
    assert found is not None
    return found


@pytest.mark.parametrize("family", HOSTS)
def test_all_that_is_known(headers: Headers, family: str) -> None:
    """Addresses, name, protocol, id and TLS of a client without a certificate."""
    context = trusting(headers.root, version=TLS13, alpn=["http/1.1", "h2"])
    with TlsClient(headers.port["ended"], context, family=family) as client:
        header = headers.header("ended", client)
        cipher = client.tls.cipher()
    assert (header.source_text, header.destination_text) == (HOSTS[family], HOSTS[family])
    assert header.destination_port == headers.port["ended"]
    known = decode_tlvs(header.tlvs)
    assert (known.authority, known.alpn) == ("a.example", b"h2")
    assert known.unique_id is not None
    assert ID.fullmatch(known.unique_id)
    assert TlvType.CRC32C in dict(header.tlvs)
    assert cipher is not None
    assert known.ssl == Ssl(
        client=SslClient.SSL,
        verify=1,
        version="TLSv1.3",
        cipher=cipher[0],
        sig_alg="SHA256",
        key_alg="EC256",
    )


def test_older_tls_and_rsa(headers: Headers) -> None:
    """Version, cipher and key are those of this connection; without ALPN there is no such TLV."""
    context = trusting(headers.root, version=TLS12, ciphers="ECDHE-RSA-AES128-GCM-SHA256")
    with TlsClient(headers.port["rsa"], context) as client:
        header = headers.header("rsa", client)
    found = ssl_of(header)
    assert (found.version, found.cipher) == ("TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256")
    assert (found.key_alg, found.sig_alg) == ("RSA2048", "SHA256")
    assert decode_tlvs(header.tlvs).alpn is None


def test_the_name_as_it_was_sent(headers: Headers) -> None:
    """AUTHORITY is an exact copy; who names nobody has none."""
    with TlsClient(headers.port["ended"], nameless(headers.root), "A.eXample") as client:
        assert decode_tlvs(headers.header("ended", client).tlvs).authority == "A.eXample"
    with TlsClient(headers.port["ended"], nameless(headers.root), None) as client:
        assert decode_tlvs(headers.header("ended", client).tlvs).authority is None


@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])
def test_the_certificate_of_the_client(headers: Headers, version: Any) -> None:
    """Its name and that it was verified; in a resumed session it is the session's."""
    context = trusting(headers.root, version=version, client=headers.alice)
    with TlsClient(headers.port["asks"], context) as client:
        found = ssl_of(headers.header("asks", client))
        session = client.session()
    assert (found.client, found.verify, found.cn) == (CERT, 0, "alice")
    with TlsClient(headers.port["asks"], context, session=session) as client:
        assert client.tls.session_reused
        found = ssl_of(headers.header("asks", client))
    assert (found.client, found.verify, found.cn) == (RESUMED, 0, "alice")
    with TlsClient(headers.port["asks"], trusting(headers.root, version=version)) as client:
        found = ssl_of(headers.header("asks", client))
    assert (found.client, found.verify, found.cn) == (SslClient.SSL, 1, None)


def test_passthrough_tells_the_name_alone(headers: Headers) -> None:
    """AUTHORITY is the SNI; nothing is said of TLS that was not opened."""
    hello = records(message(server_name("Some.Name")))
    with plain(headers.port["passed"]) as client:
        client.sendall(hello)
        assert client.recv(len(hello), socket.MSG_WAITALL) == hello
    known = decode_tlvs(headers.target.headers[-1].tlvs)
    assert (known.authority, known.ssl, known.alpn) == ("Some.Name", None, None)


def test_nothing_unasked(headers: Headers) -> None:
    """A route that names no TLV sends none."""
    with TlsClient(headers.port["bare"], trusting(headers.root)) as client:
        assert headers.header("bare", client).tlvs == ()


@pytest.mark.parametrize("before", [V1, V2], ids=["v1", "v2"])
def test_a_header_is_read_before_tls(headers: Headers, before: bytes) -> None:
    """The client is whom the header names; TLS begins right behind it."""
    context = trusting(headers.root)
    with TlsClient(headers.port["trusting"], context, before=before) as client:
        header = headers.header("trusting", client)
    assert (header.source_text, header.source_port) == ("203.0.113.7", 5555)
    assert (header.destination_text, header.destination_port) == ("198.51.100.1", 443)
    assert decode_tlvs(header.tlvs).authority == "a.example"
    line = headers.line_of(client.way)
    assert line["client"] == "203.0.113.7:5555"
    assert line["t_proxy"] is not None
    assert line["t_tls"] > 0


@pytest.mark.parametrize("before", [V1, V2], ids=["v1", "v2"])
def test_header_and_hello_in_one_segment(headers: Headers, before: bytes) -> None:
    """And byte by byte: where one ends the other begins."""
    for is_slow in (False, True):
        with TlsClient(headers.port["trusting"], trusting(headers.root), shakes=False) as client:
            first = before + client.flight()
            if is_slow:
                send_slowly(client.sock, first)
            else:
                client.sock.sendall(first)
            client.shake()
            header = headers.header("trusting", client)
        assert header.source_text == "203.0.113.7"


def test_received_and_own_tlvs_together(headers: Headers) -> None:
    """What came is passed on, and what is known of this TLS is added."""
    with TlsClient(headers.port["received"], trusting(headers.root), before=V2) as client:
        known = decode_tlvs(headers.header("received", client).tlvs)
    assert known.authority == "from.before"
    assert known.ssl is not None
    assert known.ssl.version == "TLSv1.3"


@pytest.mark.parametrize("kind", ["first", "last"])
def test_what_is_named_is_of_this_tls(headers: Headers, kind: str) -> None:
    """Each type once; "received" has only the rest, wherever it stands."""
    context = trusting(headers.root, alpn=["http/1.1"])
    with TlsClient(headers.port[kind], context, before=V2_TLS) as client:
        header = headers.header(kind, client)
    types = [type_ for type_, _ in header.tlvs]
    named = [TlvType.AUTHORITY, TlvType.ALPN, TlvType.SSL]
    assert types == ([0xE1, *named] if kind == "first" else [*named, 0xE1])
    known = decode_tlvs(header.tlvs)
    assert (known.authority, known.alpn) == ("a.example", b"http/1.1")
    assert ssl_of(header).version == "TLSv1.3"


@pytest.mark.parametrize("kind", ["trusting", "first", "last"])
def test_nothing_of_a_front_under_what_this_tls_lacks(headers: Headers, kind: str) -> None:
    """A client that names nobody and agrees on nothing has neither TLV, whatever the front says."""
    with TlsClient(headers.port[kind], nameless(headers.root), None, before=V2_TLS) as client:
        header = headers.header(kind, client)
    known = decode_tlvs(header.tlvs)
    assert (known.authority, known.alpn) == (None, None)
    assert ssl_of(header).version == "TLSv1.3"


@pytest.mark.parametrize("name", [None, "Some.Name"])
@pytest.mark.parametrize("kind", ["closed", "closed_received"])
def test_closed_tls_behind_a_front(headers: Headers, kind: str, name: str | None) -> None:
    """Its SNI alone is ours; the front's word comes by "received" only, and each type once."""
    hello = records(message(*([] if name is None else [server_name(name)])))
    with plain(headers.port[kind]) as client:
        client.sendall(V2_TLS + hello)
        assert client.recv(len(hello), socket.MSG_WAITALL) == hello
    tlvs = headers.target.headers[-1].tlvs
    own = [] if name is None else [encode_authority(name)]
    if kind == "closed":
        assert tlvs == tuple(own)
    else:
        assert sorted(tlvs) == sorted([*(own or OTHER_TLS[:1]), *OTHER_TLS[1:]])


@pytest.mark.parametrize("cut", [0, 8, 20])
def test_no_tls_before_the_header(headers: Headers, cut: int) -> None:
    """TLS without a header, or within one, is no header; nothing of it reaches a target."""
    accepted = headers.target.accepted
    hello = records(message(server_name("a.example")))
    with plain(headers.port["trusting"]) as client:
        client.sendall(V2[:cut] + hello)
        assert read_to_end(client) == b""
    wait_until(headers.is_empty, "the end")
    assert headers.target.accepted == accepted


def test_nothing_is_left(headers: Headers) -> None:
    """After all of these each connection has one end, and no target failed."""
    totals = headers.settle()
    assert totals["accepted"] == totals["ended"]
    assert "Traceback" not in headers.log()
