"""The key `log`: the operational log and the access log."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal, Self

from msgspec import Meta

from shared.access_format import compile_template
from shared.config.base import ConfigStruct, doc
from shared.config.scalars import Seconds
from shared.units import kind_of, short

NOT_YET_FORMATS: Final = frozenset({"combined", "ecs"})  # of HTTP requests


class AccessFormat(str):
    """How a line of the access log is written."""

    __slots__ = ()
    kind: ClassVar[str] = "`json` or a template"

    @classmethod
    def read(cls, value: object) -> Self:
        """``json``, or any text with fields in braces, ``"{client} {route} {end}"``."""
        if not isinstance(value, str):
            raise ValueError(f"expected json or a template, got {kind_of(value)}")
        if value == "json":
            return cls(value)
        if value in NOT_YET_FORMATS:
            raise ValueError(f"`{value}` is not available yet")
        if "{" not in value:
            raise ValueError(
                f"unknown format {short(value)}: json, or a template such as {{client}} {{end}}"
            )
        compile_template(value)
        return cls(value)


class AccessLog(ConfigStruct, frozen=True, kw_only=True):
    """One line for each connection that has ended. `access: null` writes none."""

    plain: ClassVar[tuple[str, ...]] = ("format", "interval")
    not_yet_values: ClassVar[dict[str, frozenset[str]]] = {"format": NOT_YET_FORMATS}
    file: Annotated[
        Annotated[str, Meta(min_length=1)],
        doc("Path of the file; a relative one starts at the config file's directory"),
    ]
    format: Annotated[
        AccessFormat, doc("`json`: one object a line; else text with fields, `{client} {end}`")
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
        doc("Path of the log file; null: standard error. USR1 opens it again"),
    ] = None
    access: Annotated[AccessLog | None, doc("A line for each connection; null: none")] = None
