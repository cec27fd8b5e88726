"""HAProxy and nginx before and behind a hop, all of them speaking HTTP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from tests.helpers.certificates import Authority
from tests.helpers.chain import Hop, Topology, hop_config
from tests.helpers.http_apps import FILE
from tests.helpers.http_clients import curl, httpx_client
from tests.helpers.http_servers import uvicorn
from tests.helpers.http_site import http_route
from tests.helpers.targets import dual_ports
from tests.helpers.tls_site import terminate

NGINX: Final = pytest.mark.program("nginx", "ngx_stream_module.so", "curl")
HAPROXY: Final = pytest.mark.program("haproxy", "curl")
WORKERS: Final = 2  # of a hop
CLAIM: Final = "198.51.100.7"  # of a client, as a proxy that we trust tells it
HAPROXY_SEES: Final = (
    '"%[src] %[req.hdr(x-forwarded-for)] %[req.hdr(x-forwarded-proto)] %[req.hdr(host)]"'
)


class Place:
    """A topology with an authority and a server's certificate."""

    def __init__(self, topology: Topology, directory: Path) -> None:
        self.topology = topology
        self.directory = directory
        self.root = Authority(directory)
        self.files = self.root.leaf("127.0.0.1", "a.example", stem="server")

    def app(self) -> str:
        """uvicorn with the application of tests: its address."""
        (port,) = dual_ports(1)
        place = self.directory / f"uvicorn-{port}"
        place.mkdir()
        self.topology.add(uvicorn(place, port))
        return f"127.0.0.1:{port}"

    def hop(self, port: int, target: str, **more: Any) -> Hop:
        """A proxyctl with one route that speaks HTTP. ``head``: the config beside it."""
        head = more.pop("head", {})
        trusted = more.pop("trusted", [])
        config = hop_config([http_route("only", port, target, **more)], trusted, **head)
        return self.topology.hop(f"hop-{port}", config)

    def get(self, url: str, *arguments: str) -> str:
        """What curl gets there."""
        return curl(self.root.cert, *arguments, url)


@pytest.fixture
def place(topology: Topology, tmp_path: Path) -> Place:
    """Of one test."""
    certs = tmp_path / "certs"
    certs.mkdir()
    return Place(topology, certs)


def haproxy_front(port: int, target: int, more: str = "", bind: str = "", server: str = "") -> str:
    """HAProxy in http mode before a port."""
    return (
        f"listen only\n  mode http\n  bind 127.0.0.1:{port}{bind}\n{more}"
        f"  server hop 127.0.0.1:{target}{server}\n"
    )


@HAPROXY
@pytest.mark.parametrize("is_trusted", [True, False], ids=["trusted", "stranger"])
def test_haproxy_before_us(place: Place, is_trusted: bool) -> None:
    """Whom it names in X-Forwarded-For is the client where it is trusted, else nobody is."""
    front, port = dual_ports(2)
    trusted = {"http": {"trusted_forwarders": ["127.0.0.0/8"]}} if is_trusted else {}
    place.hop(port, place.app(), head=trusted)
    add = f"  http-request add-header X-Forwarded-For {CLAIM}\n"
    place.topology.haproxy("front", haproxy_front(front, port, add))
    for _ in range(3):
        fields = json.loads(place.get(f"http://127.0.0.1:{front}/seen"))["fields"]
        assert fields["x-real-ip"] == (CLAIM if is_trusted else "127.0.0.1")
        chain = f"{CLAIM}, 127.0.0.1" if is_trusted else "127.0.0.1"
        assert fields["x-forwarded-for"] == chain
    assert place.get(f"http://127.0.0.1:{front}/file", "--output", "/dev/null") == ""


@HAPROXY
def test_haproxy_before_us_with_a_header(place: Place) -> None:
    """Its PROXY header names the client of every request on that connection, TLS or not."""
    front, port = dual_ports(2)
    place.hop(port, place.app(), trusted=["127.0.0.1"], tls=terminate(place.files))
    text = haproxy_front(
        front, port, server=f" ssl verify required ca-file {place.root.cert} send-proxy-v2"
    )
    place.topology.haproxy("front", text)
    source = ["--interface", "127.9.8.7"]
    for _ in range(3):
        fields = json.loads(place.get(f"http://127.0.0.1:{front}/seen", *source))["fields"]
        assert fields["x-forwarded-for"] == fields["x-real-ip"] == "127.9.8.7"
        assert fields["x-forwarded-proto"] == "https"


