"""Ciphers of TLS 1.2 as they are written, put to OpenSSL, which alone knows what they stand for."""

from __future__ import annotations

import re
import ssl
from functools import lru_cache
from typing import Any, Final

_SEPARATORS: Final = re.compile("[:, ]+")  # openssl-ciphers(1), "CIPHER LIST FORMAT"
_LEAST_BITS: Final = 112  # as OpenSSL's security level 2


def check_ciphers(text: str) -> tuple[str, list[str]]:
    """Why a list is refused ("": it is not), and its parts that select no cipher."""
    parts = [part for part in _SEPARATORS.split(text) if part]
    for part in parts:
        if part.upper().startswith("TLS_"):
            return f"{part} is of TLS 1.3, whose ciphers cannot be chosen", []
    if not text.isascii() or not text.isprintable():
        return "the list holds what no name of a cipher has", []
    suites = _suites(text)
    if not suites:
        return "OpenSSL finds no cipher of TLS 1.2 in it", []
    for name, is_safe in suites.items():
        if not is_safe:
            return f"it allows {name}, which lets others read or pose as us", []
    selecting = [part for part in parts if part[0] not in "!-+@"]
    return "", [part for part in selecting if not _suites(part)]


@lru_cache(maxsize=64)
def serves(text: str, key_algorithm: str) -> bool:
    """Whether one of them can be used with a certificate of this key, "RSA2048" or "EC256".

    A list that selects none is refused by `check_ciphers`, and told of there alone.
    """
    # RFC 8422, 5.1: with Ed25519 and Ed448 too they are those of ECDSA.
    wanted = "auth-rsa" if key_algorithm.startswith("RSA") else "auth-ecdsa"
    suites = _selected(text)
    return not suites or any(suite.get("auth") == wanted for suite in suites)


def _suites(text: str) -> dict[str, bool]:
    """The ciphers that a list selects below TLS 1.3, each with whether it may be offered."""
    found: dict[str, bool] = {}
    for suite in _selected(text):
        is_safe = suite["strength_bits"] >= _LEAST_BITS and suite.get("auth") != "auth-null"
        found[suite["name"]] = is_safe
    return found


def _selected(text: str) -> list[dict[str, Any]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.set_ciphers(text)
    except ssl.SSLError:
        return []
    # typeshed does not know the keys that OpenSSL 1.1 brought.
    suites = [dict(suite) for suite in context.get_ciphers()]
    # Those of TLS 1.3 are there whatever is written.
    return [suite for suite in suites if suite["protocol"] != "TLSv1.3"]
