"""Certificates of a config: read and checked, so that a worker never refuses what we accepted.

A store is made for each load of a config and reads each file once, so a reload sees what has
changed. All of it blocks: call it from a thread. One certificate takes 1 to 2 ms, most of it
OpenSSL's own look at it; one that was seen before, 0.3 ms.
"""

from __future__ import annotations

import hashlib
import os
import re
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from shared import core_dumps
from shared.errors import CertificateError as CertificateError
from shared.errors import Problem
from shared.plan import AuthorityPlan, CertificatePlan
from supervisor.certificate_facts import (
    ORDER_HINT,
    check_owner,
    has_san,
    is_for,
    key_algorithm,
    moment,
    names,
    signature_algorithm,
    subject,
)
from supervisor.certificate_files import (
    certificate_blocks,
    check_rsa,
    open_to_others,
    parse_certificates,
    parse_key,
    read_pem,
)
from supervisor.facts import WARN_DAYS

_SYSTEM: Final = "system"
_DIGEST_BYTES: Final = 16
_HASH_NAME: Final = re.compile(r"[0-9a-f]{8}\.[0-9]+")  # openssl-rehash(1)

# Digests of chains and keys that passed all checks which neither time nor a file's mode can change:
# a reload of thousands of certificates takes a fifth of what the start took.
_sound: Final[set[str]] = set()
_MAX_SOUND: Final = 100_000

_Arguments = tuple[Path, Path | None, Path | None]


