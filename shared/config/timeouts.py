"""The key `timeouts`, of the whole config and of a route."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from shared.config.base import ConfigStruct, doc
from shared.config.scalars import PositiveSeconds, Seconds

PER_ROUTE: Final = (
    "connect", "initial_data", "tls_handshake", "idle", "half_closed", "lifetime", "drain",
    "request_head", "http_keep_alive", "response",
)  # fmt: skip
GLOBAL_ONLY: Final = ("shutdown_delay", "watchdog")


class Timeouts(ConfigStruct, frozen=True, kw_only=True):
    """Global timeouts; a route may override those that are listed at `timeouts` of its action."""

    plain: ClassVar[tuple[str, ...]] = (*PER_ROUTE, *GLOBAL_ONLY)
    connect: Annotated[
        PositiveSeconds, doc("Dialling the target, all tries together; apart from idle")
    ] = PositiveSeconds(30)
    initial_data: Annotated[
        PositiveSeconds, doc("First bytes of the client, where a route needs them to be chosen")
    ] = PositiveSeconds(60)
    tls_handshake: Annotated[
        PositiveSeconds, doc("A TLS handshake as a whole, with the client or with the target")
    ] = PositiveSeconds(10)
    request_head: Annotated[
        PositiveSeconds, doc("A whole head of a request, however its bytes come")
    ] = PositiveSeconds(30)
    http_keep_alive: Annotated[
        PositiveSeconds, doc("HTTP: from the end of an answer to the next head")
    ] = PositiveSeconds(75)
    response: Annotated[
        Seconds,
        doc("HTTP: from the end of a request to the first byte of its answer; 0: no such limit"),
    ] = Seconds(0)
    idle: Annotated[Seconds, doc("No byte either way; 0: no such limit")] = Seconds(14400)
    half_closed: Annotated[
        Seconds,
        doc("One side has ended and the other sends nothing more, from its last byte; 0: at once"),
    ] = Seconds(30)
    lifetime: Annotated[Seconds, doc("A connection as a whole; 0: no such limit")] = Seconds(0)
    drain: Annotated[
        Seconds, doc("What is open, after a stop or after its route was removed; 0: at once")
    ] = Seconds(30)
    shutdown_delay: Annotated[
        Seconds, doc("`/readyz` fails and accept goes on, before the drain; 0: none")
    ] = Seconds(0)
    watchdog: Annotated[
        PositiveSeconds, doc("A worker that is silent for this long is replaced")
    ] = PositiveSeconds(10)


class RouteTimeouts(ConfigStruct, frozen=True, kw_only=True):
    """Over the global `timeouts`, for one route; what is not written stays global."""

    plain: ClassVar[tuple[str, ...]] = PER_ROUTE
    elsewhere: ClassVar[dict[str, str]] = dict.fromkeys(
        GLOBAL_ONLY, "it is global only: top-level timeouts"
    )
    connect: Annotated[PositiveSeconds | None, doc("See `timeouts`")] = None
    initial_data: Annotated[PositiveSeconds | None, doc("See `timeouts`")] = None
    tls_handshake: Annotated[PositiveSeconds | None, doc("See `timeouts`")] = None
    request_head: Annotated[PositiveSeconds | None, doc("See `timeouts`")] = None
    http_keep_alive: Annotated[PositiveSeconds | None, doc("See `timeouts`")] = None
    response: Annotated[Seconds | None, doc("See `timeouts`")] = None
    idle: Annotated[Seconds | None, doc("See `timeouts`")] = None
    half_closed: Annotated[Seconds | None, doc("See `timeouts`")] = None
    lifetime: Annotated[Seconds | None, doc("See `timeouts`")] = None
    drain: Annotated[Seconds | None, doc("See `timeouts`")] = None
