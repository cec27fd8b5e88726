"""The key `http`, and the keys of an action that only HTTP has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Final, Literal, Self

import msgspec
from msgspec import Meta, field

from shared.config.base import ConfigStruct, doc
from shared.config.domains import parse_name
from shared.config.name_map import ByShape, NameMap, check_token
from shared.config.scalars import NetworkText, PositiveSeconds, Size, decode_hook
from shared.config.tls import FileName
from shared.units import is_ip, kind_of, parse_address, short

# Of one connection or message: each hop writes its own (RFC 9110 section 7.6.1, RFC 9112
# section 6).
_OURS: Final = {
    **dict.fromkeys(
        ("connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade"),
        "it is of one connection, and each hop writes its own",
    ),
    **dict.fromkeys(
        ("content-length", "transfer-encoding"),
        "it says how long the body is, which is not known here",
    ),
    "host": "write `host` in the action",
}
MAX_VALUE_CHARACTERS: Final = 8192
MAX_HEAD_BYTES: Final = 1 << 20
MIN_HEAD_BYTES: Final = 1 << 10
MAX_BODY_BYTES: Final = 1 << 20  # as of a page's file
MAX_FIELDS: Final = 10_000
_PROTOCOL: Final = re.compile(
    r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?:/[!#$%&'*+\-.^_`|~0-9A-Za-z]+)?", re.A
)
_STATUS: Final = re.compile(r"[45][0-9][0-9]", re.ASCII)


def check_field_name(name: str) -> None:
    """ValueError where no rule may write or remove the field, with the reason."""
    check_token(name, "name of a field")
    if why := _OURS.get(name.lower()):
        raise ValueError(f"{name} cannot be set or removed: {why}")


def check_field_value(value: object) -> str:
    """The value of a field, which may hold names in braces."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f'{value} is a number here; write "{value}", in quotes')
    if not isinstance(value, str):
        raise ValueError(f"expected text, got {kind_of(value)}")
    if not value.replace("\t", " ").isprintable():  # RFC 9110 section 5.5
        raise ValueError(f"{short(value)} holds what no field may have, such as the end of a line")
    if len(value) > MAX_VALUE_CHARACTERS:
        raise ValueError(f"the value has {len(value)} characters, {MAX_VALUE_CHARACTERS} at most")
    return value.strip(" \t")


class RuleName(str):
    """The name of a field that a rule may remove."""

    __slots__ = ()
    kind: ClassVar[str] = "name of a field"

    @classmethod
    def read(cls, value: object) -> Self:
        """As `check_field_name`."""
        if not isinstance(value, str):
            raise ValueError(f"expected the name of a field, got {kind_of(value)}")
        check_field_name(value)
        return cls(value)


class FieldValue(str):
    """The value of one field."""

    __slots__ = ()
    kind: ClassVar[str] = "text, `{...}` in it"

    @classmethod
    def read(cls, value: object) -> Self:
        """As `check_field_value`."""
        return cls(check_field_value(value))


class FieldValues:
    """The values of one field that may come several times."""

    kind: ClassVar[str] = "text or list of texts, `{...}` in them"
    __slots__ = ("texts",)

    def __init__(self, texts: tuple[str, ...]) -> None:
        self.texts = texts

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts)

    @classmethod
    def read(cls, value: object) -> Self:
        """One, or a list."""
        texts = value if isinstance(value, list) else [value]
        if not texts:
            raise ValueError("an empty list writes nothing; leave the field out")
        return cls(tuple(map(check_field_value, texts)))


class SetFields(NameMap[FieldValue]):
    """Fields that are written in place of those that came."""

    kind: ClassVar[str] = "mapping by name of the field"
    value: ClassVar[Any] = FieldValue

    @classmethod
    def check_name(cls, name: str) -> None:
        """As `check_field_name`."""
        check_field_name(name)


class AddFields(NameMap[FieldValues]):
    """Fields that are written beside those that came."""

    kind: ClassVar[str] = "mapping by name of the field"
    value: ClassVar[Any] = FieldValues

    @classmethod
    def check_name(cls, name: str) -> None:
        """As `check_field_name`."""
        check_field_name(name)


class FieldRules(ConfigStruct, frozen=True, kw_only=True):
    """What is done to the fields, in this order: remove, set, add."""

    set: Annotated[SetFields, doc("In place of those that came")] = SetFields()
    add: Annotated[AddFields, doc("Beside those that came")] = AddFields()
    remove: Annotated[list[RuleName], doc("Fields that do not pass")] = field(default_factory=list)


