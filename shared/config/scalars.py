"""Values of the config that are more than a number or a text, each checked as it is read.

Each class has ``read(value)``, which `decode_hook` calls from within msgspec: it returns an
instance, or raises ValueError with a message fit for the operator. ``kind`` is the word that the
reference uses. So a wrong value is found by the same pass that finds a wrong type.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, Final, Protocol, Self, runtime_checkable

from msgspec import Struct

from shared.networks import parse_network
from shared.units import (
    is_ip,
    kind_of,
    parse_address,
    parse_duration,
    parse_host,
    parse_ip,
    parse_ports,
    parse_unix_path,
    short,
)

NEWEST_VERSION: Final = 1
MAX_NAME_CHARACTERS: Final = 128  # of a route; it is a label in every counter and log line
MAX_TLV_BYTES: Final = 4096  # the whole header is kept below this (PROXY v2 reads refuse more)
MAX_SIZE_BYTES: Final = 1 << 50
_SIZE: Final = re.compile(r"([0-9]{1,19})(B|KiB|MiB|GiB|TiB)?", re.ASCII)
_SHIFTS: Final = {None: 0, "B": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}
_PP2_TYPE_CRC32C: Final = 0x03  # PROXY protocol section 2.2.3


@runtime_checkable
class Readable(Protocol):
    """What a class must have to be used as the type of a config value."""

    @classmethod
    def read(cls, value: object) -> Self:
        """Check a plain value of the file; ValueError says what is wrong with it."""
        ...


def decode_hook(kind: type, value: Any) -> Any:
    """msgspec's ``dec_hook``: read a value whose type is one of this module's classes."""
    read = getattr(kind, "read", None)  # to ask for a Protocol would take longer than most of them
    if read is None:
        raise TypeError(f"no reader for {kind!r}")  # our bug: a struct names a type without one
    return read(value)


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected {what}, got {kind_of(value)}")
    return value


class Version(int):
    """Version of the config's format."""

    kind: ClassVar[str] = "number"

    @classmethod
    def read(cls, value: object) -> Self:
        """1; a newer one is refused, since its keys could mean something else."""
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"expected the format's version, {NEWEST_VERSION}")
        if value > NEWEST_VERSION:
            raise ValueError(
                f"version {short(value)} is newer than this proxyctl knows ({NEWEST_VERSION})"
            )
        return cls(value)


class Seconds(float):
    """A duration that may be 0."""

    kind: ClassVar[str] = "duration, 0 allowed"

    @classmethod
    def read(cls, value: object) -> Self:
        """``"250ms"``, ``"5s"``, ``"2m"``, ``"4h"`` or a number of seconds."""
        return cls(parse_duration(value))


class PositiveSeconds(Seconds):
    """A duration above 0."""

    kind: ClassVar[str] = "duration"

    @classmethod
    def read(cls, value: object) -> Self:
        """As `Seconds.read`; 0 is refused, since nothing could be done in no time."""
        seconds = parse_duration(value)
        if seconds <= 0:
            raise ValueError("0 is not allowed here; the duration must be above 0")
        return cls(seconds)


class Size(int):
    """A number of bytes."""

    kind: ClassVar[str] = "size"

    @classmethod
    def read(cls, value: object) -> Self:
        """``"64KiB"``, ``"1MiB"``, ``"2GiB"`` or a number of bytes."""
        if isinstance(value, str):
            match = _SIZE.fullmatch(value)
            if match is None:
                raise ValueError(f"{short(value)} is no size; write 64KiB, 1MiB, 2GiB or bytes")
            number = int(match[1]) << _SHIFTS[match[2]]
        elif isinstance(value, int) and not isinstance(value, bool):
            number = value
        else:
            raise ValueError(f"expected a size such as 64KiB, got {kind_of(value)}")
        if not 0 <= number <= MAX_SIZE_BYTES:
            raise ValueError(f"{short(value)} is no size; 0 to 1024TiB")
        return cls(number)


class RouteName(str):
    """The name of a route."""

    __slots__ = ()
    kind: ClassVar[str] = "text"

    @classmethod
    def read(cls, value: object) -> Self:
        """Printable text without blanks around it."""
        name = _text(value, "a name")
        if not name or not name.isprintable() or name != name.strip():
            raise ValueError(f"{short(name)} is no name; it needs printable text, no outer blanks")
        if len(name) > MAX_NAME_CHARACTERS:
            raise ValueError(f"the name has {len(name)} characters, {MAX_NAME_CHARACTERS} at most")
        return cls(name)


