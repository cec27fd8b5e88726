"""Tell the two versions apart by their first bytes (section 2.2), and parse either."""

from __future__ import annotations

from collections.abc import Container
from typing import Final

from shared.errors import ProxyHeaderError
from shared.proxy_protocol.header import V1_PREFIX, V2_SIGNATURE, Buffer, ProxyHeader
from shared.proxy_protocol.v1 import parse_v1
from shared.proxy_protocol.v2 import parse_v2

VERSIONS: Final = frozenset(("v1", "v2"))

_V1_FIRST: Final = V1_PREFIX[0]
_V2_FIRST: Final = V2_SIGNATURE[0]


def parse(data: Buffer, versions: Container[str] = VERSIONS) -> tuple[ProxyHeader, int] | None:
    """The header at the start of ``data`` and the bytes it takes; None for "more bytes needed".

    What follows the header is not looked at, and the result holds no reference to ``data``. The
    answer never depends on how the bytes were split: once it is a header or an error it stays so.
    ``versions``: what to accept, of "v1" and "v2". Raises ProxyHeaderError, and nothing else
    whatever the bytes are, as soon as no further bytes can make a valid header.
    """
    if not data:
        return None
    first = data[0]
    if first == _V2_FIRST:
        if "v2" in versions:
            return parse_v2(data)
        version, beginning = "v2", V2_SIGNATURE
    elif first == _V1_FIRST:
        if "v1" in versions:
            return parse_v1(data)
        version, beginning = "v1", V1_PREFIX
    else:
        version, beginning = "", b""
    start = bytes(data[: len(beginning) or len(V2_SIGNATURE)])
    if version and beginning.startswith(start):
        raise ProxyHeaderError(f"PROXY {version} is not accepted here")
    raise ProxyHeaderError(f"no PROXY header: the first bytes are {start!r}")


def could_begin(data: Buffer) -> bool:
    """Whether more bytes may make a header of either version out of these; True for no bytes.

    Only the v1 prefix and the v2 signature are compared; `parse` judges the rest.
    """
    return V1_PREFIX.startswith(bytes(data[: len(V1_PREFIX)])) or V2_SIGNATURE.startswith(
        bytes(data[: len(V2_SIGNATURE)])
    )


def is_header_start(data: Buffer) -> bool:
    """Whether ``data`` starts with the whole v1 prefix ``PROXY `` or the whole v2 signature."""
    return data[:6] == V1_PREFIX or data[:12] == V2_SIGNATURE
