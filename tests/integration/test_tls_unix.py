"""TLS over Unix listening sockets: passed through by name, ended here, and begun anew."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Final

import pytest

from shared.proxy_protocol import SslClient, decode_tlvs
from tests.helpers.certificates import Authority, Files
from tests.helpers.chain import send_slowly
from tests.helpers.client_hello_builder import message, records, server_name
from tests.helpers.targets import Target
from tests.helpers.tls_clients import VERSIONS, TlsClient, plain, read_exactly, trusting
from tests.helpers.tls_site import Site, client_auth, route, terminate
from tests.helpers.tls_targets import TlsTarget, digest_at_end, echo, tagged

BULK: Final = 3_000_001
KINDS: Final = ("ended", "ends", "names", "nobody", "asks", "lists", "anew", "hasty")
NAME: Final = "a.example"  # of what ends here
REAL: Final = "real.example"  # of the targets that speak TLS
RAW: Final = "raw.example"
TAG: Final = b"<tagged>"
VERSION = pytest.mark.parametrize("version", VERSIONS)


class Sockets(Site):
    """``path`` has the listening socket of each kind; each is served by both workers."""

    path: dict[str, str]
    root: Authority
    certs: dict[str, Files]
    targets: dict[str, Target]

    def listener(self, kind: str) -> str:
        """Its name in logs and counters."""
        return f"unix:{self.path[kind]}"

    def connect(self, kind: str, version: str = "1.3", **more: Any) -> TlsClient:
        """A client of one of the sockets."""
        context = trusting(self.root, version=VERSIONS[version], client=more.pop("client", None))
        return TlsClient(self.path[kind], context, more.pop("name", NAME), **more)

    def routes(self) -> list[dict[str, Any]]:
        """All of them."""
        address = {kind: target.address for kind, target in self.targets.items()}
        tls = terminate(self.certs["site"])
        asks = terminate(self.certs["site"], client_auth=client_auth("required", self.root))
        alice: dict[str, Any] = {"match": {"cn": "alice"}}
        anywhere = {**alice, "allow": ["0.0.0.0/0", "::/0"]}
        anew: dict[str, Any] = {
            "tls": {**tls, "mode": "terminate-and-reencrypt"},
            "upstream_tls": {"ca": str(self.root.cert), "server_name": REAL},
            "send_proxy": "v2",
            "send_proxy_tlvs": ["authority", "ssl"],
        }

        def one(kind: str, target: str, at: str = "", **more: Any) -> dict[str, Any]:
            return route(kind, self.listener(at or kind), address[target], **more)

        return [
            one("ended", "echo", tls=tls),
            one("ends", "digest", tls=tls),
            one("passed", "real", "names", match={"domains": [REAL]}),
            one("raw", "tagged", "names", match={"domains": [RAW]}),
            one("opened", "tagged", "names", match={"domains": [NAME]}, tls=tls),
            one("clear", "tagged", "names", match={"tls": False}),
            one("nobody", "real", match={"domains": [REAL]}),
            one("asks", "echo", tls=asks, security={"identities": [alice]}),
            one("lists", "echo", tls=asks, security={"identities": [anywhere]}),
            one("anew", "header", **anew),
            one("hasty", "echo", tls=tls, timeouts={"tls_handshake": "400ms"}),
        ]


@pytest.fixture(scope="module")
def sockets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sockets]:
    """Started once; only the last test changes something of it."""
    directory = tmp_path_factory.mktemp("unix")
    with ExitStack() as stack:
        site = Sockets(directory / "site", [])
        site.root = Authority(directory)
        site.certs = {
            "site": site.root.leaf(NAME, stem="site"),
            "real": site.root.leaf(REAL, stem="real"),
            "alice": site.root.client("alice"),
            "bob": site.root.client("bob"),
        }
        site.targets = {
            "echo": Target(echo),
            "digest": Target(digest_at_end),
            "tagged": Target(tagged(TAG)),
            "real": TlsTarget(site.certs["real"]),
            "header": TlsTarget(site.certs["real"], reads_header=True),
        }
        for target in site.targets.values():
            stack.callback(target.close)
        site.path = {kind: str(directory / kind) for kind in KINDS}
        site.write(site.config(site.routes()))
        stack.callback(site.end)
        site.start()
        yield site


@VERSION
def test_bulk_both_ways(sockets: Sockets, version: str) -> None:
    """The certificate is ours, and what goes there and back comes out as it went in."""
    data = hashlib.shake_256(version.encode()).digest(BULK)
    with sockets.connect("ended", version) as client:
        assert client.peer() == sockets.certs["site"].certificate
        sender = threading.Thread(target=client.sock.sendall, args=(client.seal(data),))
        sender.start()
        assert client.read_exactly(BULK) == data
        sender.join()
        client.finish()
        assert (client.read_to_end(), client.ended) == (b"", "close_notify")


def test_the_end_of_a_client_and_its_line(sockets: Sockets) -> None:
    """Its close_notify ends one direction alone; its line has the socket, and no address."""
    data = hashlib.shake_256(b"up").digest(BULK)
    digest = hashlib.sha256(data).hexdigest().encode()
    with sockets.connect("ends") as client:
        client.send(data)
        client.finish()
        assert (client.read_to_end(), client.ended) == (digest, "close_notify")
    line = sockets.line_of(client.way)
    assert (line["peer"], line["client"], line["destination"]) == (None, None, None)
    assert (line["received"], line["sent"]) == (BULK, len(digest))
    assert (line["listener"], line["route"]) == (sockets.listener("ends"), "ends")
    assert line["end"] == "client_closed"
    assert 0 < line["t_tls"] < line["t_total"]


@VERSION
def test_sessions_resume(sockets: Sockets, version: str) -> None:
    """By whichever worker takes the next connection of the shared socket."""
    context = trusting(sockets.root, version=VERSIONS[version])
    with TlsClient(sockets.path["ended"], context) as client:
        assert client.echoes()
        session = client.session()
    for _ in range(10):
        with TlsClient(sockets.path["ended"], context, session=session) as client:
            assert client.tls.session_reused
            assert client.echoes()


def test_passed_through_by_name(sockets: Sockets) -> None:
    """The target shows its own certificate, and sees the name that was asked for."""
    with sockets.connect("names", name=REAL) as client:
        assert client.peer() == sockets.certs["real"].certificate
        assert client.echoes()
    target = sockets.targets["real"]
    assert isinstance(target, TlsTarget)
    assert target.spoken[-1].server_name == REAL


def test_a_hello_byte_by_byte(sockets: Sockets) -> None:
    """It and what follows come to the target of its name as they were sent."""
    data = records(message(server_name(RAW)), 50) + b"\x17\x03\x03\x00\x05first"
    with plain(sockets.path["names"]) as client:
        send_slowly(client, data)
        assert read_exactly(client, len(TAG + data)) == TAG + data


def test_three_protocols_on_a_socket(sockets: Sockets) -> None:
    """By another name TLS ends here, and what is no TLS has a route of its own."""
    with sockets.connect("names") as client:
        assert client.peer() == sockets.certs["site"].certificate
        client.send(b"secret")
        assert client.read_exactly(len(TAG) + 6) == TAG + b"secret"
    with plain(sockets.path["names"]) as sock:
        sock.sendall(b"clear")
        assert read_exactly(sock, len(TAG) + 5) == TAG + b"clear"


def test_nobody_is_for_it(sockets: Sockets) -> None:
    """A name that no route has is closed; a request without TLS is asked for its Host."""
    name = sockets.listener("nobody")
    with plain(sockets.path["nobody"]) as sock:
        sock.sendall(records(message(server_name("other.example"))))
        assert read_exactly(sock, 1) == b""
    sockets.wait_metric(1, "refused_total", listener=name, end="no_route")
    assert sockets.logged('"end":"no_route"', f'"{name}"')
    with plain(sockets.path["nobody"]) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert read_exactly(sock, 12) == b"HTTP/1.1 404"
    sockets.wait_metric(1, "requests_total", route="", target="", code="4xx")


def test_certificates_of_clients(sockets: Sockets) -> None:
    """Rules by identity hold; one that lists addresses refuses all, since nobody here has one."""
    alice, bob = sockets.certs["alice"], sockets.certs["bob"]
    with sockets.connect("asks", client=alice) as client:
        assert client.echoes()
    accepted = sockets.targets["echo"].accepted
    for kind, who in (("asks", bob), ("lists", alice)):
        with sockets.connect(kind, client=who, shakes=False) as client:
            assert not client.talks()
        sockets.wait_metric(1, "connections_ended_total", route=kind, end="blocked")
        assert "identities" in sockets.logged('"end":"blocked"', f'"{sockets.listener(kind)}"')
    assert sockets.targets["echo"].accepted == accepted


@VERSION
def test_begun_anew_behind_a_header(sockets: Sockets, version: str) -> None:
    """The header has no addresses, and tells what the client's TLS was."""
    with sockets.connect("anew", version) as client:
        assert client.echoes()
    target = sockets.targets["header"]
    assert isinstance(target, TlsTarget)
    spoken = target.spoken[-1]
    assert spoken.server_name == REAL
    assert spoken.header is not None
    assert not spoken.header.has_addresses
    known = decode_tlvs(spoken.header.tlvs)
    assert known.authority == NAME
    assert known.ssl is not None
    assert (known.ssl.client, known.ssl.version) == (SslClient.SSL, f"TLSv{version}")


