"""PEM files of certificates and keys: read, decrypted, and what is wrong with them.

Nothing of a key or a password gets into an error: what the library says about one is dropped.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from shared.errors import CertificateError
from supervisor.config_read import ReadError, read_file

PrivateKey = (
    ec.EllipticCurvePrivateKey
    | rsa.RSAPrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)

MAX_FILE_BYTES: Final = 16 << 20  # a system's bundle of authorities has 0.2 MiB
LEAST_RSA_BITS: Final = 2048  # OpenSSL's security level 2, which Python's contexts ask for
# Clients offer these in supported_groups (RFC 8446, 4.2.7); OpenSSL by default no other ones.
CURVES: Final = {"secp256r1": "EC256", "secp384r1": "EC384", "secp521r1": "EC521"}

_PEM_HINT: Final = "a PEM file is needed, with -----BEGIN CERTIFICATE----- in it"
_BEGIN: Final = re.compile(rb"-----BEGIN (?:X509 )?CERTIFICATE-----")
_CERTIFICATE: Final = re.compile(
    rb"-----BEGIN ((?:X509 )?CERTIFICATE)-----[A-Za-z0-9+/=\s]+-----END \1-----"
)
_KEY: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY)-----.*?-----END \1-----", re.DOTALL)
_OTHERS: Final = 0o077  # what a mode allows to group and others


def read_pem(path: Path) -> bytes:
    """The whole file; CertificateError where it cannot be had."""
    try:
        data = read_file(path, MAX_FILE_BYTES)
    except ReadError as error:
        raise CertificateError(error.reason, str(path), error.hint) from None
    if len(data) > MAX_FILE_BYTES:
        raise CertificateError(f"is larger than {MAX_FILE_BYTES >> 20} MiB", str(path))
    return data


def certificate_blocks(data: bytes) -> list[bytes]:
    """Every whole PEM block of a certificate, in the order of the file."""
    return [found.group() for found in _CERTIFICATE.finditer(data)]


def parse_certificates(data: bytes, path: Path) -> list[x509.Certificate]:
    """All certificates of a file, at least one, in its order; CertificateError."""
    blocks = certificate_blocks(data)
    begun = len(_BEGIN.findall(data))
    if not begun:
        raise CertificateError("has no certificate", str(path), _PEM_HINT)
    if len(blocks) < begun:
        reason = f"has {begun} certificates, of which {begun - len(blocks)} cannot be read as PEM"
        raise CertificateError(reason, str(path), "was the file cut off?")
    parsed = []
    for number, block in enumerate(blocks, 1):
        try:
            parsed.append(x509.load_pem_x509_certificate(block))
        except (ValueError, TypeError):
            reason = f"certificate {number} of {len(blocks)} is damaged"
            raise CertificateError(reason, str(path)) from None
    return parsed


def read_password(path: Path) -> bytes:
    """The first line of a password file, without its end; CertificateError."""
    return read_pem(path).partition(b"\n")[0].rstrip(b"\r")


def parse_key(data: bytes, path: Path, password_file: Path | None) -> tuple[PrivateKey, bool]:
    """The one private key of a file, and whether it is encrypted; CertificateError.

    ``password_file`` is read in any case: one that is named has to be there.
    """
    password = read_password(password_file) if password_file is not None else None
    blocks = list(_KEY.finditer(data))
    if len(blocks) != 1:
        many = f"has {len(blocks)} private keys, and one is needed"
        reason = many if blocks else "has no private key"
        hint = "leave only that of the certificate" if blocks else "name its file with `key`"
        raise CertificateError(reason, str(path), hint)
    block = blocks[0].group()
    # RFC 5958, 3 and RFC 1421, 4.6.1.1: the two ways to say that a key is encrypted.
    is_encrypted = blocks[0].group(1) == b"ENCRYPTED PRIVATE KEY" or b"4,ENCRYPTED" in block
    if is_encrypted and not password:
        lack = "is encrypted, and no password is given"
        if password_file is not None:
            lack = f"is encrypted, and the first line of {password_file} is empty"
        raise CertificateError(lack, str(path), "write it to a file and name that: `password_file`")
    key = _load_key(block, path, password if is_encrypted else None, password_file)
    if not isinstance(key, PrivateKey):
        raise CertificateError("is a key of a kind that TLS does not use", str(path))
    return key, is_encrypted


def _load_key(
    block: bytes, path: Path, password: bytes | None, password_file: Path | None
) -> PrivateKeyTypes:
    try:
        # The library's own check of an RSA key takes 35 ms; `check_rsa` does it in one.
        return serialization.load_pem_private_key(
            block, password, unsafe_skip_rsa_key_validation=True
        )
    except UnsupportedAlgorithm:
        reason = "is a key of a kind, or encrypted in a way, that is not supported"
    except (ValueError, TypeError):
        reason = "has a private key that is damaged"
        if password is not None:
            reason = f"the password in {password_file} does not open the key"
    raise CertificateError(reason, str(path)) from None


def check_rsa(key: PrivateKey, path: Path) -> None:
    """CertificateError where an RSA key's numbers do not belong together."""
    if not isinstance(key, rsa.RSAPrivateKey):
        return  # of the others, the public half follows from the private one
    text, how, digest = b"trial", padding.PKCS1v15(), hashes.SHA256()
    try:
        key.public_key().verify(key.sign(text, how, digest), text, how, digest)
    except (ValueError, InvalidSignature, InternalError):
        raise CertificateError("has a private key that is damaged", str(path)) from None


def open_to_others(path: Path) -> str:
    """The file's mode, as in ``0644``, where it lets anyone but its owner in; else ""."""
    try:
        mode = os.stat(path).st_mode & 0o7777
    except OSError:
        return ""  # gone meanwhile; what was read is what counts
    return f"{mode:04o}" if mode & _OTHERS else ""
