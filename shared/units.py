"""Durations, host names, addresses and ports, from the text that operators write.

Every reader takes one plain value (text or number), returns it in base units (seconds, bytes) and
raises ValueError, and nothing else, with a message that is fit for the operator (design section 4).
"""

from __future__ import annotations

import math
import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from msgspec import Struct

from shared.host_names import ascii_name

MAX_DURATION_S: Final = 10 * 365 * 86400.0  # ten years: more than this is a slip of the pen
MAX_UNIX_PATH_BYTES: Final = 107  # sun_path holds 108 with its NUL (unix(7))
MAX_HOST_NAME_BYTES: Final = 253  # RFC 1035 section 2.3.4, in the textual form
MAX_PORT: Final = 65535

_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)", re.ASCII)
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
# As crypt(3) and htpasswd write them: `$2y$05$...`, `$6$...`, `$apr1$...`.
_PASSWORD_HASH: Final = re.compile(
    r"\$(?:2[abxy]?|[1567y]|gy|apr1|argon2[a-z]{1,2}|scrypt)\$[./,=$A-Za-z0-9]{8}", re.ASCII
)
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII | re.IGNORECASE)


def short(value: object) -> str:
    """``repr`` of a value that came from a file, cut to a length that fits a message.

    Of a secret nothing is shown but what it seems to be.
    """
    text = repr(value)
    return secret_in(text) or (text if len(text) <= 60 else f"{text[:56]}...{text[-1]}")


def holds_private_key(text: str) -> bool:
    """Whether a private key in PEM, of whatever kind, may be in a text (RFC 7468 section 10)."""
    return "PRIVATE KEY" in text.upper()


def secret_in(text: str) -> str:
    """What a text seems to hold that no message may show, in words; "" for nothing."""
    if holds_private_key(text):
        return "a private key"
    return "a hash of a password" if _PASSWORD_HASH.search(text) is not None else ""


def parse_duration(value: object) -> float:
    """Seconds of ``"250ms"``, ``"5s"``, ``"2m"``, ``"4h"`` or of a number; never below 0."""
    if isinstance(value, str):
        match = _DURATION.fullmatch(value)
        if match is None:
            raise ValueError(f"{short(value)} is no duration; write 250ms, 5s, 2m, 4h or seconds")
        seconds = float(match[1]) * _SECONDS[match[2]]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{value} is no duration")
        if value < 0:
            raise ValueError(f"a duration cannot be negative, got {short(value)}")
        seconds = float(value) if value <= MAX_DURATION_S else math.inf
    else:
        raise ValueError(f"expected a duration such as 5s, got {kind_of(value)}")
    if seconds > MAX_DURATION_S:
        raise ValueError(f"{short(value)} is longer than ten years")
    return seconds


def kind_of(value: object) -> str:
    """The word for the type of a config value: "a mapping", "a list", "text", ..."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    for kind, word in ((dict, "a mapping"), (list, "a list"), (str, "text"), (int, "a number")):
        if isinstance(value, kind):
            return word
    return "a number" if isinstance(value, float) else f"a {type(value).__name__}"


def parse_ip(text: str) -> str:
    """The canonical text of an IP address; ``::ffff:10.0.0.1`` is unfolded to ``10.0.0.1``."""
    try:
        address: IPv4Address | IPv6Address = ip_address(text)
    except ValueError:
        raise ValueError(f"{short(text)} is no IP address") from None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(address)


def is_ip(text: str) -> bool:
    """Whether the text is an IP address (and so needs no name server)."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def parse_host(text: str) -> str:
    """An IP address or a host name, in canonical form; names are lower case and ASCII.

    A name that ends in a number is refused: RFC 3696 section 2 has no such names, and resolvers
    read ``10.1`` or ``10.0.0.300`` as an address in ways that differ.
    """
    if is_ip(text):
        return parse_ip(text)
    name = text[:-1] if text.endswith(".") else text
    try:
        name = ascii_name(name)
    except ValueError as error:
        raise ValueError(f"{short(text)} is no host name: {error}") from None
    labels = name.split(".")
    if len(name) > MAX_HOST_NAME_BYTES or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"{short(text)} is no IP address or host name")
    if labels[-1].isdigit() or re.fullmatch(r"0x[0-9a-f]*", labels[-1], re.IGNORECASE):
        raise ValueError(f"{short(text)} is neither an IP address nor a host name")
    return name.lower()


def parse_port(text: str) -> int:
    """A port number, 1..65535, in decimal digits without a sign or a leading zero."""
    if _PORT.fullmatch(text) is None or int(text) > MAX_PORT:
        raise ValueError(f"{short(text)} is no port; ports are 1 to {MAX_PORT}")
    return int(text)


def parse_unix_path(text: str) -> str:
    """The path of ``"unix:/path"``: absolute, at most 107 bytes, without NUL."""
    path = text.removeprefix("unix:")
    if not text.startswith("unix:") or not path.startswith("/"):
        raise ValueError(f"{short(text)} is no Unix socket; write unix:/path")
    if path.endswith("/") or not path.isprintable():
        raise ValueError(f"{short(text)} does not name a socket file")
    size = len(path.encode(errors="surrogatepass"))
    if size > MAX_UNIX_PATH_BYTES:
        raise ValueError(
            f"the path has {size} bytes; a Unix socket's has at most {MAX_UNIX_PATH_BYTES}"
        )
    return path


class Address(Struct, frozen=True):
    """Where to listen or to dial: a host and port, or the ``path`` of a Unix socket."""

    host: str = ""  # canonical IP address or host name; "" for a Unix socket
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        """``host:port``, ``[v6]:port`` or ``unix:/path``."""
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """``"host:port"``, ``"[v6]:port"`` or ``"unix:/path"``."""
    if text.startswith("unix:"):
        return Address(path=parse_unix_path(text))
    if text.startswith("["):
        host, bracket, port = text[1:].rpartition("]:")
        if not bracket or ":" not in host:
            raise ValueError(f"{short(text)} is no address; write [v6]:port")
        return Address(parse_ip(host), parse_port(port))
    host, colon, port = text.rpartition(":")
    if ":" in host:
        raise ValueError(f"{short(text)} is no address; an IPv6 address needs [ ] before its port")
    if not colon or not host:
        raise ValueError(f"{short(text)} has no port; write host:port")
    return Address(parse_host(host), parse_port(port))


class Ports(Struct, frozen=True):
    """One entry of ``match.ports``: the ports ``first``..``last``, or a Unix socket's ``path``."""

    first: int = 0
    last: int = 0
    path: str = ""

    @property
    def is_single(self) -> bool:
        """Whether this names one port (or socket), which is more specific than a range."""
        return self.first == self.last

    def numbers(self) -> range:
        """The port numbers; empty for a Unix socket."""
        return range(0) if self.path else range(self.first, self.last + 1)


def parse_ports(value: object) -> Ports:
    """A port number, ``"8000-8010"`` or ``"unix:/path"``."""
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= MAX_PORT:
            raise ValueError(f"{short(value)} is no port; ports are 1 to {MAX_PORT}")
        return Ports(value, value)
    if not isinstance(value, str):
        raise ValueError(f'expected a port, "8000-8010" or "unix:/path", got {kind_of(value)}')
    if value.startswith("unix:"):
        return Ports(path=parse_unix_path(value))
    first, dash, last = value.partition("-")
    low = parse_port(first.strip())
    high = parse_port(last.strip()) if dash else low
    if low > high:
        raise ValueError(f"the range {short(value)} ends before it begins")
    return Ports(low, high)
