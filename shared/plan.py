"""What a worker gets of a config: everything resolved, in base units, nothing left to look up.

The supervisor compiles a checked config into a Plan (`supervisor/compile.py`) and sends it with
`Prepare` and `PrepareRoutes`; a worker reads no file and resolves no name. Durations are seconds
as float, sizes bytes, networks text as `ipaddress` prints them. Host names stay names: their
addresses come apart from the plan (`Endpoints`), since they change without a reload.

``gc=False``: plans have no cycles, and thousands of routes that the garbage collector need not
walk make its pauses half as long.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

ProxyVersion = Literal["v1", "v2"]


class Timeouts(Struct, frozen=True, kw_only=True, gc=False):
    """Seconds; a route's own values are already laid over the global ones.

    0 means none for idle, lifetime and response, at once for half_closed and drain. ``idle`` has
    the keep_alive mode worked in (extended: times 6; immortal: 0).
    """

    connect: float = 30.0
    initial_data: float = 60.0
    tls_handshake: float = 10.0
    idle: float = 14400.0
    half_closed: float = 30.0
    lifetime: float = 0.0
    drain: float = 30.0
    request_head: float = 30.0
    http_keep_alive: float = 75.0
    response: float = 0.0


class ProxyPolicy(Struct, frozen=True, kw_only=True, gc=False):
    """Which PROXY headers a listener believes. ``trusted`` empty: none is read."""

    trusted: tuple[str, ...] = ()  # networks, "10.0.0.0/8"
    trusted_names: tuple[str, ...] = ()  # host names; their addresses come with Endpoints
    versions: tuple[ProxyVersion, ...] = ("v1", "v2")
    required: bool = True
    header_timeout: float = 5.0
    untrusted: Literal["reject", "ignore", "close"] = "reject"
    local: Literal["serve", "close"] = "serve"


class ListenerPlan(Struct, frozen=True, kw_only=True, gc=False):
    """One bound address. ``id`` stays the same for as long as this address is served."""

    id: int
    name: str  # "127.0.0.1:8080", "[::1]:8080" or "unix:/path": the label in counters and logs
    host: str  # IP address, "" for a Unix socket
    port: int  # 0 for a Unix socket
    path: str = ""  # of a Unix socket
    sockets: int = 1  # held listeners: one per slot, or 1 that all workers share
    proxy: ProxyPolicy = ProxyPolicy()


class TargetPlan(Struct, frozen=True, kw_only=True, gc=False):
    """One configured target. Exactly one of ``host`` and ``path`` is set."""

    name: str  # as configured, "app2:9000": the label in counters and logs
    host: str = ""  # IP address or host name
    port: int = 0  # 0: preserve, the port that the client came in on
    path: str = ""  # of a Unix socket
    weight: int = 1  # 0 takes no new connections


class AddressSet(Struct, frozen=True, kw_only=True, gc=False):
    """IP addresses as sorted ranges that neither touch nor overlap, packed; both ends belong.

    ``v4_*``: native unsigned 32-bit numbers. ``v6_*``: 16 bytes each, network order. The place in
    ``*_last`` is that in ``*_first``. `shared/address_set.py` makes and reads them.
    """

    v4_first: bytes = b""
    v4_last: bytes = b""
    v6_first: bytes = b""
    v6_last: bytes = b""


class RatePlan(Struct, frozen=True, kw_only=True, gc=False):
    """At most ``connections`` within any ``period_s`` seconds."""

    connections: int
    period_s: float


class IdentityPlan(Struct, frozen=True, kw_only=True, gc=False):
    """One rule of the second phase: who it is for, and from where they may come.

    ``match``: (field, glob) pairs that must all hold; the fields are sni, cn, san, subject, issuer,
    fingerprint and user. ``allow`` and ``block`` as in SecurityPlan.
    """

    match: tuple[tuple[str, str], ...]
    allow: int | None = None
    block: int | None = None


class SecurityPlan(Struct, frozen=True, kw_only=True, gc=False):
    """Who may connect, and how often. Limits hold over all workers; 0 means none.

    ``allow`` and ``block`` are places in `Plan.address_sets`; None: there is no such list.
    """

    allow: int | None = None
    block: int | None = None
    max_connections: int = 0
    max_connections_per_ip: int = 0
    connection_rate_per_ip: RatePlan | None = None
    identities: tuple[IdentityPlan, ...] = ()  # the first that matches rules; empty: not asked


class AccessPlan(Struct, frozen=True, kw_only=True, gc=False):
    """The access log. ``format`` is ``json``, or a template as `shared/access_format.py` has it.

    A line at each connection's end; with ``connect`` one more when the target is connected, with
    ``interval_s`` above 0 one more each time that a connection has been open for so long.
    """

    file: str
    format: str = "json"
    connect: bool = False
    interval_s: float = 0.0


class TlvPlan(Struct, frozen=True, kw_only=True, gc=False):
    """One TLV to send with PROXY v2: a well-known ``name``, or ``type`` with ``value``."""

    name: str = ""  # authority, alpn, ssl, unique_id, crc32c or received
    type: int = 0
    value: bytes = b""


class CertificatePlan(Struct, frozen=True, kw_only=True, gc=False):
    """A certificate and its key, checked by the supervisor. Its repr never shows the key."""

    name: str  # the path as configured: the label in counters and messages
    names: tuple[str, ...]  # DNS names it is for, lower case A-labels, "*.example.com" too
    chain: bytes  # PEM, the leaf first
    key: bytes  # PEM, PKCS #8, not encrypted
    key_algorithm: str  # as in the SSL TLV: "RSA2048", "EC256", "EC384", "EC521", "ED25519"
    signature_algorithm: str  # of the leaf, as in the SSL TLV: "SHA256"
    digest: str  # equal exactly for equal chain and key
    expires: float = 0.0  # when the leaf is no longer valid, seconds since 1970

    def __repr__(self) -> str:
        return f"CertificatePlan({self.name!r})"


class AuthorityPlan(Struct, frozen=True, kw_only=True, gc=False):
    """Certificates of authorities, PEM. ``digest``: equal exactly for equal ones."""

    name: str  # the path as configured; "system" for the system's own
    pem: bytes
    digest: str

    def __repr__(self) -> str:
        return f"AuthorityPlan({self.name!r})"


class TlsPlan(Struct, frozen=True, kw_only=True, gc=False):
    """How a route ends TLS of its clients. Numbers are places in the plan's lists.

    ``policy``: equal exactly for routes under which a session may be resumed that began under
    the other: verify mode and the digest of the client CA (design section 8). A certificate is not
    part of it, or its renewal would end resumption.
    """

    certificates: tuple[int, ...]  # of Plan.certificates; the first is the default
    min_version: Literal["1.2", "1.3"] = "1.2"
    ciphers: str | None = None  # of TLS 1.2, as OpenSSL writes them
    alpn: tuple[str, ...] = ()
    client_auth: Literal["none", "optional", "required"] = "none"
    client_ca: int | None = None  # of Plan.authorities
    policy: str = ""


class UpstreamTlsPlan(Struct, frozen=True, kw_only=True, gc=False):
    """How a route speaks TLS to its targets."""

    verify: bool = True
    ca: int | None = None  # of Plan.authorities; None only where nothing is verified
    server_name: str | None = None  # None: the target's host
    certificate: int | None = None  # of Plan.certificates: ours, for the target
    alpn: tuple[str, ...] = ()


class FieldMatch(Struct, frozen=True, kw_only=True, gc=False):
    """A header, query parameter or cookie that a request must have.

    One of its values must be among ``values``, or match ``regex`` as a whole; with neither it must
    only be there. ``name`` of a header is in lower case.
    """

    name: str
    values: tuple[str, ...] = ()
    regex: str = ""


class HttpMatch(Struct, frozen=True, kw_only=True, gc=False):
    """What of a request decides; every criterion that is given must hold."""

    paths: tuple[str, ...] = ()  # "/a", "/v1/*", "/users/:id/x"; one of them
    methods: tuple[str, ...] = ()  # one of them
    headers: tuple[FieldMatch, ...] = ()
    query: tuple[FieldMatch, ...] = ()
    cookies: tuple[FieldMatch, ...] = ()


class FieldRules(Struct, frozen=True, kw_only=True, gc=False):
    """What is done to the fields of a head, in this order: remove, set, add.

    (name, template) pairs, names as configured; templates are texts of `shared/http/templates.py`.
    """

    remove: tuple[str, ...] = ()
    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()


class AnswerPlan(Struct, frozen=True, kw_only=True, gc=False):
    """An answer of our own. ``headers`` and ``location`` are templates; ``body`` is sent as it is.

    ``location``: of a redirect; "" else. ``sent_body``: on the way to a worker, the digest of a
    long body, which goes there once (PrepareBodies); "" else.
    """

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    location: str = ""
    sent_body: str = ""


class AuthPlan(Struct, frozen=True, kw_only=True, gc=False):
    """Who may use a route, by Basic authentication (RFC 7617). Its repr shows no hash.

    ``allow_plain`` False: asked for over TLS only. ``digest``: equal exactly for equal users.
    """

    realm: str
    users: tuple[tuple[str, str], ...]  # (name, bcrypt hash)
    allow_plain: bool = False
    digest: str  # hexadecimal

    def __repr__(self) -> str:
        return f"AuthPlan({self.realm!r})"


class HttpPlan(Struct, frozen=True, kw_only=True, gc=False):
    """How a route speaks HTTP; what the route says is laid over the global `http`."""

    match: HttpMatch = HttpMatch()
    answer: AnswerPlan | None = None  # redirect, respond; None: forward to a target
    head_limit: int = 32768
    field_limit: int = 100
    body_limit: int = 0  # bytes; 0: none
    trusted_forwarders: tuple[str, ...] = ()  # networks
    error_pages: tuple[tuple[int, AnswerPlan], ...] = ()  # by status
    maintenance: AnswerPlan | None = None  # 503, with Retry-After, when every dial failed
    upgrades: tuple[str, ...] = ("websocket",)  # lower case
    underscores: Literal["drop", "pass"] = "drop"
    upstream_idle: float = 60.0  # seconds
    request: FieldRules = FieldRules()
    response: FieldRules = FieldRules()
    strip_prefix: str = ""
    add_prefix: str = ""
    host: str = "preserve"  # preserve, target, or a name
    auth: AuthPlan | None = None  # None: nobody is asked who they are


class RoutePlan(Struct, frozen=True, kw_only=True, gc=False):
    """One route. Known by its name over generations."""

    name: str
    order: int  # place in the file, the last tie-break
    listeners: tuple[int, ...]  # ids
    single_port: frozenset[int] = frozenset()  # ids matched by a port of its own, not a range
    priority: int = 0
    client_ips: tuple[str, ...] = ()  # networks; empty: any
    tls: bool | None = None  # True: only TLS clients; False: only others
    domains: tuple[str, ...] = ()  # "a.example", "*.example", "example.*": lower case A-labels
    tls_versions: tuple[str, ...] = ()  # the ClientHello offers one of them, "1.3"; empty: any
    alpn: tuple[str, ...] = ()  # the ClientHello offers one of them; empty: any
    targets: tuple[TargetPlan, ...] = ()
    send_proxy: ProxyVersion | None = None
    send_proxy_tlvs: tuple[TlvPlan, ...] = ()
    timeouts: Timeouts = Timeouts()
    half_open: bool = False
    security: SecurityPlan | None = None  # in addition to that of the plan
    terminate: TlsPlan | None = None  # None: bytes pass as they are
    upstream_tls: UpstreamTlsPlan | None = None  # None: the target gets plain bytes
    http: HttpPlan | None = None  # None: bytes are relayed (protocol tcp)
    fingerprint: str = ""  # of everything above: differs exactly when the route changed


class Endpoints(Struct, frozen=True, kw_only=True, gc=False):
    """IP addresses of each host name that the plan uses; an empty list: it does not resolve."""

    addresses: dict[str, tuple[str, ...]]


class Plan(Struct, frozen=True, kw_only=True, gc=False):
    """A whole generation."""

    generation: int
    listeners: tuple[ListenerPlan, ...]
    routes: tuple[RoutePlan, ...]
    endpoints: Endpoints
    security: SecurityPlan = SecurityPlan()
    address_sets: tuple[AddressSet, ...] = ()  # each list once, however many routes name it
    access: AccessPlan | None = None
    certificates: tuple[CertificatePlan, ...] = ()  # each once, however many routes name it
    authorities: tuple[AuthorityPlan, ...] = ()
    error_pages: tuple[tuple[int, AnswerPlan], ...] = ()  # by status, where no route was found
