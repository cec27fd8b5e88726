"""Which form of `worker.openssl` runs: C that calls libssl, or its source over Python's ssl."""

from __future__ import annotations

import importlib.util
import ssl
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final

from shared.errors import TlsError
from worker import openssl
from worker.relay import BUFFER, SIZE
from worker.ssl_objects import SSL_MEMBER, is_writable, module_path, pointer_in
from worker.tls_material import TlsObject, wrap

RECORD_BYTES: Final = 16384  # of plaintext, RFC 8446 section 5.1
INCOMING: Final = ssl.MemoryBIO()
OUTGOING: Final = ssl.MemoryBIO()
_ROOM: Final = bytearray(SIZE + 2 * RECORD_BYTES)
# What one read of the socket can hold, and a record that was begun before it.
PLAIN: Final = memoryview(_ROOM)

_VERIFY_FAILED: Final = "certificate verify failed"
# openssl/x509_vfy.h: where ssl adds what should have matched.
_MISMATCHES: Final = {62: "Hostname", 64: "IP address"}
_NAMES: Final[dict[tuple[int, int], str]] = getattr(ssl._ssl, "err_codes_to_names", {})  # type: ignore[attr-defined]


def reason_of(error: OSError) -> str:
    """OpenSSL's words for an error, "tlsv1 alert unknown ca", without its numbers."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{_VERIFY_FAILED}: {error.verify_message}"
    if isinstance(error, ssl.SSLZeroReturnError):
        return "closed by a close_notify within the handshake"
    # Declared as text, and None where OpenSSL has no reason: a compiled read of that would raise.
    reason: object = getattr(error, "reason", None)
    if isinstance(reason, str) and reason:
        return reason.lower().replace("_", " ")
    return error.strerror or " ".join(map(str, error.args))  # as text, ours would be a tuple


def _failed(error: ssl.SSLError) -> TlsError:
    """The error for the log, with the alert that OpenSSL has written."""
    INCOMING.read()
    return TlsError(reason_of(error), OUTGOING.read())


def _error(
    object_: TlsObject, is_end: bool, code: int, words: str | None, verified: int, why: str
) -> TlsError:
    """The same by OpenSSL's own code and words, and its verdict on the peer's certificate."""
    if is_end:
        return _failed(ssl.SSLZeroReturnError())
    error = ssl.SSLError(_named(code) or words or "OpenSSL does not say why")
    if _named(code) != _VERIFY_FAILED:
        return _failed(error)
    if verified in _MISMATCHES:
        name = object_.server_hostname
        why = f"{_MISMATCHES[verified]} mismatch, certificate is not valid for '{name}'."
    return _failed(ssl.SSLError(f"{_VERIFY_FAILED}: {why}"))


def _named(code: int) -> str:
    """Python's name of an error, in words: another than OpenSSL's own for some. "" if unknown."""
    if ssl.OPENSSL_VERSION_INFO >= (3,):
        place = (code >> 23 & 0xFF, code & 0x7FFFFF)
    else:
        place = (code >> 24 & 0xFF, code & 0xFFF)
    return _NAMES.get(place, "").lower().replace("_", " ")


def _source() -> ModuleType:
    """The module as Python's source, beside what was compiled."""
    path = Path(__file__).with_name("openssl.py")
    spec = importlib.util.spec_from_file_location("worker.openssl_source", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _use(form: ModuleType) -> str:
    """Why this form cannot be used; "" where it is from now on."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    sample = wrap(context, INCOMING, OUTGOING, True)
    path = ""
    fail: Callable[..., TlsError] = _failed
    if not (form.__file__ or "").endswith(".py"):
        try:
            if not _NAMES:
                return "this Python does not tell its names of OpenSSL's errors"
            path, fail = module_path(), _error
            if not is_writable(pointer_in(sample, SSL_MEMBER)):
                return "an object of this Python's ssl has its SSL in another place"
            if not all(pointer_in(one) for one in (context, INCOMING, OUTGOING)):
                return "objects of this Python's ssl begin in another way"
        except (OSError, ValueError) as error:
            return str(error)
    made: str = form.use(path, sample, context, INCOMING, OUTGOING, BUFFER, _ROOM, fail)
    return made


def _choose() -> tuple[ModuleType, str]:
    reason = _use(openssl)
    if not reason:
        return openssl, ""
    form = _source()
    _use(form)
    return form, reason


_chosen, REASON = _choose()  # REASON: why what is compiled cannot be used; else ""
if TYPE_CHECKING:
    from worker.openssl import close, decrypt, encrypt, failure, found, relay, rest, shake
else:
    close, decrypt, encrypt, shake = (
        _chosen.close,
        _chosen.decrypt,
        _chosen.encrypt,
        _chosen.shake,
    )
    relay, found, rest, failure = _chosen.relay, _chosen.found, _chosen.rest, _chosen.failure

__all__ = [
    "INCOMING", "OUTGOING", "PLAIN", "REASON", "RECORD_BYTES", "close", "decrypt", "encrypt",
    "failure", "found", "reason_of", "relay", "rest", "shake",
]  # fmt: skip
