"""A TLS client and a TLS server that talk through memory, and plans made of test certificates."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Callable, Sequence

import msgspec

from shared.client_hello import ClientHello, read_client_hello
from shared.plan import AuthorityPlan, CertificatePlan
from tests.helpers.certificates import Authority, Files
from worker.tls_material import TlsObject

_FLIGHTS = 10  # more than any handshake has


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What a ClientHello says, for those that no client here can send."""

    server_name: str = ""
    versions: tuple[str, ...] = ("1.3", "1.2")
    ciphers: tuple[int, ...] = (0x1301, 0xC02B, 0xC02F)  # AES-128-GCM: 1.3, ECDSA, RSA
    signature_algorithms: tuple[int, ...] = (0x0403, 0x0804)  # P-256, RSA-PSS
    groups: tuple[int, ...] = (29, 23)


def certificate_plan(files: Files, names: Sequence[str], kind: str = "EC256") -> CertificatePlan:
    """What a worker is sent of a certificate."""
    chain, key = files.cert.read_bytes(), files.key.read_bytes()
    return CertificatePlan(
        name=str(files.cert),
        names=tuple(names),
        chain=chain,
        key=key,
        key_algorithm=kind,
        signature_algorithm="SHA256",
        digest=hashlib.sha256(chain + key).hexdigest(),
    )


def authority_plan(authority: Authority) -> AuthorityPlan:
    """What a worker is sent of an authority."""
    pem = authority.cert.read_bytes()
    return AuthorityPlan(name=str(authority.cert), pem=pem, digest=hashlib.sha256(pem).hexdigest())


def client_context(
    authority: Authority, version: ssl.TLSVersion, client: Files | None = None
) -> ssl.SSLContext:
    """Python's own client, of one TLS version, that trusts this authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority.cert)
    context.minimum_version = context.maximum_version = version
    if client is not None:
        context.load_cert_chain(client.cert, client.key)
    return context


def hello_of(context: ssl.SSLContext, name: str | None) -> ClientHello:
    """The ClientHello that a client sends for this name."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context.check_hostname = context.check_hostname and name is not None
    connection = context.wrap_bio(incoming, outgoing, server_hostname=name)
    try:
        connection.do_handshake()
    except ssl.SSLWantReadError:
        pass
    hello = read_client_hello(outgoing.read())
    assert hello is not None
    return hello


class Pair:
    """Two ends of one connection; ``server`` and ``client`` make them from (incoming, outgoing)."""

    def __init__(
        self,
        server: Callable[[ssl.MemoryBIO, ssl.MemoryBIO], TlsObject],
        client: Callable[[ssl.MemoryBIO, ssl.MemoryBIO], TlsObject],
    ) -> None:
        self.to_server, self.to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.server = server(self.to_server, self.to_client)
        self.client = client(self.to_client, self.to_server)

    def shake(self) -> None:
        """The whole handshake; ssl.SSLError of the end that refuses first."""
        ends = [self.client, self.server]
        for _ in range(_FLIGHTS):
            for end in list(ends):
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    continue
                ends.remove(end)
            if not ends:
                return
        raise AssertionError("a handshake without an end")

    def talk(self) -> None:
        """One message each way, so that tickets arrive."""
        self.client.write(b"question")
        assert self.server.read(64) == b"question"
        self.server.write(b"answer")
        assert self.client.read(64) == b"answer"
