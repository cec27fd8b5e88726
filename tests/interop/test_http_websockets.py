"""The websockets library before uvicorn, with every byte through the relay."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Final

import pytest
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.helpers.http_clients import httpx_client
from tests.helpers.http_site import HttpSite, Servers, http_route
from tests.helpers.processes import Config
from tests.helpers.sockets import TIMEOUT_S
from tests.helpers.targets import dual_ports
from tests.helpers.tls_clients import trusting

SCHEME = pytest.mark.parametrize("scheme", ["http", "https"])
TIMEOUTS: Final = {"drain": 0.5}


class Place(HttpSite):
    """A site with uvicorn behind it. `plain_port`: of a route that allows no upgrade."""

    servers: Servers
    plain_port: int

    def routes(self) -> list[Config]:
        """Those of the servers, and the one without upgrades."""
        strict = http_route("strict", self.plain_port, self.servers.addresses["uvicorn"])
        strict["http"] = {"upgrades": []}
        return [*self.servers.routes(), strict]

    def talk(self, scheme: str, path: str = "/ws", **more: Any) -> ClientConnection:
        """A WebSocket to uvicorn."""
        if scheme == "https":
            more["ssl"] = trusting(self.servers.root)
        url = self.servers.url("uvicorn", scheme, path).replace("http", "ws", 1)
        talk: ClientConnection = connect(
            url, proxy=None, max_size=None, open_timeout=TIMEOUT_S, **more
        )
        return talk


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Of one test, since some change the routes."""
    directory = tmp_path_factory.mktemp("ws")
    with ExitStack() as stack:
        servers = Servers(directory, ("uvicorn",))
        stack.callback(servers.end)
        site = Place(directory / "site", [], timeouts=TIMEOUTS)
        stack.callback(site.end)
        site.servers, (site.plain_port,) = servers, dual_ports(1)
        site.write(site.config(site.routes(), timeouts=TIMEOUTS))
        site.start()
        yield site


def said(talk: ClientConnection, message: str | bytes) -> str | bytes:
    """What comes back for a message."""
    talk.send(message)
    return talk.recv(TIMEOUT_S)


@SCHEME
def test_messages(place: Place, scheme: str) -> None:
    """Texts, bytes, parts of a message, a megabyte, pings: each comes back as it was."""
    with place.talk(scheme, subprotocols=["chat", "other"]) as talk:
        assert talk.subprotocol == "chat"
        assert said(talk, "grüße") == "grüße"
        assert said(talk, b"\x00\xff" * 70) == b"\x00\xff" * 70
        talk.send(iter(["in ", "three ", "parts"]))
        assert talk.recv(TIMEOUT_S) == "in three parts"
        assert talk.ping().wait(TIMEOUT_S)
        large = bytes(range(256)) * 4096
        assert said(talk, large) == large
        for number in range(200):
            talk.send(str(number))
        assert [talk.recv(TIMEOUT_S) for _ in range(200)] == [str(one) for one in range(200)]
    route = f"uvicorn-{scheme}"
    (request,) = place.wait_lines(1, path="/ws", route=route)
    assert (request["status"], request["end"]) == (101, None)
    (relayed,) = place.wait_lines(1, end="target_closed", route=route)  # RFC 6455, 7.1.1
    assert relayed["id"] == request["id"]
    assert (
        min(value for name, value in relayed.items() if name[:2] == "t_" and value is not None) >= 0
    )
    place.settle()


@SCHEME
def test_handshake(place: Place, scheme: str) -> None:
    """The target sees the handshake with the fields of forwarding, and its query as it was."""
    with place.talk(scheme, "/ws/seen?room=%2F7", additional_headers={"X-Own": "1"}) as talk:
        seen = json.loads(talk.recv(TIMEOUT_S))
    fields = seen["fields"]
    assert seen["query"] == "room=%2F7"
    assert (fields["upgrade"].lower(), fields["connection"].lower()) == ("websocket", "upgrade")
    assert fields["x-forwarded-for"] == "127.0.0.1"
    assert fields["x-forwarded-proto"] == scheme
    assert (fields["x-own"], fields["sec-websocket-version"]) == ("1", "13")


