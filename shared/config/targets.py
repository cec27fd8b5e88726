"""Where an action dials, and what it says there first: targets and TLVs."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal, Self

import msgspec
from msgspec import Meta, Struct

from shared.config.base import ConfigStruct, doc
from shared.config.scalars import DialHost, TextOrFields, TlvType, TlvValue, decode_hook
from shared.units import Address, kind_of, parse_address

MAX_WEIGHT: Final = 256  # as HAProxy's `weight`


class TargetFields(ConfigStruct, frozen=True, kw_only=True):
    """A target as a mapping."""

    host: Annotated[DialHost, doc("IP address, host name or `unix:/path`")]
    port: Annotated[
        Literal["preserve"] | Annotated[int, Meta(ge=1, le=65535)] | None,
        doc("`preserve`: the port that the client came in on. Not with `unix:/path`"),
    ] = None
    weight: Annotated[
        Annotated[int, Meta(ge=0, le=MAX_WEIGHT)],
        doc("Share of the connections beside the other targets; 0 takes no new ones"),
    ] = 1


class Target(TextOrFields):
    """One target: ``"host:port"``, ``"unix:/path"`` or `TargetFields`."""

    kind: ClassVar[str] = '"host:port", "unix:/path" or a mapping'
    fields: ClassVar[type[Struct]] = TargetFields
    __slots__ = ("address", "preserve", "weight")

    def __init__(self, address: Address, weight: int = 1, preserve: bool = False) -> None:
        """``preserve``: the port is the one that the client came in on, ``address.port`` is 0."""
        self.address = address
        self.weight = weight
        self.preserve = preserve

    @property
    def name(self) -> str:
        """The label in counters and logs, ``app2:9000``."""
        if self.preserve:
            return str(self.address).removesuffix("0") + "preserve"
        return str(self.address)

    @classmethod
    def read(cls, value: object) -> Self:
        """ValueError where it is neither; msgspec.ValidationError for a bad mapping."""
        if isinstance(value, str):
            return cls(parse_address(value))
        if not isinstance(value, dict):
            raise ValueError(f'expected "host:port" or a mapping, got {kind_of(value)}')
        fields = msgspec.convert(value, TargetFields, dec_hook=decode_hook)
        if fields.host.startswith("unix:"):
            if fields.port is not None:
                raise ValueError("a Unix socket has no port")
            return cls(parse_address(fields.host), fields.weight)
        if fields.port is None:
            raise ValueError(f'`port` is missing: a number, or "preserve" for {fields.host!r}')
        if fields.port == "preserve":
            return cls(Address(str(fields.host)), fields.weight, preserve=True)
        return cls(Address(str(fields.host), fields.port), fields.weight)


class TlvFields(ConfigStruct, frozen=True, kw_only=True):
    """A TLV with a type and value of one's own."""

    type: Annotated[TlvType, doc("0xE0 to 0xEF are for private use")]
    value: Annotated[TlvValue, doc("The bytes to send")]
