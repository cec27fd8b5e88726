"""The types of the config file. Only the supervisor uses them; a worker gets a plan."""

from shared.config.base import ConfigStruct
from shared.config.logs import AccessLog, Log
from shared.config.scalars import Source, decode_hook
from shared.config.security import (
    AccessRules,
    AddressEntry,
    Identity,
    RateLimit,
    RouteSecurity,
    Security,
)
from shared.config.structs import (
    Action,
    Admin,
    Config,
    ListenerOverride,
    Match,
    ProxyProtocol,
    ProxyProtocolOverride,
    Route,
    Target,
    TargetFields,
    TlvFields,
)
from shared.config.timeouts import RouteTimeouts, Timeouts
from shared.config.tls import (
    AuthorityFile,
    Certificate,
    CertificateFile,
    ClientAuth,
    Tls,
    UpstreamTls,
)

__all__ = [
    "AccessLog",
    "AccessRules",
    "Action",
    "AddressEntry",
    "Admin",
    "AuthorityFile",
    "Certificate",
    "CertificateFile",
    "ClientAuth",
    "Config",
    "ConfigStruct",
    "Identity",
    "ListenerOverride",
    "Log",
    "Match",
    "ProxyProtocol",
    "ProxyProtocolOverride",
    "RateLimit",
    "Route",
    "RouteSecurity",
    "RouteTimeouts",
    "Security",
    "Source",
    "Target",
    "TargetFields",
    "Timeouts",
    "Tls",
    "TlvFields",
    "UpstreamTls",
    "decode_hook",
]
