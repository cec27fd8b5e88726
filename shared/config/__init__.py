"""The types of the config file. Only the supervisor uses them; a worker gets a plan."""

from shared.config.base import ConfigStruct
from shared.config.logs import AccessLog, Log
from shared.config.scalars import Source, decode_hook
from shared.config.security import AddressEntry, RateLimit, RouteSecurity, Security
from shared.config.structs import (
    Action,
    Admin,
    Config,
    ListenerOverride,
    Match,
    ProxyProtocol,
    ProxyProtocolOverride,
    Route,
    RouteTimeouts,
    Target,
    TargetFields,
    Timeouts,
    TlvFields,
)

__all__ = [
    "AccessLog",
    "Action",
    "AddressEntry",
    "Admin",
    "Config",
    "ConfigStruct",
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
    "TlvFields",
    "decode_hook",
]