@SCHEME
def test_close_of_the_target(place: Place, scheme: str) -> None:
    """Its code and reason arrive."""
    with place.talk(scheme) as talk:
        talk.send("bye")
        with pytest.raises(ConnectionClosed):
            talk.recv(TIMEOUT_S)
        assert (talk.close_code, talk.close_reason) == (4001, "as asked")
    place.settle()


def test_no_upgrade(place: Place) -> None:
    """Where upgrades are not allowed the request goes on as a plain one."""
    with pytest.raises(InvalidStatus) as failed:
        connect(f"ws://127.0.0.1:{place.plain_port}/seen", proxy=None)
    response = failed.value.response
    assert response.status_code == 200
    assert "upgrade" not in json.loads(response.body or b"{}")["fields"]
    place.settle()


def test_not_found(place: Place) -> None:
    """An answer that is no 101 is the client's, and another request follows on the connection."""
    with httpx_client(place.servers.root.cert) as client:
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"}
        url = place.servers.url("uvicorn", "http", "/seen")
        assert client.get(url, headers=upgrade).status_code in (400, 426)  # no key: uvicorn's word
        assert client.get(url).status_code == 200
    place.settle()


@SCHEME
def test_first_frame_with_the_handshake(place: Place, scheme: str) -> None:
    """A frame that comes in one segment with the request is not lost."""
    port = place.servers.ports["uvicorn", scheme]
    frame = bytes([0x81, 0x82, 0, 0, 0, 0]) + b"hi"
    head = (
        f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: keep-alive, Upgrade\r\n"
        "Upgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as plain:
        client: socket.socket = plain
        if scheme == "https":
            client = trusting(place.servers.root).wrap_socket(plain, server_hostname="127.0.0.1")
        with client:
            client.sendall(head.encode() + frame)
            received = b""
            while not received.endswith(b"\x81\x02hi"):
                part = client.recv(65536)
                assert part, received
                received += part
    assert received.startswith(b"HTTP/1.1 101 ")
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in received  # RFC 6455, 1.3
    place.settle()


@SCHEME
def test_reloads(place: Place, scheme: str) -> None:
    """A WebSocket whose route does not change goes on over reloads that change everything else."""
    with place.talk(scheme) as talk:
        for number in range(3):
            others = [one for one in place.routes() if one["name"] != "strict"]
            more = dual_ports(1)
            others += [http_route(f"new-{number}", more[0], place.servers.addresses["uvicorn"])]
            place.reload(others, timeouts=TIMEOUTS)
            assert said(talk, f"after {number}") == f"after {number}"
        assert talk.ping().wait(TIMEOUT_S)
    place.settle()


def test_removed_route(place: Place) -> None:
    """With its route gone it goes on for `drain`, and then ends."""
    with place.talk("http") as talk, place.talk("https") as other:
        assert said(talk, "before") == "before"
        routes = [one for one in place.routes() if one["name"] != "uvicorn-http"]
        place.reload(routes, timeouts=TIMEOUTS)
        with pytest.raises(ConnectionClosedError):
            talk.recv(TIMEOUT_S)
        assert said(other, "still") == "still"
    place.wait_lines(1, end="route_removed", route="uvicorn-http")
    place.settle()


def test_many(place: Place) -> None:
    """Fifty at a time, each with its own messages, while requests go on beside them."""
    wrong: list[str] = []

    def talk(number: int) -> None:
        try:
            with place.talk("https" if number % 2 else "http", compression=None) as one:
                for count in range(20):
                    message = f"{number} {count} " * (count + 1)
                    if said(one, message) != message:
                        wrong.append(message)
        except (OSError, ConnectionClosed, ssl.SSLError) as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    with httpx_client(place.servers.root.cert) as client:
        for _ in range(20):
            assert client.get(place.servers.url("uvicorn", "https", "/seen")).status_code == 200
    for thread in threads:
        thread.join(6 * TIMEOUT_S)
    assert wrong == []
    assert len(place.wait_lines(50, path="/ws", status=101)) == 50
    place.settle()