class HeaderRules(ConfigStruct, frozen=True, kw_only=True):
    """Of `type: forward`: what is done to the fields of requests and of answers."""

    elsewhere: ClassVar[dict[str, str]] = dict.fromkeys(
        ("set", "add", "remove"), "write it in `request` or in `response`"
    )
    request: Annotated[FieldRules, doc("Of the request, on its way to the target")] = FieldRules()
    response: Annotated[FieldRules, doc("Of the answer, on its way to the client")] = FieldRules()


class Headers(ByShape):
    """``headers`` of an action: rules, or the fields of an answer of our own."""

    kind: ClassVar[str] = "mapping, by the type: `{request, response}`, or names with values"
    shapes: ClassVar[tuple[Any, Any]] = (HeaderRules, AddFields)
    __slots__ = ("fields", "rules")

    def __init__(self, rules: HeaderRules | None = None, fields: AddFields | None = None) -> None:
        self.rules = rules
        self.fields = fields

    @classmethod
    def shape(cls, value: dict[str, Any]) -> Any:
        """An answer's field has no mapping for a value."""
        return HeaderRules if any(isinstance(one, dict) for one in value.values()) else AddFields

    @classmethod
    def read(cls, value: object) -> Self:
        """ValueError where it is no mapping; msgspec.ValidationError for a bad one."""
        if not isinstance(value, dict):
            raise ValueError(f"expected a mapping, got {kind_of(value)}")
        if not value:
            return cls()
        if cls.shape(value) is HeaderRules:
            return cls(rules=msgspec.convert(value, HeaderRules, dec_hook=decode_hook))
        return cls(fields=AddFields.read(value))


class Prefix(str):
    """The beginning of a path."""

    __slots__ = ()
    kind: ClassVar[str] = "path"

    @classmethod
    def read(cls, value: object) -> Self:
        """Begins with a slash; one at the end does not count."""
        if not isinstance(value, str):
            raise ValueError(f"expected a path such as /api, got {kind_of(value)}")
        if not value.startswith("/") or not value.isprintable() or not value.isascii():
            raise ValueError(f"{short(value)} is no path; it begins with /, and is ASCII")
        if wrong := {"?", "#", "*", " ", "\\", "{", "}"}.intersection(value):
            raise ValueError(f"{short(value)}: a prefix has no {min(wrong)}")
        if any(segment in (".", "..") for segment in value.split("/")):
            raise ValueError(f"{short(value)} has a dot segment, which is removed from paths")
        if not value.strip("/"):
            raise ValueError("/ alone changes nothing; leave it out")
        return cls(value.rstrip("/"))


class Rewrite(ConfigStruct, frozen=True, kw_only=True):
    """What the target gets for a path; `{param.NAME}` and matching see the one that came."""

    plain: ClassVar[tuple[str, ...]] = ("strip_prefix", "add_prefix")
    strip_prefix: Annotated[
        Prefix | None, doc("Taken from the beginning of the path, whole segments only")
    ] = None
    add_prefix: Annotated[Prefix | None, doc("Put before the path, after `strip_prefix`")] = None


class HostRule(str):
    """What goes out as Host."""

    __slots__ = ()
    kind: ClassVar[str] = "`preserve`, `target` or a name"

    @classmethod
    def read(cls, value: object) -> Self:
        """A name, an IP address, or either with a port."""
        if not isinstance(value, str):
            raise ValueError(f"expected preserve, target or a name, got {kind_of(value)}")
        if value in ("preserve", "target"):
            return cls(value)
        if is_ip(value):
            return cls(f"[{value}]" if ":" in value else value)
        if ":" in value and not value.startswith("unix:"):
            return cls(str(parse_address(value)))
        return cls(parse_name(value))


class PageFile(FileName):
    """A file that is sent as the body of an answer.

    Its content comes into ``content`` when the config is checked (`supervisor/config_http.py`).
    """

    __slots__ = ("_content",)
    _content: bytes

    @property
    def content(self) -> bytes:
        """The bytes of the file; AttributeError before it was read."""
        return self._content

    def fill(self, content: bytes) -> None:
        """Give it its content."""
        self._content = content


class ErrorPages(NameMap[PageFile]):
    """Files that are sent with answers of our own, by their status."""

    kind: ClassVar[str] = "mapping from status to path"
    name_kind: ClassVar[str] = "status"
    value: ClassVar[Any] = PageFile

    @classmethod
    def check_name(cls, name: str) -> None:
        """A status of an error."""
        if _STATUS.fullmatch(name) is None:
            raise ValueError(f"{short(name)} is no status of an error; they are 400 to 599")


class HeadSize(Size):
    """How large a head may be."""

    kind: ClassVar[str] = "size"

    @classmethod
    def read(cls, value: object) -> Self:
        """1 KiB to 1 MiB: less refuses what browsers send, more is held for each client."""
        size = Size.read(value)
        if not MIN_HEAD_BYTES <= size <= MAX_HEAD_BYTES:
            raise ValueError(f"{short(value)}: a head has 1KiB to 1MiB")
        return cls(size)


