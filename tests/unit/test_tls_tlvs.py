"""The values of the ALPN, AUTHORITY and SSL TLVs, read back from a whole header."""

from __future__ import annotations

import ipaddress

import pytest

from shared.client_hello import read_client_hello
from shared.proxy_protocol import Ssl, SslClient, Tlvs, TlvType, decode_tlvs, encode_v2, parse
from tests.helpers.client_hello_builder import message, records, server_name
from worker.tls_tlvs import (
    COMMON_NAME_MAX_BYTES,
    ClientCertificate,
    alpn_value,
    authority_value,
    ssl_value,
)

SOURCE = ipaddress.ip_address("192.0.2.1").packed
DESTINATION = ipaddress.ip_address("192.0.2.2").packed
BOTH = SslClient.SSL | SslClient.CERT_CONN | SslClient.CERT_SESS
RESUMED = SslClient.SSL | SslClient.CERT_SESS


def read_back(kind: TlvType, value: bytes) -> Tlvs:
    """What a reader of a header with this one TLV and a checksum finds."""
    header = encode_v2(SOURCE, 1, DESTINATION, 2, tlvs=((kind, value),), crc32c=True)
    answer = parse(header)
    assert answer is not None
    return decode_tlvs(answer[0].tlvs)


def ssl_of(certificate: ClientCertificate | None) -> Ssl:
    """The SSL TLV of one TLS 1.3 connection with this certificate."""
    value = ssl_value(
        version="TLSv1.3",
        cipher="TLS_AES_256_GCM_SHA384",
        key_algorithm="EC256",
        signature_algorithm="SHA256",
        client_certificate=certificate,
    )
    found = read_back(TlvType.SSL, value).ssl
    assert found is not None
    return found


def test_without_a_certificate() -> None:
    """Version, cipher and our own algorithms; nothing was verified, and no name is there."""
    assert ssl_of(None) == Ssl(
        client=SslClient.SSL,
        verify=1,
        version="TLSv1.3",
        cipher="TLS_AES_256_GCM_SHA384",
        key_alg="EC256",
        sig_alg="SHA256",
    )


def test_its_bytes() -> None:
    """The value is what section 2.2.6 draws: client, verify, then sub-TLVs of type and length."""
    value = ssl_value(
        version="TLSv1.2",
        cipher="AES128-SHA",
        key_algorithm="RSA2048",
        signature_algorithm="SHA256",
        client_certificate=ClientCertificate(is_new=True, is_verified=True, common_name="é"),
    )
    assert value == (
        b"\x07" + bytes(4) + b"\x21\0\x07TLSv1.2" + b"\x23\0\x0aAES128-SHA"
        b"\x24\0\x06SHA256" + b"\x25\0\x07RSA2048" + b"\x22\0\x02\xc3\xa9"
    )


@pytest.mark.parametrize(
    ("is_new", "is_verified", "client", "verify"),
    [(True, True, BOTH, 0), (False, True, RESUMED, 0), (True, False, BOTH, 1)],
)
def test_with_a_certificate(
    is_new: bool, is_verified: bool, client: SslClient, verify: int
) -> None:
    """The bits tell a certificate of this connection from one of a resumed session."""
    found = ssl_of(ClientCertificate(is_new=is_new, is_verified=is_verified, common_name="alice"))
    assert (found.client, found.verify, found.cn) == (client, verify, "alice")
    assert found.has_valid_certificate == is_verified


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("alice", "alice"),
        ("Zoë Ünal 李", "Zoë Ünal 李"),
        ("\U00020000" * 64, "\U00020000" * 64),
        ("a" * COMMON_NAME_MAX_BYTES, "a" * COMMON_NAME_MAX_BYTES),
        ("a" * (COMMON_NAME_MAX_BYTES + 1), None),
        ("é" * 129, None),
        ("admin\0.example", None),
        ("", None),
        (None, None),
    ],
)
def test_common_names(name: str | None, sent: str | None) -> None:
    """A name goes out whole as UTF-8, or not at all; the certificate is told of either way."""
    found = ssl_of(ClientCertificate(is_new=True, is_verified=True, common_name=name))
    assert (found.cn, found.has_valid_certificate) == (sent, True)


def test_unknown_algorithms_are_left_out() -> None:
    """An algorithm without a name makes no empty sub-TLV."""
    value = ssl_value(version="TLSv1.3", cipher="X", key_algorithm="", signature_algorithm="")
    found = read_back(TlvType.SSL, value).ssl
    assert found == Ssl(verify=1, version="TLSv1.3", cipher="X")


def test_text_that_is_not_ascii_is_refused() -> None:
    """Section 2.2.6: all but the common name is US-ASCII."""
    with pytest.raises(ValueError, match="KEY_ALG is US-ASCII"):
        ssl_value(version="TLSv1.3", cipher="X", key_algorithm="é", signature_algorithm="")


@pytest.mark.parametrize("protocol", ["h2", "http/1.1", "\x00\xff", "a" * 255])
def test_alpn(protocol: str) -> None:
    """The bytes of the protocol as they came in the ClientHello."""
    assert read_back(TlvType.ALPN, alpn_value(protocol)).alpn == protocol.encode("latin-1")


@pytest.mark.parametrize("name", ["a.example", "WwW.Example.COM.", "a" * 255])
def test_authority(name: str) -> None:
    """Section 2.2.2: an exact copy of the name in the ClientHello, case and dot included."""
    hello = read_client_hello(records(message(server_name(name))))
    assert hello is not None
    assert read_back(TlvType.AUTHORITY, authority_value(hello.sent_name)).authority == name
