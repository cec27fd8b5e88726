"""TLVs through two hops: what came is passed on, checksums are made anew, ids are our own."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from typing import Final

import pytest

from shared.proxy_protocol import (
    ProxyHeader,
    Ssl,
    SslClient,
    TlvType,
    decode_tlvs,
    encode_alpn,
    encode_authority,
    encode_netns,
    encode_noop,
    encode_ssl,
    encode_unique_id,
    encode_v2,
    ipv4_packed,
    ipv4_text,
    tlv,
)
from tests.helpers.chain import (
    REQUEST,
    Topology,
    answer_to_end,
    connect,
    forward,
    hop_config,
    read_seen,
    read_to_end,
)
from tests.helpers.targets import HeaderTarget, Target, dual_ports, read_header

SOURCE: Final = (ipv4_packed(b"203.0.113.7"), 5555, ipv4_packed(b"198.51.100.1"), 443)
OWN_TYPE: Final = 0xE5
SENT: Final = [
    encode_authority("www.example.com"),
    encode_alpn(b"h2"),
    encode_unique_id(b"from-the-front"),
    encode_ssl(Ssl(client=SslClient.SSL, verify=0, version="TLSv1.3", cn="a client")),
    encode_netns("blue"),
    tlv(OWN_TYPE, b"\x00\xff anything"),
]
ROUTES: Final[dict[str, tuple[list[str | dict[str, object]], list[str | dict[str, object]]]]] = {
    "received": (["received", "crc32c"], ["received", "crc32c"]),
    "unique-id": (["unique_id", "crc32c"], ["received", "crc32c"]),
    "chosen": (["authority", "alpn", {"type": 0xE1, "value": "edge"}], ["received"]),
    "none": (["crc32c"], []),
}
ID: Final = re.compile(r"\d+-\d+-\d+")  # slot, incarnation, number


class TlvChain(Topology):
    """first (trusts the test) -> second -> server, with a port for each choice of TLVs."""

    ports: dict[str, int]
    headers: list[ProxyHeader]

    def start(self) -> None:
        """Start the server and both hops."""
        server = self.target(HeaderTarget())
        self.headers = server.headers
        targets = dict.fromkeys(ROUTES, server.address)
        self._start_hops(targets)

    def _start_hops(self, targets: dict[str, str]) -> None:
        configs = {}
        for place, name in ((1, "second"), (0, "first")):
            self.ports = dict(zip(ROUTES, dual_ports(len(ROUTES)), strict=True))
            routes = [
                forward(kind, port, targets[kind], send_proxy="v2", tlvs=ROUTES[kind][place])
                for kind, port in self.ports.items()
            ]
            configs[name] = hop_config(routes, ["127.0.0.0/8"])
            targets = {kind: f"127.0.0.1:{port}" for kind, port in self.ports.items()}
        self.start_hops(configs)

    def start_before_haproxy(self) -> None:
        """The same with HAProxy at the end, which checks the checksum and prints two TLVs."""
        (port,) = dual_ports(1)
        text = (
            f"frontend last\n  mode http\n  bind 127.0.0.1:{port} accept-proxy\n"
            "  http-request return status 200 content-type text/plain"
            ' lf-string "%[src] %[src_port] %[fc_pp_authority] %[fc_pp_unique_id]"\n'
        )
        self.haproxy("last", text)
        self._start_hops(dict.fromkeys(ROUTES, f"127.0.0.1:{port}"))

    def send(self, kind: str, *, crc32c: bool = True) -> ProxyHeader:
        """Go through the chain with all TLVs; the header that the server got."""
        with connect(self.ports[kind]) as client:
            client.sendall(encode_v2(*SOURCE, tlvs=SENT, crc32c=crc32c) + REQUEST)
            assert read_seen(client).source == ("203.0.113.7", 5555)
        self.wait_empty()
        return self.headers[-1]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlvChain]:
    """Two hops before a server of our own."""
    started = TlvChain(tmp_path_factory.mktemp("tlvs"))
    try:
        started.start()
        yield started
    finally:
        started.end()


@pytest.fixture(scope="module")
def before_haproxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlvChain]:
    """Two hops before HAProxy."""
    started = TlvChain(tmp_path_factory.mktemp("tlvs-haproxy"))
    try:
        started.start_before_haproxy()
        yield started
    finally:
        started.end()


@pytest.mark.parametrize("crc32c", [True, False])
def test_received_tlvs_pass_two_hops(chain: TlvChain, crc32c: bool) -> None:
    """Every TLV arrives as it was sent and in its order, with a fresh checksum behind them."""
    header = chain.send("received", crc32c=crc32c)
    assert [one for one in header.tlvs if one[0] != TlvType.CRC32C] == SENT
    assert sum(kind == TlvType.CRC32C for kind, _ in header.tlvs) == 1
    known = decode_tlvs(header.tlvs)
    assert (known.authority, known.alpn, known.netns) == ("www.example.com", b"h2", "blue")
    assert known.ssl is not None
    assert (known.ssl.version, known.ssl.cn) == ("TLSv1.3", "a client")


def test_padding_is_not_passed_on(chain: TlvChain) -> None:
    """NOOP says nothing, so it ends at the first hop."""
    with connect(chain.ports["received"]) as client:
        client.sendall(encode_v2(*SOURCE, tlvs=[encode_noop(9), *SENT]) + REQUEST)
        read_seen(client)
    chain.wait_empty()
    assert TlvType.NOOP not in dict(chain.headers[-1].tlvs)


def test_own_unique_id_replaces_a_foreign_one(chain: TlvChain) -> None:
    """`unique_id` is the first hop's connection id; the next hop passes it on."""
    first, second = (decode_tlvs(chain.send("unique-id").tlvs).unique_id for _ in range(2))
    assert first is not None
    assert second is not None
    assert ID.fullmatch(first.decode())
    assert ID.fullmatch(second.decode())
    assert first != second