class IpText(str):
    """A local IP address, in canonical form."""

    __slots__ = ()
    kind: ClassVar[str] = "IP address"

    @classmethod
    def read(cls, value: object) -> Self:
        """An IPv4 or IPv6 address, without port."""
        return cls(parse_ip(_text(value, "an IP address")))


class ListenAddress(str):
    """Where the admin listener listens: ``ip:port``, ``[v6]:port`` or ``unix:/path``."""

    __slots__ = ()
    kind: ClassVar[str] = "address"

    @classmethod
    def read(cls, value: object) -> Self:
        """An address with a port; its host is an IP address, so that binding asks no resolver."""
        address = parse_address(_text(value, "an address such as 127.0.0.1:9901"))
        if address.host and not is_ip(address.host):
            raise ValueError(f"{short(address.host)} is no IP address; write 127.0.0.1:port")
        return cls(str(address))


class NetworkText(str):
    """An IP address or network, as ``10.0.0.0/8``."""

    __slots__ = ()
    kind: ClassVar[str] = "address or CIDR"

    @classmethod
    def read(cls, value: object) -> Self:
        """A single address stands for itself alone (/32, /128)."""
        return cls(str(parse_network(_text(value, "an address or CIDR"))))


class Source(str):
    """Who is trusted: an address, a network or a host name."""

    __slots__ = ()
    kind: ClassVar[str] = "address, CIDR or host name"

    @classmethod
    def read(cls, value: object) -> Self:
        """What has a slash or a colon, or is an address, is a network; else a host name."""
        text = _text(value, "an address, CIDR or host name")
        if "/" in text or ":" in text or is_ip(text):
            return cls(str(parse_network(text)))
        return cls(parse_host(text))

    @property
    def is_name(self) -> bool:
        """Whether this is a host name, which the supervisor resolves."""
        return "/" not in self


class PortEntry(str):
    """One of ``ports``: a number, a range or a Unix socket."""

    __slots__ = ()
    kind: ClassVar[str] = 'port, "first-last" or "unix:/path"'

    @classmethod
    def read(cls, value: object) -> Self:
        """443, "8000-8010" or "unix:/path"."""
        parse_ports(value)
        return cls(value)


class DialHost(str):
    """The host of a target: an IP address, a host name, or ``unix:/path``."""

    __slots__ = ()
    kind: ClassVar[str] = 'IP address, host name or "unix:/path"'

    @classmethod
    def read(cls, value: object) -> Self:
        """Canonical: lower case, IDNA, IPv4-mapped unfolded."""
        text = _text(value, "a host")
        if text.startswith("unix:"):
            return cls(f"unix:{parse_unix_path(text)}")
        return cls(parse_host(text))


class TlvType(int):
    """The type of a TLV of the PROXY protocol."""

    kind: ClassVar[str] = "number, 0x00 to 0xFF"

    @classmethod
    def read(cls, value: object) -> Self:
        """A number, or text such as "0xE1" (JSON has no such numbers)."""
        number = value
        if isinstance(value, str) and value[:2] in ("0x", "0X") and len(value) <= 4:
            try:
                number = int(value, 16)
            except ValueError:
                raise ValueError(f"{short(value)} is no type of a TLV") from None
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= 0xFF:
            raise ValueError(f"{short(value)} is no type of a TLV; types are 0x00 to 0xFF")
        if number == _PP2_TYPE_CRC32C:
            raise ValueError("a checksum cannot have a fixed value; name it: crc32c")
        return cls(number)


class TlvValue(bytes):
    """The bytes of a TLV."""

    kind: ClassVar[str] = 'text, or "hex:..."'

    @classmethod
    def read(cls, value: object) -> Self:
        """Text goes out as UTF-8; after ``hex:`` come pairs of hexadecimal digits."""
        text = _text(value, 'text or "hex:..."')
        if text.startswith("hex:"):
            try:
                raw = bytes.fromhex(text[4:])
            except ValueError:
                raise ValueError(f"{short(text)}: expected pairs of hexadecimal digits") from None
        else:
            raw = text.encode(errors="surrogatepass")
        if len(raw) > MAX_TLV_BYTES:
            raise ValueError(f"the value has {len(raw)} bytes, {MAX_TLV_BYTES} at most")
        return cls(raw)


class TextOrFields:
    """Base of a value that is written as text or as a mapping; ``fields`` is the mapping's type."""

    kind: ClassVar[str]
    fields: ClassVar[type[Struct]]
