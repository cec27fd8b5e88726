"""A TLS 1.3 client that writes its records by hand, for what Python's ssl has no call for.

The handshake is Python's own; the keys of what the client sends come from its key log, and this
one counts the records from then on. Sources: RFC 8446 sections 4.6.3, 5.2 and 7.
"""

from __future__ import annotations

import hmac
import socket
import ssl
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.helpers.certificates import Authority

_LOG_LABEL: Final = "CLIENT_TRAFFIC_SECRET_0"
_HASH: Final = "sha384"  # of the suite below
_SUITE: Final = "TLS_AES_256_GCM_SHA384"
_KEY_BYTES, _IV_BYTES, _TAG_BYTES, _SECRET_BYTES = 32, 12, 16, 48
_HANDSHAKE, _APPLICATION = b"\x16", b"\x17"
_KEY_UPDATE_PLEASE: Final = b"\x18\x00\x00\x01\x01"  # update_requested: the peer owes one as well


class HandWriter:
    """Writes to ``sock``, whose handshake is done and that has sent no payload by TLS yet."""

    def __init__(self, sock: ssl.SSLSocket, key_log: Path) -> None:
        cipher = sock.cipher()
        assert cipher is not None
        assert cipher[0] == _SUITE
        (line,) = [one for one in key_log.read_text().splitlines() if one.startswith(_LOG_LABEL)]
        sock.context.keylog_filename = None  # type: ignore[assignment]  # closes the file
        # A socket of its own: what is written to it does not pass through TLS.
        self.sock = socket.socket(fileno=socket.dup(sock.fileno()))
        self.sock.settimeout(sock.gettimeout())
        self._take(bytes.fromhex(line.split(" ")[2]))

    def payload(self, data: bytes) -> bytes:
        """The record of it."""
        return self._record(_APPLICATION, data)

    def key_update(self) -> bytes:
        """The record of a KeyUpdate that asks for the peer's; what follows has the next key."""
        record = self._record(_HANDSHAKE, _KEY_UPDATE_PLEASE)
        self._take(_expand(self._secret, b"traffic upd", _SECRET_BYTES))
        return record

    def _take(self, secret: bytes) -> None:
        self._secret = secret
        self._aead = AESGCM(_expand(secret, b"key", _KEY_BYTES))
        self._iv = int.from_bytes(_expand(secret, b"iv", _IV_BYTES))
        self._number = 0

    def _record(self, kind: bytes, data: bytes) -> bytes:
        inner = data + kind
        header = b"\x17\x03\x03" + (len(inner) + _TAG_BYTES).to_bytes(2)
        nonce = (self._iv ^ self._number).to_bytes(_IV_BYTES)
        self._number += 1
        return header + self._aead.encrypt(nonce, inner, header)


def logging_context(authority: Authority, key_log: Path) -> ssl.SSLContext:
    """Of a client whose secrets are written to this file."""
    context = ssl.create_default_context(cafile=str(authority.cert))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.keylog_filename = str(key_log)
    return context


def _expand(secret: bytes, label: bytes, size: int) -> bytes:
    """HKDF-Expand-Label with an empty context, of a size that one block of the hash has."""
    name = b"tls13 " + label
    info = size.to_bytes(2) + bytes([len(name)]) + name + b"\x00"
    return hmac.digest(secret, info + b"\x01", _HASH)[:size]
