"""The configs of a soak: how the next one differs from the last, and which places it serves.

Each traffic process has its own targets and so its own routes. Of these, ``short`` and ``long``
are the same in every config, ``changing`` is there in all of them but not the same, and the side
routes come and go, with their ports and ranges.
"""

from __future__ import annotations

import json
from random import Random
from typing import Any, Final

import msgspec
from msgspec import Struct

from loadtests.soak_wire import Place

RANGE_PORTS: Final = 4
SIDES: Final = 3  # side routes with one port each, per traffic process
TARGET_NAMES: Final = 8  # addresses of the same target: as many times its ports for proxyctl
MOST_WORKERS: Final = 6
_ANY: Final = "0.0.0.0"


class Ports(Struct, frozen=True, kw_only=True):
    """Of one traffic process: where proxyctl listens for it, and where its targets do."""

    number: int
    short: int
    long: int
    changing: int
    sides: tuple[int, ...]
    range_first: int  # RANGE_PORTS in a row
    target: int


class Site(Struct, frozen=True, kw_only=True):
    """What all configs of a run have in common. ``second`` is served only by some of them."""

    first: str  # address that is always served
    second: str
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


def first_shape(site: Site, workers: int) -> Shape:
    """The config of the start, and the one that accounts are drawn up under."""
    count = len(site.traffic)
    return Shape(
        listen=(site.first,), workers=workers, sides=(frozenset(),) * count, ranges=(0,) * count
    )


def next_shape(shape: Shape, site: Site, random: Random, *, keeps_places: bool = False) -> Shape:
    """Another shape, one to three changes away. ``keeps_places``: it serves the same places."""
    changes = [_change_targets, _change_timeouts]
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


def document(shape: Shape, site: Site) -> dict[str, Any]:
    """The config."""
    routes = []
    for ports, sides, size in zip(site.traffic, shape.sides, shape.ranges, strict=True):
        for name, port in (("short", ports.short), ("long", ports.long)):
            routes.append(_route(f"{name}-{ports.number}", [port], ports, site, TARGET_NAMES))
        changing = _route(f"changing-{ports.number}", [ports.changing], ports, site, shape.targets)
        changing["action"]["timeouts"] = {"idle": f"{shape.idle_s}s", "drain": f"{shape.drain_s}s"}
        routes.append(changing)
        for side in sorted(sides):
            name = f"side{side}-{ports.number}"
            routes.append(_route(name, [ports.sides[side]], ports, site, shape.targets))
        if size:
            last = ports.range_first + size - 1
            matched = f"{ports.range_first}-{last}"
            routes.append(_route(f"range-{ports.number}", [matched], ports, site, TARGET_NAMES))
    return {
        "version": 1,
        "listen": list(shape.listen),
        "workers": shape.workers,
        "max_workers": MOST_WORKERS,
        "admin": None,
        "timeouts": {"watchdog": site.watchdog_s, "drain": "60s"},
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


def broken(shape: Shape, site: Site, random: Random) -> str:
    """The text of a file that must be refused, whatever else it changes."""
    config = document(next_shape(shape, site, random), site)
    routes = config["routes"]
    match random.randrange(5):
        case 0:
            routes[-1]["acton"] = routes[-1].pop("action")
        case 1:
            routes[0]["name"] = routes[1]["name"]
        case 2:
            routes[-1]["match"]["ports"] = [site.taken_port]
        case 3:
            config["timeouts"]["watchdog"] = "soon"
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
    return found


def long_places(site: Site) -> list[Place]:
    """Where long connections are served, by routes that never change."""
    return [Place(f"long-{ports.number}", site.first, ports.long) for ports in site.traffic]


def of_traffic(found: list[Place], number: int) -> list[Place]:
    """Those of one traffic process."""
    return [place for place in found if place.route.endswith(f"-{number}")]
