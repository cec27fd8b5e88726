"""The key `log`: the operational log and the access log."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from msgspec import Meta

from shared.access_format import NAMED_FORMATS, compile_template
from shared.config.base import ConfigStruct, doc
from shared.config.scalars import Seconds
from shared.units import kind_of, short


class AccessFormat(str):
    """How a line of the access log is written."""

    __slots__ = ()
    kind: ClassVar[str] = "`json`, `combined`, `ecs` or a template"

    @classmethod
    def read(cls, value: object) -> Self:
        """A named format, or any text with fields in braces, ``"{client} {route} {end}"``."""
        if not isinstance(value, str):
            known = ", ".join(NAMED_FORMATS)
            raise ValueError(f"expected {known} or a template, got {kind_of(value)}")
        if value in NAMED_FORMATS:
            return cls(value)
        if "{" not in value:
            known = ", ".join(NAMED_FORMATS)
            raise ValueError(
                f"unknown format {short(value)}: {known}, or a template such as {{client}} {{end}}"
            )
        compile_template(value)
        return cls(value)


class AccessLog(ConfigStruct, frozen=True, kw_only=True):
    """One line for each connection that has ended, and for each HTTP request in place of its
    connection. `access: null` writes none.
    """

    plain: ClassVar[tuple[str, ...]] = ("format", "interval")
    file: Annotated[
        Annotated[str, Meta(min_length=1)],
        doc("Path of the file; a relative one starts at the config file's directory"),
    ]
    format: Annotated[
        AccessFormat,
        doc(
            "`json`: one object a line; `combined`: as Apache and nginx have it; `ecs`: Elastic "
            "Common Schema 8; else text with fields, `{client} {end}`"
        ),
    ] = AccessFormat("json")
    connect: Annotated[bool, doc("One more line when the target is connected")] = False
    interval: Annotated[
        Seconds, doc("One more line each time that a connection was open for so long; 0: none")
    ] = Seconds(0)


class Log(ConfigStruct, frozen=True, kw_only=True):
    """The operational log, and the access log below it."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], doc("The least level that is written")
    ] = "info"
    format: Annotated[
        Literal["auto", "console", "json", "journald"],
        doc("`auto`: `console` on a terminal, `journald` where the journal reads, else `json`"),
    ] = "auto"
    file: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        doc(
            "Path of the log file; a relative one starts at the config file's directory; null: "
            "standard error. USR1 opens it again"
        ),
    ] = None
    access: Annotated[
        AccessLog | None, doc("A line for each connection or request; null: none")
    ] = None
