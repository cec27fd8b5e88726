"""What is read of a certificate: whose key it is for, its names, its algorithms."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, PublicKeyAlgorithmOID

from shared.access_text import plain_name
from shared.errors import CertificateError
from shared.units import is_ip
from supervisor.certificate_files import CURVES, LEAST_RSA_BITS, PrivateKey

ORDER_HINT: Final = "the leaf comes first, then each certificate that has signed the one before it"

_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
# A host below a domain, perhaps a wildcard (RFC 6125, 6.4.3).
_HOST_NAME: Final = re.compile(rf"(?:\*\.)?(?:{_LABEL}\.)+{_LABEL}")


def check_owner(
    chain: Sequence[x509.Certificate], key: PrivateKey, path: Path, key_path: Path
) -> None:
    """CertificateError where the key is not that of the first certificate."""
    public = key.public_key()
    owners = [number for number, one in enumerate(chain, 1) if _public_key(one) == public]
    if owners and owners[0] == 1:
        return
    if owners:
        reason = (
            f"certificate {owners[0]} of {len(chain)} ({subject(chain[owners[0] - 1])}) is out of"
            " place: the key is its own, so it must be the first"
        )
        raise CertificateError(reason, str(path), ORDER_HINT)
    if path == key_path:
        raise CertificateError("its key does not belong to its certificate", str(path))
    raise CertificateError(f"the key does not belong to the certificate {path}", str(key_path))


def _public_key(certificate: x509.Certificate) -> object:
    """None where it is of a kind that is not known."""
    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None


def key_algorithm(leaf: x509.Certificate, key: PrivateKey, path: Path) -> str:
    """As the SSL TLV has it; CertificateError for what TLS peers would refuse."""
    if isinstance(key, rsa.RSAPrivateKey):
        if leaf.public_key_algorithm_oid == PublicKeyAlgorithmOID.RSASSA_PSS:
            # The library makes an ordinary key of the private one: the two would not fit.
            reason = "has a key for RSASSA-PSS alone, which is not supported"
            raise CertificateError(reason, str(path), "make an ordinary RSA key and certificate")
        if key.key_size < LEAST_RSA_BITS:
            reason = f"has an RSA key of {key.key_size} bits; {LEAST_RSA_BITS} are the least"
            raise CertificateError(reason, str(path), "make a new key and certificate")
        return f"RSA{key.key_size}"
    if isinstance(key, ec.EllipticCurvePrivateKey):
        if key.curve.name not in CURVES:
            reason = f"has a key on the curve {key.curve.name}, which TLS clients do not take"
            raise CertificateError(reason, str(path), f"use one of {', '.join(CURVES)}")
        return CURVES[key.curve.name]
    return "ED25519" if isinstance(key, ed25519.Ed25519PrivateKey) else "ED448"


def signature_algorithm(leaf: x509.Certificate, path: Path) -> str:
    """The digest of its signature, "SHA256"; of Ed25519 and Ed448, that has none, its own name."""
    try:
        algorithm = leaf.signature_hash_algorithm
    except UnsupportedAlgorithm:
        reason = "is signed in a way that is not supported"
        raise CertificateError(reason, str(path)) from None
    if algorithm is not None:
        return algorithm.name.upper()
    oid = leaf.signature_algorithm_oid
    return "ED25519" if oid == x509.SignatureAlgorithmOID.ED25519 else "ED448"


def names(leaf: x509.Certificate, path: Path) -> tuple[str, ...]:
    """Its DNS names in lower case; without a SAN its CN, where that is such a name."""
    try:
        if has_san(leaf):
            san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            given = san.get_values_for_type(x509.DNSName)
        else:
            common = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            texts = [str(one.value).lower().rstrip(".") for one in common[-1:]]
            given = [text for text in texts if _HOST_NAME.fullmatch(text) and not is_ip(text)]
    except (ValueError, x509.DuplicateExtension):
        raise CertificateError("its names cannot be read", str(path)) from None
    return tuple(dict.fromkeys(name.lower().rstrip(".") for name in given))


def has_san(leaf: x509.Certificate) -> bool:
    """Whether it has a subject alternative name."""
    return _has_extension(leaf, x509.SubjectAlternativeName)


def _has_extension(leaf: x509.Certificate, kind: type[x509.ExtensionType]) -> bool:
    try:
        leaf.extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return False
    return True


def is_for(leaf: x509.Certificate, usage: x509.ObjectIdentifier) -> bool:
    """Whether it may be used so (RFC 5280, 4.2.1.12): without the extension, for everything."""
    if not _has_extension(leaf, x509.ExtendedKeyUsage):
        return True
    allowed = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    return usage in allowed or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in allowed


def subject(certificate: x509.Certificate) -> str:
    """``CN=a.example,O=Example``, on one line whatever is in it: anybody may have written it."""
    try:
        text = certificate.subject.rfc4514_string()
    except ValueError:
        text = ""
    return plain_name(text) or "without a subject"


def moment(at: datetime) -> str:
    """``2026-11-21 10:41:07 UTC``."""
    return at.strftime("%Y-%m-%d %H:%M:%S UTC")
