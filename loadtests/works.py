"""The works of a comparison: what is measured of whom, and the floor that must be reached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

PEERS: Final = ("haproxy", "nginx")
EVERYTHING: Final = "proxyctl"  # with every rule, limit and log on: this one is compared
OFF: Final = "proxyctl-off"  # the same with all of them off
OVERHEAD: Final = 0.08  # that they may cost together
SOURCE: Final = "proxyctl-source"  # with nothing compiled (PROXYCTL_PURE=1): shown, not judged
MANY: Final = "proxyctl-10000"  # domains on one port
FEW: Final = "proxyctl-10"
PLAIN, TLS, HTTP = "plain", "tls", "http"  # groups of works


class Work(Struct, frozen=True, kw_only=True):
    """One kind of work. ``floor`` is the ratio to the better peer that must be reached, if any.

    Where ``lower_is_better``, the ratio must be at most the floor. ``against``: who it is compared
    with, the better of them.
    """

    name: str
    title: str
    unit: str
    cpu_unit: str  # of CPU time per operation; empty: not measured
    floor: float | None
    lower_is_better: bool = False
    group: str = PLAIN
    against: tuple[str, ...] = PEERS


WORKS: Final = (
    Work(
        name="connections",
        title="new connections",
        unit="connections/s",
        cpu_unit="µs/connection",
        floor=0.80,
    ),
    Work(
        name="messages",
        title="small messages, 64 kept connections",
        unit="messages/s",
        cpu_unit="µs/message",
        floor=0.85,
    ),
    Work(
        name="bulk",
        title="bulk, 4 connections",
        unit="Gbit/s",
        cpu_unit="µs/MiB",
        floor=1.0,
    ),
    Work(
        name="proxy_v2",
        title="new connections, PROXY v2 in and out",
        unit="connections/s",
        cpu_unit="µs/connection",
        floor=0.80,
    ),
    Work(
        name="memory",
        title="memory per idle connection",
        unit="bytes",
        cpu_unit="",
        floor=0.70,
        lower_is_better=True,
    ),
    Work(
        name="tls_handshakes",
        title="new TLS 1.3 handshakes, P-256",
        unit="handshakes/s",
        cpu_unit="µs/handshake",
        floor=0.90,
        group=TLS,
    ),
    Work(
        name="tls_resumed",
        title="resumed TLS 1.3 handshakes",
        unit="handshakes/s",
        cpu_unit="µs/handshake",
        floor=0.85,
        group=TLS,
    ),
    Work(
        name="tls_messages",
        title="small messages over TLS, 64 kept connections",
        unit="messages/s",
        cpu_unit="µs/message",
        floor=0.85,
        group=TLS,
    ),
    Work(
        name="tls_bulk",
        title="bodies of 1 MiB over TLS, 16 connections",
        unit="Gbit/s",
        cpu_unit="µs/MiB",
        floor=1.0,
        group=TLS,
    ),
    Work(
        name="tls_reencrypt",
        title="the same, encrypted again to a verified target",
        unit="Gbit/s",
        cpu_unit="µs/MiB",
        floor=0.85,
        group=TLS,
    ),
    Work(
        name="sni_connections",
        title="new connections passed through by SNI",
        unit="connections/s",
        cpu_unit="µs/connection",
        floor=0.75,
        group=TLS,
    ),
    Work(
        name="tls_memory",
        title="memory per idle TLS connection",
        unit="bytes",
        cpu_unit="",
        floor=1.1,
        lower_is_better=True,
        group=TLS,
    ),
    Work(
        name="names_10000",
        title="new connections, 10,000 domains against 10",
        unit="connections/s",
        cpu_unit="µs/connection",
        floor=0.95,
        group=TLS,
        against=(FEW,),
    ),
    Work(
        name="http_kept",
        title="requests on 64 kept connections",
        unit="requests/s",
        cpu_unit="µs/request",
        floor=0.65,
        group=HTTP,
    ),
    Work(
        name="http_logged",
        title="the same with an access log",
        unit="requests/s",
        cpu_unit="µs/request",
        floor=0.65,
        group=HTTP,
    ),
    Work(
        name="http_connections",
        title="requests, each on a new connection",
        unit="requests/s",
        cpu_unit="µs/request",
        floor=0.55,
        group=HTTP,
    ),
    Work(
        name="http_64k",
        title="bodies of 64 KiB, 16 connections",
        unit="Gbit/s",
        cpu_unit="µs/MiB",
        floor=None,
        group=HTTP,
    ),
    Work(
        name="http_1m",
        title="bodies of 1 MiB, 16 connections",
        unit="Gbit/s",
        cpu_unit="µs/MiB",
        floor=0.90,
        group=HTTP,
    ),
    Work(
        name="https_kept",
        title="requests over TLS, 64 kept connections",
        unit="requests/s",
        cpu_unit="µs/request",
        floor=0.70,
        group=HTTP,
    ),
    Work(
        name="https_connections",
        title="requests over TLS, each with a new handshake",
        unit="requests/s",
        cpu_unit="µs/request",
        floor=0.85,
        group=HTTP,
    ),
    Work(
        name="https_64k",
        title="bodies of 64 KiB over TLS, 16 connections",
        unit="Gbit/s",
        cpu_unit="µs/MiB",
        floor=None,
        group=HTTP,
    ),
    Work(
        name="https_1m",
        title="bodies of 1 MiB over TLS, 16 connections",
        unit="Gbit/s",
        cpu_unit="µs/MiB",
        floor=0.95,
        group=HTTP,
    ),
    Work(
        name="http_p99",
        title="99th percentile at 70 % of the slowest one's requests",
        unit="ms",
        cpu_unit="µs/request",
        floor=None,
        lower_is_better=True,
        group=HTTP,
    ),
    Work(
        name="http_memory",
        title="memory per idle kept connection",
        unit="bytes",
        cpu_unit="",
        floor=None,
        lower_is_better=True,
        group=HTTP,
    ),
    Work(
        name="https_memory",
        title="memory per idle kept connection over TLS",
        unit="bytes",
        cpu_unit="",
        floor=None,
        lower_is_better=True,
        group=HTTP,
    ),
    Work(
        name="http_routes_10000",
        title="requests to 10 of 10,000 routes against 10",
        unit="requests/s",
        cpu_unit="µs/request",
        floor=0.95,
        group=HTTP,
        against=(FEW,),
    ),
    Work(
        name="http_routes_all",
        title="requests to all of 10,000 routes against 10",
        unit="requests/s",
        cpu_unit="µs/request",
        floor=0.95,
        group=HTTP,
        against=(FEW,),
    ),
)

BY_NAME: Final = {work.name: work for work in WORKS}


def expand(names: Sequence[str]) -> list[str]:
    """Names of works, with those of a group in place of its name; each once, in this order."""
    found: list[str] = []
    for name in names:
        group = [work.name for work in WORKS if work.group == name]
        found += group or [name]
    return list(dict.fromkeys(found))
