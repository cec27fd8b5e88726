"""The dial: one endpoint after the other until one is there or the time is up."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Final

from shared.ends import End
from worker.balancer import MARK_S
from worker.coded_side import CodedSide
from worker.connection_state import State
from worker.handshake import TargetHandshake
from worker.reactor import ERROR, IN, OUT, WRITING
from worker.sockets import dial

if TYPE_CHECKING:
    from worker.balancer import Endpoint
    from worker.connection import Connection
    from worker.generation import Route
    from worker.sockets import Socket
    from worker.tls_engine import Tls
    from worker.upstream_contexts import UpstreamContext

CLOSED: Final = State.CLOSED
UNDER_WAY: Final = (errno.EINPROGRESS, 0)
MOST_WHILE_OTHERS_S: Final = 5.0  # for one dial while another endpoint is left (design section 4)

# What the label `reason` of target_connect_failures_total says.
_REASONS: Final = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    errno.ETIMEDOUT: "timeout",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.EADDRNOTAVAIL: "no_local_port",
    errno.EAFNOSUPPORT: "unreachable",
    errno.ENOENT: "no_socket_file",
    errno.EACCES: "permission",
    errno.EPERM: "permission",
    errno.EAGAIN: "backlog_full",  # of a Unix socket; unix(7)
    errno.EMFILE: "no_descriptors",
    errno.ENFILE: "no_descriptors",
}


class Dial:
    """The dialling phase of one connection."""

    __slots__ = (
        "_at",
        "_detail",
        "_endpoint",
        "_fd",
        "_handshake",
        "_left",
        "_sock",
        "_until",
        "conn",
        "route",
        "waiting",
    )

    def __init__(self, conn: Connection, route: Route) -> None:
        self.conn = conn
        self.route = route
        self._sock: Socket | None = None
        self._fd = -1
        self._endpoint: Endpoint | None = None
        self._left: list[Endpoint] | None = None  # still to be tried; None: not worked out yet
        self._handshake: TargetHandshake | None = None
        self._detail = ""  # of the last failure, for the log
        self._until = self._at = 0.0
        self.waiting = 0  # events of the client's socket meanwhile

    def start(self) -> None:
        """Dial the endpoint that balancing gives."""
        now = self.conn.plane.reactor.now
        self._until = now + self.route.timeouts.connect
        endpoint = self.route.pick(now)
        if endpoint is None:
            for target in self.route.balancer.targets:
                _count_failure(target.tally.counts.connect_failures, "unresolved")
            self.conn.end(End.CONNECT_FAILED, "no target has an address")
            return
        self._try_from(endpoint, now)

    def client_ready(self, events: int) -> None:
        """Bytes or FIN of the client: they wait for the relay."""
        self.waiting |= events

    def ready(self, events: int) -> None:
        """The target's socket is connected, or never will be."""
        sock, endpoint = self._sock, self._endpoint
        assert sock is not None
        assert endpoint is not None
        if events & ERROR:
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or errno.ECONNRESET
            self._failed(_REASONS.get(code, "other"))
            return
        if events & OUT:
            self._established(sock, endpoint, events)

    def _established(self, sock: Socket, endpoint: Endpoint, events: int) -> None:
        conn, fd = self.conn, self._fd
        if self.route.upstream is not None:
            self._shake(sock, endpoint, self.route.upstream, events)
            return
        self._sock = None
        if self.route.lasting.failing:  # else there is nothing to take back
            endpoint.mark.failed_until = 0.0
        self.arrived(sock, fd, endpoint)
        if events & IN and conn.state is not CLOSED:
            handler = conn.plane.reactor.table.get(fd)  # the side, or who stands in its place
            if handler is not None:
                handler.ready(events)

    def arrived(
        self,
        sock: Socket,
        fd: int,
        endpoint: Endpoint,
        side: CodedSide | None = None,
        behind: bytes = b"",
    ) -> None:
        """The target is there. ``side`` and ``behind``: where TLS is spoken with it."""
        self.conn.connected(sock, fd, endpoint, self.waiting, side, behind)

    def gave_up(self, end: End, detail: str) -> None:
        """No endpoint is left to be tried."""
        self.conn.end(end, detail)

    # -- TLS with the target ---------------------------------------------------------------

    def _shake(
        self, sock: Socket, endpoint: Endpoint, upstream: UpstreamContext, events: int
    ) -> None:
        handshake = TargetHandshake(self, sock, upstream, endpoint.target.host)
        self._handshake = handshake
        self.conn.plane.reactor.table[self._fd] = handshake
        handshake.begin()
        if events & IN and self.is_shaking(handshake):
            handshake.ready(events)

    def is_shaking(self, handshake: TargetHandshake) -> bool:
        """Whether this handshake still goes on."""
        return self._handshake is handshake

    def tls_failed(self, reason: str, detail: str) -> None:
        """The target, or its certificate, will not do."""
        self._handshake = None
        self._detail = detail
        self._failed(reason)

    def shaken(self, tls: Tls, behind: bytes, unsent: bytes) -> None:
        """TLS with the target is there. ``behind``: what it has said already, as plaintext."""
        sock, endpoint = self._sock, self._endpoint
        assert sock is not None
        assert endpoint is not None
        self._sock = self._handshake = None
        endpoint.mark.failed_until = 0.0
        side = CodedSide(self.conn, sock, self._fd, True)
        side.tls = tls
        side.outbox = unsent
        self.arrived(sock, self._fd, endpoint, side, behind)

    def on_deadline(self, now: float) -> None:
        """Give this endpoint up if its time is over."""
        if now >= self._at:
            self._failed("timeout")
        else:
            self.conn.arm(self._at)

    def abandon(self) -> None:
        """The connection has ended: stop dialling."""
        sock = self._sock
        if sock is not None:
            self._sock = self._handshake = None
            reactor = self.conn.plane.reactor
            reactor.table.pop(self._fd, None)
            reactor.closing.append(sock)

    # -- one endpoint after the other ------------------------------------------------------

    def _failed(self, reason: str) -> None:
        """The endpoint under way has failed: go on to the next."""
        endpoint = self._endpoint
        assert endpoint is not None
        self._handshake = None
        self._drop()
        now = self.conn.plane.reactor.now
        following = self._next(endpoint, reason, now)
        if following is not None:
            self._try_from(following, now)

    def _try_from(self, endpoint: Endpoint, now: float) -> None:
        """Dial ``endpoint``; where that fails at once, the ones after it."""
        current: Endpoint | None = endpoint
        while current is not None:
            self._endpoint = current
            self._detail = ""
            code = self._begin(current)
            if code in UNDER_WAY:
                self._wait(now)
                return
            self._drop()
            current = self._next(current, _REASONS.get(code, "other"), now)

    def _begin(self, endpoint: Endpoint) -> int:
        """Create the socket and start to connect; the errno, 0 or EINPROGRESS when under way."""
        conn = self.conn
        address = endpoint.address or (endpoint.host, conn.listener.port)
        try:
            sock, fd, code = dial(endpoint.family, address)
        except OSError as exc:
            # The client's descriptor was the last one: the reserve is for the target's.
            if exc.errno not in (errno.EMFILE, errno.ENFILE) or not conn.plane.use_reserve():
                return exc.errno or errno.EIO
            try:
                sock, fd, code = dial(endpoint.family, address)
            except OSError as again:
                return again.errno or errno.EIO
        self._sock, self._fd = sock, fd
        if code in UNDER_WAY:
            conn.plane.reactor.table[fd] = self
            conn.plane.reactor.register(fd, WRITING)
        return code

    def _wait(self, now: float) -> None:
        left = 0
        if self._left is not None:
            left = len(self._left)
        elif self.route.only is None:  # else there is nobody besides, and less memory to touch
            left = self.route.balancer.size - 1
        if left:
            share = (self._until - now) / (left + 1)
            self._at = now + min(share, MOST_WHILE_OTHERS_S)
        else:
            self._at = self._until
        self.conn.arm(self._at)

    def _next(self, failed: Endpoint, reason: str, now: float) -> Endpoint | None:
        """Note the failure; the endpoint to try now, or None when the connection has ended."""
        if reason != "no_descriptors":  # that is not the target's fault
            failed.mark.failed_until = now + MARK_S
            self.route.lasting.failing.add(self.route.name)
        _count_failure(failed.tally.counts.connect_failures, reason)
        if self._left is None:
            self._left = self.route.balancer.others(failed, now)
        if self._left and now < self._until:
            return self._left.pop(0)
        end = End.CONNECT_TIMEOUT if reason == "timeout" else End.CONNECT_FAILED
        if reason == "no_descriptors":
            end = End.OVERLOAD
        detail = f" ({self._detail})" if self._detail else ""
        self.gave_up(end, f"target {failed.target.name}: {reason}{detail}")
        return None

    def _drop(self) -> None:
        """Close the socket of a failed dial at once: no event of it can be left in the batch."""
        sock = self._sock
        if sock is not None:
            self._sock = None
            self.conn.plane.reactor.table.pop(self._fd, None)
            sock.close()


def _count_failure(failures: dict[str, int], reason: str) -> None:
    failures[reason] = failures.get(reason, 0) + 1
