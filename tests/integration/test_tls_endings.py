"""TLS that ends here, at its edges: tickets that wait, ends of ours, the time for a handshake."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Final

import pytest

from tests.helpers.certificates import Authority
from tests.helpers.sockets import TIMEOUT_S
from tests.helpers.targets import HOSTS, Target, dual_ports
from tests.helpers.tls_clients import TLS12, TLS13, VERSIONS, TlsClient, trusting
from tests.helpers.tls_site import Site, route, terminate
from tests.helpers.tls_targets import echo

PORTS: Final = ("echo", "silent", "nobody", "idle", "lifetime", "slow")
SHORT: Final[dict[str, Any]] = {
    "idle": {"timeouts": {"idle": "600ms"}},
    "lifetime": {"timeouts": {"lifetime": "600ms"}},
    "slow": {"timeouts": {"tls_handshake": "3s", "initial_data": "20s"}},
}


class Endings(Site):
    """A port for each route."""

    port: dict[str, int]
    root: Authority


def keep_silent(sock: socket.socket) -> None:
    """Read, and say nothing."""
    while sock.recv(65536):
        pass


@pytest.fixture(scope="module")
def endings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endings]:
    """Started once: these tests change nothing of it."""
    directory = tmp_path_factory.mktemp("endings")
    with ExitStack() as stack:
        site = Endings(directory / "site", [])
        site.root = Authority(directory)
        site.port = dict(zip(PORTS, dual_ports(len(PORTS)), strict=True))
        targets = {"echo": Target(echo), "silent": Target(keep_silent)}
        for target in targets.values():
            stack.callback(target.close)
        (gone,) = dual_ports(1)
        addresses = {name: target.address for name, target in targets.items()}
        addresses["nobody"] = f"{HOSTS['v4']}:{gone}"
        tls = terminate(site.root.leaf("a.example"))
        routes = [
            route(
                name,
                site.port[name],
                addresses.get(name, addresses["echo"]),
                tls=tls,
                **SHORT.get(name, {}),
            )
            for name in PORTS
        ]
        site.write(site.config(routes))
        stack.callback(site.end)
        site.start()
        yield site


def speaks_at_once(port: int, context: ssl.SSLContext, data: bytes) -> TlsClient:
    """A client whose Finished and first bytes come in one segment."""
    client = TlsClient(port, context, shakes=False)
    client.sock.sendall(client.flight())
    while not client.is_shaken:
        client.feed()
        last = client.flight()
    client.sock.sendall(last + client.seal(data))
    return client


def test_a_ticket_comes_with_the_answer(endings: Endings) -> None:
    """Whoever speaks at once has it with the first bytes of the target, and can resume."""
    context = trusting(endings.root, version=TLS13)
    with speaks_at_once(endings.port["echo"], context, b"hello") as client:
        assert client.read_exactly(5) == b"hello"
        session = client.session()
        assert session.has_ticket
    with TlsClient(endings.port["echo"], context, session=session) as client:
        assert client.tls.session_reused
        assert client.echoes()


def test_a_ticket_comes_though_the_target_is_silent(endings: Endings) -> None:
    """It waits for the target's bytes a moment, not for ever."""
    context = trusting(endings.root, version=TLS13)
    with speaks_at_once(endings.port["silent"], context, b"hello") as client:
        until = time.monotonic() + TIMEOUT_S
        while not client.session().has_ticket:
            assert client.is_silent()
            assert time.monotonic() < until


def test_a_ticket_that_nothing_followed(endings: Endings) -> None:
    """A client that waits for the target to speak has its ticket behind the handshake."""
    context = trusting(endings.root, version=TLS13)
    with TlsClient(endings.port["silent"], context) as client:
        until = time.monotonic() + TIMEOUT_S
        while not client.session().has_ticket:
            assert client.is_silent()
            assert time.monotonic() < until


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("kind", "end"),
    [("idle", "idle_timeout"), ("lifetime", "lifetime"), ("nobody", "connect_failed")],
)
def test_an_end_of_ours_says_so(endings: Endings, kind: str, end: str, version: str) -> None:
    """The client reads a close_notify before FIN, so it knows that nothing was cut off."""
    context = trusting(endings.root, version=VERSIONS[version])
    with TlsClient(endings.port[kind], context) as client:
        assert (client.read_to_end(), client.ended) == (b"", "close_notify")
        client.wait_fin()
    assert endings.end_of(client.way) == end


def test_a_slow_hello_is_part_of_the_handshake(endings: Endings) -> None:
    """`tls_handshake` runs from the first byte of the ClientHello, whatever that takes of it."""
    context = trusting(endings.root, version=TLS12)
    with TlsClient(endings.port["slow"], context, shakes=False) as client:
        hello = client.flight()
        began = time.monotonic()
        client.sock.sendall(hello[:20])
        client.sock.settimeout(2.0)
        with pytest.raises(TimeoutError):
            client.sock.recv(1)
        client.sock.settimeout(TIMEOUT_S)
        client.sock.sendall(hello[20:])
        while client.sock.recv(65536):
            pass
        assert time.monotonic() - began < 4.8  # 5 if each part had all of it
    assert endings.end_of(client.way) == "tls_timeout"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_close_notify_within_the_handshake(endings: Endings, version: str) -> None:
    """Who says goodbye instead of going on has failed at the handshake, and the log says how."""
    context = trusting(endings.root, version=VERSIONS[version])
    with TlsClient(endings.port["echo"], context, shakes=False) as client:
        alert = b"\x15\x03\x03\x00\x02\x01\x00"  # in the clear: RFC 8446 section 6.1
        client.sock.sendall(client.flight() + alert)
        while not client.ended:
            client.feed()
    assert endings.end_of(client.way) == "tls_failed"
    assert '"detail"' in endings.logged("close_notify", client.way.own)