def test_chosen_tlvs_only(chain: TlvChain) -> None:
    """What is not named is not passed on; a fixed value is sent as configured."""
    header = chain.send("chosen")
    assert dict(header.tlvs) == {
        int(TlvType.AUTHORITY): b"www.example.com",
        int(TlvType.ALPN): b"h2",
        0xE1: b"edge",
    }


def test_nothing_is_passed_on_unasked(chain: TlvChain) -> None:
    """A hop that names no TLV sends none."""
    assert chain.send("none").tlvs == ()


def test_damaged_checksum_goes_no_further(chain: TlvChain) -> None:
    """A header whose CRC32C is wrong ends at the first hop; the server hears nothing."""
    header = bytearray(encode_v2(*SOURCE, tlvs=SENT, crc32c=True))
    header[16] ^= 1  # of the source address
    before = len(chain.headers)
    second, first = (hop.settle() for hop in chain.hops)
    assert answer_to_end(chain.ports["received"], bytes(header) + REQUEST) == b""
    second_now, first_now = (hop.settle() for hop in chain.hops)
    ends = first_now["ends"]["proxy_header_invalid"]
    assert ends == first["ends"].get("proxy_header_invalid", 0) + 1
    assert second_now["accepted"] == second["accepted"]
    assert len(chain.headers) == before


@pytest.mark.program("haproxy")
@pytest.mark.parametrize("kind", ["received", "unique-id"])
def test_haproxy_reads_what_two_hops_sent(before_haproxy: TlvChain, kind: str) -> None:
    """HAProxy accepts our checksum and finds authority and unique id where we put them."""
    with connect(before_haproxy.ports[kind]) as client:
        client.sendall(encode_v2(*SOURCE, tlvs=SENT, crc32c=True) + REQUEST)
        body = read_to_end(client).partition(b"\r\n\r\n")[2].decode()
    source, port, authority, unique_id = body.split(" ")
    assert (source, port) == (ipv4_text(SOURCE[0]), "5555")
    if kind == "received":
        assert (authority, unique_id) == ("www.example.com", "from-the-front")
    else:
        assert authority in ("", "-")  # HAProxy's log format writes "-" for nothing
        assert ID.fullmatch(unique_id)
    before_haproxy.wait_empty()


def test_large_header_passes(topology: Topology) -> None:
    """TLVs near the size limit of a header go through two hops whole."""
    seen: list[bytes] = []

    def serve(sock: socket.socket) -> None:
        header, _ = read_header(sock)
        seen.append(dict(header.tlvs)[OWN_TYPE])

    server = topology.target(Target(serve))
    second, first = dual_ports(2)
    for port, target in ((second, server.address), (first, f"127.0.0.1:{second}")):
        route = forward("only", port, target, send_proxy="v2", tlvs=["received", "crc32c"])
        topology.hop(f"hop-{port}", hop_config([route], ["127.0.0.0/8"]))
    value = bytes(range(256)) * 15
    sent = encode_v2(*SOURCE, tlvs=[tlv(OWN_TYPE, value)], crc32c=True)
    assert answer_to_end(first, sent) == b""
    topology.wait_empty()
    assert seen == [value]
