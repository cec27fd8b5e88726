"""Pieces of a line of the access log: names, addresses, seconds, and what a client sent.

What a client sent never ends a line, a quoted text or a JSON string: JSON escapes it, and in the
other formats `quoted` does.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from json.encoder import encode_basestring_ascii
from typing import Final, TypeAlias, TypeVar

# ("", 0): a Unix socket, which has none. Port 0: not known, of a client that a forwarder names.
Address: TypeAlias = tuple[str, int]

# Characters of a text that a client sent; then "...". nginx takes no line or field of a request
# that is longer (large_client_header_buffers).
CLIENT_TEXT_MAX: Final = 8192
REMEMBERED: Final = 1024  # texts of names, of destinations, of user agents; then anew
REMEMBERED_MAX: Final = 256  # characters of a text that is worth it

# As nginx escapes its variables (ngx_http_log_escape): blanks stay, what is not ASCII does not.
_ESCAPES: Final = {
    code: f"\\x{code:02X}"
    for code in range(256)
    if not 32 <= code < 127 or chr(code) in ('"', "\\")
}

Key = TypeVar("Key")


class Remembered(dict[Key, str]):
    """The text of each name, or address, made once."""

    def __init__(self, make: Callable[[Key], str]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: Key) -> str:
        text = self._make(key)
        if len(text) > REMEMBERED_MAX:
            return text
        if len(self) >= REMEMBERED:
            self.clear()
        self[key] = text
        return text


def plain_name(name: str) -> str:
    r"""The name on one line: what cannot be printed stands there as ``\n``, ``\x1b`` and so on."""
    if name.isprintable():
        return name
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in name
    )


def address_text(address: Address) -> str:
    """``ip:port`` or ``[v6]:port``, the ip alone without a port; "" where there is no address."""
    ip, port = address
    if not port:
        return plain_name(ip)
    if ":" in ip:
        return plain_name(f"[{ip}]:{port}")  # a zone (%eth0) may hold anything
    return f"{ip}:{port}" if ip else ""


def address_json(address: Address) -> str:
    """`address_text` as JSON; null where there is no address."""
    ip, port = address
    if not port:
        return json.dumps(ip) if ip else "null"
    if ":" in ip:
        return json.dumps(f"[{ip}]:{port}")
    return f'"{ip}:{port}"' if ip else "null"


def address_plain(address: Address) -> str:
    """`address_text`; a dash where there is none."""
    return address_text(address) or "-"


def seconds(value: float) -> str:
    """Six decimals; by way of a whole number, which costs a third of formatting a float."""
    micros = int(value * 1e6 + 0.5)
    if 0 <= micros < 1_000_000:
        return f"0.{micros:06d}"
    return f"{value:.6f}"


def seconds_plain(value: float | None) -> str:
    """`seconds`; a dash where there are none."""
    return "-" if value is None else seconds(value)


def text_json(text: str | None) -> str:
    """What a client sent as JSON in ASCII; null where it did not."""
    if text is None:
        return "null"
    if len(text) > CLIENT_TEXT_MAX:
        text = text[:CLIENT_TEXT_MAX] + "..."
    return encode_basestring_ascii(text)


def value_json(value: bytes | None) -> str:
    r"""The same of a field's value, which may hold any byte: ``\xff`` where it is not UTF-8."""
    return text_json(None if value is None else value.decode("utf-8", "backslashreplace"))


def quoted(text: str | None) -> str:
    r"""What a client sent, fit for a place between quotes: ``\x22``, ``\x0A``; a dash for nothing.

    Bytes that are not ASCII are escaped too, each for itself.
    """
    if not text:
        return "-"
    if len(text) > CLIENT_TEXT_MAX:
        text = text[:CLIENT_TEXT_MAX] + "..."
    if not text.isascii():
        text = text.encode("utf-8", "surrogatepass").decode("latin-1")
    return text.translate(_ESCAPES)


def value_quoted(value: bytes | None) -> str:
    """The same of a field's value."""
    if not value:
        return "-"
    more = "..." if len(value) > CLIENT_TEXT_MAX else ""
    return value[:CLIENT_TEXT_MAX].decode("latin-1").translate(_ESCAPES) + more
