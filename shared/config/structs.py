"""The config file as typed structs: what keys there are, what they mean, their defaults.

The descriptions are the reference (`docs/config.md` is made from them). ``not_yet`` names keys,
and ``not_yet_values`` values, that are part of the format and that this version refuses by name
(design section 4), so that a setting is never silently without effect.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal, Self

import msgspec
from msgspec import Meta, Struct, field
from msgspec.structs import force_setattr

from shared.config.base import ConfigStruct, doc
from shared.config.domains import Domain
from shared.config.logs import Log
from shared.config.scalars import (
    DialHost,
    IpText,
    ListenAddress,
    NetworkText,
    PortEntry,
    PositiveSeconds,
    RouteName,
    Source,
    TextOrFields,
    TlvType,
    TlvValue,
    Version,
    decode_hook,
)
from shared.config.security import LIMITS, RouteSecurity, Security
from shared.config.timeouts import RouteTimeouts, Timeouts
from shared.config.tls import MAX_ALPN_NAMES, AlpnName, Tls, TlsVersion, UpstreamTls
from shared.units import Address, kind_of, parse_address

KeepAlive = Literal["standard", "extended", "immortal"]
TlvName = Literal["authority", "alpn", "ssl", "unique_id", "crc32c", "received"]
ProxyVersion = Literal["v1", "v2"]
MAX_WORKERS: Final = 1024  # as many processes on one machine help nobody
MAX_WEIGHT: Final = 256  # as HAProxy's `weight`


class Admin(ConfigStruct, frozen=True, kw_only=True):
    """Metrics, health and JSON. `admin: null` turns it off."""

    plain: ClassVar[tuple[str, ...]] = ("listen",)
    listen: Annotated[
        ListenAddress | None,
        doc("`ip:port`, `[v6]:port` or `unix:/path`; null turns the admin listener off"),
    ] = ListenAddress("127.0.0.1:9901")

    @property
    def address(self) -> Address | None:
        """The parts of ``listen``; None where the admin listener is off."""
        return None if self.listen is None else parse_address(self.listen)


class ProxyProtocol(ConfigStruct, frozen=True, kw_only=True):
    """What is believed of a PROXY header that a connection begins with."""

    plain: ClassVar[tuple[str, ...]] = ("header_timeout",)
    trusted: Annotated[list[Source], doc("Who may send a header; `[]` means that none is read")] = (
        field(default_factory=list)
    )
    versions: Annotated[
        list[ProxyVersion], Meta(min_length=1), doc("Versions that are accepted")
    ] = field(default_factory=lambda: ["v1", "v2"])
    required: Annotated[
        bool, doc("false: a trusted source may also come without a header (a guess; see below)")
    ] = True
    header_timeout: Annotated[
        PositiveSeconds, doc("From the accept until the whole header is here")
    ] = PositiveSeconds(5)
    untrusted: Annotated[
        Literal["reject", "ignore", "close"],
        doc(
            "A header from anyone else: `reject` closes, `ignore` passes it on as payload; "
            "`close`: nobody but the trusted may connect at all"
        ),
    ] = "reject"
    local: Annotated[
        Literal["serve", "close"], doc("A LOCAL header, which is a balancer's own probe")
    ] = "serve"


class ProxyProtocolOverride(ConfigStruct, frozen=True, kw_only=True):
    """As `proxy_protocol`, for the ports of one entry; what is not written stays global."""

    plain: ClassVar[tuple[str, ...]] = ("header_timeout",)
    trusted: Annotated[list[Source] | None, doc("See `proxy_protocol`")] = None
    versions: Annotated[
        Annotated[list[ProxyVersion], Meta(min_length=1)] | None, doc("See `proxy_protocol`")
    ] = None
    required: Annotated[bool | None, doc("See `proxy_protocol`")] = None
    header_timeout: Annotated[PositiveSeconds | None, doc("See `proxy_protocol`")] = None
    untrusted: Annotated[
        Literal["reject", "ignore", "close"] | None, doc("See `proxy_protocol`")
    ] = None
    local: Annotated[Literal["serve", "close"] | None, doc("See `proxy_protocol`")] = None


class ListenerOverride(ConfigStruct, frozen=True, kw_only=True):
    """Settings of single ports, over the global ones."""

    plain: ClassVar[tuple[str, ...]] = ("ports", "listen")
    ports: Annotated[list[PortEntry], Meta(min_length=1), doc("The ports that this is for")]
    listen: Annotated[
        Annotated[list[IpText], Meta(min_length=1)] | None,
        doc("IP addresses to bind these ports on, in place of the global `listen`"),
    ] = None
    proxy_protocol: Annotated[
        ProxyProtocolOverride, doc("Over the global `proxy_protocol`, key by key")
    ] = ProxyProtocolOverride()


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


class Match(ConfigStruct, frozen=True, kw_only=True):
    """Which connections a route is for; every criterion that is given must hold."""

    plain: ClassVar[tuple[str, ...]] = ("ports", "domains", "client_ips", "tls_versions", "alpn")
    not_yet: ClassVar[frozenset[str]] = frozenset(
        {"paths", "methods", "headers", "query", "cookies"}
    )
    not_yet_values: ClassVar[dict[str, frozenset[str]]] = {"protocol": frozenset({"http"})}
    ports: Annotated[
        list[PortEntry],
        Meta(min_length=1),
        doc("Ports, ranges and Unix sockets to serve (`listen` does not apply to a Unix socket)"),
    ]
    domains: Annotated[
        list[Domain],
        doc("The name that a TLS client asks for (SNI); `*`: one label or more. `[]`: any or none"),
    ] = field(default_factory=list)
    client_ips: Annotated[
        list[NetworkText], doc("The client address must lie in one of these; `[]`: anyone")
    ] = field(default_factory=list)
    tls: Annotated[bool | None, doc("true: TLS clients only; false: others only; null: any")] = None
    tls_versions: Annotated[
        list[TlsVersion], doc("The ClientHello must offer one of these; `[]`: any")
    ] = field(default_factory=list)
    alpn: Annotated[
        list[AlpnName],
        Meta(max_length=MAX_ALPN_NAMES),
        doc("The ClientHello must offer one of these protocols; `[]`: any"),
    ] = field(default_factory=list)
    protocol: Annotated[Literal["tcp"] | None, doc("null is `tcp` too")] = None


class Action(ConfigStruct, frozen=True, kw_only=True):
    """What is done with a connection. The timeouts of a route are written here."""

    not_yet: ClassVar[frozenset[str]] = frozenset(
        {
            "headers",
            "rewrite",
            "host",
            "to",
            "status",
            "body",
            "file",
            "handler",
        }
    )
    not_yet_values: ClassVar[dict[str, frozenset[str]]] = {
        "type": frozenset({"redirect", "respond", "handler"}),
        "engine": frozenset({"transparent", "nftables"}),
        "balance": frozenset(
            {"least_connections", "least_time", "random", "hash", "source", "first", "sticky"}
        ),
    }
    elsewhere: ClassVar[dict[str, str]] = {
        "security": "write it in the route, beside `match` and `action`",
        **dict.fromkeys(("certificates", "client_auth", "min_version"), "write it in `tls`"),
        **dict.fromkeys(("domains", "tls_versions", "alpn"), "write it in `match`"),
    }
    type: Annotated[Literal["forward"], doc("Relay to one of `targets`")]
    targets: Annotated[list[Target], Meta(min_length=1), doc("Where to dial, by weight")]
    balance: Annotated[Literal["round_robin"], doc("Which target is tried first")] = "round_robin"
    send_proxy: Annotated[
        ProxyVersion | None, doc("Begin the connection to the target with a PROXY header")
    ] = None
    send_proxy_tlvs: Annotated[
        list[TlvName | TlvFields],
        doc(
            "TLVs of that header, v2 only. `unique_id` is the connection's id; `received` passes "
            "on those that came"
        ),
    ] = field(default_factory=list)
    tls: Annotated[
        Tls | None, doc("What is done with TLS of clients; null: bytes pass as they are")
    ] = None
    upstream_tls: Annotated[
        UpstreamTls | None, doc("The target is spoken to over TLS; null: it gets plain bytes")
    ] = None
    engine: Annotated[Literal["userspace"], doc("How bytes are moved")] = "userspace"
    timeouts: Annotated[RouteTimeouts, doc("Over the global `timeouts`")] = RouteTimeouts()
    keep_alive: Annotated[KeepAlive | None, doc("Over the global `keep_alive`")] = None
    half_open: Annotated[bool | None, doc("Over the global `half_open`")] = None

    def __post_init__(self) -> None:
        """Encrypting again is TLS to the target with all its defaults."""
        super().__post_init__()
        reencrypts = self.tls is not None and self.tls.mode == "terminate-and-reencrypt"
        if reencrypts and self.upstream_tls is None:
            force_setattr(self, "upstream_tls", UpstreamTls())


class Route(ConfigStruct, frozen=True, kw_only=True):
    """One route: a match and an action."""

    plain: ClassVar[tuple[str, ...]] = ("name",)
    not_yet: ClassVar[frozenset[str]] = frozenset({"http"})
    elsewhere: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("timeouts", "keep_alive", "half_open", "targets"), "write it in `action`"),
        **dict.fromkeys(
            ("ports", "domains", "client_ips", "tls_versions", "alpn"), "write it in `match`"
        ),
        **dict.fromkeys(("upstream_tls", "certificates"), "write it in `action`"),
        "tls": "write it in `action`, or in `match` for who it is",
        **dict.fromkeys(("allow", "block", "identities", *LIMITS), "write it in `security`"),
    }
    name: Annotated[RouteName, doc("Unique; in logs and counters. A route is known by it")]
    enabled: Annotated[bool, doc("false: as if the route were not written")] = True
    priority: Annotated[
        Annotated[int, Meta(ge=-1_000_000, le=1_000_000)], doc("The higher wins")
    ] = 0
    tags: Annotated[list[str], doc("Words of your own")] = field(default_factory=list)
    description: Annotated[str, doc("For the reader")] = ""
    match: Annotated[Match, doc("Which connections")]
    security: Annotated[
        RouteSecurity, doc("Who may use it, and how much; never decides which route wins")
    ] = RouteSecurity()
    action: Annotated[Action, doc("What to do with them")]


class Config(ConfigStruct, frozen=True, kw_only=True):
    """The whole file. Only `routes` is needed."""

    plain: ClassVar[tuple[str, ...]] = ("listen", "dns_refresh")
    elsewhere: ClassVar[dict[str, str]] = dict.fromkeys(
        ("allow", "block", *LIMITS), "write it in `security`"
    )
    not_yet: ClassVar[frozenset[str]] = frozenset({"include", "http", "tests"})
    version: Annotated[Version, doc("Of this format")] = Version(1)
    listen: Annotated[
        list[IpText], Meta(min_length=1), doc("Every port of a route is bound on each of these")
    ] = field(default_factory=lambda: [IpText("0.0.0.0"), IpText("::")])
    workers: Annotated[
        Literal["auto"] | Annotated[int, Meta(ge=1, le=MAX_WORKERS)],
        doc("Processes; `auto`: the CPUs this process may use. `--workers` wins"),
    ] = "auto"
    max_workers: Annotated[
        Literal["auto"] | Annotated[int, Meta(ge=1, le=MAX_WORKERS)],
        doc("Room for more workers without a restart; `auto`: max(2 x workers, CPUs)"),
    ] = "auto"
    admin: Annotated[Admin | None, doc("The admin listener; null turns it off")] = Admin()
    log: Annotated[Log, doc("The logs")] = Log()
    proxy_protocol: Annotated[ProxyProtocol, doc("PROXY headers that come in")] = ProxyProtocol()
    listeners: Annotated[list[ListenerOverride], doc("Settings of single ports")] = field(
        default_factory=list
    )
    timeouts: Annotated[Timeouts, doc("Global timeouts")] = Timeouts()
    keep_alive: Annotated[
        KeepAlive,
        doc("`extended`: `idle` times 6; `immortal`: no idle timeout. All send TCP probes"),
    ] = "standard"
    half_open: Annotated[bool, doc("true: an end of one side never ends the other")] = False
    dns_refresh: Annotated[PositiveSeconds, doc("Host names are resolved again this often")] = (
        PositiveSeconds(30)
    )
    security: Annotated[Security, doc("Who may connect at all, and how much")] = Security()
    routes: Annotated[list[Route], doc("What to serve")]
