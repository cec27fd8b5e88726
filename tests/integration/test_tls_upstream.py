"""TLS to the target: what is verified, what is shown, and what a failure is called."""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Final

import pytest

from tests.helpers.certificates import Authority
from tests.helpers.targets import SilentTarget, Target, dual_ports
from tests.helpers.tls_clients import TlsClient, plain, read_exactly, trusting, way_of
from tests.helpers.tls_site import Site, route, terminate
from tests.helpers.tls_targets import TlsTarget, echo
from tests.helpers.waiting import wait_until

BULK: Final = 8 << 20
GIVEN: Final = hashlib.shake_256(b"given").digest(3_000_001)
LATE_S: Final = 5.0  # far more than the deadline that is tested
NAME: Final = "app.example"
GOOD: Final = (
    "named", "by-address", "by-host", "shown", "alpn", "unverified", "header",
    "gives", "cuts", "second", "notified-second",
)  # fmt: skip
BAD: Final = (
    "wrong-ca", "wrong-name", "expired", "wrong-address", "unshown", "plain", "own-system-ca",
    "silent", "notified",
)  # fmt: skip
IN = pytest.mark.parametrize("side", ["plain", "tls"])


class Upstreams(Site):
    """Two ports for each way to reach a target: for plain clients and for TLS ones."""

    port: dict[tuple[str, str], int]
    root: Authority
    targets: dict[str, Target]

    def tls_target(self, kind: str) -> TlsTarget:
        """One that speaks TLS."""
        found = self.targets[kind]
        assert isinstance(found, TlsTarget)
        return found


def gives(secure: ssl.SSLSocket) -> None:
    """Send what there is, and end in order."""
    secure.sendall(GIVEN)
    secure.unwrap()


def notifies(sock: socket.socket) -> None:
    """Answer a ClientHello with the alert close_notify (RFC 8446 section 6.1)."""
    sock.recv(65536)
    sock.sendall(b"\x15\x03\x03\x00\x02\x01\x00")
    while sock.recv(65536):
        pass


def make_targets(root: Authority, stranger: Authority) -> dict[str, Target]:
    """Servers that one may believe, and others."""
    good = root.leaf(NAME, "127.0.0.1", "localhost", stem="app")
    names_only = root.leaf(NAME, stem="names")
    return {
        "good": TlsTarget(good, alpn=("h2", "x-app")),
        "names-only": TlsTarget(names_only),
        "asks": TlsTarget(good, client_ca=root),
        "stranger": TlsTarget(stranger.leaf(NAME, "127.0.0.1", stem="app")),
        "expired": TlsTarget(root.leaf(NAME, "127.0.0.1", days=-1, stem="expired")),
        "header": TlsTarget(good, reads_header=True),
        "plain": Target(echo),
        "gives": TlsTarget(good, talk=gives),
        "cuts": TlsTarget(good, talk=lambda secure: secure.sendall(GIVEN)),
        "silent": SilentTarget(),
        "notifies": Target(notifies),
    }


def ways(
    root: Authority, targets: dict[str, Target]
) -> dict[str, tuple[str, dict[str, Any], dict[str, Any]]]:
    """(target, upstream_tls, further keys of the action) for each way."""
    ca = str(root.cert)
    shown = root.client("proxy")
    named = {"ca": ca, "server_name": NAME}
    mine = {"cert": str(shown.cert), "key": str(shown.key)}
    address = {kind: target.address for kind, target in targets.items()}
    by_name = address["good"].replace("127.0.0.1", "localhost")
    v2 = {"send_proxy": "v2"}
    return {
        "named": (address["names-only"], named, {}),
        "by-address": (address["good"], {"ca": ca}, {}),
        "by-host": (by_name, {"ca": ca}, {}),
        "shown": (address["asks"], {**named, **mine}, {}),
        "alpn": (address["good"], {**named, "alpn": ["x-app"]}, {}),
        "unverified": (address["stranger"], {"verify": False}, {}),
        "header": (address["header"], named, v2),
        "gives": (address["gives"], named, {}),
        "cuts": (address["cuts"], named, {}),
        "silent": (address["silent"], named, {"timeouts": {"connect": "600ms"}}),
        "second": (
            address["stranger"],
            named,
            {"targets": [address["stranger"], address["names-only"]]},
        ),
        "notified-second": (
            address["notifies"],
            named,
            {"targets": [address["notifies"], address["names-only"]]},
        ),
        "notified": (address["notifies"], named, {}),
        "wrong-ca": (address["stranger"], named, {}),
        "wrong-name": (address["good"], {"ca": ca, "server_name": "other.example"}, {}),
        "expired": (address["expired"], named, {}),
        "wrong-address": (address["names-only"], {"ca": ca}, {}),
        "unshown": (address["asks"], named, {}),
        "plain": (address["plain"], named, {}),
        "own-system-ca": (address["good"], {"server_name": NAME}, {}),
    }


