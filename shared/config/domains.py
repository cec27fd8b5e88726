"""Domain names of the config, as clients send them: lower case, without a dot at the end, ASCII.

Other letters become A-labels (`shared/host_names.py`), done here once, so that nobody who serves
traffic needs the tables.
"""

from __future__ import annotations

import re
from typing import ClassVar, Final, Self

from shared.host_names import ascii_name
from shared.units import MAX_HOST_NAME_BYTES, is_ip, kind_of, parse_ip, short

# Names in use have underscores, and hyphens in the third and fourth place, that IDNA would refuse.
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_HAS_PORT: Final = re.compile(r".*:[0-9]*", re.ASCII | re.DOTALL)
_GLOB_SIGNS: Final = frozenset("*?")


def parse_domain(text: str) -> str:
    """``a.example``, ``*.example`` or ``example.*`` in the form that is compared.

    ``*`` stands for one label or more, at one end. An IP address, which a client may send as Host
    but not as SNI, becomes ``10.0.0.1`` or ``[2001:db8::1]``. ValueError says what is wrong, and
    what to write.
    """
    bare = text[1:-1] if text[:1] == "[" and text[-1:] == "]" else text
    if text.isascii() and is_ip(bare):
        address = parse_ip(bare)
        return f"[{address}]" if ":" in address else address
    name = text[:-1] if text.endswith(".") else text
    _refuse_addresses(text, name)
    if "*" not in name:
        return _fitting(text, _ascii_name(text, name))
    if name == "*":
        raise ValueError("'*' is every name; leave domains out for a route that takes any")
    rest = name[2:] if name.startswith("*.") else name[:-2] if name.endswith(".*") else ""
    if not rest or "*" in rest:
        raise ValueError(
            f"{short(text)}: a * is a whole label at one end; write *.example.com or example.*"
        )
    ascii_rest = _ascii_name(text, rest)
    return _fitting(text, f"*.{ascii_rest}" if name.startswith("*.") else f"{ascii_rest}.*")


def parse_name(text: str) -> str:
    """One host name in the form of `parse_domain`, without ``*``."""
    name = parse_domain(text)
    if "*" in name:
        raise ValueError(f"{short(text)} stands for many names; write one")
    return name


def parse_name_glob(text: str) -> str:
    """A glob over host names: its labels as they are compared, ``*`` and ``?`` anywhere."""
    name = text[:-1] if text.endswith(".") else text
    return ".".join(_glob_label(text, label) for label in name.split("."))


def _glob_label(text: str, label: str) -> str:
    if label.isascii() and _GLOB_SIGNS.intersection(label):
        return label.lower()
    return _ascii(text, label)


def _refuse_addresses(text: str, name: str) -> None:
    if is_ip(name.removeprefix("[").removesuffix("]")):
        raise ValueError(
            f"{short(text)} is an IP address; write it with ASCII digits, without a dot at its end"
        )
    if "://" in name or "/" in name:
        raise ValueError(f"{short(text)} is no domain; write the host alone, example.com")
    if _HAS_PORT.fullmatch(name):
        raise ValueError(f"{short(text)} has a port; write the domain alone, ports are in `ports`")


def _fitting(text: str, name: str) -> str:
    if len(name) > MAX_HOST_NAME_BYTES:
        raise ValueError(
            f"{short(text)} has {len(name)} bytes; a domain has {MAX_HOST_NAME_BYTES} at most"
        )
    return name


def _ascii_name(text: str, name: str) -> str:
    if name.startswith(".") and name != ".":
        raise ValueError(f"{short(text)} begins with a dot; write *{short(text)[1:-1]}")
    if not name.isascii():
        name = _converted(text, name)
        _refuse_addresses(text, name)
    return ".".join(_ascii(text, label) for label in name.split("."))


def _converted(text: str, name: str) -> str:
    try:
        return ascii_name(name)
    except ValueError as error:
        raise ValueError(f"{short(text)} is no domain: {error}") from None


def _ascii(text: str, label: str) -> str:
    """A label in lower case and ASCII; ``text`` is the whole for messages."""
    lower = _converted(text, label).lower()
    if _LABEL.fullmatch(lower) is None:
        raise ValueError(f"{short(text)} is no domain: {_why_no_label(label)}")
    if lower.startswith("xn--") and not _is_a_label(lower):
        raise ValueError(f"{short(text)} is no domain: {short(label)} is no Punycode (RFC 3492)")
    return lower


def _why_no_label(label: str) -> str:
    if not label:
        return "a label is empty"
    if len(label) > 63:
        return f"a label has {len(label)} bytes, 63 at most"  # RFC 1035 section 2.3.4
    if label[0] == "-" or label[-1] == "-":
        return f"the label {short(label)} begins or ends with a hyphen"
    return f"the label {short(label)} holds what no host name has"


def _is_a_label(label: str) -> bool:
    """Whether Punycode gives letters beyond ASCII; which ones is for the registry to allow."""
    try:
        letters = label[4:].encode("ascii").decode("punycode")
    except UnicodeError:
        return False
    return letters.isprintable() and not letters.isascii()


class Domain(str):
    """One of ``domains``: a name, or a wildcard for many."""

    __slots__ = ()
    kind: ClassVar[str] = "domain, `*.example.com`, `example.*` or IP address"

    @classmethod
    def read(cls, value: object) -> Self:
        """As `parse_domain`."""
        if not isinstance(value, str):
            raise ValueError(f"expected a domain such as example.com, got {kind_of(value)}")
        return cls(parse_domain(value))


class ServerName(str):
    """The name that a server's certificate must be for: a host name or an IP address."""

    __slots__ = ()
    kind: ClassVar[str] = "host name or IP address"

    @classmethod
    def read(cls, value: object) -> Self:
        """As `parse_name`; an IP address in canonical form."""
        if not isinstance(value, str):
            raise ValueError(f"expected a host name, got {kind_of(value)}")
        return cls(parse_ip(value) if is_ip(value) else parse_name(value))
