"""Texts with fields in them, as header rules and redirects have: ``https://{host}{path}``.

Checked when the config is (`check_template`), compiled once per generation, rendered per request.
A field that has no value is empty. What a client sent can end neither a field line nor a location:
control bytes are left out, and in a location whatever is no URL character is percent-encoded.
``{{`` and ``}}`` stand for braces.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Final

from msgspec import Struct

from shared.http.forwarding import About
from shared.http.head import FORWARDING
from shared.units import short

(
    _TEXT, _CLIENT_IP, _CLIENT_PORT, _SCHEME, _HOST, _PORT, _PATH, _QUERY, _PATH_AND_QUERY, _SNI,
    _ROUTE, _REQUEST_ID, _PARAM, _HEADER,
) = range(14)  # fmt: skip

_FIELDS: Final = {
    "client_ip": _CLIENT_IP, "client_port": _CLIENT_PORT, "scheme": _SCHEME, "host": _HOST,
    "port": _PORT, "path": _PATH, "query": _QUERY, "path_and_query": _PATH_AND_QUERY,
    "sni": _SNI, "route": _ROUTE, "request_id": _REQUEST_ID,
}  # fmt: skip
_ALL: Final = ", ".join([*(f"{{{name}}}" for name in _FIELDS), "{param.NAME}", "{header.NAME}"])
_PIECE: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)  # RFC 9110 section 5.6.2
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_CONTROLS: Final = bytes([*range(0x20), 0x7F])

# Of a location. What came as part of a URL stays as it came, its escapes too; other values become
# one component of a URL (RFC 3986 section 2.1).
_URL_PARTS: Final = frozenset(
    {_CLIENT_IP, _CLIENT_PORT, _SCHEME, _HOST, _PORT, _PATH, _QUERY, _PATH_AND_QUERY, _PARAM}
)
_NO_URL: Final = re.compile(rb"[^!#-;=?-\[\]-~]")  # controls, blank, ", <, >, \, and all from 0x7f
_NO_COMPONENT: Final = re.compile(rb"[^A-Za-z0-9._~-]")


class _Piece(Struct, frozen=True, gc=False):
    kind: int
    text: bytes  # the text itself, or the NAME of a field


class Template:
    """One compiled text."""

    __slots__ = ("_is_location", "_pieces", "constant", "is_constant")

    def __init__(self, pieces: tuple[_Piece, ...], *, is_location: bool) -> None:
        self._pieces = pieces
        self._is_location = is_location
        self.is_constant = all(piece.kind == _TEXT for piece in pieces)
        self.constant = b"".join([piece.text for piece in pieces]) if self.is_constant else b""

    def render(self, about: About) -> bytes:
        """The text for this request, without control bytes."""
        if self.is_constant:
            return self.constant
        if self._is_location:
            return self._location(about)
        return b"".join(
            [
                piece.text if piece.kind == _TEXT
                else _value(piece.kind, piece.text, about).translate(None, _CONTROLS)
                for piece in self._pieces
            ]
        )  # fmt: skip

    def _location(self, about: About) -> bytes:
        parts = []
        for piece in self._pieces:
            kind, text = piece.kind, piece.text
            if kind != _TEXT:
                value = _value(kind, text, about).translate(None, _CONTROLS)
                if kind in _URL_PARTS or text == b"host":
                    text = _NO_URL.sub(_percent, value)
                    if text == b"*" and kind in (_PATH, _PATH_AND_QUERY):
                        text = b"/"  # OPTIONS * is about the host
                else:
                    text = _NO_COMPONENT.sub(_percent, value)
            parts.append(text)
        rendered = b"".join(parts)
        # A path may begin with "//", and a location that does names another host (RFC 3986
        # section 4.2): only the operator's own text may mean that.
        if rendered.startswith(b"//") and not self._pieces[0].text.startswith(b"//"):
            return b"/." + rendered
        return rendered


def _percent(match: re.Match[bytes]) -> bytes:
    return b"%%%02X" % match[0][0]


def _value(kind: int, name: bytes, about: About) -> bytes:
    """What stands for a field, in bytes that came from a client."""
    request = about.request
    if kind == _HEADER:
        return _header(name, about)
    if kind == _HOST:
        value = about.host
    elif kind == _PATH:
        value = request.path
    elif kind == _QUERY:
        value = request.query or ""
    elif kind == _PATH_AND_QUERY:
        query = request.query
        value = request.path if query is None else f"{request.path}?{query}"
    elif kind == _CLIENT_IP:
        value = about.client_ip
    elif kind == _CLIENT_PORT:
        value = str(about.client_port or "")
    elif kind == _SCHEME:
        value = about.scheme
    elif kind == _PORT:
        value = str(about.port or "")
    elif kind == _SNI:
        value = about.sni
    elif kind == _ROUTE:
        value = about.route
    elif kind == _REQUEST_ID:
        value = about.request_id
    else:
        value = about.params.get(name.decode(), "")
    return value.encode()


def _header(name: bytes, about: About) -> bytes:
    """All values of the field, as one line would have them (RFC 9110 section 5.3)."""
    if name in FORWARDING and about.believed is None:
        return b""  # from a client whose word on this does not count
    values = about.request.fields.named.get(name)
    if not values:
        return b""
    return (b"; " if name == b"cookie" else b", ").join(values)


def _split(text: str) -> Iterator[tuple[bool, str]]:
    """(whether it is a field, the text or what stood between the braces); ValueError."""
    at = 0
    for match in _PIECE.finditer(text):
        start, end = match.span()
        yield False, text[at:start]
        at = end
        found = match[0]
        if found in ("{{", "}}"):
            yield False, found[0]
        elif match[1] is None:
            raise ValueError(f"{short(text)}: a `{found}` alone; write `{found}{found}` for it")
        else:
            yield True, match[1]
    yield False, text[at:]


def _field(text: str) -> _Piece:
    kind = _FIELDS.get(text)
    if kind is not None:
        return _Piece(kind, b"")
    family, dot, name = text.partition(".")
    if dot and name and family == "param":
        return _Piece(_PARAM, name.encode())
    if dot and family == "header" and _TOKEN.fullmatch(name):
        return _Piece(_HEADER, name.lower().encode())
    raise ValueError(f"`{{{text}}}` is no field; there are {_ALL}")


def check_template(text: str, params: Collection[str]) -> None:
    """ValueError, with a message fit for the operator, where the text is no template.

    ``params``: the NAMEs that {param.NAME} may have here.
    """
    if _CONTROL.search(text):
        raise ValueError(f"{short(text)} has a control character")
    for is_field, part in _split(text):
        if not is_field:
            continue
        piece = _field(part)
        name = piece.text.decode()
        if piece.kind == _PARAM and name not in params:
            known = ", ".join(sorted(params))
            there = f"there are {known}" if known else "it has none"
            raise ValueError(f"`{{{part}}}` is no parameter of the route's paths; {there}")


def compile_template(text: str, *, is_location: bool = False, route: str | None = None) -> Template:
    """The template of a text that `check_template` took; ValueError for others.

    ``is_location``: what is rendered is a URL. ``route``: its name, where it is known already.
    """
    pieces: list[_Piece] = []
    literal = b""
    for is_field, part in _split(text):
        if is_field and not (part == "route" and route is not None):
            if literal:
                pieces.append(_Piece(_TEXT, literal))
                literal = b""
            pieces.append(_field(part))
        else:
            plain = route if is_field and route is not None else part
            raw = plain.encode().translate(None, _CONTROLS)
            no_url = _NO_COMPONENT if is_field else _NO_URL
            literal += no_url.sub(_percent, raw) if is_location else raw
    if literal:
        pieces.append(_Piece(_TEXT, literal))
    return Template(tuple(pieces), is_location=is_location)
