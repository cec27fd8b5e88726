"""TLS streams that end without close_notify: nobody is told that all has come (RFC 8446, 6.1)."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

import pytest

from tests.helpers.certificates import Authority
from tests.helpers.sockets import TIMEOUT_S
from tests.helpers.targets import HOSTS, Target, dual_ports
from tests.helpers.tls_clients import VERSIONS, TlsClient, plain, read_exactly, trusting, way_of
from tests.helpers.tls_site import Site, route, terminate
from tests.helpers.tls_targets import TlsTarget
from tests.helpers.waiting import wait_until

GIVEN: Final = b"what it had to say"
RECORD: Final = b"\x17\x03\x03\x01\x00" + b"x" * 256
VERSION: Final = pytest.mark.parametrize("version", list(VERSIONS))
WAYS: Final = ("plain", "secure", "cuts", "tears", "cuts-plain", "answers")


class CutOff(Site):
    """A port for each way."""

    port: dict[str, int]
    root: Authority
    ended: list[tuple[bytes, str]]  # what the plain target has read, and how that ended
    secure: TlsTarget

    def connect(self, way: str, version: str = "1.3") -> TlsClient:
        """A client whose handshake is done."""
        return TlsClient(self.port[way], trusting(self.root, version=VERSIONS[version]))


def note_end(ended: list[tuple[bytes, str]], sock: socket.socket) -> None:
    """Read to the end, and note whether it was FIN or RST."""
    data, how = b"", "fin"
    try:
        while part := sock.recv(65536):
            data += part
    except ConnectionResetError:
        how = "reset"
    ended.append((data, how))


def cuts(secure: ssl.SSLSocket, behind: bytes = b"") -> None:
    """Say something, then FIN without close_notify, and read on without TLS."""
    secure.recv(100)
    secure.sendall(GIVEN)
    with socket.socket(fileno=os.dup(secure.fileno())) as raw:
        raw.settimeout(TIMEOUT_S)
        raw.sendall(behind)
        raw.shutdown(socket.SHUT_WR)
        while raw.recv(65536):
            pass


def answers_an_end(sock: socket.socket) -> None:
    """Read to the client's end, answer, and end in order."""
    while sock.recv(65536):
        pass
    sock.sendall(GIVEN)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CutOff]:
    """Started once: these tests change nothing of it."""
    directory = tmp_path_factory.mktemp("cut-off")
    with ExitStack() as stack:
        root = Authority(directory)
        files = root.leaf("a.example")
        ended: list[tuple[bytes, str]] = []
        secure = TlsTarget(files)
        cutting = TlsTarget(files, talk=cuts)
        tearing = TlsTarget(files, talk=lambda sock: cuts(sock, RECORD[:100]))
        targets: dict[str, Target] = {
            "plain": Target(lambda sock: note_end(ended, sock)),
            "secure": secure,
            "cuts": cutting,
            "tears": tearing,
            "cuts-plain": cutting,
            "answers": Target(answers_an_end),
        }
        for target in {*targets.values()}:
            stack.callback(target.close)
        port = dict(zip(WAYS, dual_ports(len(WAYS)), strict=True))
        upstream = {"upstream_tls": {"ca": str(root.cert), "server_name": "a.example"}}
        routes = [
            route(
                way,
                port[way],
                targets[way].address,
                **({} if way.endswith("-plain") else {"tls": terminate(files)}),
                **({} if way in ("plain", "answers") else upstream),
            )
            for way in WAYS
        ]
        made = CutOff(directory / "site", routes)
        stack.callback(made.end)
        made.start()
        made.port, made.root, made.ended, made.secure = port, root, ended, secure
        yield made


@VERSION
def test_a_client_that_never_says_goodbye(site: CutOff, version: str) -> None:
    """A target with TLS sees that; for one without it FIN is an end. Neither is an error."""
    site.ended.clear()
    seen = len(site.secure.ends)
    with site.connect("plain", version) as client:
        client.send(b"all of it")
        client.sock.shutdown(socket.SHUT_WR)
        wait_until(lambda: site.ended, "the plain target has seen the end")
    assert site.ended == [(b"all of it", "fin")]
    assert site.end_of(client.way) == "client_closed"
    with site.connect("secure", version) as client:
        assert client.echoes()
        client.sock.shutdown(socket.SHUT_WR)
        wait_until(lambda: len(site.secure.ends) > seen, "the target has seen the end")
        # The target says by an alert what it thinks of that, and has no word for close_notify.
        assert (client.read_to_end(), client.ended) == (b"", "fin")
    assert site.secure.ends[-1] == "fin"
    assert site.end_of(client.way) == "client_closed"


@VERSION
def test_a_client_that_never_says_goodbye_is_answered(site: CutOff, version: str) -> None:
    """What comes from a target that ends in order still ends with close_notify."""
    with site.connect("answers", version) as client:
        client.send(b"question")
        client.sock.shutdown(socket.SHUT_WR)
        assert (client.read_to_end(), client.ended) == (GIVEN, "close_notify")
    assert site.end_of(client.way) == "client_closed"


def test_a_target_with_tls_hears_of_a_torn_record(site: CutOff) -> None:
    """By a FIN without close_notify, as of any end of that kind; its part is not passed on."""
    seen = len(site.secure.ends)
    with site.connect("secure") as client:
        assert client.echoes()
        client.sock.sendall(RECORD[:100])
        client.sock.shutdown(socket.SHUT_WR)
        wait_until(lambda: len(site.secure.ends) > seen, "the target has seen the end")
    assert site.secure.ends[-1] == "fin"
    assert site.end_of(client.way) == "client_closed"


@VERSION
def test_a_target_that_never_says_goodbye(site: CutOff, version: str) -> None:
    """Its client gets the data and a FIN; a client without TLS cannot see a difference."""
    with site.connect("cuts", version) as client:
        client.send(b"question")
        assert (client.read_to_end(), client.ended) == (GIVEN, "fin")
    assert site.end_of(client.way) == "target_closed"
    with plain(site.port["cuts-plain"]) as sock:
        sock.sendall(b"question")
        assert read_exactly(sock, len(GIVEN)) == GIVEN
        assert sock.recv(1) == b""


def test_a_client_that_complains_of_the_cut(site: CutOff) -> None:
    """OpenSSL answers such a FIN with an alert; the connection still ended as the target did."""
    context = trusting(site.root)
    address = HOSTS["v4"], site.port["cuts"]
    with (
        socket.create_connection(address, TIMEOUT_S) as sock,
        context.wrap_socket(
            sock, server_hostname="a.example", suppress_ragged_eofs=False
        ) as secure,
    ):
        way = way_of(secure)
        secure.sendall(b"question")
        assert secure.recv(100) == GIVEN
        with pytest.raises(ssl.SSLEOFError):
            secure.recv(1)
    assert site.end_of(way) == "target_closed"


def test_a_target_breaks_off_within_a_record(site: CutOff) -> None:
    """A client with TLS gets a FIN alone, behind what was whole before."""
    with site.connect("tears") as client:
        client.send(b"question")
        assert (client.read_to_end(), client.ended) == (GIVEN, "fin")
    assert site.end_of(client.way) == "target_closed"


def test_nothing_is_left(site: CutOff) -> None:
    """After all of these each connection has one end, and no worker has died."""
    totals = site.settle()
    assert totals["accepted"] == totals["ended"]
    assert site.status()["restarts"] == []
    assert "Traceback" not in site.log()
