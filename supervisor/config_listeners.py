"""Which addresses a config asks to be bound, and under which PROXY policy (design section 4)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec.structs import asdict

from shared.config import Config, ListenerOverride, ProxyProtocol, ProxyProtocolOverride, Route
from shared.units import Address, parse_ports

PortKey = int | str  # a TCP port, or the path of a Unix socket

MAX_DESCRIPTORS: Final = 4096  # listening sockets that the supervisor holds (design section 2)
WILDCARDS: Final = frozenset({"0.0.0.0", "::"})


def port_keys(entries: Iterable[str]) -> dict[PortKey, bool]:
    """Every port of ``match.ports``, and whether it is named by itself, not only by a range."""
    keys: dict[PortKey, bool] = {}
    for entry in entries:
        ports = parse_ports(entry)
        if ports.path:
            keys[ports.path] = True
        elif ports.is_single:
            keys[ports.first] = True
        else:
            for port in ports.numbers():
                keys.setdefault(port, False)
    return keys


def enabled_routes(config: Config) -> list[tuple[int, Route]]:
    """The routes that count, each with its place in the file."""
    return [(place, route) for place, route in enumerate(config.routes) if route.enabled]


def overrides_by_port(config: Config) -> dict[PortKey, ListenerOverride]:
    """The entry of ``listeners`` for each port that has one; the first, where two name a port."""
    table: dict[PortKey, ListenerOverride] = {}
    for override in config.listeners:
        for key in port_keys(override.ports):
            table.setdefault(key, override)
    return table


def addresses(config: Config, key: PortKey, override: ListenerOverride | None) -> list[Address]:
    """The addresses to bind for a port, each once."""
    if isinstance(key, str):
        return [Address(path=key)]
    hosts = config.listen
    if override is not None and override.listen is not None:
        hosts = override.listen
    return [Address(str(host), key) for host in dict.fromkeys(hosts)]


def policy(config: Config, override: ListenerOverride | None) -> ProxyProtocol:
    """The PROXY settings of a port: the global ones, with what its entry says laid over them."""
    own = (override.proxy_protocol if override else None) or ProxyProtocolOverride()
    given = {name: value for name, value in asdict(own).items() if value is not None}
    return ProxyProtocol(**{**asdict(config.proxy_protocol), **given})


def overlap(one: Address, other: Address) -> bool:
    """Whether both cannot be bound by different owners: the same, or a wildcard over the other."""
    if one.path or other.path:
        return one.path == other.path
    same_family = (":" in one.host) == (":" in other.host)
    has_wildcard = one.host in WILDCARDS or other.host in WILDCARDS
    return one.port == other.port and same_family and (one.host == other.host or has_wildcard)
