"""What the types cannot say: keys that contradict each other, and settings that are doubtful.

Errors refuse the config; warnings are shown with it. Each function looks at one matter and adds
what it finds. They run over a whole config, or over those parts of a damaged one that are sound.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import fields

from shared.config import Config, ListenerOverride, Route, decode_hook
from shared.config.targets import TlvFields
from shared.errors import Problem
from shared.proxy_protocol import encode_v2
from shared.proxy_protocol.v2 import V2_FIXED_BYTES, V2_MAX_LENGTH
from shared.units import short
from supervisor.config_certificates import CertificateFiles, read_certificates, read_damaged
from supervisor.config_findings import Findings
from supervisor.config_http import check_http
from supervisor.config_listeners import (
    MAX_DESCRIPTORS,
    WILDCARDS,
    PortKey,
    addresses,
    enabled_routes,
    overlap,
    overrides_by_port,
    policy,
    port_keys,
)
from supervisor.config_lists import ListFiles
from supervisor.config_overlap import check_overlap
from supervisor.config_pages import PageFiles, read_damaged_pages, read_pages
from supervisor.config_positions import Path, Positions
from supervisor.config_security import check_access_log, check_list_files, check_security
from supervisor.config_shadowed import check_shadowed
from supervisor.config_taken_tls import check_taken, taken_tls
from supervisor.config_tls import check_tls
from supervisor.config_walk import REFUSALS

_EVERYONE: Final = frozenset({"0.0.0.0/0", "::/0"})


class NamedFiles(Struct, frozen=True):
    """The files that a config names; each is read once."""

    lists: ListFiles
    certificates: CertificateFiles
    pages: PageFiles

    @classmethod
    def of(cls, directory: FilePath) -> NamedFiles:
        """None is read yet. ``directory``: where relative paths start."""
        return cls(ListFiles(directory), CertificateFiles(directory), PageFiles(directory))


def check_config(config: Config, positions: Positions, files: NamedFiles) -> Findings:
    """Everything that can be said about a config whose types are right.

    Gives its entries of ``allow`` and ``block`` the content of their list files, and certificates,
    authorities, pages and users that of theirs.
    """
    found = Findings(positions)
    names = [(index, str(route.name)) for index, route in enumerate(config.routes)]
    _check_names(names, found)
    _check_all(config, found, files)
    if not enabled_routes(config):
        found.warn(("routes",), "no route is enabled: nothing is served")
    _check_trust(config, found)
    _check_unused_listeners(config, found)
    if not found.errors:
        check_shadowed(config, found)
    return found


def check_parts(raw: Any, positions: Positions, files: NamedFiles) -> list[Problem]:
    """The errors of the parts of a damaged config that are sound by themselves."""
    if not isinstance(raw, dict):
        return []
    parts: dict[str, Any] = {}
    for item in fields(Config):
        if item.name not in ("routes", "listeners") and item.name in raw:
            value = _sound(raw[item.name], item.type)
            if value is not msgspec.UNSET:
                parts[item.name] = value
    route_places, routes = _sound_items(raw.get("routes"), Route)
    listener_places, listeners = _sound_items(raw.get("listeners"), ListenerOverride)
    found = Findings(positions, route_places, listener_places)
    _check_names(_names(raw.get("routes")), found)
    _check_all(Config(**parts, routes=routes, listeners=listeners), found, files)
    _check_damaged(raw, "security" in parts, route_places, found, files)
    return found.errors


def _check_damaged(
    raw: dict[str, Any], is_sound: bool, sound_routes: list[int], found: Findings, files: NamedFiles
) -> None:
    """The files that parts name which are not sound themselves."""
    if not is_sound:
        check_list_files(raw.get("security"), ("security",), found, files.lists)
    routes = raw.get("routes")
    sound = set(sound_routes)
    for place, route in enumerate(routes if isinstance(routes, list) else []):
        if isinstance(route, dict) and place not in sound:
            path: Path = ("routes", place)
            check_list_files(route.get("security"), (*path, "security"), found, files.lists)
            if route.get("enabled") is not False:
                read_damaged(route.get("action"), (*path, "action"), found, files.certificates)
                read_damaged_pages(route, path, found, files.pages)


def _sound(value: Any, kind: Any) -> Any:
    try:
        return msgspec.convert(value, kind, dec_hook=decode_hook)
    except REFUSALS:
        return msgspec.UNSET  # the walker reports it


def _sound_items(value: Any, kind: Any) -> tuple[list[int], list[Any]]:
    items = value if isinstance(value, list) else []
    sound = [(place, _sound(item, kind)) for place, item in enumerate(items)]
    kept = [(place, item) for place, item in sound if item is not msgspec.UNSET]
    return [place for place, _ in kept], [item for _, item in kept]


def _names(value: Any) -> list[tuple[int, str]]:
    items = value if isinstance(value, list) else []
    return [
        (place, item["name"])
        for place, item in enumerate(items)
        if isinstance(item, dict) and isinstance(item.get("name"), str)
    ]


def _check_names(names: list[tuple[int, str]], found: Findings) -> None:
    first: dict[str, int] = {}
    for place, name in names:
        if name not in first:
            first[name] = place
            continue
        path: Path = ("routes", place, "name")
        hint = found.seen_at(("routes", first[name], "name"))
        found.error(path, f"duplicate route name {short(name)}", hint, code="duplicate_name")


def _check_all(config: Config, found: Findings, files: NamedFiles) -> None:
    """The checks that hold for a part of a config as well."""
    _check_workers(config, found)
    _check_listen(list(config.listen), ("listen",), found)
    _check_listeners(config, found)
    _check_policies(config, found)
    check_security(config, found, files.lists)
    check_access_log(config, found, files.lists.directory)
    taken = taken_tls(config)
    check_tls(config, taken, found)
    check_overlap(config, found)
    check_taken(config, taken, found)
    check_http(config, taken, found)
    read_certificates(config, found, files.certificates)
    read_pages(config, found, files.pages)
    for index, route in enumerate(config.routes):
        _check_action(route, index, found)
    _check_ports(config, found)


def _check_workers(config: Config, found: Findings) -> None:
    workers, most = config.workers, config.max_workers
    if isinstance(workers, int) and isinstance(most, int) and workers > most:
        found.error(("workers",), f"{workers} workers do not fit into max_workers, which is {most}")


def _check_listen(hosts: list[str], path: Path, found: Findings) -> None:
    for index, host in enumerate(hosts):
        for wildcard in WILDCARDS.intersection(hosts):
            if host != wildcard and (":" in host) == (":" in wildcard):
                message = f"{wildcard} binds {host} as well"
                found.error((*path, index), message, "name one of them")


def _check_listeners(config: Config, found: Findings) -> None:
    first: dict[PortKey, int] = {}
    for index, override in enumerate(config.listeners):
        if override.listen is not None:
            _check_listen(list(override.listen), found.listener(index, "listen"), found)
        for number, entry in enumerate(override.ports):
            path = found.listener(index, "ports", number)
            keys = port_keys([entry])
            taken = [key for key in keys if first.setdefault(key, index) != index]
            if taken:
                hint = found.seen_at(found.listener(first[taken[0]]))
                found.error(path, f"port {taken[0]} has two entries in listeners", hint)
            if override.listen is not None and any(isinstance(key, str) for key in keys):
                found.error(path, "listen does not apply to a Unix socket", "use another entry")


def _check_policies(config: Config, found: Findings) -> None:
    places: list[tuple[ListenerOverride | None, Path]] = [(None, ("proxy_protocol",))]
    for index, override in enumerate(config.listeners):
        places.append((override, found.listener(index, "proxy_protocol")))
    for own, path in places:
        settings = policy(config, own)
        inherited = own is not None and own.proxy_protocol.untrusted is None
        if settings.untrusted == "close" and not settings.trusted:
            if inherited and own is not None and own.proxy_protocol.trusted is None:
                continue  # said of the global settings
            found.error(
                (*path, "trusted" if inherited else "untrusted"),
                "nobody could connect: untrusted is close, and nobody is trusted",
                "list who may connect in trusted",
            )


def _check_action(route: Route, index: int, found: Findings) -> None:
    action = route.action
    if action.targets and all(target.weight == 0 for target in action.targets):
        message = "every target has the weight 0: no connection could be served"
        found.error(found.route(index, "action", "targets"), message)
    if action.send_proxy_tlvs and action.send_proxy != "v2":
        message = "TLVs go out with send_proxy: v2 only"
        found.error(found.route(index, "action", "send_proxy_tlvs"), message)
    seen: set[str] = set()
    for number, tlv in enumerate(action.send_proxy_tlvs):
        if isinstance(tlv, str):
            if tlv in seen:
                path = found.route(index, "action", "send_proxy_tlvs", number)
                found.error(path, f"duplicate TLV '{tlv}'")
            seen.add(tlv)
    if why := _bad_tlvs(action.send_proxy_tlvs):
        found.error(found.route(index, "action", "send_proxy_tlvs"), why)
    has_socket = any(entry.startswith("unix:") for entry in route.match.ports)
    for number, target in enumerate(action.targets):
        if target.preserve and has_socket:
            path = found.route(index, "action", "targets", number)
            found.error(path, "port: preserve has no meaning where the route serves a Unix socket")


def _bad_tlvs(tlvs: Sequence[str | TlvFields]) -> str:
    """Why no header can hold these TLVs; "" where one can."""
    own = [(int(tlv.type), bytes(tlv.value)) for tlv in tlvs if not isinstance(tlv, str)]
    try:
        header = encode_v2(bytes(16), 0, bytes(16), 0, tlvs=own)
    except ValueError as error:
        return str(error)
    size = len(header) - V2_FIXED_BYTES
    if size > V2_MAX_LENGTH:
        return f"the header would have {size} bytes; receivers take {V2_MAX_LENGTH} at most"
    return ""


def _check_ports(config: Config, found: Findings) -> None:
    """The admin listener's own port, and how many sockets there would be with one slot."""
    overrides = overrides_by_port(config)
    admin = config.admin.address if config.admin else None
    counted: set[PortKey] = set()
    sockets = 0
    for index, route in enumerate(config.routes):
        if not route.enabled:
            continue
        for number, entry in enumerate(route.match.ports):
            keys = port_keys([entry])
            for key in keys:
                if key not in counted:
                    sockets += len(addresses(config, key, overrides.get(key)))
            counted.update(keys)
            wanted = admin.path or admin.port if admin else None
            if admin is None or wanted not in keys or wanted is None:
                continue
            served = addresses(config, wanted, overrides.get(wanted))
            if any(overlap(admin, address) for address in served):
                path = found.route(index, "match", "ports", number)
                hint = "choose another port, or move admin.listen"
                found.error(path, f"{admin} is taken by the admin listener", hint)
    if sockets > MAX_DESCRIPTORS:
        message = f"the ports need {sockets} listening sockets, {MAX_DESCRIPTORS} are the most"
        found.error(("routes",), message, "serve fewer ports or listen addresses")


