"""HAProxy as a neighbour of one hop: health checks, TLVs of its own, and headers not wanted."""

from __future__ import annotations

import re

import pytest

from shared.proxy_protocol import TlvType
from tests.helpers.chain import (
    REQUEST,
    SOURCES,
    Hop,
    Topology,
    answer_to_end,
    connect,
    forward,
    hop_config,
    read_seen,
)
from tests.helpers.daemons import Haproxy
from tests.helpers.targets import HeaderTarget, dual_ports
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.program("haproxy")


def before_hop(
    topology: Topology, hop_port: int, options: str, lines: str = ""
) -> tuple[Haproxy, int]:
    """A HAProxy with one server, the hop; and its own port."""
    (port,) = dual_ports(1)
    text = (
        f"listen only\n  bind 127.0.0.1:{port}\n{lines}"
        f"  server hop 127.0.0.1:{hop_port} {options}\n"
    )
    return topology.haproxy("front", text), port


def headers(hop: Hop, result: str) -> int:
    """How many headers with this result the hop has counted."""
    listeners = hop.totals()["listeners"].values()
    return sum(one["proxy_headers"].get(result, 0) for one in listeners)


def test_health_checks_keep_the_hop_up(topology: Topology) -> None:
    """HAProxy's checks come as LOCAL, are served and counted; the hop is UP until it is gone."""
    server = topology.target(HeaderTarget(greets=True))
    (port,) = dual_ports(1)
    route = forward("only", port, server.address, send_proxy="v2")
    hop = topology.hop("hop", hop_config([route], ["127.0.0.1"]))
    haproxy, front = before_hop(topology, port, "check inter 100ms send-proxy-v2 check-send-proxy")
    wait_until(lambda: headers(hop, "local") >= 3, "three checks")
    assert haproxy.server_status("only") == "UP"
    with connect(front) as client:
        seen = read_seen(client)
        assert seen.source == seen.own
    # A check has no client: what the target hears is HAProxy's own address, as a plain PROXY.
    wait_until(
        lambda: {header.source_text for header in server.headers} == {"127.0.0.1", SOURCES["v4"]},
        "checks and client at the target",
    )
    assert {header.command for header in server.headers} == {"PROXY"}
    assert hop.run("stop", "--now")[0] == 0
    wait_until(lambda: haproxy.server_status("only") == "DOWN", "the hop is down")


def test_local_can_be_closed(topology: Topology) -> None:
    """`local: close` ends a check without a dial, and HAProxy is content with the connect."""
    server = topology.target(HeaderTarget())
    (port,) = dual_ports(1)
    config = hop_config([forward("only", port, server.address)])
    config["proxy_protocol"] = {"trusted": ["127.0.0.1"], "local": "close"}
    hop = topology.hop("hop", config)
    haproxy, _ = before_hop(topology, port, "check inter 100ms send-proxy-v2 check-send-proxy")
    wait_until(lambda: hop.totals()["ends"].get("proxy_local", 0) >= 3, "three checks")
    assert haproxy.server_status("only") == "UP"
    assert hop.totals()["dialled"] == 0
    assert server.accepted == 0


def test_tlvs_of_haproxy_pass(topology: Topology) -> None:
    """HAProxy's unique id comes through two hops unchanged, its checksum is checked and renewed."""
    server = topology.target(HeaderTarget())
    second, first = dual_ports(2)
    for name, port, target in (
        ("second", second, server.address),
        ("first", first, f"127.0.0.1:{second}"),
    ):
        route = forward(name, port, target, send_proxy="v2", tlvs=["received", "crc32c"])
        topology.hop(name, hop_config([route], ["127.0.0.1"]))
    _, front = before_hop(
        topology,
        first,
        "send-proxy-v2 proxy-v2-options unique-id,crc32c",
        '  unique-id-format "%ci-%cp-made-by-the-front"\n',
    )
    with connect(front) as client:
        client.sendall(REQUEST)
        seen = read_seen(client)
    assert seen.source == seen.own
    topology.wait_empty()
    (header,) = server.headers
    tlvs = dict(header.tlvs)
    expected = f"{seen.own[0]}-{seen.own[1]}-made-by-the-front"
    assert tlvs[TlvType.UNIQUE_ID] == expected.encode()
    assert len(tlvs[TlvType.CRC32C]) == 4


@pytest.mark.parametrize("option", ["send-proxy", "send-proxy-v2"])
def test_untrusted_haproxy_is_refused(topology: Topology, option: str) -> None:
    """A hop that does not trust this HAProxy ends its connections and says so in the log."""
    server = topology.target(HeaderTarget())
    (port,) = dual_ports(1)
    hop = topology.hop("hop", hop_config([forward("only", port, server.address)], ["192.0.2.1"]))
    _, front = before_hop(topology, port, option)
    assert answer_to_end(front, REQUEST) == b""
    topology.settle()
    assert hop.totals()["ends"] == {"proxy_header_untrusted": 1}
    assert headers(hop, "untrusted") == 1
    assert server.headers == []
    wait_until(lambda: re.search('"end":"proxy_header_untrusted"', hop.log()), "a log line")
