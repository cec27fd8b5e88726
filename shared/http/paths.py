"""The path of a request, in the one form that is both matched and forwarded.

A path that a proxy matches in one form and its target reads in another gets around the proxy's
rules. So what may be read in two ways is refused, and everything else is written in one way (RFC
3986 section 6.2.2).
"""

from __future__ import annotations

import re
from typing import Final

from shared.errors import HttpError

# Printable ASCII without the backslash, which some read as a slash (RFC 3986 has none of these).
_FOREIGN: Final = re.compile(r"[^\x21-\x5b\x5d-\x7e]")
_ESCAPE: Final = re.compile(r"%(?:[0-9A-Fa-f]{2})?")
_UNRESERVED: Final = re.compile(r"[A-Za-z0-9\-._~]")  # RFC 3986 section 2.3
_DOTS: Final = (".", "..")


def _escapes() -> dict[str, str]:
    """Every escape, in any case, and what it becomes; "" for those that are refused."""
    table: dict[str, str] = {}
    for code in range(256):
        upper = f"%{code:02X}"
        text = chr(code)
        becomes = text if _UNRESERVED.fullmatch(text) else upper
        if text in "/\\\0":
            becomes = ""
        high, low = upper[1], upper[2]
        for digits in (high + low, high.lower() + low, high + low.lower(), upper[1:].lower()):
            table["%" + digits] = becomes
    return table


_BECOMES: Final = _escapes()


def normalise(path: str) -> str:
    """``path`` with its dot segments removed and its escapes in one form; ``//`` stays.

    Escaped unreserved characters are decoded, other escapes get upper-case digits (RFC 3986
    sections 6.2.2.1 and 6.2.2.2); dot segments go as section 5.2.4 says.

    Raises HttpError(400) for what does not begin with "/", for an escaped slash, backslash or NUL,
    an escaped dot segment, a dot segment with a parameter ("..;", which some read as ".."), a
    wrong escape, a backslash, a control character or one beyond ASCII.
    """
    if not path.startswith("/"):
        raise HttpError(400, "the path does not begin with a slash")
    if _FOREIGN.search(path) is not None:
        raise HttpError(400, "the path has a character that no path may have")
    has_dots = "/." in path
    if "%" in path:
        if _has_escaped_dots(path):
            raise HttpError(400, "the path has an escaped dot segment")
        path = _ESCAPE.sub(_unescaped, path)
    return _without_dots(path) if has_dots else path


def _unescaped(found: re.Match[str]) -> str:
    """What one escape becomes."""
    becomes = _BECOMES.get(found[0])
    if becomes is None:
        raise HttpError(400, "the path has a percent sign without two hex digits")
    if not becomes:
        raise HttpError(400, "the path has an escaped slash, backslash or NUL")
    return becomes


def _has_escaped_dots(path: str) -> bool:
    """Whether a segment is a dot segment only once its escapes are decoded."""
    lower = path.lower()
    if "%2e" not in lower:
        return False
    for segment in lower.split("/"):
        if "%2e" in segment:
            name = segment.replace("%2e", ".").partition(";")[0].partition("%3b")[0]
            if name in _DOTS:
                return True
    return False


def _without_dots(path: str) -> str:
    """RFC 3986 section 5.2.4; a step above the root stays there."""
    kept: list[str] = []
    segments = path.split("/")
    last = len(segments) - 1
    for at in range(1, last + 1):
        segment = segments[at]
        if segment not in _DOTS:
            if segment.partition(";")[0] in _DOTS:
                raise HttpError(400, "the path has a dot segment with a parameter")
            kept.append(segment)
            continue
        if segment == ".." and kept:
            kept.pop()
        if at == last:
            kept.append("")  # "/a/.." is "/", and "/a/b/." is "/a/b/"
    return "/" + "/".join(kept)
