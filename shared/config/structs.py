"""The config file as typed structs: what keys there are, what they mean, their defaults.

The descriptions are the reference (`docs/config.md` is made from them). ``not_yet`` names keys,
and ``not_yet_values`` values, that are part of the format and that this version refuses by name
(design section 4), so that a setting is never silently without effect.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal

from msgspec import Meta, field
from msgspec.structs import force_setattr

from shared.config.base import ConfigStruct, doc
from shared.config.domains import Domain
from shared.config.http import (
    BodyText,
    FieldValue,
    Headers,
    HostRule,
    Http,
    PageFile,
    Rewrite,
    RouteHttp,
)
from shared.config.http_match import (
    CookieMatches,
    HeaderMatches,
    Method,
    PathPattern,
    QueryMatches,
)
from shared.config.logs import Log
from shared.config.scalars import (
    IpText,
    ListenAddress,
    NetworkText,
    PortEntry,
    PositiveSeconds,
    RouteName,
    Source,
    Version,
)
from shared.config.security import LIMITS, RouteSecurity, Security
from shared.config.targets import Target, TlvFields
from shared.config.timeouts import RouteTimeouts, Timeouts
from shared.config.tls import MAX_ALPN_NAMES, AlpnName, Tls, TlsVersion, UpstreamTls
from shared.units import Address, parse_address

KeepAlive = Literal["standard", "extended", "immortal"]
TlvName = Literal["authority", "alpn", "ssl", "unique_id", "crc32c", "received"]
ProxyVersion = Literal["v1", "v2"]
MAX_WORKERS: Final = 1024  # as many processes on one machine help nobody


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


class Match(ConfigStruct, frozen=True, kw_only=True):
    """Which connections a route is for; every criterion that is given must hold."""

    plain: ClassVar[tuple[str, ...]] = (
        "ports", "domains", "client_ips", "tls_versions", "alpn", "paths", "methods",
    )  # fmt: skip
    ports: Annotated[
        list[PortEntry],
        Meta(min_length=1),
        doc("Ports, ranges and Unix sockets to serve (`listen` does not apply to a Unix socket)"),
    ]
    domains: Annotated[
        list[Domain],
        doc(
            "The name that a client asks for, by SNI or by Host; `*`: one label or more. "
            "`[]`: any or none"
        ),
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
    paths: Annotated[
        list[PathPattern],
        doc("The path must match one; `*`: anything, `:name`: one segment. `[]`: any"),
    ] = field(default_factory=list)
    methods: Annotated[list[Method], doc("The method must be one of these; `[]`: any")] = field(
        default_factory=list
    )
    headers: Annotated[HeaderMatches, doc("Header fields that must be there")] = HeaderMatches()
    query: Annotated[QueryMatches, doc("Parameters of the query, likewise")] = QueryMatches()
    cookies: Annotated[CookieMatches, doc("Cookies, likewise")] = CookieMatches()
    protocol: Annotated[
        Literal["tcp", "http"] | None,
        doc("null: `http` where a key needs it, or domains are without TLS; else `tcp`"),
    ] = None


class Action(ConfigStruct, frozen=True, kw_only=True):
    """What is done with a connection or a request. The timeouts of a route are written here."""

    plain: ClassVar[tuple[str, ...]] = ("to", "host", "body")
    needed: ClassVar[dict[str, str]] = {"forward": "targets", "redirect": "to"}
    not_yet: ClassVar[frozenset[str]] = frozenset({"handler"})
    not_yet_values: ClassVar[dict[str, frozenset[str]]] = {
        "type": frozenset({"handler"}),
        "engine": frozenset({"transparent", "nftables"}),
        "balance": frozenset(
            {"least_connections", "least_time", "random", "hash", "source", "first", "sticky"}
        ),
    }
    elsewhere: ClassVar[dict[str, str]] = {
        "security": "write it in the route, beside `match` and `action`",
        **dict.fromkeys(("certificates", "client_auth", "min_version"), "write it in `tls`"),
        **dict.fromkeys(("domains", "tls_versions", "alpn"), "write it in `match`"),
        **dict.fromkeys(("paths", "methods", "query", "cookies"), "write it in `match`"),
        **dict.fromkeys(("strip_prefix", "add_prefix"), "write it in `rewrite`"),
        **dict.fromkeys(("http", "error_pages"), "write `http` beside `match` and `action`"),
    }
    type: Annotated[
        Literal["forward", "redirect", "respond"],
        doc("To one of `targets`; or HTTP only: an answer of our own, to go elsewhere or as it is"),
    ]
    targets: Annotated[
        list[Target], Meta(min_length=1), doc("Where to dial, by weight; `forward` needs it")
    ] = field(default_factory=list)
    balance: Annotated[Literal["round_robin"], doc("Which target is tried first")] = "round_robin"
    send_proxy: Annotated[
        ProxyVersion | None, doc("Begin the connection to the target with a PROXY header")
    ] = None
    send_proxy_tlvs: Annotated[
        list[TlvName | TlvFields],
        doc(
            "TLVs of that header, v2 only. `unique_id` is the connection's id; `received` passes "
            "on those that came, of types that no other entry names"
        ),
    ] = field(default_factory=list)
    tls: Annotated[
        Tls | None, doc("What is done with TLS of clients; null: bytes pass as they are")
    ] = None
    upstream_tls: Annotated[
        UpstreamTls | None, doc("The target is spoken to over TLS; null: it gets plain bytes")
    ] = None
    headers: Annotated[
        Headers | None,
        doc(
            "`forward`: rules for the fields of requests and answers; `redirect` and `respond`: "
            "the answer's own, `{X-A: text}`"
        ),
    ] = None
    rewrite: Annotated[Rewrite | None, doc("The path that the target gets")] = None
    host: Annotated[
        HostRule | None,
        doc(
            "The Host that the target gets: the client's, the target's own, or this; "
            "null is `preserve`"
        ),
    ] = None
    to: Annotated[
        FieldValue | None, doc("Where a redirect leads: a URL or a path, `{...}` in it")
    ] = None
    status: Annotated[
        Annotated[int, Meta(ge=200, le=599)] | None,
        doc("Of the answer; null: 301 for `redirect`, 200 for `respond`"),
    ] = None
    body: Annotated[BodyText | None, doc("What `respond` sends")] = None
    file: Annotated[PageFile | None, doc("The same from a file, 1 MiB at most")] = None
    engine: Annotated[Literal["userspace"], doc("How bytes are moved")] = "userspace"
    timeouts: Annotated[RouteTimeouts, doc("Over the global `timeouts`")] = RouteTimeouts()
    keep_alive: Annotated[KeepAlive | None, doc("Over the global `keep_alive`")] = None
    half_open: Annotated[bool | None, doc("Over the global `half_open`")] = None

    def __post_init__(self) -> None:
        """Encrypting again is TLS to the target with all its defaults."""
        super().__post_init__()
        needed = self.needed.get(self.type)
        if needed and not getattr(self, needed):
            raise ValueError(f"missing field '{needed}'")
        reencrypts = self.tls is not None and self.tls.mode == "terminate-and-reencrypt"
        if reencrypts and self.upstream_tls is None:
            force_setattr(self, "upstream_tls", UpstreamTls())


class Route(ConfigStruct, frozen=True, kw_only=True):
    """One route: a match and an action."""

    plain: ClassVar[tuple[str, ...]] = ("name",)
    elsewhere: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("timeouts", "keep_alive", "half_open", "targets"), "write it in `action`"),
        **dict.fromkeys(
            (
                "ports",
                "domains",
                "client_ips",
                "tls_versions",
                "alpn",
                "paths",
                "methods",
                "query",
                "cookies",
                "protocol",
            ),
            "write it in `match`",
        ),
        **dict.fromkeys(("rewrite", "host", "to", "status", "body"), "write it in `action`"),
        **dict.fromkeys(("upstream_tls", "certificates"), "write it in `action`"),
        "tls": "write it in `action`, or in `match` for who it is",
        **dict.fromkeys(
            ("allow", "block", "identities", "auth", *LIMITS), "write it in `security`"
        ),
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
    http: Annotated[RouteHttp | None, doc("Over the global `http`")] = None


class Config(ConfigStruct, frozen=True, kw_only=True):
    """The whole file. Only `routes` is needed."""

    plain: ClassVar[tuple[str, ...]] = ("listen", "dns_refresh")
    elsewhere: ClassVar[dict[str, str]] = dict.fromkeys(
        ("allow", "block", *LIMITS), "write it in `security`"
    )
    not_yet: ClassVar[frozenset[str]] = frozenset({"include", "tests"})
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
    http: Annotated[Http, doc("How HTTP is spoken")] = Http()
    routes: Annotated[list[Route], doc("What to serve")]