def test_a_handshake_that_never_ends(sockets: Sockets) -> None:
    """It is cut at `tls_handshake`, and counted by the name of the socket."""
    with sockets.connect("hasty", shakes=False) as client:
        client.sock.sendall(client.flight())
        while client.sock.recv(65536):
            pass
    assert sockets.end_of(client.way) == "tls_timeout"
    name = sockets.listener("hasty")
    sockets.wait_metric(1, "tls_handshakes_total", listener=name, result="timeout")


def test_a_renewed_certificate(sockets: Sockets) -> None:
    """After a reload new clients get it, those that are there go on."""
    old = sockets.certs["site"].certificate
    with sockets.connect("ended") as client:
        assert client.echoes()
        new = sockets.root.leaf(NAME, stem="site", days=300)
        sockets.reload(sockets.routes())
        for _ in range(8):
            with sockets.connect("ended") as late:
                assert late.echoes()
                assert late.peer() == new.certificate
        assert client.echoes()
        assert client.peer() == old


def test_nothing_is_left(sockets: Sockets) -> None:
    """After all of these each connection has one end, no worker has died."""
    totals = sockets.settle()
    assert totals["accepted"] == totals["ended"]
    assert sockets.status()["restarts"] == []
    assert "Traceback" not in sockets.log()
