"""The keys of session tickets, set from outside so that every worker has the same ones.

A ticket is good for a context exactly when its keys made it. OpenSSL draws them at random for each
context, and Python's ssl has no way to set them, so this goes to the libssl that `_ssl` is linked
with. Nothing of that is an API: `TicketKeys` tries it out at start, and where anything is not as
expected it is not ``available``, which costs resumption between workers and nothing else.

Who may resume what is decided by what the keys are derived from; see `worker/tls_contexts.py`.
"""

from __future__ import annotations

import ctypes
import hashlib
import hmac
import ssl
from typing import Final

from worker.ssl_objects import MAPS, is_writable, module_path, pointer_in

KEYS_BYTES: Final = 80  # name 16, HMAC-SHA256 32, AES-256 32: SSL_CTX_get_tlsext_ticket_keys(3)
SCOPE_BYTES: Final = 32  # SSL_MAX_SID_CTX_LENGTH

# openssl/ssl.h; the same numbers in 1.1.1 and 3.x
_SET_SESSION_CACHE_MODE: Final = 44
_GET_SESSION_CACHE_MODE: Final = 45
_GET_TICKET_KEYS: Final = 58
_SET_TICKET_KEYS: Final = 59
_SESSION_CACHE_OFF: Final = 0

_SALT: Final = b"proxyctl session tickets"


def derive(secret: bytes, identity: bytes) -> bytes:
    """The 80 bytes of keys for contexts of this identity: HKDF with SHA-512, RFC 5869.

    Equal for equal arguments in every process; keys of other identities tell nothing of these.
    """
    key = hmac.digest(_SALT, secret, hashlib.sha512)  # section 2.2, extract
    keys = block = b""
    for number in (1, 2):  # section 2.3, expand: two blocks of 64 bytes
        block = hmac.digest(key, block + identity + bytes([number]), hashlib.sha512)
        keys += block
    return keys[:KEYS_BYTES]


class TicketKeys:
    """Access to the ticket keys of contexts; one for each process.

    ``available`` false: nothing but ``reason`` may be used, and contexts keep keys of their own.
    """

    def __init__(self) -> None:
        self._buffer: Final = ctypes.create_string_buffer(KEYS_BYTES)
        self.reason = ""
        try:
            self._library: Final = _library()
            self._check()
        except (OSError, AttributeError, ValueError) as error:
            self.reason = str(error)

    @property
    def available(self) -> bool:
        """Whether keys can be set in this process."""
        return not self.reason

    def set(self, context: ssl.SSLContext, keys: bytes) -> None:
        """Give a server context these 80 bytes; its older tickets are worth nothing from now on."""
        if len(keys) != KEYS_BYTES:
            raise ValueError(f"{len(keys)} bytes of ticket keys, not {KEYS_BYTES}")
        if self._library.SSL_CTX_ctrl(pointer_in(context), _SET_TICKET_KEYS, KEYS_BYTES, keys) != 1:
            raise ssl.SSLError("OpenSSL does not take the ticket keys")

    def get(self, context: ssl.SSLContext) -> bytes:
        """The 80 bytes that a server context has."""
        if self._library.SSL_CTX_ctrl(
            pointer_in(context), _GET_TICKET_KEYS, KEYS_BYTES, self._buffer
        ) != 1:  # fmt: skip
            raise ssl.SSLError("OpenSSL does not show its ticket keys")
        return self._buffer.raw

    def confine(self, context: ssl.SSLContext, scope: bytes) -> None:
        """Keep no sessions in memory, and take back only tickets made under this scope, 32 bytes.

        Sessions in memory would outlive a renewed secret and take up to 20,480 places. The scope
        (SSL_CTX_set_session_id_context(3)) stands in each ticket: a second lock behind the keys.
        """
        pointer = pointer_in(context)
        self._library.SSL_CTX_ctrl(pointer, _SET_SESSION_CACHE_MODE, _SESSION_CACHE_OFF, None)
        if self._library.SSL_CTX_set_session_id_context(pointer, scope, len(scope)) != 1:
            raise ssl.SSLError("OpenSSL does not take the scope of sessions")

    def keeps_sessions(self, context: ssl.SSLContext) -> bool:
        """Whether the context has its cache of sessions switched on."""
        mode = self._library.SSL_CTX_ctrl(pointer_in(context), _GET_SESSION_CACHE_MODE, 0, None)
        return bool(mode != _SESSION_CACHE_OFF)

    def _check(self) -> None:
        """Try it all out on two fresh contexts; ValueError says what is not as it should be."""
        libraries = _mapped("libssl")
        if len(libraries) > 1:
            raise ValueError(f"several libssl are loaded: {', '.join(sorted(libraries))}")
        one, other = (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) for _ in range(2))
        method = self._library.TLS_server_method()
        for context in (one, other):
            # Before anything is read through it: does this point to memory, and to an SSL_CTX?
            if not is_writable(pointer_in(context)):
                raise ValueError("an SSLContext of this Python does not begin with its SSL_CTX")
            if self._library.SSL_CTX_get_ssl_method(pointer_in(context)) != method:
                raise ValueError("an SSLContext of this Python does not point to an SSL_CTX")
        if self.get(one) == self.get(other):
            raise ValueError("two contexts show equal ticket keys")
        keys = derive(self.get(one), b"check")
        self.set(other, keys)
        self.confine(other, bytes(SCOPE_BYTES))
        if self.get(other) != keys or self.get(one) == keys or self.keeps_sessions(other):
            raise ValueError("what is set in a context does not show")


def _library() -> ctypes.CDLL:
    """libssl as `_ssl` sees it: names are looked up in the module and what it is linked with."""
    library = ctypes.CDLL(module_path())
    library.OpenSSL_version_num.restype = ctypes.c_ulong
    library.OpenSSL_version_num.argtypes = []
    if library.OpenSSL_version_num() != ssl.OPENSSL_VERSION_NUMBER:
        raise ValueError("the libssl that is found is not the one that Python uses")
    library.SSL_CTX_ctrl.restype = ctypes.c_long
    library.SSL_CTX_ctrl.argtypes = [
        ctypes.c_void_p,
        ctypes.c_int,
        ctypes.c_long,
        ctypes.c_char_p,
    ]
    library.SSL_CTX_set_session_id_context.restype = ctypes.c_int
    library.SSL_CTX_set_session_id_context.argtypes = [
        ctypes.c_void_p,
        ctypes.c_char_p,
        ctypes.c_uint,
    ]
    library.SSL_CTX_get_ssl_method.restype = ctypes.c_void_p
    library.SSL_CTX_get_ssl_method.argtypes = [ctypes.c_void_p]
    library.TLS_server_method.restype = ctypes.c_void_p
    library.TLS_server_method.argtypes = []
    return library


def _mapped(name: str) -> set[str]:
    """Paths of the mapped files whose name begins so."""
    return {
        "/" + path
        for line in MAPS.read_text().splitlines()
        if (path := line.partition("/")[2]) and path.rpartition("/")[2].startswith(name)
    }
