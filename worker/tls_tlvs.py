"""The values of the TLVs that tell a target about a client's TLS (PROXY protocol, section 2.2).

Each function gives the value alone, for whoever puts a header together; the text in it is spelled
as HAProxy and nginx spell it, which is as OpenSSL does.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from shared.proxy_protocol import Ssl, SslClient, encode_alpn, encode_authority, encode_ssl

# 64 characters (ub-common-name of RFC 5280 appendix A.1) of four bytes. Nothing longer is sent: a
# header over 4096 bytes is refused by most readers, and a name that was cut is another name.
COMMON_NAME_MAX_BYTES: Final = 256
_VERIFIED: Final = 0
_NOT_VERIFIED: Final = 1  # "non-zero otherwise" (section 2.2.6), also without a certificate


class ClientCertificate(Struct, frozen=True, kw_only=True, gc=False):
    """What the SSL TLV says of a client's certificate.

    ``is_new``: it came over this connection; False: it came with the session that was resumed.
    """

    is_new: bool
    is_verified: bool
    common_name: str | None = None


def ssl_value(
    *,
    version: str,
    cipher: str,
    key_algorithm: str,
    signature_algorithm: str,
    client_certificate: ClientCertificate | None = None,
) -> bytes:
    """The SSL TLV of a connection whose TLS was ended here (section 2.2.6).

    ``version`` and ``cipher`` as `ssl.SSLObject` names them, "TLSv1.3" and
    "TLS_AES_256_GCM_SHA384"; the algorithms are those of our own certificate, "EC256" and
    "SHA256", left out where they are "". ValueError for text that is not US-ASCII.
    """
    client, verify, common_name = SslClient.SSL, _NOT_VERIFIED, None
    if client_certificate is not None:
        # A certificate of this connection is one of the session that it began, too.
        client |= SslClient.CERT_SESS
        if client_certificate.is_new:
            client |= SslClient.CERT_CONN
        if client_certificate.is_verified:
            verify = _VERIFIED
        common_name = _sendable(client_certificate.common_name)
    ssl = Ssl(
        client=client,
        verify=verify,
        version=version,
        cipher=cipher,
        cn=common_name,
        sig_alg=signature_algorithm or None,
        key_alg=key_algorithm or None,
    )
    return encode_ssl(ssl)[1]


def alpn_value(protocol: str) -> bytes:
    """The ALPN TLV: the protocol in use (section 2.2.1), one byte for each character."""
    return encode_alpn(protocol.encode("latin-1"))[1]


def authority_value(name: str) -> bytes:
    """The AUTHORITY TLV: an exact copy of the name that the client sent (section 2.2.2)."""
    return encode_authority(name)[1]


def _sendable(common_name: str | None) -> str | None:
    """The name if a reader will take it for the same name; else None."""
    if not common_name or "\0" in common_name:  # readers in C would end at the NUL
        return None
    return common_name if len(common_name.encode()) <= COMMON_NAME_MAX_BYTES else None
