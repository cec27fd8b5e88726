"""HAProxy and nginx before and behind TLS of ours, and what they read in our PROXY headers."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, Final

import pytest

from shared.proxy_protocol import decode_tlvs
from tests.helpers.certificates import Authority, Files
from tests.helpers.chain import Topology, hop_config
from tests.helpers.targets import Target, dual_ports
from tests.helpers.tls_clients import TlsClient, trusting
from tests.helpers.tls_programs import Said, curl
from tests.helpers.tls_site import route, terminate
from tests.helpers.tls_targets import HeaderEcho, echo

NAME: Final = "a.example"
NGINX: Final = pytest.mark.program("nginx", "ngx_stream_module.so", "curl")
HAPROXY: Final = pytest.mark.program("haproxy", "curl")
TLVS: Final = ["authority", "alpn", "ssl", "unique_id", "crc32c"]
SHORT_TLVS: Final = ["authority", "unique_id"]  # nginx before 1.23.4 takes 107 bytes at most
NGINX_ANSWER: Final = (
    "$proxy_protocol_addr $proxy_protocol_port $ssl_server_name $ssl_protocol $ssl_session_reused"
)
LOOPBACK: Final = ["127.0.0.1"]


class Place:
    """A topology with an authority and a server's certificate."""

    def __init__(self, topology: Topology, directory: Path) -> None:
        self.topology = topology
        self.root = Authority(directory)
        self.files = self.root.leaf(NAME, "127.0.0.1", stem="server")

    def upstream(self) -> dict[str, str]:
        """``upstream_tls`` for that certificate."""
        return {"ca": str(self.root.cert), "server_name": NAME}

    def hop(self, port: int, target: str, *, trusts: bool = False, **action: Any) -> None:
        """A proxyctl with one route."""
        config = hop_config([route("only", port, target, **action)], LOOPBACK if trusts else [])
        self.topology.hop(f"hop-{port}", config)

    def curl(self, port: int) -> str:
        """What curl gets there; it must get it whole."""
        said: Said = curl(port, self.root, NAME)
        assert said.code == 0, said.err
        return said.out.strip()


@pytest.fixture
def place(topology: Topology, tmp_path: Path) -> Place:
    """Of one test."""
    certs = tmp_path / "certs"
    certs.mkdir()
    return Place(topology, certs)


def nginx_tls(files: Files) -> str:
    """nginx's directives for a certificate."""
    return (
        f"ssl_certificate {files.cert}; ssl_certificate_key {files.key};"
        " ssl_protocols TLSv1.2 TLSv1.3;"
    )


@HAPROXY
def test_haproxy_reads_our_tlvs(place: Place) -> None:
    """Source, name, id and a checksum that holds, of TLS that ended here."""
    web, port = dual_ports(2)
    text = (
        f"frontend last\n  mode http\n  bind 127.0.0.1:{web} accept-proxy\n"
        "  http-request return status 200 content-type text/plain"
        ' lf-string "%[src] %[dst_port] %[fc_pp_authority] %[fc_pp_unique_id]"\n'
    )
    place.topology.haproxy("last", text)
    tls = terminate(place.files, alpn=["http/1.1"])
    place.hop(port, f"127.0.0.1:{web}", tls=tls, send_proxy="v2", send_proxy_tlvs=TLVS)
    source, destination, authority, unique_id = place.curl(port).split(" ")
    assert (source, int(destination), authority) == ("127.0.0.1", port, NAME)
    assert unique_id.count("-") == 2
    place.topology.settle()


@HAPROXY
def test_haproxy_reads_the_name_of_closed_tls(place: Place) -> None:
    """AUTHORITY on passthrough, with the client's TLS ended by HAProxy behind the header."""
    web, port = dual_ports(2)
    both = place.files.both
    text = (
        f"frontend last\n  mode http\n  bind 127.0.0.1:{web} accept-proxy ssl crt {both}\n"
        "  http-request return status 200 content-type text/plain"
        ' lf-string "%[src] %[fc_pp_authority] %[ssl_fc_sni] %[ssl_fc_protocol]"\n'
    )
    place.topology.haproxy("last", text)
    by_name = {"domains": [NAME]}
    target = f"127.0.0.1:{web}"
    place.hop(port, target, match=by_name, send_proxy="v2", send_proxy_tlvs=TLVS)
    assert place.curl(port) == f"127.0.0.1 {NAME} {NAME} TLSv1.3"
    place.topology.settle()


