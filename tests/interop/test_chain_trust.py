"""Whose header is believed: untrusted fronts, missing and broken headers, slow fronts."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Final

import pytest

from shared.proxy_protocol import encode_v1, encode_v2, ipv4_packed, ipv6_packed
from tests.helpers.chain import (
    REQUEST,
    Hop,
    Topology,
    answer_to_end,
    connect,
    forward,
    hop_config,
    read_seen,
    read_to_end,
    send_slowly,
)
from tests.helpers.sockets import exchange
from tests.helpers.targets import HeaderTarget, Target, dual_ports
from tests.helpers.waiting import wait_until

STRANGER: Final = "192.0.2.1"  # of the documentation network: trusted here, and nobody's
HEADER_TIMEOUT: Final = "800ms"  # what a test has to wait for
CLAIMED: Final = {
    "v4": (ipv4_packed(b"203.0.113.7"), 5555, ipv4_packed(b"198.51.100.1"), 443),
    "v6": (ipv6_packed(b"2001:db8::7"), 5555, ipv6_packed(b"2001:db8::1"), 443),
}
ENCODERS: Final = {"v1": encode_v1, "v2": encode_v2}
POLICIES: Final[dict[str, dict[str, object]]] = {
    "strict": {},
    "guessing": {"required": False},
    "reject": {"trusted": [STRANGER], "untrusted": "reject"},
    "close": {"trusted": [STRANGER], "untrusted": "close"},
    "ignore": {"trusted": [STRANGER], "untrusted": "ignore"},
    "only-v2": {"versions": ["v2"]},
}


def swallows(got: list[bytes]) -> Target:
    """A target that keeps what it gets and never answers."""

    def serve(sock: socket.socket) -> None:
        while data := sock.recv(65536):
            got.append(data)

    return Target(serve)


class Trust(Topology):
    """A hop with a port for each policy, each before a server of its own.

    Ports are keyed by policy and order of speaking. The servers read a header, except behind
    `reject`, `close` and `ignore`, where ``got`` has the bytes that came through.
    """

    middle: Hop
    ports: dict[tuple[str, str], int]
    fronts: dict[tuple[str, str], int]  # through a hop that sends a header: policy, version
    got: list[bytes]

    def start(self) -> None:
        """Start the servers, the hop, and a front before it."""
        self.got = []
        polite, greeter = HeaderTarget(), HeaderTarget(greets=True)
        bytes_only = swallows(self.got)
        for target in (polite, greeter, bytes_only):
            self.target(target)
        keys = [(policy, order) for policy in POLICIES for order in ("client", "server")]
        self.ports = dict(zip(keys, dual_ports(len(keys)), strict=True))
        routes, listeners = [], []
        for (policy, order), port in self.ports.items():
            reads = "trusted" not in POLICIES[policy]
            target = (polite if order == "client" else greeter) if reads else bytes_only
            send = "v2" if reads else None
            routes.append(forward(f"{policy}-{order}", port, target.address, send_proxy=send))
            listeners.append({"ports": [port], "proxy_protocol": POLICIES[policy]})
        config = hop_config(routes)
        config["proxy_protocol"] = {
            "trusted": ["127.0.0.0/8", "::1"],
            "header_timeout": HEADER_TIMEOUT,
        }
        config["listeners"] = listeners
        self.middle = self.hop("middle", config)
        keys = [(policy, version) for policy in ("reject", "close") for version in ENCODERS]
        self.fronts = dict(zip(keys, dual_ports(len(keys)), strict=True))
        routes = [
            forward(
                f"{policy}-{version}",
                port,
                f"127.0.0.1:{self.ports[policy, 'client']}",
                send_proxy=version,
            )
            for (policy, version), port in self.fronts.items()
        ]
        self.hop("front", hop_config(routes))

    def count(self, end: str) -> int:
        """How many connections of the middle hop have ended for this reason."""
        return int(self.middle.totals()["ends"].get(end, 0))

    def headers(self, policy: str, result: str) -> int:
        """The middle hop's counter of headers with this result, on one policy's port."""
        name = f"127.0.0.1:{self.ports[policy, 'client']}"
        listener = self.middle.totals()["listeners"].get(name, {"proxy_headers": {}})
        return int(listener["proxy_headers"].get(result, 0))

    def expect(self, end: str, before: int) -> None:
        """One more connection ends for this reason, and nothing is left."""
        wait_until(lambda: self.count(end) == before + 1, f"one more {end}")
        self.wait_empty()


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trust]:
    """The hop with all policies."""
    started = Trust(tmp_path_factory.mktemp("trust"))
    try:
        started.start()
        yield started
    finally:
        started.end()


@pytest.mark.parametrize("version", ENCODERS)
@pytest.mark.parametrize("policy", ["reject", "close"])
def test_untrusted_front_is_refused(trust: Trust, policy: str, version: str) -> None:
    """A hop that is not trusted gets an end; its header reaches no target, and is counted."""
    ended = trust.count("proxy_header_untrusted")
    counted = trust.headers(policy, "untrusted")
    assert answer_to_end(trust.fronts[policy, version], REQUEST) == b""
    trust.expect("proxy_header_untrusted", ended)
    assert trust.headers(policy, "untrusted") == counted + 1
    assert trust.got == []


def test_ignored_header_is_payload(trust: Trust) -> None:
    """`untrusted: ignore` passes a header on byte by byte, as what it then is: payload."""
    header = encode_v2(*CLAIMED["v4"])
    with connect(trust.ports["ignore", "client"]) as client:
        client.sendall(header + REQUEST)
        wait_until(lambda: b"".join(trust.got) == header + REQUEST, "all of it has come through")
    trust.got.clear()
    trust.wait_empty()


@pytest.mark.parametrize("order", ["client", "server"])
@pytest.mark.parametrize("family", CLAIMED)
@pytest.mark.parametrize("version", ENCODERS)
def test_slow_front(trust: Trust, version: str, family: str, order: str) -> None:
    """A header that comes byte by byte is understood as one, and nothing behind it is lost."""
    source, source_port, destination, destination_port = CLAIMED[family]
    header = ENCODERS[version](source, source_port, destination, destination_port)
    with connect(trust.ports["strict", order], family) as client:
        client.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )  # each byte in a segment of its own
        request = REQUEST if order == "client" else b""
        send_slowly(client, header + request)
        seen = read_seen(client)
        assert exchange(client, b"both ways") == b"both ways"
    claimed = {"v4": ("203.0.113.7", "198.51.100.1"), "v6": ("2001:db8::7", "2001:db8::1")}
    assert seen.source == (claimed[family][0], 5555)
    assert seen.destination == (claimed[family][1], 443)
    trust.wait_empty()


def test_header_and_request_in_one_write(trust: Trust) -> None:
    """What stands behind a header in the same segment reaches the target once, and whole."""
    header = encode_v1(*CLAIMED["v4"])
    with connect(trust.ports["strict", "client"]) as client:
        client.sendall(header + REQUEST + b"more")
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == b"203.0.113.7 5555 198.51.100.1 443\nmore"
    trust.wait_empty()


@pytest.mark.parametrize("order", ["client", "server"])
def test_guessing_hop_takes_both(trust: Trust, order: str) -> None:
    """`required: false`: with a header its address holds, without one the client's own."""
    request = REQUEST if order == "client" else b""
    port = trust.ports["guessing", order]
    with connect(port) as client:
        client.sendall(encode_v2(*CLAIMED["v4"]) + request)
        assert read_seen(client).source == ("203.0.113.7", 5555)
    with connect(port) as client:
        client.sendall(request)  # a silent client is served after header_timeout
        seen = read_seen(client)
        assert (seen.source, seen.destination) == (seen.own, seen.peer)
        assert exchange(client, b"both ways") == b"both ways"
    trust.wait_empty()