class CertificateStore:
    """Certificates and authorities of one load. ``warnings`` grow as they are asked for.

    The same arguments give the same plan, or the same error, without another look at the files.
    """

    def __init__(self, now: datetime | None = None) -> None:
        """``now``: with a time zone; None is the clock's."""
        self.warnings: list[Problem] = []
        self._now = now or datetime.now(UTC)
        self._certificates: dict[_Arguments, CertificatePlan | CertificateError] = {}
        self._authorities: dict[Path | None, AuthorityPlan | CertificateError] = {}
        self._leaves: dict[_Arguments, x509.Certificate] = {}
        self._warned: set[str] = set()
        self._issued: set[tuple[x509.Certificate, x509.Certificate]] = set()

    def certificate(
        self,
        cert: Path,
        key: Path | None,
        password_file: Path | None,
        where: str,
        *,
        is_client: bool = False,
    ) -> CertificatePlan:
        """A certificate with its key; ``key`` None: it is in the same file. CertificateError.

        ``where``: the config's path, for warnings. ``is_client``: we show it to a target, so that
        its names do not matter.
        """
        asked = cert, key, password_file
        found = self._certificates.get(asked)
        if found is None:
            core_dumps.forbid()
            try:
                found = self._load(asked, where)
            except CertificateError as error:
                found = error
            self._certificates[asked] = found
        if isinstance(found, CertificateError):
            raise CertificateError(found.reason, found.path, found.hint)
        self._warn_of_use(self._leaves[asked], found, where, is_client=is_client)
        return found

    def authority(self, path: Path | None, where: str) -> AuthorityPlan:
        """Certificates of authorities; ``path`` None: the system's own. CertificateError."""
        found = self._authorities.get(path)
        if found is None:
            try:
                found = self._system() if path is None else self._load_authority(path, where)
            except CertificateError as error:
                found = error
            self._authorities[path] = found
        if isinstance(found, CertificateError):
            raise CertificateError(found.reason, found.path, found.hint)
        return found

    # A certificate and its key

    def _load(self, asked: _Arguments, where: str) -> CertificatePlan:
        cert, key_file, password_file = asked
        data = read_pem(cert)
        chain = parse_certificates(data, cert)
        key_path = key_file or cert
        key_data = data if key_file is None else read_pem(key_file)
        key, is_encrypted = parse_key(key_data, key_path, password_file)
        check_owner(chain, key, cert, key_path)
        algorithm = key_algorithm(chain[0], key, cert)
        self._check_dates(chain, cert, where)
        chain_pem = b"".join(one.public_bytes(Encoding.PEM) for one in chain)
        key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        dns_names = names(chain[0], cert)
        signature = signature_algorithm(chain[0], cert)
        digest = _digest(chain_pem, key_pem)
        if digest not in _sound:
            check_rsa(key, key_path)
            self._check_order(chain, cert)
            _try_out(chain_pem, key_pem, cert)
            if len(_sound) < _MAX_SOUND:
                _sound.add(digest)
        self._warn_of_mode(password_file, "password", where)
        if not is_encrypted:
            self._warn_of_mode(key_path, "key", where)
        self._leaves[asked] = chain[0]
        return CertificatePlan(
            name=str(cert),
            names=dns_names,
            chain=chain_pem,
            key=key_pem,
            key_algorithm=algorithm,
            signature_algorithm=signature,
            digest=digest,
            expires=chain[0].not_valid_after_utc.timestamp(),
        )

    def _check_dates(self, chain: Sequence[x509.Certificate], path: Path, where: str) -> None:
        """The leaf must be valid now. What has signed it is the client's to judge: a warning."""
        leaf, now = chain[0], self._now
        ends = leaf.not_valid_after_utc
        if leaf.not_valid_before_utc > now:
            reason = f"is not valid before {moment(leaf.not_valid_before_utc)}"
            raise CertificateError(reason, str(path), "is the clock of this machine right?")
        if ends <= now:
            raise CertificateError(f"has expired on {moment(ends)}", str(path), "renew it")
        if (ends - now).days < WARN_DAYS:
            text = f"{path}: expires in {_days((ends - now).days)}, on {moment(ends)}"
            self._warn(text, where, "renew it, then reload")
        for number, one in enumerate(chain[1:], 2):
            if one.not_valid_after_utc <= now:
                expired = f"has expired on {moment(one.not_valid_after_utc)}"
                self._warn(f"{path}: certificate {number} ({subject(one)}) {expired}", where)

    def _check_order(self, chain: Sequence[x509.Certificate], path: Path) -> None:
        """Each certificate is signed by the next one (RFC 8446, 4.4.2, as the older ones have it).

        A root at the end does no harm; whether one in between is missing cannot be known.
        """
        for number, (child, issuer) in enumerate(pairwise(chain), 2):
            if (child, issuer) in self._issued:
                continue
            try:
                child.verify_directly_issued_by(issuer)
            except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
                reason = (
                    f"certificate {number} of {len(chain)} ({subject(issuer)}) is out of place:"
                    f" it has not signed certificate {number - 1} ({subject(child)})"
                )
                raise CertificateError(reason, str(path), ORDER_HINT) from None
            if number > 2:  # a leaf's is not seen again, an intermediate's is
                self._issued.add((child, issuer))

    # Authorities

    def _load_authority(self, path: Path, where: str) -> AuthorityPlan:
        parsed = parse_certificates(read_pem(path), path)
        expired = [one for one in parsed if one.not_valid_after_utc <= self._now]
        if len(expired) == len(parsed):
            last = max(one.not_valid_after_utc for one in expired)
            raise CertificateError(f"has expired on {moment(last)}", str(path), "renew it")
        for one in expired:
            ended = moment(one.not_valid_after_utc)
            self._warn(f"{path}: the authority {subject(one)} has expired on {ended}", where)
        if not any(one.issuer == one.subject for one in parsed):
            # OpenSSL ends each chain at a certificate that signed itself (X509_verify_cert(3)).
            message = f"{path}: has no root certificate, so it vouches for nobody"
            hint = "name the certificate at the top of the chain, the one that signed itself"
            self._warn(message, where, hint)
        unique = dict.fromkeys(one.public_bytes(Encoding.PEM) for one in parsed)
        return _authority_plan(str(path), list(unique), str(path))

    def _system(self) -> AuthorityPlan:
        """The bundle that Python's ssl module finds, or the directory that stands for it."""
        paths = ssl.get_default_verify_paths()
        blocks = certificate_blocks(read_pem(Path(paths.cafile))) if paths.cafile else []
        if not blocks and paths.capath:
            for file in _hashed_files(paths.capath):
                blocks += certificate_blocks(read_pem(file))
        if not blocks:
            hint = "install ca-certificates, or name a file with `ca`"
            raise CertificateError("has no certificates of authorities", "the system", hint)
        return _authority_plan(_SYSTEM, list(dict.fromkeys(blocks)), paths.cafile or _SYSTEM)

    # Warnings

    def _warn(self, message: str, where: str, hint: str = "") -> None:
        if message not in self._warned:
            self._warned.add(message)
            problem = Problem(message=message, path=where, code="certificate", hint=hint)
            self.warnings.append(problem)

    def _warn_of_mode(self, path: Path | None, what: str, where: str) -> None:
        mode = open_to_others(path) if path is not None else ""
        if mode:
            message = f"{path}: its mode {mode} is open to others, and it holds a {what}"
            self._warn(message, where, f"chmod 600 {path}")

    def _warn_of_use(
        self, leaf: x509.Certificate, plan: CertificatePlan, where: str, *, is_client: bool
    ) -> None:
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if is_client else ExtendedKeyUsageOID.SERVER_AUTH
        if not is_for(leaf, usage):
            role = "a client" if is_client else "a server"
            self._warn(f"{plan.name}: is not made for {role} (extended key usage)", where)
        if is_client or has_san(leaf):
            return
        if plan.names:
            message = f"{plan.name}: has no subject alternative name; {plan.names[0]} is its CN"
            self._warn(message, where, "most clients accept no such certificate")
        else:
            hint = "it is shown to clients for which there is no other"
            self._warn(f"{plan.name}: is for no DNS name", where, hint)


def _hashed_files(directory: str) -> list[Path]:
    try:
        files = os.listdir(directory)
    except OSError as error:
        raise CertificateError(f"cannot be read: {error.strerror}", directory) from None
    return [Path(directory, file) for file in sorted(files) if _HASH_NAME.fullmatch(file)]


def _days(count: int) -> str:
    return f"{count} day" if count == 1 else f"{count} days"


# What OpenSSL makes of it


def _try_out(chain: bytes, key: bytes, path: Path) -> None:
    """Load both as a worker will. OpenSSL takes paths only, so from memory that has one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(chain + key)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    except ssl.SSLError as error:
        raise CertificateError(f"OpenSSL refuses it: {_why(error)}", str(path)) from None
    finally:
        os.close(descriptor)


def _authority_plan(name: str, blocks: list[bytes], path: str) -> AuthorityPlan:
    pem = b"\n".join(block.strip() for block in blocks) + b"\n"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=pem.decode("ascii"))
    except ssl.SSLError as error:
        raise CertificateError(f"OpenSSL refuses it: {_why(error)}", path) from None
    return AuthorityPlan(name=name, pem=pem, digest=_digest(pem))


def _why(error: ssl.SSLError) -> str:
    return (error.reason or "no reason is known").replace("_", " ").lower()


def _digest(*parts: bytes) -> str:
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()
