"""Headers, query parameters and cookies as criteria of a route, and what a request has of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal
from urllib.parse import unquote_plus

from shared.http.head import Request
from shared.plan import FieldMatch, HttpMatch

Kind = Literal["headers", "query", "cookies"]
_NONE: Final[Sequence[str]] = ()


class FieldTest:
    """One entry of ``headers``, ``query`` or ``cookies``: one value of that name must hold.

    A header's name and values are bytes within, as a head has them; the rest is text.
    """

    __slots__ = ("_bytes", "_regex", "_values", "kind", "match", "name_bytes")

    def __init__(self, kind: Kind, match: FieldMatch) -> None:
        self.kind: Kind = kind
        self.match = match
        self.name_bytes = _encoded(match.name.lower())
        self._values = frozenset(match.values)
        self._bytes = frozenset(map(_encoded, match.values))
        self._regex: re.Pattern[str] | None = None  # made when it is needed first

    def holds(self, fields: RequestFields) -> bool:
        """Whether the request has what is asked for."""
        if self.kind == "headers":
            values = fields.headers(self.name_bytes)
            if self._bytes:
                return any(one in self._bytes for one in values)
            if not self.match.regex:
                return bool(values)
            return any(self._matches(_decoded(one)) for one in values)
        texts = fields.texts(self.kind, self.match.name)
        if self._values:
            return any(one in self._values for one in texts)
        if not self.match.regex:
            return bool(texts)
        return any(map(self._matches, texts))

    def _matches(self, text: str) -> bool:
        regex = self._regex
        if regex is None:
            regex = self._regex = re.compile(self.match.regex)
        return regex.fullmatch(text) is not None

    def why_not(self, fields: RequestFields) -> str:
        """What was asked for; never what the request has, which may be a secret."""
        name = self.match.name
        if not fields.texts(self.kind, name):
            return f"the request has no {name}"
        if self.match.values:
            return f"for {name} = {' or '.join(map(ascii, self.match.values))}, which it is not"
        return f"for {name} that matches {self.match.regex!a}, which it does not"


class RequestFields:
    """What of one request is asked for, each parsed once, when it is asked for first."""

    __slots__ = ("_cookies", "_query", "_request")

    def __init__(self, request: Request) -> None:
        self._request = request
        self._query: Mapping[str, list[str]] | None = None
        self._cookies: Mapping[str, list[str]] | None = None

    def headers(self, name: bytes) -> Sequence[bytes]:
        """The values of all lines of this name, in lower case."""
        return self._request.fields.named.get(name, ())

    def texts(self, kind: Kind, name: str) -> Sequence[str]:
        """The values of a header, a query parameter or a cookie of this name."""
        if kind == "headers":
            return [_decoded(one) for one in self.headers(_encoded(name.lower()))]
        if kind == "query":
            query = self._query
            if query is None:
                query = self._query = parse_query(self._request.query or "")
            return query.get(name, _NONE)
        cookies = self._cookies
        if cookies is None:
            cookies = self._cookies = parse_cookies(self.headers(b"cookie"))
        return cookies.get(name, _NONE)


def tests_of(match: HttpMatch) -> tuple[FieldTest, ...]:
    """Of a route's criteria, in the order in which they are asked."""
    return (
        *(FieldTest("headers", one) for one in match.headers),
        *(FieldTest("query", one) for one in match.query),
        *(FieldTest("cookies", one) for one in match.cookies),
    )


def parse_query(query: str) -> dict[str, list[str]]:
    """Names and values behind a "?", percent-decoded, + as space; a part without "=" has the value
    "". What is not UTF-8 equals nothing that a config can say.
    """
    found: dict[str, list[str]] = {}
    for part in query.split("&"):
        if part:
            name, _, value = part.partition("=")
            found.setdefault(_unquoted(name), []).append(_unquoted(value))
    return found


def parse_cookies(lines: Sequence[bytes]) -> dict[str, list[str]]:
    """Names and values of Cookie fields (RFC 6265 section 5.4); a part without "=" is none."""
    found: dict[str, list[str]] = {}
    for line in lines:
        for part in _decoded(line).split(";"):
            name, equals, value = part.partition("=")
            if equals:
                found.setdefault(name.strip(" \t"), []).append(value.strip(" \t"))
    return found


def _unquoted(text: str) -> str:
    if "%" in text or "+" in text:
        return unquote_plus(text, errors="surrogateescape")
    return text


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _decoded(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