@pytest.mark.parametrize(
    ("sent", "closes", "end"),
    [
        (REQUEST, False, "proxy_header_missing"),
        (b"PROXY TCP4 203.0.113.7", False, "proxy_header_timeout"),
        (b"", False, "proxy_header_timeout"),
        (b"PROXY TCP4 203.0.113.7", True, "proxy_header_invalid"),
        (b"PROXY TCP4 203.0.113.777 198.51.100.1 1 2\r\n", False, "proxy_header_invalid"),
        (b"PROXY TCP4 203.0.113.7 198.51.100.1 1 65536\r\n", False, "proxy_header_invalid"),
    ],
    ids=["none", "late", "silent", "cut", "address", "port"],
)
def test_bad_header_of_a_trusted_front(trust: Trust, sent: bytes, closes: bool, end: str) -> None:
    """A trusted front without a proper header gets an end, each kind with its own reason."""
    before, dialled = trust.count(end), trust.middle.totals()["dialled"]
    with connect(trust.ports["strict", "client"]) as client:
        client.sendall(sent)
        if closes:
            client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == b""
    trust.expect(end, before)
    assert trust.middle.totals()["dialled"] == dialled


def test_version_that_is_not_allowed(trust: Trust) -> None:
    """`versions: [v2]` refuses a v1 header and takes a v2 one."""
    before = trust.count("proxy_header_invalid")
    port = trust.ports["only-v2", "server"]
    with connect(port) as client:
        client.sendall(encode_v1(*CLAIMED["v4"]))
        assert read_to_end(client) == b""
    trust.expect("proxy_header_invalid", before)
    with connect(port) as client:
        client.sendall(encode_v2(*CLAIMED["v4"]))
        assert read_seen(client).source == ("203.0.113.7", 5555)
    trust.wait_empty()


def test_every_connection_is_accounted_for(trust: Trust) -> None:
    """What was refused before it had a route counts at its listener, the rest at its route."""
    with connect(trust.ports["only-v2", "server"]) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert read_to_end(client) == b""
    trust.settle()
    totals = trust.middle.totals()
    refused = sum(totals["refused"].values())
    assert refused > 0
    routed = sum(route["total"] for route in totals["routes"].values())
    assert totals["accepted"] == refused + routed
    listeners = totals["listeners"].values()
    assert sum(sum(one["refused"].values()) for one in listeners) == refused
