"""The configs of a soak: how the next one differs from the last, and which places it serves.

Each traffic process has its own targets and so its own routes. Of these, ``short``, ``long`` and
``limited`` (which a crowd fills) are the same in every config, ``changing`` is there in all of
them but not the same, and the side routes come and go, with their ports and ranges. Three routes
share one port with TLS and are told apart by server name: passed through; ended; ended and
encrypted again. Of the latter two the certificate changes. This port is always served on the first
address only: a session resumes where the listeners are the same.
"""

from __future__ import annotations

import json
from random import Random
from typing import Any, Final

import msgspec
from msgspec import Struct

from loadtests.soak_certificates import (
    AUTHORITY_FILE,
    BROKEN_FILE,
    ENCRYPTED,
    ENDED,
    PASSED,
    SITE_FILE,
    VERSIONS,
)
from loadtests.soak_wire import Place

RANGE_PORTS: Final = 4
SIDES: Final = 3  # side routes with one port each, per traffic process
TARGET_NAMES: Final = 8  # addresses of the same target: as many times its ports for proxyctl
MOST_WORKERS: Final = 6
LIMIT: Final = 3  # connections of one address on the limited route
GUESTS: Final = 12  # addresses that are on the block list or not
BLOCKED_FILE: Final = "blocked.txt"  # beside the config
ACCESS_FILE: Final = "access.log"  # beside the config
END_DRAIN_S: Final = 5  # of the full stop
# Last two bytes of the addresses that clients dial from, by what is to become of them.
SOURCE_NETS: Final = 8  # x.y.1.* to x.y.8.*: everyone whom nothing refuses
CROWD_HOST: Final = "20.7"  # meets the limit
GUEST_NET: Final = 30  # on the list or not
GLOB_NET: Final = 40  # blocked by a glob
STRANGE_NET: Final = 50  # not in `allow`
_ANY: Final = "0.0.0.0"
_SERVER_NAMES: Final = {"pass": PASSED, "term": ENDED, "encr": ENCRYPTED}  # by route


class Ports(Struct, frozen=True, kw_only=True):
    """Of one traffic process: where proxyctl listens for it, and where its targets do."""

    number: int
    short: int
    long: int
    changing: int
    limited: int
    sides: tuple[int, ...]
    range_first: int  # RANGE_PORTS in a row
    tls: int
    target: int
    tls_target: int  # reads the PROXY header, then speaks TLS


class Site(Struct, frozen=True, kw_only=True):
    """What all configs of a run have in common. ``second`` is served only by some of them."""

    first: str  # address that is always served
    second: str
    sources: str  # "127.16": first two bytes of the clients' addresses
    target_net: str  # "127.0.1": the targets' addresses are .1, .2, ...
    traffic: tuple[Ports, ...]
    taken_port: int  # somebody else listens there
    watchdog_s: float


class Shape(Struct, frozen=True, kw_only=True):
    """One config. ``sides`` and ``ranges`` say for each traffic process what is there of them."""

    listen: tuple[str, ...]
    workers: int
    sides: tuple[frozenset[int], ...]  # places in Ports.sides
    ranges: tuple[int, ...]  # ports of the range that are served; 0: the route is not there
    targets: int = TARGET_NAMES  # names that the changing routes use
    idle_s: int = 60  # of the changing routes
    drain_s: int = 60
    end_drain_s: int = 60  # of a full stop
    blocked: frozenset[int] = frozenset()  # guests whom the list file has
    certificate: int = 0  # which version the file of the proxy's certificate has


def first_shape(site: Site, workers: int) -> Shape:
    """The config of the start, and the one that accounts are drawn up under."""
    count = len(site.traffic)
    return Shape(
        listen=(site.first,), workers=workers, sides=(frozenset(),) * count, ranges=(0,) * count
    )


def next_shape(shape: Shape, site: Site, random: Random, *, keeps_places: bool = False) -> Shape:
    """Another shape, one to three changes away. ``keeps_places``: it serves the same places."""
    changes = [_change_targets, _change_timeouts, _change_blocked, _change_certificate]
    if not keeps_places:
        changes += [_change_side, _change_side, _change_side, _change_range, _change_range]
        changes += [_change_listen, _change_workers]
    for change in random.sample(changes, k=random.randint(1, min(3, len(changes)))):
        shape = change(shape, site, random)
    return shape


def _change_side(shape: Shape, site: Site, random: Random) -> Shape:
    at = random.randrange(len(site.traffic))
    sides = list(shape.sides)
    sides[at] = sides[at] ^ {random.randrange(SIDES)}
    return msgspec.structs.replace(shape, sides=tuple(sides))