@HAPROXY
@pytest.mark.parametrize("send_proxy", [None, "v1", "v2"])
def test_haproxy_behind_us(place: Place, send_proxy: str | None) -> None:
    """It reads our requests, and our header before them where we send one."""
    web, port = dual_ports(2)
    accepts = " accept-proxy" if send_proxy else ""
    text = (
        f"frontend last\n  mode http\n  bind 127.0.0.1:{web}{accepts}\n"
        f"  http-request return status 200 content-type text/plain lf-string {HAPROXY_SEES}\n"
    )
    place.topology.haproxy("last", text)
    place.hop(port, f"127.0.0.1:{web}", tls=terminate(place.files), send_proxy=send_proxy)
    url = f"https://127.0.0.1:{port}/"
    for client in ("127.9.8.7", "127.9.8.8"):
        said = place.get(url, "--interface", client, "--header", "Host: a.example")
        source = client if send_proxy else "127.0.0.1"
        assert said == f"{source} {client} https a.example"


@NGINX
def test_nginx_before_us(place: Place) -> None:
    """nginx with kept connections to us: each request has its own client."""
    front, port = dual_ports(2)
    head = {"http": {"trusted_forwarders": ["127.0.0.1"]}}
    hop = place.hop(port, place.app(), head=head)
    place.topology.nginx(
        "front",
        http=f"upstream hop {{ server 127.0.0.1:{port}; keepalive 1; }}"
        f"server {{ listen 127.0.0.1:{front}; location / {{ proxy_pass http://hop;"
        ' proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;'
        " proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; } }",
    )
    for number in range(1, 6):
        client = f"127.9.8.{number}"
        fields = json.loads(place.get(f"http://127.0.0.1:{front}/seen", "--interface", client))[
            "fields"
        ]
        assert fields["x-real-ip"] == client
        assert fields["x-forwarded-for"] == f"{client}, 127.0.0.1"
    assert hop.totals()["accepted"] == 1


@NGINX
@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
def test_nginx_behind_us(place: Place, is_tls: bool) -> None:
    """Requests of different clients share a kept connection to nginx; it says which request."""
    web, port = dual_ports(2)
    secure = (
        f"ssl; ssl_certificate {place.files.cert}; ssl_certificate_key {place.files.key}"
        if is_tls
        else ""
    )
    place.topology.nginx(
        "last",
        http=f"server {{ listen 127.0.0.1:{web} {secure}; return 200"
        ' "$connection_requests $http_x_forwarded_for"; }',
    )
    more: dict[str, Any] = {}
    if is_tls:
        more["upstream_tls"] = {"ca": str(place.root.cert), "server_name": "a.example"}
    place.hop(port, f"127.0.0.1:{web}", **more)
    counts = []
    for number in range(1, 11):
        client = f"127.9.8.{number}"
        said = place.get(f"http://127.0.0.1:{port}/", "--interface", client)
        count, seen = said.split()
        counts.append(count)
        assert seen == client
    assert counts.count("1") <= WORKERS  # each of them has dialled once at most


@NGINX
def test_never_shared_with_a_header(place: Place) -> None:
    """Where we send a PROXY header, a connection serves the client that it names and no other."""
    web, port = dual_ports(2)
    place.topology.nginx(
        "last",
        http=f"server {{ listen 127.0.0.1:{web} proxy_protocol; return 200"
        ' "$connection_requests $proxy_protocol_addr "; }',
    )
    place.hop(port, f"127.0.0.1:{web}", send_proxy="v2")
    url = f"http://127.0.0.1:{port}/"
    for client in ("127.9.8.7", "127.9.8.8", "127.9.8.7"):
        said = curl(place.root.cert, "--interface", client, url, url, url)
        assert said == f"1 {client} 2 {client} 3 {client} "


@pytest.mark.program("curl", "haproxy")
def test_two_hops(place: Place) -> None:
    """Two of ours, the second trusting the first: forwarding fields grow, the id stays."""
    first, second = dual_ports(2)
    head = {"http": {"trusted_forwarders": ["127.0.0.0/8"]}}
    place.hop(second, place.app(), head=head, tls=terminate(place.files))
    upstream = {"ca": str(place.root.cert), "server_name": "a.example"}
    place.hop(first, f"127.0.0.1:{second}", upstream_tls=upstream)
    with httpx_client(place.root.cert) as client:
        base = f"http://127.0.0.1:{first}"
        for _ in range(5):
            answer = client.get(f"{base}/seen", headers={"X-Request-ID": "mine"})
            fields = answer.json()["fields"]
            assert fields["x-forwarded-for"] == "127.0.0.1, 127.0.0.1"
            assert fields["x-forwarded-proto"] == "http"
            assert fields["x-request-id"] != "mine"
            assert len(fields["x-request-id"]) == 32
        assert client.get(f"{base}/file").content == FILE
        assert client.post(f"{base}/digest", content=iter([FILE] * 3)).text.startswith(
            f"{3 * len(FILE)} "
        )
    for hop in place.topology.hops:
        assert not {"internal_error", "bad_request"} & hop.totals()["ends"].keys()