class BodyText(str):
    """The body of an answer."""

    __slots__ = ()
    kind: ClassVar[str] = "text"

    @classmethod
    def read(cls, value: object) -> Self:
        """Text of at most MAX_BODY_BYTES in UTF-8."""
        if not isinstance(value, str):
            raise ValueError(f"expected text, got {kind_of(value)}")
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            raise ValueError("the text holds half of a surrogate pair") from None
        if size > MAX_BODY_BYTES:
            raise ValueError(f"the text has {size} bytes, {MAX_BODY_BYTES} at most")
        return cls(value)


class UpgradeName(str):
    """A protocol to which a connection may switch."""

    __slots__ = ()
    kind: ClassVar[str] = "name of a protocol, as `websocket`"

    @classmethod
    def read(cls, value: object) -> Self:
        """In lower case: they are compared without case (RFC 9110 section 7.8)."""
        if not isinstance(value, str):
            raise ValueError(f"expected the name of a protocol, got {kind_of(value)}")
        if _PROTOCOL.fullmatch(value) is None:
            raise ValueError(f"{short(value)} is no name of a protocol; write websocket or such")
        name = value.lower()
        if name.partition("/")[0] in ("h2c", "h2", "http", "tls"):
            raise ValueError(f"{name} is never switched to: it would hide the requests in it")
        return cls(name)


class Maintenance(ConfigStruct, frozen=True, kw_only=True):
    """What clients get, as 503, when no endpoint of the route could be dialled."""

    plain: ClassVar[tuple[str, ...]] = ("retry_after",)
    retry_after: Annotated[PositiveSeconds, doc("Goes out as Retry-After, in whole seconds")] = (
        PositiveSeconds(30)
    )
    file: Annotated[PageFile | None, doc("The body; null: a line of text")] = None


class Http(ConfigStruct, frozen=True, kw_only=True):
    """How HTTP is spoken; a route may override it."""

    plain: ClassVar[tuple[str, ...]] = ("trusted_forwarders", "upgrades", "upstream_idle")
    head_limit: Annotated[
        HeadSize, doc("Of a request's fields, trailers, target: 1 KiB to 1 MiB; beyond: 431, 414")
    ] = HeadSize(32 * 1024)
    field_limit: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_FIELDS)], doc("Lines of fields, of trailers; beyond: 431")
    ] = 100
    body_limit: Annotated[Size, doc("Of a request's body; beyond: 413. 0: none")] = Size(0)
    trusted_forwarders: Annotated[
        list[NetworkText],
        doc("Whose X-Forwarded-*, Forwarded, X-Real-IP and X-Request-ID are believed"),
    ] = field(default_factory=list)
    error_pages: Annotated[
        ErrorPages, doc("Bodies of answers of our own, by status: `{502: sorry.html}`")
    ] = ErrorPages()
    maintenance: Annotated[
        Maintenance | None, doc("The answer when every endpoint's dial failed; null: 502 or 504")
    ] = None
    upgrades: Annotated[
        list[UpgradeName], doc("Protocols that a request may switch to; `[]`: none")
    ] = field(default_factory=lambda: [UpgradeName("websocket")])
    underscores: Annotated[Literal["drop", "pass"], doc("Request fields whose name has a `_`")] = (
        "drop"
    )
    upstream_idle: Annotated[
        PositiveSeconds, doc("For so long a connection to a target is kept for the next request")
    ] = PositiveSeconds(60)


class RouteHttp(ConfigStruct, frozen=True, kw_only=True):
    """As the global `http`, for one route; what is not written stays global."""

    plain: ClassVar[tuple[str, ...]] = Http.plain
    head_limit: Annotated[HeadSize | None, doc("See `http`")] = None
    field_limit: Annotated[Annotated[int, Meta(ge=1, le=MAX_FIELDS)] | None, doc("See `http`")] = (
        None
    )
    body_limit: Annotated[Size | None, doc("See `http`")] = None
    trusted_forwarders: Annotated[list[NetworkText] | None, doc("See `http`")] = None
    error_pages: Annotated[ErrorPages | None, doc("Before the global ones, status by status")] = (
        None
    )
    maintenance: Annotated[Maintenance | None, doc("See `http`")] = None
    upgrades: Annotated[list[UpgradeName] | None, doc("See `http`")] = None
    underscores: Annotated[Literal["drop", "pass"] | None, doc("See `http`")] = None
    upstream_idle: Annotated[PositiveSeconds | None, doc("See `http`")] = None
