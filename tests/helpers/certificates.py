"""Certificates for tests, made when a test runs: authorities, chains, servers, clients.

root = Authority(tmp_path)
site = root.leaf("a.example", "*.b.example")          # site.cert, site.key, site.both
old = root.leaf("a.example", days=-1)                 # ended yesterday
below = root.intermediate("Below").leaf("c.example")  # the file has leaf and intermediate
alice = root.client("alice", san=["alice@a.example"])
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
KeyKind = Literal["ec", "ec384", "ec521", "rsa", "rsa1024", "rsa3072", "ed25519"]
KeyFormat = Literal["pkcs8", "traditional"]

_AGE: Final = timedelta(days=1)  # of a certificate, so that a clock that is off harms nothing
_CURVES: Final[dict[str, ec.EllipticCurve]] = {
    "ec": ec.SECP256R1(),
    "ec384": ec.SECP384R1(),
    "ec521": ec.SECP521R1(),
}


class Files(Struct, frozen=True, kw_only=True):
    """A certificate with its key, as files (mode 0600) and as objects.

    ``cert`` has the leaf and its intermediates, ``both`` has these and the key behind them.
    """

    cert: Path
    key: Path
    both: Path
    certificate: x509.Certificate
    private_key: PrivateKey


def new_key(kind: KeyKind = "ec") -> PrivateKey:
    """A private key; ``rsa`` has 2048 bits, ``ec`` is P-256."""
    if kind in _CURVES:
        return ec.generate_private_key(_CURVES[kind])
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    bits = int(kind.removeprefix("rsa") or "2048")
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def key_pem(key: PrivateKey, password: str = "", form: KeyFormat = "pkcs8") -> bytes:
    """The key as PEM, encrypted where there is a password."""
    how: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        how = serialization.BestAvailableEncryption(password.encode())
    kind = serialization.PrivateFormat.PKCS8
    if form == "traditional":
        kind = serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(serialization.Encoding.PEM, kind, how)


def cert_pem(*certificates: x509.Certificate) -> bytes:
    """Certificates as PEM, in this order."""
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


def write(path: Path, data: bytes, mode: int = 0o600) -> Path:
    """Write a file that nobody else can read, or one with this mode; returns its path."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(data)
    return path


class Authority:
    """An authority whose files go into ``directory``. ``cert`` is its own certificate's file."""

    def __init__(
        self,
        directory: Path,
        name: str = "Test CA",
        *,
        key: KeyKind = "ec",
        issuer: Authority | None = None,
    ) -> None:
        self.directory = directory
        self.name = name
        self.issuer = issuer
        self.private_key = new_key(key)
        self._count = 0
        above = issuer or self
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.certificate.subject if issuer else subject)
            .public_key(self.private_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _AGE)
            .not_valid_after(now + timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_key_usage(is_authority=True), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self.private_key.public_key()),
                critical=False,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(above.private_key.public_key()),
                critical=False,
            )
        )
        self.certificate: x509.Certificate = _sign(builder, above.private_key)
        self.cert = write(directory / f"{_stem(name)}.ca.pem", cert_pem(self.certificate))

    def intermediate(self, name: str = "Test Intermediate", *, key: KeyKind = "ec") -> Authority:
        """An authority that this one has signed; its leaves' files carry its certificate."""
        return Authority(self.directory, name, key=key, issuer=self)

    @property
    def above(self) -> tuple[x509.Certificate, ...]:
        """What a leaf's file has behind the leaf: every authority up to the root, which is not."""
        if self.issuer is None:
            return ()
        return (self.certificate, *self.issuer.above)

    def leaf(
        self,
        *names: str,
        key: KeyKind | PrivateKey = "ec",
        days: float = 90.0,
        from_days: float = -1.0,
        common_name: str = "",
        stem: str = "",
        password: str = "",
        form: KeyFormat = "pkcs8",
    ) -> Files:
        """A server's certificate for DNS names and IP addresses.

        It is valid from ``from_days`` to ``days`` from now; negative ``days``: it has expired.
        Without ``names`` there is no SAN. ``stem``: the files are ``stem.pem``, ``stem.key`` and
        ``stem.both.pem``; the same stem writes over them. ``password`` encrypts the key.
        """
        usage = [ExtendedKeyUsageOID.SERVER_AUTH]
        subject = common_name or (names[0] if names else "")
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, subject[:64])] if subject else []
        general = [_general_name(name) for name in names]
        period = (from_days if days > from_days else days - 1.0, days)
        private = new_key(key) if isinstance(key, str) else key
        leaf = self._issue(x509.Name(attributes), general, usage, period, private)
        return self._write(stem or _stem(subject or "leaf"), leaf, private, password, form)

    def client(
        self,
        common_name: str,
        *,
        san: Sequence[str] = (),
        organization: str = "",
        key: KeyKind = "ec",
        days: float = 90.0,
        stem: str = "",
    ) -> Files:
        """A client's certificate. ``san``: mail addresses, URIs, DNS names, IP addresses."""
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
        if organization:
            attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
        general = [_general_name(name) for name in san]
        period = (-1.0 if days > -1.0 else days - 1.0, days)
        usage = [ExtendedKeyUsageOID.CLIENT_AUTH]
        private = new_key(key)
        leaf = self._issue(x509.Name(attributes), general, usage, period, private)
        return self._write(stem or f"client-{_stem(common_name)}", leaf, private, "", "pkcs8")

    def _issue(
        self,
        subject: x509.Name,
        names: Sequence[x509.GeneralName],
        usage: Sequence[x509.ObjectIdentifier],
        period: tuple[float, float],
        key: PrivateKey,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        public = key.public_key()
        signer = self.private_key.public_key()
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.certificate.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=period[0]))
            .not_valid_after(now + timedelta(days=period[1]))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(is_authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usage), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False
            )
        )
        if names:
            is_critical = not list(subject)  # RFC 5280, 4.2.1.6: where the subject is empty
            builder = builder.add_extension(x509.SubjectAlternativeName(names), is_critical)
        return _sign(builder, self.private_key)

    def _write(
        self,
        stem: str,
        leaf: x509.Certificate,
        key: PrivateKey,
        password: str,
        form: KeyFormat,
    ) -> Files:
        chain = cert_pem(leaf, *self.above)
        private = key_pem(key, password, form)
        return Files(
            cert=write(self.directory / f"{stem}.pem", chain),
            key=write(self.directory / f"{stem}.key", private),
            both=write(self.directory / f"{stem}.both.pem", chain + private),
            certificate=leaf,
            private_key=key,
        )


def _sign(builder: x509.CertificateBuilder, key: PrivateKey) -> x509.Certificate:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return builder.sign(key, None)
    return builder.sign(key, hashes.SHA256())


def _key_usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        pass
    if "://" in name:
        return x509.UniformResourceIdentifier(name)
    return x509.RFC822Name(name) if "@" in name else x509.DNSName(name)


def _stem(name: str) -> str:
    return "".join(one if one.isalnum() or one in ".-" else "_" for one in name).strip("._")
