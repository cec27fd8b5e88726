"""Ports with several kinds of clients, and what becomes of those that no route is for."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from tests.helpers.certificates import Authority
from tests.helpers.client_hello_builder import message, records, server_name
from tests.helpers.targets import HOSTS, Target, dual_ports
from tests.helpers.tls_clients import TlsClient, plain, read_exactly, trusting, way_of
from tests.helpers.tls_site import Site, route, terminate
from tests.helpers.tls_targets import GREETING, greet, tagged
from tests.helpers.waiting import wait_until

HELLO: Final = records(message(server_name("db.example")))
OTHER: Final = records(message(server_name("other.example")))
REQUEST: Final = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"
PATIENCE: Final = "400ms"
LATE_S: Final = 3.0  # far more than any of these deadlines
PORTS: Final = ("mixed", "named", "tls_only", "plain_only", "ended", "passed", "shared")


class Ports(Site):
    """`port` has the number of each kind of port; ``root`` has signed what terminates."""

    port: dict[str, int]
    root: Authority


def routes_of(
    port: dict[str, int], targets: dict[str, Target], tls: dict[str, Any]
) -> list[dict[str, Any]]:
    """Every kind of port. ``shared``: one that nobody speaks on first, and TLS that ends here."""
    impatient = {"timeouts": {"initial_data": PATIENCE, "tls_handshake": PATIENCE}}
    db = {"domains": ["db.example"]}
    tagged_ = targets["secure"].address
    clear = targets["clear"].address
    greeter = targets["greets"].address
    return [
        route("secure", port["mixed"], tagged_, match=db, **impatient),
        route("clear", port["mixed"], clear, match={"tls": False}, **impatient),
        route("greets", port["mixed"], greeter, **impatient),
        route("named", port["named"], tagged_, match=db, **impatient),
        route("named-clear", port["named"], clear, match={"tls": False}, **impatient),
        route("tls-only", port["tls_only"], tagged_, match={"tls": True}, **impatient),
        route("plain-only", port["plain_only"], clear, match={"tls": False}, **impatient),
        route("ended", port["ended"], clear, tls=tls, **impatient),
        route("passed", port["passed"], tagged_, tls={"mode": "passthrough"}, **impatient),
        route("shared-tls", port["shared"], clear, tls=tls, match=db, **impatient),
        route("shared-greets", port["shared"], greeter, **impatient),
    ]


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ports]:
    """Started once: these tests change nothing of it."""
    directory = tmp_path_factory.mktemp("ports")
    with ExitStack() as stack:
        targets = {
            "secure": Target(tagged(b"<secure>")),
            "clear": Target(tagged(b"<clear>")),
            "greets": Target(greet),
        }
        for target in targets.values():
            stack.callback(target.close)
        root = Authority(directory)
        tls = terminate(root.leaf("a.example", "db.example"))
        port = dict(zip(PORTS, dual_ports(len(PORTS)), strict=True))
        site = Ports(directory / "site", routes_of(port, targets, tls))
        stack.callback(site.end)
        site.start()
        site.port, site.root = port, root
        yield site


def reply(ports: Ports, kind: str, data: bytes, family: str = "v4") -> tuple[bytes, str]:
    """(what comes first, the end); the connection is closed where something came."""
    with plain(ports.port[kind], family) as client:
        way = way_of(client)
        if data:
            client.sendall(data)
        first = client.recv(65536)
    return first, "" if first else ports.end_of(way)


@pytest.mark.parametrize("family", HOSTS)
def test_three_protocols_on_a_port(ports: Ports, family: str) -> None:
    """TLS by its name, plain clients, and where nobody speaks the server does."""
    assert reply(ports, "mixed", HELLO, family)[0] == b"<secure>" + HELLO
    assert reply(ports, "mixed", REQUEST, family)[0] == b"<clear>" + REQUEST
    assert reply(ports, "mixed", b"", family)[0] == GREETING
    assert reply(ports, "mixed", OTHER, family)[0].startswith(GREETING)


def test_a_server_speaks_first_beside_ended_tls(ports: Ports) -> None:
    """The same port ends TLS for some, and waits in vain for others."""
    assert reply(ports, "shared", b"")[0] == GREETING
    with TlsClient(ports.port["shared"], trusting(ports.root), "db.example") as client:
        client.send(b"select")
        assert client.read_exactly(13) == b"<clear>select"


@pytest.mark.parametrize(
    ("kind", "data", "end"),
    [
        ("named", OTHER, "no_route"),
        ("tls_only", REQUEST, "plain_on_tls"),
        ("tls_only", b"\0", "plain_on_tls"),
        ("ended", REQUEST, "plain_on_tls"),
        ("passed", REQUEST, "plain_on_tls"),
        ("plain_only", HELLO, "tls_on_plain"),
        ("tls_only", b"", "no_route"),
        ("named", b"", "no_route"),
        ("plain_only", b"", "no_route"),
    ],
)
def test_nobody_is_for_it(ports: Ports, kind: str, data: bytes, end: str) -> None:
    """The end says what was wrong: log, access log and counter name it, no target is dialled."""
    name = f"127.0.0.1:{ports.port[kind]}"
    before = ports.metric("refused_total", listener=name, end=end)
    dialled = ports.totals()["dialled"]
    assert reply(ports, kind, data) == (b"", end)
    assert ports.logged(f'"end":"{end}"', name)
    ports.wait_metric(before + 1, "refused_total", listener=name, end=end)
    assert ports.totals()["dialled"] == dialled


@pytest.mark.parametrize("kind", ["named", "mixed"])
@pytest.mark.parametrize("size", [1, 5, 40])
def test_half_a_hello(ports: Ports, kind: str, size: int) -> None:
    """Whoever begins a ClientHello and falls silent is closed in time, as preface_timeout."""
    began = time.monotonic()
    assert reply(ports, kind, HELLO[:size]) == (b"", "preface_timeout")
    assert time.monotonic() - began < LATE_S
    assert ports.logged('"end":"preface_timeout"', f"127.0.0.1:{ports.port[kind]}")


@pytest.mark.parametrize("kind", ["tls_only", "passed"])
def test_the_first_byte_is_enough(ports: Ports, kind: str) -> None:
    """Where nothing else of the ClientHello is asked for, it goes to the target as it comes."""
    assert reply(ports, kind, HELLO[:1])[0] == b"<secure>" + HELLO[:1]


def test_half_a_hello_where_tls_ends(ports: Ports) -> None:
    """There it may be the handshake that is late; either way it is closed."""
    first, end = reply(ports, "ended", HELLO[:40])
    assert first == b""
    assert end in ("preface_timeout", "tls_timeout")


def test_a_drip_is_no_sign_of_life(ports: Ports) -> None:
    """A byte now and then does not put the deadline off."""
    began = time.monotonic()
    with plain(ports.port["named"]) as client:
        way = way_of(client)
        client.settimeout(0.02)
        position = 0

        def is_closed() -> bool:
            nonlocal position
            try:
                client.sendall(HELLO[position : position + 1])
                position += 1
                return client.recv(1) == b""
            except TimeoutError:
                return False
            except ConnectionError:
                return True

        wait_until(is_closed, "the end", LATE_S)
    assert time.monotonic() - began < LATE_S
    assert position < len(HELLO)
    assert ports.end_of(way) == "preface_timeout"


@pytest.mark.parametrize("size", [0, 1, 40])
def test_a_client_that_leaves_within_its_hello(ports: Ports, size: int) -> None:
    """FIN before a route could be chosen ends it at once, and no target hears of it."""
    dialled = ports.totals()["dialled"]
    with plain(ports.port["named"]) as client:
        way = way_of(client)
        client.sendall(HELLO[:size])
        client.shutdown(socket.SHUT_WR)
        assert read_exactly(client, 1) == b""
    assert ports.end_of(way) in ("client_gone", "no_route", "tls_failed")
    assert ports.totals()["dialled"] == dialled


def test_everything_is_accounted_for(ports: Ports, tmp_path: Path) -> None:
    """After all of these each connection has one end, and none is left."""
    totals = ports.settle()
    assert totals["accepted"] == totals["ended"] == sum(totals["ends"].values())
