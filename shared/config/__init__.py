"""The types of the config file. Only the supervisor uses them; a worker gets a plan."""

from shared.config.auth import Auth, BasicAuth, UsersFile
from shared.config.base import ConfigStruct
from shared.config.http import (
    ErrorPages,
    FieldRules,
    HeaderRules,
    Http,
    Maintenance,
    PageFile,
    RouteHttp,
)
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
)
from shared.config.targets import Target, TargetFields, TlvFields
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
    "Auth",
    "AuthorityFile",
    "BasicAuth",
    "Certificate",
    "CertificateFile",
    "ClientAuth",
    "Config",
    "ConfigStruct",
    "ErrorPages",
    "FieldRules",
    "HeaderRules",
    "Http",
    "Identity",
    "ListenerOverride",
    "Log",
    "Maintenance",
    "Match",
    "PageFile",
    "ProxyProtocol",
    "ProxyProtocolOverride",
    "RateLimit",
    "Route",
    "RouteHttp",
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
    "UsersFile",
    "decode_hook",
]
