"""ClientHellos as bytes, right and wrong ones, for tests of what reads them (RFC 8446).

A message is made of extensions, and put into records:

    records(message(server_name("a.example"), alpn("h2")))

Nothing is checked: a test may ask for what no client would send.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

GREASE: Final = 0x5A5A  # one of the values of RFC 8701
_SIZED_REST_BYTES: Final = 81  # of `sized`, without cipher suites, padding, further methods
X25519: Final = 0x001D
X25519MLKEM768: Final = 0x11EC
KEY_SHARE_BYTES: Final = {GREASE: 1, X25519: 32, X25519MLKEM768: 1216}
ECH: Final = 0xFE0D
PADDING: Final = 21  # RFC 7685


def vector(size: int, value: bytes) -> bytes:
    """``value`` with ``size`` bytes of length before it."""
    return len(value).to_bytes(size, "big") + value


def numbers(*values: int) -> bytes:
    """Numbers of 16 bits."""
    return b"".join(value.to_bytes(2, "big") for value in values)


def extension(kind: int, value: bytes = b"") -> bytes:
    """One extension, whatever its value is."""
    return numbers(kind) + vector(2, value)


def server_name(*names: str | bytes, kind: int = 0) -> bytes:
    """The server_name extension (RFC 6066 section 3), usually with one name."""
    raw = [name.encode("latin-1") if isinstance(name, str) else name for name in names]
    return extension(0, vector(2, b"".join(bytes((kind,)) + vector(2, name) for name in raw)))


def alpn(*protocols: str) -> bytes:
    """The ALPN extension (RFC 7301 section 3.1)."""
    names = b"".join(vector(1, protocol.encode("latin-1")) for protocol in protocols)
    return extension(16, vector(2, names))


def supported_versions(*versions: int) -> bytes:
    """The supported_versions extension, 0x0304 for TLS 1.3 (RFC 8446 section 4.2.1)."""
    return extension(43, vector(1, numbers(*versions)))


def supported_groups(*groups: int) -> bytes:
    """The supported_groups extension (RFC 8446 section 4.2.7)."""
    return extension(10, vector(2, numbers(*groups)))


def signature_algorithms(*schemes: int) -> bytes:
    """The signature_algorithms extension (RFC 8446 section 4.2.3)."""
    return extension(13, vector(2, numbers(*schemes)))


def key_share(*groups: int) -> bytes:
    """The key_share extension with a share of the right size for each group (section 4.2.8)."""
    shares = (numbers(group) + vector(2, bytes(KEY_SHARE_BYTES[group])) for group in groups)
    return extension(51, vector(2, b"".join(shares)))


def message(
    *extensions: bytes,
    legacy_version: int = 0x0303,
    session_id: bytes = bytes(32),
    ciphers: Sequence[int] = (0x1301, 0x1302, 0xC02B),
    compression: bytes = b"\0",
    kind: int = 1,
) -> bytes:
    """The handshake message, without records; without extensions it ends before their length."""
    body = numbers(legacy_version) + bytes(range(32)) + vector(1, session_id)
    body += vector(2, numbers(*ciphers)) + vector(1, compression)
    if extensions:
        body += vector(2, b"".join(extensions))
    return bytes((kind,)) + vector(3, body)


def record(fragment: bytes, kind: int = 22, version: int = 0x0301) -> bytes:
    """One record, with as many bytes as its length field can name."""
    return bytes((kind,)) + numbers(version) + vector(2, fragment)


def records(hello: bytes, size: int = 16384) -> bytes:
    """The message in records of ``size`` bytes and a last one of what is left."""
    return b"".join(record(hello[at : at + size]) for at in range(0, len(hello), size))


def sized(length: int) -> bytes:
    """A well-formed message of exactly ``length`` bytes, its head included: 400 to 131072."""
    ciphers = min(0x7FFF, (length - 200) // 4)
    padding = length - _SIZED_REST_BYTES - 2 * ciphers
    compression = b"\0" * max(1, padding - 0xFFFF + 5)
    padding -= len(compression) - 1
    return message(
        extension(PADDING, bytes(padding)), ciphers=(0x1301,) * ciphers, compression=compression
    )


def post_quantum(name: str) -> bytes:
    """What a client with X25519MLKEM768 sends: over 1500 bytes, so two TCP segments."""
    return message(
        server_name(name),
        alpn("h2", "http/1.1"),
        supported_versions(0x0304, 0x0303),
        supported_groups(X25519MLKEM768, X25519),
        signature_algorithms(0x0403, 0x0804),
        key_share(X25519MLKEM768, X25519),
        extension(PADDING, bytes(120)),
    )


def greased(name: str) -> bytes:
    """GREASE wherever RFC 8701 puts it, and an outer ECH extension, as browsers send them."""
    return message(
        extension(0x2A2A),
        server_name(name),
        alpn("\x5a\x5a", "h2"),
        supported_versions(0x7A7A, 0x0304, 0x0303),
        supported_groups(GREASE, X25519MLKEM768, X25519),
        signature_algorithms(0x9A9A, 0x0403, 0x0804),
        key_share(GREASE, X25519MLKEM768, X25519),
        extension(ECH, b"\0\0\1\0\1\x6c" + vector(2, bytes(32)) + vector(2, bytes(176))),
        extension(0xEAEA, b"\0"),
        ciphers=(0xCACA, 0x1301, 0x1302, 0xC02B),
    )
