"""A gateway behind a balancer: header, block list, TLS, certificate, identity, upgrade, traffic.

Each step must be over before the next begins, and each sees the address in the PROXY header.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_address
from typing import Final

import pytest
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from shared.proxy_protocol import encode_v2
from tests.helpers.certificates import Authority, Files
from tests.helpers.chain import read_to_end
from tests.helpers.http_site import HttpSite, http_route
from tests.helpers.processes import Config
from tests.helpers.sockets import TIMEOUT_S
from tests.helpers.targets import dual_ports, literal
from tests.helpers.tls_clients import trusting
from tests.helpers.tls_site import client_auth, terminate
from tests.helpers.websocket_target import WebsocketTarget

NAME: Final = "gateway.example"
FAMILY = pytest.mark.parametrize("family", ["v4", "v6"])
INSIDE: Final = {"v4": "10.20.0.7", "v6": "2001:db8:20::7"}
ELSEWHERE: Final = {"v4": "10.21.0.7", "v6": "2001:db8:21::7"}
BLOCKED: Final = {"v4": "192.0.2.9", "v6": "2001:db8:bad::9"}
DESTINATION: Final = {"v4": "203.0.113.1", "v6": "2001:db8:1::1"}


class Gateway(HttpSite):
    """It lets Alice in from one network; of Bob it knows nothing."""

    port: int
    root: Authority
    target: WebsocketTarget
    alice: Files
    bob: Files

    def routes(self, files: Files) -> list[Config]:
        """The one route."""
        networks = ["10.20.0.0/16", "2001:db8:20::/48"]
        auth = client_auth("required", self.root)
        made = http_route(
            "gateway",
            self.port,
            self.target.address,
            match={"domains": [NAME], "paths": ["/tunnel"]},
            tls=terminate(files, client_auth=auth),
            send_proxy="v2",
        )
        made["security"] = {"identities": [{"match": {"cn": "alice"}, "allow": networks}]}
        return [made]

    def dial(self, address: str) -> socket.socket:
        """A connection that says it is from there."""
        sock = socket.create_connection(("127.0.0.1", self.port), TIMEOUT_S)
        family = "v6" if ":" in address else "v4"
        source, destination = (ip_address(one).packed for one in (address, DESTINATION[family]))
        sock.sendall(encode_v2(source, 40_000, destination, 443))
        return sock

    def talk(self, address: str, shown: Files | None) -> ClientConnection:
        """A WebSocket from there."""
        sock = self.dial(address)
        try:
            return connect(
                f"wss://{NAME}/tunnel",
                sock=sock,
                ssl=trusting(self.root, client=shown),
                open_timeout=TIMEOUT_S,
                proxy=None,
            )
        except BaseException:
            sock.close()
            raise


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Started once: these tests change nothing of it."""
    directory = tmp_path_factory.mktemp("gateway")
    with ExitStack() as stack:
        root = Authority(directory)
        site = Gateway(directory / "site", [])
        stack.callback(site.end)
        site.root, (site.port,) = root, dual_ports(1)
        site.target = WebsocketTarget()
        stack.callback(site.target.close)
        site.alice, site.bob = root.client("alice"), root.client("bob")
        routes = site.routes(root.leaf(NAME, stem="gateway"))
        config = site.config(routes, security={"block": ["192.0.2.0/24", "2001:db8:bad::/48"]})
        config["proxy_protocol"] = {"trusted": ["127.0.0.1"]}
        site.write(config)
        site.start()
        yield site


@FAMILY
def test_all_steps(gateway: Gateway, family: str) -> None:
    """Alice is let in; the target reads a header with her address, then the upgrade, then talk."""
    count = len(gateway.target.openings)
    with gateway.talk(INSIDE[family], gateway.alice) as talk:
        talk.send("through")
        assert talk.recv(TIMEOUT_S) == "through"
        large = bytes(range(256)) * 1000
        talk.send(large)
        assert talk.recv(TIMEOUT_S) == large
        header, request = gateway.target.openings[count]
    assert (header.source_text, header.source_port) == (INSIDE[family], 40_000)
    assert (header.destination_text, header.destination_port) == (DESTINATION[family], 443)
    assert request.startswith(b"GET /tunnel HTTP/1.1\r\n")
    assert f"\r\nX-Forwarded-For: {INSIDE[family]}\r\n".encode() in request
    client = literal(INSIDE[family], 40_000)
    lines = gateway.wait_lines(1, client=client, path="/tunnel")
    assert (lines[0]["status"], lines[0]["route"]) == (101, "gateway")


@FAMILY
def test_blocked_before_tls(gateway: Gateway, family: str) -> None:
    """An address of the block list gets not one byte of a handshake."""
    before = len(gateway.target.openings)
    with gateway.dial(BLOCKED[family]) as sock:
        assert read_to_end(sock) == b""
    assert len(gateway.target.openings) == before


@FAMILY
@pytest.mark.parametrize("who", ["nobody", "bob", "alice-elsewhere"])
def test_refused(gateway: Gateway, family: str, who: str) -> None:
    """Without a certificate TLS fails; with a wrong name, or from a wrong place, it is a 403."""
    before = len(gateway.target.openings)
    if who == "nobody":
        # TLS 1.3 tells it behind the handshake: before, within or behind the request that is sent.
        with pytest.raises((OSError, InvalidMessage, ConnectionClosed)):
            gateway.talk(INSIDE[family], None)
    else:
        address = INSIDE[family] if who == "bob" else ELSEWHERE[family]
        with pytest.raises(InvalidStatus) as failed:
            gateway.talk(address, gateway.bob if who == "bob" else gateway.alice)
        assert failed.value.response.status_code == 403
    assert len(gateway.target.openings) == before


def test_without_a_header(gateway: Gateway) -> None:
    """The balancer itself must say for whom it comes."""
    with socket.create_connection(("127.0.0.1", gateway.port), TIMEOUT_S) as plain:
        plain.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40))
        assert read_to_end(plain) == b""
    gateway.settle()


def test_reload_in_the_middle(gateway: Gateway) -> None:
    """The tunnel lives through a reload that blocks its address; the next one is not let in."""
    config = json.loads(gateway.config_path.read_text())
    with gateway.talk(INSIDE["v4"], gateway.alice) as talk:
        stricter = {**config, "security": {"block": [INSIDE["v4"]]}}
        gateway.write(stricter)
        assert gateway.run("reload")[0] == 0
        talk.send("still here")
        assert talk.recv(TIMEOUT_S) == "still here"
        # TLS 1.3 tells it behind the handshake: before, within or behind the request that is sent.
        with pytest.raises((OSError, InvalidMessage, ConnectionClosed)):
            gateway.talk(INSIDE["v4"], gateway.alice)
        gateway.write(config)
        assert gateway.run("reload")[0] == 0
        with gateway.talk(INSIDE["v4"], gateway.alice) as again:
            again.send("again")
            assert again.recv(TIMEOUT_S) == "again"
    gateway.settle()