@HAPROXY
@pytest.mark.parametrize("is_ended", [False, True], ids=["passthrough", "reencrypted"])
def test_haproxy_ends_tls_behind_us(place: Place, is_ended: bool) -> None:
    """With the header in the clear before it, as `accept-proxy ssl` reads it."""
    web, port = dual_ports(2)
    text = (
        f"frontend last\n  mode http\n"
        f"  bind 127.0.0.1:{web} accept-proxy ssl crt {place.files.both}\n"
        "  http-request return status 200 content-type text/plain"
        ' lf-string "%[dst_port] %[ssl_fc_sni]"\n'
    )
    place.topology.haproxy("last", text)
    action: dict[str, Any] = {"send_proxy": "v2", "send_proxy_tlvs": TLVS}
    if is_ended:
        action |= {"tls": terminate(place.files), "upstream_tls": place.upstream()}
    place.hop(port, f"127.0.0.1:{web}", **action)
    for _ in range(3):
        assert place.curl(port) == f"{port} {NAME}"
    place.topology.settle()


@HAPROXY
@pytest.mark.parametrize("option", ["send-proxy", "send-proxy-v2-ssl-cn"])
def test_haproxy_before_us_with_a_header(place: Place, option: str) -> None:
    """HAProxy passes the client's TLS on behind its header; here it ends, and whom it named."""
    server = place.topology.target(HeaderEcho())
    port, front = dual_ports(2)
    place.hop(port, server.address, trusts=True, tls=terminate(place.files), send_proxy="v2")
    place.topology.haproxy(
        "front", f"listen only\n  bind 127.0.0.1:{front}\n  server hop 127.0.0.1:{port} {option}\n"
    )
    with TlsClient(front, trusting(place.root)) as client:
        assert client.echoes()
        header = server.headers[-1]
        assert f"{header.source_text}:{header.source_port}" == client.way.own
        assert header.destination_port == front
    place.topology.wait_empty()


@HAPROXY
def test_haproxy_speaks_tls_to_us(place: Place) -> None:
    """Its own TLS to a server, verified, with its TLVs of the client's TLS passed on."""
    server = place.topology.target(HeaderEcho())
    port, front = dual_ports(2)
    tlvs = ["received", "unique_id"]
    tls = terminate(place.files)
    target = server.address
    place.hop(port, target, trusts=True, tls=tls, send_proxy="v2", send_proxy_tlvs=tlvs)
    place.topology.haproxy(
        "front",
        f"listen only\n  bind 127.0.0.1:{front} ssl crt {place.files.both}\n"
        f"  server hop 127.0.0.1:{port} ssl verify required ca-file {place.root.cert}"
        f" sni str({NAME}) send-proxy-v2-ssl\n",
    )
    with TlsClient(front, trusting(place.root)) as client:
        assert client.echoes()
        header = server.headers[-1]
        assert f"{header.source_text}:{header.source_port}" == client.way.own
        known = decode_tlvs(header.tlvs)
        assert known.ssl is not None
        assert known.ssl.version == client.tls.version()
    place.topology.wait_empty()


