"""TLS that ends here: which certificate, version, cipher and protocol a client gets, if any."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Final

import pytest

from tests.helpers.certificates import Authority, Files
from tests.helpers.targets import HOSTS, Target, dual_ports
from tests.helpers.tls_clients import (
    TLS12,
    TLS13,
    VERSIONS,
    TlsClient,
    nameless,
    plain,
    read_exactly,
    trusting,
)
from tests.helpers.tls_site import Site, client_auth, route, terminate
from tests.helpers.tls_targets import echo

PORTS: Final = (
    "names", "v13", "ciphers", "alpn", "optional", "required", "hasty", "nobody",
)  # fmt: skip
AES128: Final = "ECDHE-ECDSA-AES128-GCM-SHA256"
AES256: Final = "ECDHE-ECDSA-AES256-GCM-SHA384"
RSA: Final = "ECDHE-RSA-AES128-GCM-SHA256"


class Ends(Site):
    """`port` has the number of each kind of port, ``certs`` the certificates by what they are."""

    port: dict[str, int]
    root: Authority
    certs: dict[str, Files]
    target: Target

    def listener(self, kind: str) -> str:
        """Of the listener on IPv4."""
        return f"127.0.0.1:{self.port[kind]}"


def issue(root: Authority, stranger: Authority) -> dict[str, Files]:
    """Certificates of servers, and of clients whom one may believe, or not."""
    return {
        "default": root.leaf("a.example", stem="default"),
        "rsa": root.leaf("a.example", key="rsa", stem="rsa"),
        "wild": root.leaf("*.wild.example", stem="wild"),
        "other": root.leaf("b.example", "*.c.example", stem="other"),
        "exact": root.leaf("exact.wild.example", stem="exact"),
        "below": root.intermediate("Below").leaf("below.example", stem="below"),
        "alice": root.client("alice"),
        "expired": root.client("expired", days=-1),
        "mallory": stranger.client("mallory"),
    }


def routes_of(port: dict[str, int], target: Target, ends: Ends) -> list[dict[str, Any]]:
    """A port for each policy."""
    certs, root = ends.certs, ends.root
    one = certs["default"]
    several = [certs[kind] for kind in ("default", "rsa", "wild", "other", "exact", "below")]
    policies: dict[str, dict[str, Any]] = {
        "names": terminate(*several),
        "v13": terminate(one, min_version="1.3"),
        "ciphers": terminate(one, ciphers=AES128),
        "alpn": terminate(one, alpn=["h2", "http/1.1"]),
        "optional": terminate(one, client_auth=client_auth("optional", root)),
        "required": terminate(one, client_auth=client_auth("required", root)),
        "hasty": terminate(one),
    }
    routes = [
        route(kind, port[kind], target.address, tls=tls, timeouts=hasty(kind))
        for kind, tls in policies.items()
    ]
    (gone,) = dual_ports(1)
    return [*routes, route("nobody", port["nobody"], f"127.0.0.1:{gone}", tls=terminate(one))]


def hasty(kind: str) -> dict[str, str]:
    """Timeouts of a route; one has little patience with handshakes."""
    return {"tls_handshake": "400ms"} if kind == "hasty" else {}


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ends]:
    """Started once: these tests change nothing of it."""
    directory = tmp_path_factory.mktemp("ends")
    with ExitStack() as stack:
        target = Target(echo)
        stack.callback(target.close)
        (directory / "stranger").mkdir()
        port = dict(zip(PORTS, dual_ports(len(PORTS)), strict=True))
        ends = Ends(directory / "site", [])
        ends.root = Authority(directory)
        ends.certs = issue(ends.root, Authority(directory / "stranger", "Another CA"))
        ends.port, ends.target = port, target
        ends.write(ends.config(routes_of(port, target, ends)))
        stack.callback(ends.end)
        ends.start()
        yield ends


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.example", "default"),
        ("A.Example", "default"),
        ("x.wild.example", "wild"),
        ("exact.wild.example", "exact"),
        ("b.example", "other"),
        ("y.c.example", "other"),
        ("below.example", "below"),
    ],
)
def test_the_certificate_is_for_the_name(ends: Ends, name: str, kind: str, version: str) -> None:
    """Exact before wildcard; the client verifies it down to the root."""
    context = trusting(ends.root, version=VERSIONS[version])
    with TlsClient(ends.port["names"], context, name) as client:
        assert client.peer() == ends.certs[kind].certificate
        assert client.tls.version() == f"TLSv{version}"
        assert client.echoes()


@pytest.mark.parametrize("name", [None, "unknown.example", "wild.example", "a.b.wild.example"])
def test_the_first_certificate_is_the_default(ends: Ends, name: str | None) -> None:
    """For no name, and for those that no certificate has."""
    with TlsClient(ends.port["names"], nameless(ends.root), name) as client:
        assert client.peer() == ends.certs["default"].certificate
        assert client.echoes()


def test_rsa_for_those_who_know_no_other(ends: Ends) -> None:
    """One name has both kinds: ECDSA comes first, a client that speaks RSA alone gets that."""
    port = ends.port["names"]
    for ciphers, kind in ((RSA, "rsa"), (AES128, "default"), (f"{RSA}:{AES128}", "default")):
        context = trusting(ends.root, version=TLS12, ciphers=ciphers)
        with TlsClient(port, context) as client:
            assert client.peer() == ends.certs[kind].certificate
            assert client.echoes()


@pytest.mark.parametrize("family", HOSTS)
def test_both_families(ends: Ends, family: str) -> None:
    """The log has the client, the route, and how long the handshake took."""
    with TlsClient(ends.port["names"], trusting(ends.root), family=family) as client:
        assert client.echoes(b"12345")
        client.finish()
        assert client.read_to_end() == b""
    line = ends.line_of(client.way)
    assert (line["route"], line["end"]) == ("names", "client_closed")
    assert line["client"] == client.way.own
    assert 0 < line["t_tls"] < line["t_total"]


def handshakes(ends: Ends, kind: str, *results: str) -> list[float]:
    """How many of a port had each of these results, once the workers have told of all so far."""
    ends.settle()
    name = ends.listener(kind)
    return [ends.metric("tls_handshakes_total", listener=name, result=each) for each in results]


def refused(ends: Ends, kind: str, context: ssl.SSLContext) -> str:
    """A client that gets no service: how its connection ended. No target hears of it."""
    accepted = ends.target.accepted
    name = ends.listener(kind)
    (before,) = handshakes(ends, kind, "failed")
    with TlsClient(ends.port[kind], context, shakes=False) as client:
        assert not client.talks()
    end = ends.end_of(client.way)
    assert ends.logged(f'"end":"{end}"', client.way.own, "detail")
    ends.wait_metric(before + 1, "tls_handshakes_total", listener=name, result="failed")
    assert ends.target.accepted == accepted
    return end


def test_minimum_version(ends: Ends) -> None:
    """TLS 1.2 is refused where 1.3 is the least; 1.3 is served."""
    assert refused(ends, "v13", trusting(ends.root, version=TLS12)) == "tls_failed"
    with TlsClient(ends.port["v13"], trusting(ends.root, version=TLS13)) as client:
        assert client.echoes()


def test_ciphers(ends: Ends) -> None:
    """Of TLS 1.2, only those that are named; TLS 1.3 has its own."""
    root = ends.root
    assert refused(ends, "ciphers", trusting(root, version=TLS12, ciphers=AES256)) == "tls_failed"
    both = trusting(root, version=TLS12, ciphers=f"{AES256}:{AES128}")
    with TlsClient(ends.port["ciphers"], both) as client:
        assert (client.tls.cipher() or ("",))[0] == AES128
        assert client.echoes()
    with TlsClient(ends.port["ciphers"], trusting(root, version=TLS13)) as client:
        assert client.echoes()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(("http/1.1", "h2"), "h2"), (("http/1.1",), "http/1.1"), (("imap",), None), ((), None)],
)
def test_alpn(ends: Ends, offered: tuple[str, ...], chosen: str | None, version: str) -> None:
    """Our order decides; where there is none in common the connection goes on without."""
    context = trusting(ends.root, version=VERSIONS[version], alpn=offered)
    with TlsClient(ends.port["alpn"], context) as client:
        assert client.tls.selected_alpn_protocol() == chosen
        assert client.echoes()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("kind", "who", "is_served"),
    [
        ("names", "alice", True),
        ("optional", "", True),
        ("optional", "alice", True),
        ("optional", "mallory", False),
        ("optional", "expired", False),
        ("required", "", False),
        ("required", "alice", True),
        ("required", "mallory", False),
        ("required", "expired", False),
    ],
)
def test_client_certificates(
    ends: Ends, kind: str, who: str, is_served: bool, version: str
) -> None:
    """None asked for, optional, required; where one is wrong no target is dialled."""
    shown = ends.certs[who] if who else None
    context = trusting(ends.root, version=VERSIONS[version], client=shown)
    if not is_served:
        assert refused(ends, kind, context) == "tls_failed"
        return
    with TlsClient(ends.port[kind], context) as client:
        assert client.echoes()


def test_handshakes_are_counted(ends: Ends) -> None:
    """New ones and resumed ones, by listener."""
    name = ends.listener("alpn")
    new, resumed = handshakes(ends, "alpn", "new", "resumed")
    context = trusting(ends.root)
    with TlsClient(ends.port["alpn"], context) as client:
        assert client.echoes()
        session = client.session()
    with TlsClient(ends.port["alpn"], context, session=session) as client:
        assert client.tls.session_reused
        assert client.echoes()
    ends.wait_metric(new + 1, "tls_handshakes_total", listener=name, result="new")
    ends.wait_metric(resumed + 1, "tls_handshakes_total", listener=name, result="resumed")


@pytest.mark.parametrize("size", [None, 1], ids=["first-flight", "half-a-second-flight"])
def test_a_handshake_that_never_ends(ends: Ends, size: int | None) -> None:
    """It is cut at `tls_handshake`, as tls_timeout, and no target was dialled for it."""
    accepted = ends.target.accepted
    name = ends.listener("hasty")
    (before,) = handshakes(ends, "hasty", "timeout")
    context = trusting(ends.root, version=TLS12)
    with TlsClient(ends.port["hasty"], context, shakes=False) as client:
        client.sock.sendall(client.flight())
        if size is not None:
            assert client.sock.recv(1)  # it has answered
            client.sock.sendall(b"\x16\x03\x03\x00"[:size])
        while client.sock.recv(65536):
            pass
    assert ends.end_of(client.way) == "tls_timeout"
    assert ends.logged('"end":"tls_timeout"', client.way.own)
    ends.wait_metric(before + 1, "tls_handshakes_total", listener=name, result="timeout")
    assert ends.target.accepted == accepted


@pytest.mark.parametrize("how", ["fin", "reset", "alert", "garbage", "plaintext"])
def test_a_handshake_that_is_given_up(ends: Ends, how: str) -> None:
    """By its end, an RST, an alert or nonsense: closed at once, and no target was dialled."""
    accepted = ends.target.accepted
    context = trusting(ends.root, version=TLS12)
    client = TlsClient(ends.port["names"], context, shakes=False)
    with client:
        client.sock.sendall(client.flight())
        assert client.sock.recv(1)
        match how:
            case "fin":
                client.sock.shutdown(socket.SHUT_WR)
            case "reset":
                client.reset()
            case "alert":
                client.sock.sendall(b"\x15\x03\x03\x00\x02\x02\x28")
            case "garbage":
                client.sock.sendall(b"\xff" * 300)
            case "plaintext":
                client.sock.sendall(b"\x17\x03\x03\x00\x05hello")
        if how != "reset":
            while client.sock.recv(65536):
                pass
    allowed = {"tls_failed", "client_gone"} if how in ("fin", "reset") else {"tls_failed"}
    assert ends.end_of(client.way) in allowed
    assert ends.target.accepted == accepted


def test_an_alert_tells_the_client_why(ends: Ends) -> None:
    """What is refused in the handshake is refused in the words of TLS."""
    context = trusting(ends.root, version=TLS13)
    refusal = pytest.raises(ssl.SSLError, match=r"(?i)certificate.required")
    with TlsClient(ends.port["required"], context) as client, refusal:
        client.receive()
    context = trusting(ends.root, version=TLS12)
    with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
        TlsClient(ends.port["v13"], context)


def test_a_target_that_is_down(ends: Ends) -> None:
    """The handshake succeeds, then the connection ends, as connect_failed."""
    with TlsClient(ends.port["nobody"], trusting(ends.root)) as client:
        assert client.read_to_end() == b""
    assert ends.end_of(client.way) == "connect_failed"


def test_plain_http_gets_no_bytes(ends: Ends) -> None:
    """A request without TLS where TLS ends: closed with a reason of its own."""
    with plain(ends.port["names"]) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
        assert read_exactly(client, 1) == b""
    assert ends.logged('"end":"plain_on_tls"', ends.listener("names"))