def _check_trust(config: Config, found: Findings) -> None:
    lists: list[tuple[list[Any], Path]] = [
        (list(config.proxy_protocol.trusted), ("proxy_protocol", "trusted"))
    ]
    for index, override in enumerate(config.listeners):
        trusted = override.proxy_protocol.trusted or []
        lists.append((list(trusted), found.listener(index, "proxy_protocol", "trusted")))
    lists.append((list(config.http.trusted_forwarders), ("http", "trusted_forwarders")))
    for index, route in enumerate(config.routes):
        if route.http is not None:
            forwarders = route.http.trusted_forwarders or []
            lists.append((list(forwarders), found.route(index, "http", "trusted_forwarders")))
    for sources, path in lists:
        for number, source in enumerate(sources):
            if source in _EVERYONE:
                found.warn(
                    (*path, number),
                    f"{source} trusts everyone: any client can claim any address",
                    "list the addresses of the balancers in front",
                    code="trusts_everyone",
                )


def _check_unused_listeners(config: Config, found: Findings) -> None:
    served: set[PortKey] = set()
    for _, route in enabled_routes(config):
        served.update(port_keys(route.match.ports))
    for index, override in enumerate(config.listeners):
        for number, entry in enumerate(override.ports):
            if served.isdisjoint(port_keys([entry])):
                path = found.listener(index, "ports", number)
                found.warn(path, f"no enabled route serves {entry}", code="unused")
