"""Connections to targets: the one that an exchange has, and those that are kept for the next.

Kept ones lie by where they lead and how they were dialled, whatever route did it, and live on over
reloads: the one that was used last is taken first, so that what a target needs no more grows old
and is closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from worker.coded_side import CodedSide
from worker.http_wire import NOTHING, Wire
from worker.reactor import ENDED, OUT
from worker.timer_wheel import NO_SLOT

if TYPE_CHECKING:
    from worker.balancer import Endpoint
    from worker.connection import Connection
    from worker.data_plane import DataPlane
    from worker.generation import Route
    from worker.http_exchange import Exchange
    from worker.sockets import Socket
    from worker.tls_engine import Tls

MOST_KEPT: Final = 256  # per endpoint and worker
FRESH_S: Final = 1.0  # idle for less: good for a request that may not be sent twice


# An address as connect(2) wants it; with TLS, beside it what the handshake verifies and shows.
Place: TypeAlias = str | tuple[object, ...]


def place_of(route: Route, endpoint: Endpoint, port: int) -> Place:
    """Where a connection of this route to this endpoint leads. ``port``: that the client came in
    on, for targets that preserve it.
    """
    address = endpoint.address or (endpoint.host, port)
    upstream = route.upstream
    if upstream is None:
        return address
    return address, upstream.identity(endpoint.target.host)


class Upstream:
    """One connection to a target. ``is_kept``: it has carried a request before this one."""

    __slots__ = (
        "endpoint", "exchange", "has_end", "header", "idle_at", "inbox", "is_closed",
        "is_kept", "is_readable", "limit_s", "place", "plane", "route", "slot", "wire",
    )  # fmt: skip

    def __init__(
        self,
        plane: DataPlane,
        route: Route,
        endpoint: Endpoint,
        place: Place,
        sock: Socket,
        fd: int,
        tls: Tls | None,
    ) -> None:
        self.plane = plane
        self.endpoint = endpoint
        self.place = place
        self.route = route.name
        self.header = (route.plan.send_proxy, route.plan.send_proxy_tlvs)  # how it began
        self.wire = Wire(plane.reactor, sock, fd, tls, wants_out=True)
        self.exchange: Exchange | None = None
        self.inbox = b""  # of an answer's head that is not whole
        self.is_kept = False
        self.is_readable = False
        self.has_end = False  # an end was announced that is not read yet
        self.is_closed = False
        self.idle_at = 0.0
        self.limit_s = 0.0
        self.slot = NO_SLOT
        tally = endpoint.tally
        tally.total += 1
        tally.active += 1
        plane.reactor.table[fd] = self

    @property
    def conn(self) -> Connection | None:
        """The client's connection that it is used for now."""
        exchange = self.exchange
        return None if exchange is None else exchange.client.conn

    def ready(self, events: int) -> None:
        """The target has said something, has ended, or takes more."""
        exchange = self.exchange
        if exchange is None:
            # Who waits for a request has nothing to say but what TLS has by itself. An edge may
            # also tell of bytes that were read along with those before them.
            if events != OUT and (events & ENDED or self.wire.receive() != NOTHING):
                self.close()
            return
        exchange.target_ready(events)

    def close(self) -> None:
        """Give it up, wherever it is."""
        if self.is_closed:
            return
        self.is_closed = True
        self.exchange = None
        self.endpoint.tally.active -= 1
        if self.slot != NO_SLOT:
            self.plane.http.kept.discard(self)
        if self.is_kept:
            pools = self.plane.http.pools
            kept = pools.get(self.place)
            if kept is not None and self in kept:
                kept.remove(self)
                if not kept:
                    del pools[self.place]
        reactor = self.plane.reactor
        reactor.table.pop(self.wire.fd, None)
        tls = self.wire.tls
        if tls is not None and not self.wire.is_lost and not self.wire.outbox:
            self.wire.shut()
        reactor.closing.append(self.wire.sock)

    def come_back(self) -> None:
        """Read on, after the others of this batch."""
        exchange = self.exchange
        if exchange is not None:
            exchange.client_flushed()

    def stay(self, idle_s: float) -> None:
        """Wait for the next request of the same client, ``idle_s`` at the most."""
        self.exchange = None
        if idle_s <= 0 or self.wire.outbox:
            self.close()
            return
        self.is_kept = True
        self.idle_at = self.plane.reactor.now
        self.limit_s = idle_s
        self.plane.http.kept.arm(self, self.idle_at + idle_s)

    def is_good_for(self, route: Route, port: int, now: float, *, only_fresh: bool) -> bool:
        """Whether a later request of the same client may have it, perhaps behind a reload."""
        if self.is_closed or self.route != route.name:
            return False
        if self.place != place_of(route, self.endpoint, port):
            return False
        plan = route.plan
        if self.header != (plan.send_proxy, plan.send_proxy_tlvs):
            return False
        if not route.balancer.has(self.endpoint.mark):
            return False
        idle_s = now - self.idle_at
        return idle_s < self.limit_s and not (only_fresh and idle_s >= FRESH_S)

    def hand_over(self, conn: Connection) -> CodedSide:
        """Its socket becomes the side of a relay, which counts it from now on."""
        if self.slot != NO_SLOT:
            self.plane.http.kept.discard(self)
        self.is_closed = True
        self.exchange = None
        wire = self.wire
        side = CodedSide(conn, wire.sock, wire.fd, True)
        side.tls = wire.tls
        side.outbox = wire.outbox
        side.has_ended = wire.has_ended
        return side

    def keep(self, idle_s: float) -> None:
        """Nobody needs it now: wait for the next request, ``idle_s`` at the most."""
        pools = self.plane.http.pools
        kept = pools.get(self.place)
        self.exchange = None
        is_full = kept is not None and len(kept) >= MOST_KEPT
        if idle_s <= 0 or is_full or self.wire.outbox:
            self.close()
            return
        if kept is None:
            kept = pools[self.place] = []
        self.is_kept = True
        self.idle_at = now = self.plane.reactor.now
        self.limit_s = idle_s
        kept.append(self)
        self.plane.http.kept.arm(self, now + idle_s)

    def move_to(self, endpoint: Endpoint) -> None:
        """Count under this endpoint from now on, perhaps of another route."""
        if self.endpoint is not endpoint:
            self.endpoint.tally.active -= 1
            endpoint.tally.active += 1
            self.endpoint = endpoint

    def on_deadline(self, now: float) -> None:
        """Its time in the wheel has come; it may have been used since."""
        if self.exchange is not None or self.is_closed:
            return
        if now >= self.idle_at + self.limit_s:
            self.close()
        else:
            self.plane.http.kept.arm(self, self.idle_at + self.limit_s)


def take_kept(
    pools: dict[Place, list[Upstream]],
    place: Place,
    endpoint: Endpoint,
    now: float,
    *,
    only_fresh: bool,
) -> Upstream | None:
    """One that waits there, for a request to this endpoint; None: dial. ``only_fresh``: see
    FRESH_S.
    """
    kept = pools.get(place)
    while kept:
        found = kept[-1]
        idle_s = now - found.idle_at
        if idle_s >= found.limit_s:
            found.close()
            continue
        if only_fresh and idle_s >= FRESH_S:
            return None
        kept.pop()
        if not kept:
            del pools[place]
        found.move_to(endpoint)
        return found
    return None