@NGINX
def test_nginx_reads_our_header(place: Place) -> None:
    """Before plain HTTP and before TLS, of passthrough and of TLS that ended here."""
    web, secure, *ports = dual_ports(5)
    topology = place.topology
    topology.nginx(
        "last",
        http=f'server {{ listen 127.0.0.1:{web} proxy_protocol; return 200 "{NGINX_ANSWER}"; }}\n'
        f"server {{ listen 127.0.0.1:{secure} ssl proxy_protocol; {nginx_tls(place.files)}"
        f' return 200 "{NGINX_ANSWER}"; }}',
    )
    v2: dict[str, Any] = {"send_proxy": "v2", "send_proxy_tlvs": SHORT_TLVS}
    tls = terminate(place.files)
    ended, again, passed = ports
    place.hop(ended, f"127.0.0.1:{web}", tls=tls, **v2)
    place.hop(again, f"127.0.0.1:{secure}", tls=tls, upstream_tls=place.upstream(), **v2)
    place.hop(passed, f"127.0.0.1:{secure}", match={"domains": [NAME]}, **v2)
    assert place.curl(ended).startswith("127.0.0.1 ")
    for port in (again, passed):
        address, _, name, version, _ = place.curl(port).split(" ")
        assert (address, name, version) == ("127.0.0.1", NAME, "TLSv1.3")
    topology.settle()


@NGINX
def test_nginx_as_a_target(place: Place) -> None:
    """A hop that speaks TLS to nginx shakes hands with it each time, as nginx itself says."""
    secure, port = dual_ports(2)
    place.topology.nginx(
        "last",
        http=f"server {{ listen 127.0.0.1:{secure} ssl; {nginx_tls(place.files)}"
        f" ssl_session_cache shared:s:1m;"
        ' return 200 "$ssl_session_reused"; }',
    )
    place.hop(
        port, f"127.0.0.1:{secure}", tls=terminate(place.files), upstream_tls=place.upstream()
    )
    assert {place.curl(port) for _ in range(4)} == {"."}
    place.topology.settle()


@NGINX
@pytest.mark.parametrize("is_secure", [False, True], ids=["closed", "own-tls"])
def test_nginx_before_us(place: Place, is_secure: bool) -> None:
    """Its stream proxy with a v1 header, the client's TLS passed on or nginx's own to us."""
    server = place.topology.target(HeaderEcho())
    port, front = dual_ports(2)
    place.hop(port, server.address, trusts=True, tls=terminate(place.files), send_proxy="v2")
    own = (
        f"proxy_ssl on; proxy_ssl_trusted_certificate {place.root.cert}; proxy_ssl_verify on;"
        f" proxy_ssl_name {NAME}; proxy_ssl_server_name on; proxy_ssl_session_reuse on;"
    )
    listen = f"listen 127.0.0.1:{front} {'ssl' if is_secure else ''};"
    place.topology.nginx(
        "front",
        stream=f"server {{ {listen} {nginx_tls(place.files) if is_secure else ''}"
        f" {own if is_secure else ''} proxy_protocol on; proxy_pass 127.0.0.1:{port}; }}",
    )
    for _ in range(4):
        with TlsClient(front, trusting(place.root)) as client:
            assert client.echoes()
            header = server.headers[-1]
            assert f"{header.source_text}:{header.source_port}" == client.way.own
    place.topology.wait_empty()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_two_hops(place: Place, version: ssl.TLSVersion) -> None:
    """Closed through both, ended by the second, ended and begun again by the first."""
    server = place.topology.target(Target(echo))
    last, (by_name, ended, again) = dual_ports(1)[0], dual_ports(3)
    tls = terminate(place.files)
    place.hop(last, server.address, trusts=True, match={"domains": [NAME]}, tls=tls)
    target = f"127.0.0.1:{last}"
    v2: dict[str, Any] = {"send_proxy": "v2", "send_proxy_tlvs": TLVS}
    first = [
        route("closed", by_name, target, match={"domains": [NAME]}, **v2),
        route("ended", ended, target, tls=tls, upstream_tls=place.upstream(), **v2),
        route("plain", again, target, upstream_tls=place.upstream(), **v2),
    ]
    place.topology.hop("first", hop_config(first))
    data = bytes(range(256)) * 2048
    for port in (by_name, ended):
        with TlsClient(port, trusting(place.root, version=version)) as client:
            for _ in range(4):
                assert client.echoes(data[:60_000])
            client.finish()
            assert (client.read_to_end(), client.ended) == (b"", "close_notify")
    place.topology.settle()
    second, one = (hop.totals() for hop in place.topology.hops)
    assert one["accepted"] == second["accepted"] == 2
