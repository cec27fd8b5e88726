"""The certificates of a soak: made at its start, and found again by its traffic processes."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

from tests.helpers.certificates import Authority

KEPT_S: Final = 2.0  # a session, until the next is looked for
LOOKED_AT_EVERY: Final = 5  # full handshake
VERSIONS: Final = 4  # of the certificate that proxyctl shows, in turn
PASSED: Final = "pass.soak.test"
ENDED: Final = "term.soak.test"
ENCRYPTED: Final = "encr.soak.test"  # ended, and encrypted again
AUTHORITY_FILE: Final = "soak.ca.pem"
TARGET_FILE: Final = "target.both.pem"
SITE_FILE: Final = "site.pem"  # one of the versions
BROKEN_FILE: Final = "mismatch.pem"  # the key is another one's


def version_file(version: int) -> str:
    """The file of a version; the others of its stem are not used."""
    return f"site{version}.both.pem"


def make(directory: Path) -> None:
    """Write them all."""
    authority = Authority(directory, "soak")
    authority.leaf(PASSED, stem="target")
    found = [authority.leaf(ENDED, ENCRYPTED, stem=f"site{one}") for one in range(VERSIONS)]
    mixed = found[0].cert.read_bytes() + found[1].key.read_bytes()
    (directory / BROKEN_FILE).write_bytes(mixed)


class Contexts:
    """Of one traffic process: its clients', by version of TLS, and its targets' own.

    Clients verify chain and name.
    """

    def __init__(self, directory: Path) -> None:
        self.clients = [
            _client(directory, version)
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
        ]
        self.target = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.target.load_cert_chain(directory / TARGET_FILE)
        self._sessions: dict[tuple[str, ssl.TLSVersion], ssl.SSLSession] = {}
        self._kept_at: dict[tuple[str, ssl.TLSVersion], float] = {}
        self._looks = 0
        self._versions = {
            _der((directory / version_file(one)).read_text()): one for one in range(VERSIONS)
        }

    def version(self, der: bytes | None) -> int:
        """Which version a client was shown; -1: none of them."""
        return self._versions.get(der or b"", -1)

    def session(self, place: str, context: ssl.SSLContext) -> ssl.SSLSession | None:
        """The last one of a place, by its name."""
        return self._sessions.get((place, context.minimum_version))

    def keep(self, place: str, connection: ssl.SSLObject, now: float) -> None:
        """Keep a session for other clients; of TLS 1.3 it is there once something was read.

        Only once in a while: each look at SSLObject.session leaks the session's size (CPython
        3.11, PySSL_get_session), and a session can be offered again and again.
        """
        key = (place, connection.context.minimum_version)
        if now - self._kept_at.get(key, float("-inf")) < KEPT_S:
            return
        if (session := connection.session) is not None:
            self._sessions[key] = session
            self._kept_at[key] = now

    def is_looked_at(self) -> bool:
        """Whether to tell the certificate of this full handshake."""
        self._looks += 1
        return self._looks % LOOKED_AT_EVERY == 0


def _client(directory: Path, version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(directory / AUTHORITY_FILE)
    context.minimum_version = context.maximum_version = version
    return context


def _der(pem: str) -> bytes:
    end = "-----END CERTIFICATE-----\n"
    return ssl.PEM_cert_to_DER_cert(pem.partition(end)[0] + end)
