"""The dial of an exchange: as a connection's, but that its failure is an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.ends import End
from worker.dial import Dial
from worker.http_count import observe_connect
from worker.http_pool import Upstream, place_of

if TYPE_CHECKING:
    from worker.balancer import Endpoint
    from worker.coded_side import CodedSide
    from worker.connection import Connection
    from worker.generation import Route
    from worker.http_exchange import Exchange
    from worker.sockets import Socket


class HttpDial(Dial):
    """Dials for one exchange."""

    __slots__ = ("_exchange",)

    def __init__(self, conn: Connection, route: Route, exchange: Exchange) -> None:
        super().__init__(conn, route)
        self._exchange = exchange

    def start_with(self, endpoint: Endpoint) -> None:
        """Dial this endpoint first."""
        now = self.conn.plane.reactor.now
        self._until = now + self.route.timeouts.connect
        self._try_from(endpoint, now)

    def arrived(
        self,
        sock: Socket,
        fd: int,
        endpoint: Endpoint,
        side: CodedSide | None = None,
        behind: bytes = b"",
    ) -> None:
        """As `Dial.arrived`."""
        conn, route, exchange = self.conn, self.route, self._exchange
        tls = None if side is None else side.tls
        place = place_of(route, endpoint, conn.listener.port)
        up = Upstream(conn.plane, route, endpoint, place, sock, fd, tls)
        header = b""
        if side is not None:
            up.wire.outbox = side.outbox
            up.inbox = behind
            up.is_readable = True  # its edges are spent
        elif route.send_header is not None:
            header = route.send_header(conn)
        observe_connect(exchange, conn.plane.reactor.now)
        exchange.use(up, header)

    def gave_up(self, end: End, detail: str) -> None:
        """As `Dial.gave_up`."""
        self._exchange.unreachable(end, detail)