@pytest.fixture(scope="module")
def upstreams(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstreams]:
    """Started once: these tests change nothing of it."""
    directory = tmp_path_factory.mktemp("upstreams")
    with ExitStack() as stack:
        root = Authority(directory)
        (directory / "stranger").mkdir()
        targets = make_targets(root, Authority(directory / "stranger", "Another CA"))
        for target in targets.values():
            stack.callback(target.close)
        tls = terminate(root.leaf("a.example", stem="front"))
        tls["mode"] = "terminate-and-reencrypt"
        kinds = (*GOOD, *BAD)
        ports = iter(dual_ports(2 * len(kinds)))
        port, routes = {}, []
        for kind, (address, upstream, more) in ways(root, targets).items():
            action = {"upstream_tls": upstream, "timeouts": {"connect": "3s"}, **more}
            for side in ("plain", "tls"):
                number = port[side, kind] = next(ports)
                ended = {"tls": tls} if side == "tls" else {}
                routes.append(route(f"{kind}-{side}", number, address, **ended, **action))
        site = Upstreams(directory / "site", routes)
        stack.callback(site.end)
        site.start()
        site.port, site.root, site.targets = port, root, targets
        yield site


def echo_through(upstreams: Upstreams, side: str, kind: str, data: bytes = b"words") -> bytes:
    """What comes back through a route, and its end if that is nothing."""
    port = upstreams.port[side, kind]
    if side == "tls":
        with TlsClient(port, trusting(upstreams.root)) as client:
            client.send(data)
            return client.read_exactly(len(data)) or upstreams.end_of(client.way).encode()
    with plain(port) as sock:
        way = way_of(sock)
        sock.sendall(data)
        received = read_exactly(sock, len(data))
    return received or upstreams.end_of(way).encode()


@IN
@pytest.mark.parametrize("kind", [kind for kind in GOOD if kind not in ("gives", "cuts")])
def test_a_target_that_is_believed(upstreams: Upstreams, kind: str, side: str) -> None:
    """Both kinds of clients reach it."""
    assert echo_through(upstreams, side, kind) == b"words"


@IN
def test_what_the_target_sees(upstreams: Upstreams, side: str) -> None:
    """The name that is asked for, our certificate, and the protocol that was agreed on."""
    echo_through(upstreams, side, "named")
    spoken = upstreams.tls_target("names-only").spoken[-1]
    assert (spoken.server_name, spoken.client, spoken.alpn) == (NAME, "", "")
    assert spoken.version == "TLSv1.3"
    echo_through(upstreams, side, "by-address")
    assert upstreams.tls_target("good").spoken[-1].server_name == ""
    echo_through(upstreams, side, "by-host")
    assert upstreams.tls_target("good").spoken[-1].server_name == "localhost"
    echo_through(upstreams, side, "shown")
    assert upstreams.tls_target("asks").spoken[-1].client == "proxy"
    echo_through(upstreams, side, "alpn")
    assert upstreams.tls_target("good").spoken[-1].alpn == "x-app"


@IN
@pytest.mark.parametrize(
    ("kind", "first"), [("second", "stranger"), ("notified-second", "notifies")]
)
def test_another_target_is_tried(upstreams: Upstreams, kind: str, first: str, side: str) -> None:
    """One that is not believed has had no byte of the client, so the next one gets them all."""
    for _ in range(4):
        assert echo_through(upstreams, side, kind) == b"words"
    address = upstreams.targets[first].address
    targets = upstreams.settle()["routes"][f"{kind}-{side}"]["targets"]
    assert targets[address]["connect_failures"]


@IN
def test_a_header_comes_before_tls(upstreams: Upstreams, side: str) -> None:
    """In the clear, as who reads it expects, and TLS right behind it."""
    echo_through(upstreams, side, "header")
    header = upstreams.tls_target("header").spoken[-1].header
    assert header is not None
    assert header.source_text == "127.0.0.1"
    assert header.destination_port == upstreams.port[side, "header"]


