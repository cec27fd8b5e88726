"""The access log over generations, and what of a connection goes into a line of it."""

from __future__ import annotations

from collections.abc import Set
from typing import TYPE_CHECKING, Final, TypeAlias

from shared.access_format import Entry, RequestEntry, places_json
from shared.access_text import seconds
from shared.ends import End
from shared.errors import WorkerBootError
from shared.plan import AccessPlan
from worker.access_log import LINES_AT_ONCE, AccessLog
from worker.refusals import Log

if TYPE_CHECKING:
    from worker.balancer import Endpoint
    from worker.connection import Address, Connection
    from worker.listener import Listener

MOST_PLACES: Final = 1024  # then anew
LINES_A_TICK: Final = 500  # about connections that go on; about 2 ms
SWAP_S: Final = 0.2  # for a log that a reload ends to be written: traffic waits meanwhile
CLOSE_S: Final = 1.0  # the same at the worker's end

# Listener, endpoint, and where a PROXY header said that the client went (b"", 0: none did).
_Way: TypeAlias = "tuple[Listener, Endpoint | None, bytes, int]"


class Access:
    """``is_on``: there is a log. The plan in use changes with `commit`."""

    def __init__(self, id_prefix: str, log: Log) -> None:
        self.is_on = False
        self.wants_connect = False
        self._id_prefix = id_prefix
        self._note = log
        self._log: AccessLog | None = None
        self._plan: AccessPlan | None = None
        self._next: AccessLog | None = None
        self._next_plan: AccessPlan | None = None
        self._round_at = 0.0  # the next look at connections that go on
        self._round: list[Connection] = []
        self._lines = self._dropped = 0  # of logs that are closed
        self._places: dict[_Way, str] = {}

    def prepare(self, plan: AccessPlan | None) -> None:
        """Open the log of the next generation; WorkerBootError where that fails."""
        self.abort()
        self._next_plan = plan
        if plan is None or plan == self._plan:
            return
        try:
            self._next = AccessLog(plan, self._id_prefix, self._note)
        except OSError as error:
            message = f"cannot open the access log {plan.file}: {error.strerror}"
            raise WorkerBootError(message) from error

    def abort(self) -> None:
        """Forget the next one."""
        if self._next is not None:
            self._next.close(0.0)
            self._next = None

    def commit(self) -> None:
        """Write to the prepared log from now on."""
        self._places.clear()  # listeners and endpoints of the generation that was
        if self._next_plan == self._plan:
            return
        old, self._log, self._next = self._log, self._next, None
        self._plan = plan = self._next_plan
        self._round_at, self._round = 0.0, []  # of the interval that was
        self.is_on = self._log is not None
        self.wants_connect = plan is not None and plan.connect
        if old is not None:
            self._retire(old, SWAP_S)

    def _retire(self, log: AccessLog, timeout_s: float) -> None:
        log.close(timeout_s)
        self._lines += log.lines
        self._dropped += log.dropped

    @property
    def lines(self) -> int:
        """Written so far."""
        return self._lines + (self._log.lines if self._log is not None else 0)

    @property
    def dropped(self) -> int:
        """Lost so far."""
        return self._dropped + (self._log.dropped if self._log is not None else 0)

    def reopen(self) -> str:
        """Open the file again by its path; says what went wrong, or "".

        The next generation's too: it may have been opened just before a rotation.
        """
        logs = [log for log in (self._log, self._next) if log is not None]
        return "; ".join(text for text in [log.reopen() for log in logs] if text)

    def line(self, conn: Connection, end: End | None, now: float) -> None:
        """One line about a connection; ``end`` None: it goes on."""
        log = self._log
        assert log is not None
        peer_ip, peer_port = conn.peer_address
        ip, port = conn.client
        header = conn.header
        destination, destination_port = b"", 0  # of the socket
        if header is not None and header.has_addresses:
            destination, destination_port = header.destination, header.destination_port
        if (
            not conn.first_byte_at
            or conn.tls_at
            or end is None
            or (not destination and conn.listener.fixed_destination is None)
            or not peer_ip
            or not ip
            or ":" in peer_ip
            or ":" in ip
            or not log.takes_usual
            or log.is_full
        ):
            log.write(now, _entry(conn, end, now))
            return
        # What nearly all are like; on the hot path of each connection.
        up, connected = conn.up, conn.connected_at
        assert up is not None  # its first byte came
        key = conn.listener, conn.endpoint, destination, destination_port
        places = self._places.get(key) or self._remember(conn, key)
        if now != log.now:
            log.look_at_clock(now)
        entries = log.entries
        entries.append(
            (
                log.time,
                conn.number,
                peer_ip,
                peer_port,
                ip,
                port,
                places,
                end,
                conn.down.received,
                up.passed,
                seconds(conn.header_at - conn.accepted_at) if conn.header_at else "null",
                connected - conn.routed_at,
                conn.first_byte_at - connected,
                now - conn.accepted_at,
            )
        )
        if len(entries) >= LINES_AT_ONCE:
            log.make(now)

    def _remember(self, conn: Connection, key: _Way) -> str:
        """Where this connection went to, as text; an endpoint is of one route."""
        route, endpoint, listener = conn.route, conn.endpoint, conn.listener
        assert route is not None
        assert endpoint is not None
        if len(self._places) >= MOST_PLACES:
            self._places.clear()
        names = (conn.destination, listener.name, route.name, endpoint.target.name)
        text = self._places[key] = places_json(names)
        return text

    def refused(self, number: int, listener: Listener, peer: Address, end: End, now: float) -> None:
        """One line about a connection that was closed at accept."""
        log = self._log
        assert log is not None
        destination = listener.fixed_destination or ("", 0)  # the socket is not asked any more
        entry = (
            number, peer, peer, destination, listener.name,
            None, None, end, 0, 0, None, None, None, None, 0.0,
        )  # fmt: skip
        log.write(now, entry)

    def request(self, entry: RequestEntry, now: float) -> None:
        """One line about a request that is over; only while ``is_on``.

        Its connection gets none of its own, unless it never had a request or became a relay.
        """
        log = self._log
        assert log is not None
        if log.is_full:
            log.write(now, entry)
            return
        if now != log.now:
            log.look_at_clock(now)
        entries = log.entries
        entries.append((log.time, entry))
        if len(entries) >= LINES_AT_ONCE:
            log.make(now)

    def tick(self, now: float, open_: Set[Connection]) -> None:
        """Hand over what waits, and write about connections that go on, if that is asked for."""
        assert self._log is not None
        assert self._plan is not None
        self._log.tick(now)
        interval_s = self._plan.interval_s
        if not interval_s:
            return
        if now >= self._round_at and not self._round:
            self._round_at = now + interval_s
            self._round = [conn for conn in open_ if now - conn.accepted_at >= interval_s]
        for conn in self._round[:LINES_A_TICK]:
            if not conn.is_closed:
                self.line(conn, None, now)
        del self._round[:LINES_A_TICK]

    def close(self) -> None:
        """Write what waits, and give the file back."""
        self.abort()
        if self._log is not None:
            log, self._log = self._log, None
            self.is_on = False
            self._retire(log, CLOSE_S)


def _entry(conn: Connection, end: End | None, now: float) -> Entry:
    """What a line is made of, whatever the connection has come to."""
    route, endpoint, up = conn.route, conn.endpoint, conn.up
    accepted, connected = conn.accepted_at, conn.connected_at
    return (
        conn.number,
        conn.peer_address,
        conn.client,
        conn.destination,
        conn.listener.name,
        None if route is None else route.name,
        None if endpoint is None else endpoint.target.name,
        end,
        conn.down.received,
        0 if up is None else up.passed,
        conn.header_at - accepted if conn.header_at else None,
        conn.tls_at - conn.routed_at if conn.tls_at else None,
        connected - (conn.tls_at or conn.routed_at) if connected else None,
        conn.first_byte_at - connected if conn.first_byte_at else None,
        now - accepted,
    )