def _change_range(shape: Shape, site: Site, random: Random) -> Shape:
    at = random.randrange(len(site.traffic))
    ranges = list(shape.ranges)
    ranges[at] = random.choice([size for size in range(RANGE_PORTS + 1) if size != ranges[at]])
    return msgspec.structs.replace(shape, ranges=tuple(ranges))


def _change_listen(shape: Shape, site: Site, random: Random) -> Shape:
    choices = [(site.first,), (site.first, site.second), (_ANY,)]
    others = [choice for choice in choices if choice != shape.listen]
    return msgspec.structs.replace(shape, listen=random.choice(others))


def _change_workers(shape: Shape, site: Site, random: Random) -> Shape:
    return msgspec.structs.replace(shape, workers=random.randint(2, MOST_WORKERS - 1))


def _change_targets(shape: Shape, site: Site, random: Random) -> Shape:
    return msgspec.structs.replace(shape, targets=random.randint(2, TARGET_NAMES))


def _change_timeouts(shape: Shape, site: Site, random: Random) -> Shape:
    return msgspec.structs.replace(
        shape, idle_s=random.randint(60, 600), drain_s=random.randint(60, 90)
    )


def _change_blocked(shape: Shape, site: Site, random: Random) -> Shape:
    guests = random.sample(range(GUESTS), random.randint(1, 4))
    return msgspec.structs.replace(shape, blocked=shape.blocked ^ set(guests))


def _change_certificate(shape: Shape, site: Site, random: Random) -> Shape:
    others = [one for one in range(VERSIONS) if one != shape.certificate]
    return msgspec.structs.replace(shape, certificate=random.choice(others))


def blocked_list(shape: Shape, site: Site) -> str:
    """The text of the list file that `document` names."""
    lines = ["# Clients that are blocked now", ""]
    lines += [f"{guest_host(site, guest)}  # guest {guest}" for guest in sorted(shape.blocked)]
    return "\n".join(lines) + "\n"


def guest_host(site: Site, guest: int) -> str:
    """The address of a guest."""
    return f"{site.sources}.{GUEST_NET}.{guest + 1}"


def guest_hosts(site: Site) -> list[str]:
    """Every address that `Rules.guests` is to have: those that the list may block, and two more."""
    always = [f"{site.sources}.{GLOB_NET}.9", f"{site.sources}.{STRANGE_NET}.9"]
    return [*(guest_host(site, guest) for guest in range(GUESTS)), *always]


def blocked_hosts(shape: Shape, site: Site) -> frozenset[str]:
    """Those of `guest_hosts` that are refused under this config."""
    listed = {guest_host(site, guest) for guest in shape.blocked}
    return frozenset(listed | set(guest_hosts(site)[GUESTS:]))


def limited_place(site: Site, number: int) -> Place:
    """Where the crowd of one traffic process meets the limit."""
    return Place(f"limited-{number}", site.first, site.traffic[number].limited)


def _security(site: Site) -> dict[str, Any]:
    """Rules in every notation. The limits are there to be counted, not to be met."""
    net = site.sources
    return {
        "allow": [
            f"{net}.1.0-{net}.{SOURCE_NETS}.255",
            f"{net}.{GUEST_NET}.0/24",
            f"{net}.{GLOB_NET}.*",
            f"::ffff:{net}.{CROWD_HOST}",
        ],
        "block": [f"file:{BLOCKED_FILE}", f"{net}.{GLOB_NET}.*"],
        "max_connections": 50_000,
        "max_connections_per_ip": 5_000,
        "connection_rate_per_ip": "100000/2s",
    }


def document(shape: Shape, site: Site) -> dict[str, Any]:
    """The config."""
    routes = []
    for ports, sides, size in zip(site.traffic, shape.sides, shape.ranges, strict=True):
        for name, port in (("short", ports.short), ("long", ports.long)):
            routes.append(_route(f"{name}-{ports.number}", [port], ports, site, TARGET_NAMES))
        limited = _route(f"limited-{ports.number}", [ports.limited], ports, site, TARGET_NAMES)
        limited["security"] = {"max_connections_per_ip": LIMIT}
        routes.append(limited)
        changing = _route(f"changing-{ports.number}", [ports.changing], ports, site, shape.targets)
        changing["action"]["timeouts"] = {"idle": f"{shape.idle_s}s", "drain": f"{shape.drain_s}s"}
        routes.append(changing)
        for side in sorted(sides):
            name = f"side{side}-{ports.number}"
            routes.append(_route(name, [ports.sides[side]], ports, site, shape.targets))
        routes += _tls_routes(ports, site)
        if size:
            last = ports.range_first + size - 1
            matched = f"{ports.range_first}-{last}"
            routes.append(_route(f"range-{ports.number}", [matched], ports, site, TARGET_NAMES))
    return {
        "version": 1,
        "listen": list(shape.listen),
        "listeners": [{"ports": [ports.tls for ports in site.traffic], "listen": [site.first]}],
        "workers": shape.workers,
        "max_workers": MOST_WORKERS,
        "admin": None,
        "timeouts": {"watchdog": site.watchdog_s, "drain": f"{shape.end_drain_s}s"},
        "log": {"access": {"file": ACCESS_FILE}},
        "security": _security(site),
        "routes": routes,
    }


