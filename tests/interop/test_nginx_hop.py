"""nginx and curl as neighbours of a hop: HTTP through a chain, and headers not wanted."""

from __future__ import annotations

import subprocess

import pytest

from tests.helpers.chain import (
    REQUEST,
    Topology,
    answer_to_end,
    connect,
    forward,
    hop_config,
)
from tests.helpers.targets import HOSTS, HeaderTarget, dual_ports, literal
from tests.programs import find_program

pytestmark = pytest.mark.program("nginx", "ngx_stream_module.so")

ANSWER = "$proxy_protocol_addr $proxy_protocol_port"


@pytest.mark.program("curl")
@pytest.mark.parametrize("family", HOSTS)
def test_curl_with_a_header_of_its_own(topology: Topology, family: str) -> None:
    """curl --haproxy-protocol through two hops: nginx at the end knows curl's own socket."""
    web, second, first = dual_ports(3)
    host = HOSTS[family]
    text = f'server {{ listen {literal(host, web)} proxy_protocol; return 200 "{ANSWER}"; }}'
    topology.nginx("web", http=text)
    configs = {}
    for name, port, target in (("second", second, web), ("first", first, second)):
        route = forward(name, port, literal(host, target), send_proxy="v1")
        configs[name] = hop_config([route], HOSTS.values())
    topology.start_hops(configs)
    curl = find_program("curl")
    assert curl is not None
    done = subprocess.run(
        [
            *(curl, "--silent", "--show-error", "--noproxy", "*", "--max-time", "20"),
            *("--haproxy-protocol", "--write-out", "\n%{local_ip} %{local_port}"),
            f"http://{literal(host, first)}/",
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    seen, own = done.stdout.splitlines()
    assert seen == own
    topology.settle()


def test_kept_http_connection(topology: Topology) -> None:
    """Many requests on one connection: nginx knows the client in each, by a single header."""
    web, second, first = dual_ports(3)
    text = f'server {{ listen 127.0.0.1:{web} proxy_protocol; return 200 "{ANSWER}"; }}'
    topology.nginx("web", http=text)
    route = forward("second", second, f"127.0.0.1:{web}", send_proxy="v2")
    hop = topology.hop("second", hop_config([route], ["127.0.0.1"]))
    route = forward("first", first, f"127.0.0.1:{second}", send_proxy="v2")
    topology.hop("first", hop_config([route]))
    with connect(first) as client:
        host, port = client.getsockname()
        for _ in range(50):
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            received = b""
            while not received.endswith(f"\r\n\r\n{host} {port}".encode()):
                part = client.recv(65536)
                assert part, received
                received += part
    topology.settle()
    assert hop.totals()["accepted"] == 1


@pytest.mark.parametrize("untrusted", ["reject", "close"])
def test_untrusted_nginx_is_refused(topology: Topology, untrusted: str) -> None:
    """A hop that does not trust this nginx ends its connections, and the target hears nothing."""
    server = topology.target(HeaderTarget())
    port, front = dual_ports(2)
    config = hop_config([forward("only", port, server.address)])
    config["proxy_protocol"] = {"trusted": ["192.0.2.1"], "untrusted": untrusted}
    hop = topology.hop("hop", config)
    text = f"server {{ listen 127.0.0.1:{front}; proxy_pass 127.0.0.1:{port}; proxy_protocol on; }}"
    topology.nginx("front", stream=text)
    assert answer_to_end(front, REQUEST) == b""
    topology.settle()
    assert hop.totals()["ends"] == {"proxy_header_untrusted": 1}
    assert server.headers == []
