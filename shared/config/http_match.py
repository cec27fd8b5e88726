"""Criteria about an HTTP request: paths, methods, header fields, query parameters, cookies."""

from __future__ import annotations

import re
import warnings
from typing import Annotated, Any, ClassVar, Final, Self
from urllib.parse import quote

import msgspec
from msgspec import Struct

from shared.config.base import ConfigStruct, doc
from shared.config.name_map import NameMap, check_token
from shared.config.scalars import TextOrFields, decode_hook
from shared.errors import HttpError
from shared.http.head import METHODS
from shared.http.paths import normalise
from shared.path_index import PathPattern as PathMatcher
from shared.plan import FieldMatch
from shared.units import kind_of, short

MAX_REGEX_CHARACTERS: Final = 1000
MAX_VALUE_CHARACTERS: Final = 8192
MAX_PATH_CHARACTERS: Final = 2048
_AS_THEY_ARE: Final = "".join(map(chr, range(0x21, 0x7F)))  # other characters are escaped


def parse_path(text: str) -> str:
    """A pattern for paths, in the form in which requests are compared; ValueError says why not.

    Other letters than ASCII, and blanks, stand for their escapes in UTF-8 (RFC 3986 section 2.5).
    """
    if not text.startswith("/") and not text.startswith("*"):
        raise ValueError(f"{short(text)} is no path; it begins with /, as /v1/*")
    if len(text) > MAX_PATH_CHARACTERS:
        raise ValueError(f"the path has {len(text)} characters, {MAX_PATH_CHARACTERS} at most")
    if not text.isprintable() or "\\" in text:
        raise ValueError(f"{short(text)} holds what no path has")
    if "?" in text or "#" in text:
        raise ValueError(f"{short(text)}: a path ends before ? and #; parameters are in `query`")
    if any(segment in (".", "..") for segment in text.split("/")):
        raise ValueError(f"{short(text)} has a dot segment; requests are matched without them")
    star = "" if text.startswith("/") else "/"
    try:
        path = normalise(star + quote(text, safe=_AS_THEY_ARE)).removeprefix(star)
    except HttpError as error:
        raise ValueError(f"{short(text)}: {error}") from None
    return PathMatcher(path).text


class PathPattern(str):
    """One of ``paths``."""

    __slots__ = ()
    kind: ClassVar[str] = "path as `/v1/*` or `/users/:id`"

    @classmethod
    def read(cls, value: object) -> Self:
        """As `parse_path`."""
        if not isinstance(value, str):
            raise ValueError(f"expected a path such as /v1/*, got {kind_of(value)}")
        return cls(parse_path(value))


class Method(str):
    """One of ``methods``."""

    __slots__ = ()
    kind: ClassVar[str] = "method, as `GET`"

    @classmethod
    def read(cls, value: object) -> Self:
        """A token in upper case: methods are compared with case (RFC 9110 section 9.1)."""
        if not isinstance(value, str):
            raise ValueError(f"expected a method such as GET, got {kind_of(value)}")
        check_token(value, "method")
        if value != value.upper():
            raise ValueError(f"{short(value)} is in lower case; write {value.upper()}")
        if value == "CONNECT":
            raise ValueError("CONNECT is never forwarded: this is no proxy for clients to choose")
        if value not in METHODS:
            raise ValueError(f"{short(value)} is no method that is served: its requests get 501")
        return cls(value)


class Regex(str):
    """A regular expression of Python's `re` that must match a whole value."""

    __slots__ = ()
    kind: ClassVar[str] = "regular expression"

    @classmethod
    def read(cls, value: object) -> Self:
        """One that compiles without a warning; the message says at which character it does not."""
        if not isinstance(value, str):
            raise ValueError(f"expected a regular expression, got {kind_of(value)}")
        if not value:
            raise ValueError('an empty regular expression matches the empty value alone; write ""')
        if len(value) > MAX_REGEX_CHARACTERS:
            raise ValueError(f"it has {len(value)} characters, {MAX_REGEX_CHARACTERS} at most")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                re.compile(value)
            value.encode()
        except re.error as error:
            where = "" if error.pos is None else f", at character {error.pos + 1}"
            raise ValueError(f"{short(value)}: {error.msg}{where}") from None
        except (Warning, OverflowError, RecursionError, UnicodeEncodeError) as error:
            raise ValueError(f"{short(value)}: {error}") from None
        return cls(value)


class RegexFields(ConfigStruct, frozen=True, kw_only=True):
    """A value that is described."""

    regex: Annotated[Regex, doc("Must match a whole value; syntax of Python's `re`")]


class ValueMatch(TextOrFields):
    """What a header, query parameter or cookie must be: one of ``values``, or a ``regex``.

    With neither it must only be there.
    """

    kind: ClassVar[str] = "text, list of texts, `true` (it must be there) or `{regex: ...}`"
    fields: ClassVar[type[Struct]] = RegexFields
    __slots__ = ("regex", "values")

    def __init__(self, values: tuple[str, ...] = (), regex: str = "") -> None:
        self.values = values
        self.regex = regex

    @classmethod
    def read(cls, value: object) -> Self:
        """ValueError where it is none of the four; msgspec.ValidationError for a bad mapping."""
        if value is True:
            return cls()
        if isinstance(value, dict):
            return cls(regex=str(msgspec.convert(value, RegexFields, dec_hook=decode_hook).regex))
        texts = value if isinstance(value, list) else [value]
        if not texts:
            raise ValueError("no value would match; write one, or true for any")
        for text in texts:
            if isinstance(text, int | float) and not isinstance(text, bool):
                raise ValueError(f'{text} is a number here; write "{text}", in quotes')
            if not isinstance(text, str):
                raise ValueError(f"expected text, true or {{regex: ...}}, got {kind_of(text)}")
            _check_value(text)
        return cls(tuple(dict.fromkeys(map(str, texts))))

    def plan(self, name: str) -> FieldMatch:
        """As workers get it."""
        return FieldMatch(name=name, values=self.values, regex=self.regex)


def _check_value(text: str) -> None:
    if not text.isprintable():
        raise ValueError(f"{short(text)} holds what no value of a request has")
    if len(text) > MAX_VALUE_CHARACTERS:
        raise ValueError(f"the value has {len(text)} characters, {MAX_VALUE_CHARACTERS} at most")


class HeaderMatches(NameMap[ValueMatch]):
    """Header fields that a request must have."""

    kind: ClassVar[str] = "mapping by name of the field"
    value: ClassVar[Any] = ValueMatch


class QueryMatches(NameMap[ValueMatch]):
    """Query parameters that a request must have."""

    kind: ClassVar[str] = "mapping by name of the parameter"
    value: ClassVar[Any] = ValueMatch

    @classmethod
    def check_name(cls, name: str) -> None:
        """Printable text."""
        if not name or not name.isprintable():
            raise ValueError(f"{short(name)} is no name of a parameter")

    @classmethod
    def same(cls, name: str) -> str:
        """Their case counts."""
        return name


class CookieMatches(NameMap[ValueMatch]):
    """Cookies that a request must have."""

    kind: ClassVar[str] = "mapping by name of the cookie"
    value: ClassVar[Any] = ValueMatch

    @classmethod
    def check_name(cls, name: str) -> None:
        """A token (RFC 6265 section 4.1.1)."""
        check_token(name, "name of a cookie")

    @classmethod
    def same(cls, name: str) -> str:
        """Their case counts."""
        return name