def _route(
    name: str, matched: list[int] | list[str], ports: Ports, site: Site, targets: int
) -> dict[str, Any]:
    return {
        "name": name,
        "match": {"ports": matched},
        "action": {
            "type": "forward",
            "targets": [f"{site.target_net}.{host + 1}:{ports.target}" for host in range(targets)],
            "send_proxy": "v2",
            "send_proxy_tlvs": ["unique_id", "crc32c"],
        },
    }


def _tls_routes(ports: Ports, site: Site) -> list[dict[str, Any]]:
    routes = []
    for name, server_name in _SERVER_NAMES.items():
        route = _route(f"{name}-{ports.number}", [ports.tls], ports, site, TARGET_NAMES)
        route["match"]["domains"] = [server_name]
        action = route["action"]
        if name != "pass":
            action["tls"] = {"mode": "terminate", "certificates": [{"cert": SITE_FILE}]}
        if name == "encr":
            action["tls"]["mode"] = "terminate-and-reencrypt"
            action["upstream_tls"] = {"ca": AUTHORITY_FILE, "server_name": PASSED}
        if name != "term":
            action["targets"] = [
                f"{site.target_net}.{host + 1}:{ports.tls_target}" for host in range(TARGET_NAMES)
            ]
        routes.append(route)
    return routes


def broken(shape: Shape, site: Site, random: Random) -> str:
    """The text of a file that must be refused, whatever else it changes."""
    config = document(next_shape(shape, site, random), site)
    routes = config["routes"]
    match random.randrange(6):
        case 0:
            routes[-1]["acton"] = routes[-1].pop("action")
        case 1:
            routes[0]["name"] = routes[1]["name"]
        case 2:
            routes[-1]["match"]["ports"] = [site.taken_port]
        case 3:
            config["timeouts"]["watchdog"] = "soon"
        case 4:
            ended = next(route for route in routes if "tls" in route["action"])
            ended["action"]["tls"]["certificates"] = [{"cert": BROKEN_FILE}]
        case _:
            return json.dumps(config)[: -random.randint(1, 200)]
    return json.dumps(config)


def places(shape: Shape, site: Site) -> list[Place]:
    """Where short connections are served, and by which route."""
    hosts = [site.first]
    if shape.listen != (site.first,):
        hosts.append(site.second)
    found = []
    for ports, sides, size in zip(site.traffic, shape.sides, shape.ranges, strict=True):
        served = [
            (f"short-{ports.number}", ports.short),
            (f"changing-{ports.number}", ports.changing),
        ]
        served += [(f"side{side}-{ports.number}", ports.sides[side]) for side in sorted(sides)]
        served += [(f"range-{ports.number}", ports.range_first + step) for step in range(size)]
        found += [Place(route, host, port) for host in hosts for route, port in served]
        found += _tls_places(ports, site)
    return found


def _tls_places(ports: Ports, site: Site) -> list[Place]:
    return [
        Place(f"{name}-{ports.number}", site.first, ports.tls, server_name, name == "pass")
        for name, server_name in _SERVER_NAMES.items()
    ]


def long_places(site: Site) -> list[Place]:
    """Where long connections are served, by routes that are in every config."""
    found = [Place(f"long-{ports.number}", site.first, ports.long) for ports in site.traffic]
    return found + [place for ports in site.traffic for place in _tls_places(ports, site)]


def of_traffic(found: list[Place], number: int) -> list[Place]:
    """Those of one traffic process."""
    return [place for place in found if place.route.endswith(f"-{number}")]


def differences(old: Shape, new: Shape) -> str:
    """What a reload changes: ``listen=('0.0.0.0',) workers=4``."""
    found = []
    for name in Shape.__struct_fields__:
        value = getattr(new, name)
        if value != getattr(old, name):
            text = [sorted(one) for one in value] if name == "sides" else value
            found.append(f"{name}={text}")
    return " ".join(found) or "unchanged"
