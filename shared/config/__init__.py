"""The types of the config file. Only the supervisor uses them; a worker gets a plan."""

from shared.config.scalars import Source, decode_hook
from shared.config.structs import (
    Action,
    Admin,
    Config,
    ConfigStruct,
    ListenerOverride,
    Log,
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
    "Action",
    "Admin",
    "Config",
    "ConfigStruct",
    "ListenerOverride",
    "Log",
    "Match",
    "ProxyProtocol",
    "ProxyProtocolOverride",
    "Route",
    "RouteTimeouts",
    "Source",
    "Target",
    "TargetFields",
    "Timeouts",
    "TlvFields",
    "decode_hook",
]
