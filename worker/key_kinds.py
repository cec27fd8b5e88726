"""Kinds of keys of certificates, and which of them a client can use."""

from __future__ import annotations

import ssl
from functools import lru_cache
from typing import Final, Protocol

# SignatureScheme by key (RFC 8446 section 4.2.3), and NamedGroup of its curve (section 4.2.7).
_SCHEMES: Final = {
    "EC256": 0x0403,
    "EC384": 0x0503,
    "EC521": 0x0603,
    "ED25519": 0x0807,
    "ED448": 0x0808,
}
_GROUPS: Final = {"EC256": 23, "EC384": 24, "EC521": 25}
# With RSA keys: RSA-PSS, and what TLS 1.2 knows beside it.
_RSA_PSS: Final = frozenset({0x0804, 0x0805, 0x0806})
_RSA_1_2: Final = _RSA_PSS | {0x0201, 0x0301, 0x0401, 0x0501, 0x0601}


class Hello(Protocol):
    """What is asked of a ClientHello; see `shared/client_hello.py`."""

    @property
    def server_name(self) -> str: ...

    @property
    def versions(self) -> tuple[str, ...]: ...

    @property
    def ciphers(self) -> tuple[int, ...]: ...

    @property
    def signature_algorithms(self) -> tuple[int, ...]: ...

    @property
    def groups(self) -> tuple[int, ...]: ...


def kind_of(key_algorithm: str) -> str:
    """The kind of a key as certificates name it: "EC256", or "RSA" of any size."""
    return key_algorithm if key_algorithm in _SCHEMES else "RSA"


class UsableKeys:
    """Which kinds of keys a client can use, where these ciphers are allowed."""

    __slots__ = ("_ecdsa", "_rsa")

    def __init__(self, ciphers: str | None) -> None:
        """ssl.SSLError for ciphers that OpenSSL does not know."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if ciphers is not None:
            context.set_ciphers(ciphers)
        numbers: dict[str, set[int]] = {}
        for cipher in context.get_ciphers():
            numbers.setdefault(cipher["auth"], set()).add(cipher["id"] & 0xFFFF)
        self._ecdsa: Final = frozenset(numbers.get("auth-ecdsa", ()))  # of TLS 1.2
        self._rsa: Final = frozenset(numbers.get("auth-rsa", ()))

    def has(self, key_algorithm: str, hello: Hello) -> bool:
        """Whether the client certainly can; of RSA: whether it may."""
        schemes = hello.signature_algorithms
        has_latest = "1.3" in hello.versions  # it is always allowed, so it will be spoken
        scheme = _SCHEMES.get(key_algorithm)
        if scheme is not None:
            return scheme in schemes and (has_latest or self._has_cipher(hello, key_algorithm))
        if schemes and (_RSA_PSS if has_latest else _RSA_1_2).isdisjoint(schemes):
            return False
        return has_latest or not self._rsa.isdisjoint(hello.ciphers)

    def _has_cipher(self, hello: Hello, key_algorithm: str) -> bool:
        """Whether TLS 1.2 can do with this kind of key: RFC 8422 sections 2.2 and 5.1."""
        if self._ecdsa.isdisjoint(hello.ciphers):
            return False
        curve = _GROUPS.get(key_algorithm)
        return curve is None or curve in hello.groups


@lru_cache(maxsize=64)
def usable_keys(ciphers: str | None) -> UsableKeys:
    """Those of a policy's ciphers; as `UsableKeys`."""
    return UsableKeys(ciphers)
