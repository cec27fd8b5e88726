"""The Forwarded field: read where it is understood as a whole, and written (RFC 7239)."""

from __future__ import annotations

import re
from _socket import AF_INET, AF_INET6, inet_ntop  # text and bytes; `socket` brings all the rest
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from msgspec import Struct

from shared.address_set import pack_ip

_CACHED: Final = 4096  # addresses seen lately, 200 bytes each
_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110 section 5.6.2
_IS_TOKEN: Final = re.compile(_TOKEN)
# One pair with what follows it, section 4; blanks around separators as RFC 9110 lists have them.
_PAIR: Final = re.compile(
    rf"[ \t]*({_TOKEN})=(?:({_TOKEN})|"
    r'"((?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[\t -~\x80-\xff])*)")[ \t]*([;,]|\Z)'
)
_QUOTED_PAIR: Final = re.compile(r"\\(.)")
_NODE: Final = re.compile(r"(?:\[([^\]]*)\]|([0-9.]+))(?::([0-9]{1,5}))?")  # section 6
_UNKNOWN: Final = "unknown"  # section 6.2


class Element(Struct, frozen=True, gc=False):
    """What one forwarder said of whom it forwarded for; "" and 0: nothing that can be read."""

    ip: str = ""  # canonical
    port: int = 0
    proto: str = ""
    host: str = ""


@lru_cache(maxsize=_CACHED)
def canonical_ip(text: str) -> str:
    """An IP address in canonical form, IPv4-mapped unfolded; "" for any other text.

    Strict: no port, no brackets, no zone, no leading zeros.
    """
    if "%" in text:
        return ""
    try:
        packed = pack_ip(text)
    except ValueError:
        return ""
    return inet_ntop(AF_INET if len(packed) == 4 else AF_INET6, packed)


def read_forwarded(values: Iterable[str]) -> list[Element] | None:
    """The elements of all Forwarded lines, in order; None where any of it is malformed."""
    elements: list[Element] = []
    for value in values:
        at, end, pairs = 0, len(value), dict[str, str]()
        while True:
            match = _PAIR.match(value, at)
            if match is None:
                return None
            name, token, quoted, separator = match.groups()
            name = name.lower()
            if name in pairs:
                return None  # section 4: each parameter at most once per element
            pairs[name] = _QUOTED_PAIR.sub(r"\1", quoted) if token is None else token
            at = match.end()
            if separator != ";":
                elements.append(_element(pairs))
                pairs = {}
            if at == end and not separator:
                break
    return elements


def _element(pairs: dict[str, str]) -> Element:
    ip, port = read_node(pairs.get("for", ""))
    return Element(ip, port, pairs.get("proto", "").lower(), pairs.get("host", ""))


def read_node(text: str) -> tuple[str, int]:
    """(canonical address, port) of a node as Forwarded writes it, IPv6 in brackets; "" and 0: none
    that can be read.
    """
    match = _NODE.fullmatch(text)
    if match is None:
        return "", 0
    bracketed, plain, digits = match.groups()
    # Only IPv6 stands in brackets, and never without them.
    ip = canonical_ip(plain) if bracketed is None else _in_brackets(bracketed)
    port = int(digits or 0) if ip else 0
    return ip, port if port <= 65535 else 0


def _in_brackets(text: str) -> str:
    return canonical_ip(text) if ":" in text else ""


def write_node(ip: str) -> str:
    """``for=...`` of a canonical address; "" is somebody unknown."""
    if ":" in ip:
        return f'for="[{ip}]"'
    return f"for={ip or _UNKNOWN}"


def write_element(ip: str, proto: str, host: str) -> str:
    """One element; without what is ""."""
    text = write_node(ip)
    if host:
        text = f"{text};host={host if _IS_TOKEN.fullmatch(host) else quote(host)}"
    return f"{text};proto={proto}" if proto else text


def quote(text: str) -> str:
    """A quoted-string, RFC 9110 section 5.6.4."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