@IN
@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("wrong-ca", "certificate"),
        ("own-system-ca", "certificate"),
        ("wrong-name", "other.example"),
        ("expired", "expired"),
        ("wrong-address", "127.0.0.1"),
        ("plain", ""),
        ("notified", "close_notify"),
    ],
)
def test_a_target_that_is_not_believed(
    upstreams: Upstreams, kind: str, word: str, side: str
) -> None:
    """connect_failed with a reason of its own, in words in the log, and not a byte for it."""
    name = f"{kind}-{side}"
    before = upstreams.metric("target_connect_failures_total", route=name)
    assert echo_through(upstreams, side, kind) == b"connect_failed"
    line = upstreams.logged('"end":"connect_failed"', f'"{name}"', word)
    assert '"detail"' in line
    upstreams.wait_metric(before + 1, "target_connect_failures_total", route=name)
    reasons = upstreams.totals()["routes"][name]["targets"]
    (failures,) = (target["connect_failures"] for target in reasons.values())
    assert [reason for reason in failures if "tls" in reason], failures


@IN
def test_a_target_that_wants_a_certificate(upstreams: Upstreams, side: str) -> None:
    """Without ours it serves nothing; with TLS 1.3 it says so after our handshake."""
    try:
        found = echo_through(upstreams, side, "unshown")
    except ConnectionResetError:  # the reset was here before connect(2) had returned
        found = b"target_reset"
    assert found in (b"connect_failed", b"target_reset", b"target_closed", b"tls_failed")


@IN
def test_bulk(upstreams: Upstreams, side: str) -> None:
    """8 MiB there and back, plain or TLS before us, TLS behind us."""
    data = hashlib.shake_256(side.encode()).digest(BULK)
    port = upstreams.port[side, "named"]
    if side == "tls":
        with TlsClient(port, trusting(upstreams.root)) as client:
            sender = threading.Thread(target=client.sock.sendall, args=(client.seal(data),))
            sender.start()
            assert client.read_exactly(BULK) == data
            sender.join()
        return
    with plain(port) as sock:
        sender = threading.Thread(target=sock.sendall, args=(data,))
        sender.start()
        assert read_exactly(sock, BULK) == data
        sender.join()


@IN
def test_the_end_of_the_client(upstreams: Upstreams, side: str) -> None:
    """It is told to the target as close_notify, so that it knows that all has come."""
    target = upstreams.tls_target("names-only")
    before = len(target.ends)
    port = upstreams.port[side, "named"]
    if side == "tls":
        with TlsClient(port, trusting(upstreams.root)) as client:
            assert client.echoes()
            client.finish()
            assert (client.read_to_end(), client.ended) == (b"", "close_notify")
    else:
        with plain(port) as sock:
            sock.sendall(b"x")
            assert read_exactly(sock, 1) == b"x"
            sock.shutdown(1)
            assert sock.recv(1) == b""
    wait_until(lambda: len(target.ends) > before, "the target has seen the end")
    assert target.ends[-1] == "close_notify"


def test_unverified_is_warned_of(upstreams: Upstreams) -> None:
    """At the start, and at every reload, the route is named."""
    names = {"unverified-plain", "unverified-tls"}
    for count in (1, 2, 3):
        for name in names:
            assert upstreams.log().count(f"route '{name}' believes any certificate") == count
        reply = upstreams.reload()
        warnings = [one["message"] for one in reply["warnings"] if one["code"] == "not_verified"]
        assert {one.split("'")[1] for one in warnings} == names


@IN
@pytest.mark.parametrize("kind", ["gives", "cuts"])
def test_the_end_of_the_target(upstreams: Upstreams, kind: str, side: str) -> None:
    """All that it said before comes; whether it ended in order or not, the connection does."""
    port = upstreams.port[side, kind]
    if side == "tls":
        with TlsClient(port, trusting(upstreams.root)) as client:
            data, way = client.read_to_end(), client.way
            if kind == "gives":
                assert client.ended == "close_notify"
    else:
        with plain(port) as sock:
            way = way_of(sock)
            data = read_exactly(sock, len(GIVEN) + 1)
    assert data == GIVEN
    assert upstreams.end_of(way) in ("target_closed", "target_reset")


@IN
def test_a_target_that_never_shakes_hands(upstreams: Upstreams, side: str) -> None:
    """`connect` covers its TLS too: the connection ends in time."""
    began = time.monotonic()
    assert echo_through(upstreams, side, "silent") in (b"connect_timeout", b"connect_failed")
    assert time.monotonic() - began < LATE_S
    assert upstreams.logged('"end":"connect_', f'"silent-{side}"')


def test_nothing_is_left(upstreams: Upstreams) -> None:
    """After all of these each connection has one end, and no worker has died."""
    totals = upstreams.settle()
    assert totals["accepted"] == totals["ended"]
    assert upstreams.status()["restarts"] == []
    assert "Traceback" not in upstreams.log()
