"""Python's ssl reads the same in recorded ClientHellos, and ours reads what Python's ssl sends."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from shared.client_hello import ClientHello, read_client_hello
from tests.helpers.certificates import Authority

CORPUS = Path(__file__).parent.parent / "corpus" / "client_hello" / "valid"
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
# TLS 1.1 is refused by a server with the defaults of today before it looks at anything else.
MODERN = [path for path in sorted(CORPUS.glob("*.bin")) if "tls11" not in path.stem]


@pytest.fixture(scope="module")
def server_context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """A server that has a certificate for the TLS 1.2 and 1.3 of every client."""
    leaf = Authority(tmp_path_factory.mktemp("tls")).leaf("a.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(leaf.cert, leaf.key)
    return context


def read(data: bytes) -> ClientHello:
    """The ClientHello of bytes that hold a whole one."""
    hello = read_client_hello(data)
    assert hello is not None
    return hello


def served(context: ssl.SSLContext, data: bytes) -> ssl.SSLObject:
    """The server's end after it has answered a ClientHello; ssl.SSLError if it refused."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(incoming, outgoing, server_side=True)
    incoming.write(data)
    with pytest.raises(ssl.SSLWantReadError):
        server.do_handshake()
    assert outgoing.pending
    return server


@pytest.mark.parametrize("path", MODERN, ids=lambda path: path.stem)
def test_server_name_as_ssl_sees_it(path: Path, server_context: ssl.SSLContext) -> None:
    """sni_callback is given the name that we read, or none where we read none."""
    data, seen = path.read_bytes(), []

    def callback(server: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        seen.append(name)

    server_context.sni_callback = callback
    try:
        served(server_context, data)
    finally:
        server_context.sni_callback = None
    assert seen == [read(data).sent_name or None]


@pytest.mark.parametrize("path", MODERN, ids=lambda path: path.stem)
def test_alpn_as_ssl_sees_it(path: Path, server_context: ssl.SSLContext) -> None:
    """A server that speaks one protocol selects it exactly when we read it among the offers."""
    data = path.read_bytes()
    offered = read(data).alpn
    for protocol in {"not-offered", "h2", "http/1.1", *offered[:3], *offered[-1:]}:
        server_context.set_alpn_protocols([protocol])
        selected = served(server_context, data).selected_alpn_protocol()
        assert selected == (protocol if protocol in offered else None)


@pytest.mark.parametrize("path", MODERN, ids=lambda path: path.stem)
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_versions_as_ssl_sees_them(
    path: Path, version: str, server_context: ssl.SSLContext
) -> None:
    """A server that speaks one version answers exactly when we read it among the offers."""
    data = path.read_bytes()
    old = server_context.minimum_version, server_context.maximum_version
    server_context.minimum_version = server_context.maximum_version = VERSIONS[version]
    try:
        if version in read(data).versions:
            served(server_context, data)
        else:
            with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
                served(server_context, data)
    finally:
        server_context.minimum_version, server_context.maximum_version = old


@pytest.mark.parametrize("name", [None, "a.example", "WwW.Example.COM", "b" * 60 + ".example"])
@pytest.mark.parametrize("protocols", [(), ("h2",), ("h2", "http/1.1"), ("x" * 255,) * 9])
@pytest.mark.parametrize("versions", [("1.2",), ("1.3",), ("1.3", "1.2")])
def test_what_ssl_sends(
    name: str | None, protocols: tuple[str, ...], versions: tuple[str, ...]
) -> None:
    """Name, protocols, versions and ciphers of a fresh client are those that it was given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.minimum_version, context.maximum_version = VERSIONS[versions[-1]], VERSIONS[versions[0]]
    if protocols:
        context.set_alpn_protocols(list(protocols))
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    data = outgoing.read()
    hello = read(data)
    assert (hello.size, hello.sent_name, hello.alpn) == (len(data), name or "", protocols)
    # One that speaks nothing after 1.2 sends no list, and can say no lower end.
    assert hello.versions[: len(versions)] == versions
    assert hello.versions[len(versions) :] == (() if "1.3" in versions else ("1.1", "1.0"))
    # OpenSSL numbers a cipher as the protocol does, in the low 16 bits.
    ours = {number & 0xFFFF for cipher in context.get_ciphers() for number in [cipher["id"]]}
    assert set(hello.ciphers) - {0x00FF} <= ours  # 0x00ff: TLS_EMPTY_RENEGOTIATION_INFO_SCSV
    assert {0x0403, 0x0804} <= set(hello.signature_algorithms)
    assert 0x001D in hello.groups
