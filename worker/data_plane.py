"""The data plane as the worker's runtime sees it: sockets and generations in, counters out."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from typing import Final

from shared.ends import End
from shared.errors import WorkerBootError
from shared.plan import Endpoints
from shared.stats import ListenerCounts, Snapshot
from worker.accept_pause import Reserve
from worker.access import Access
from worker.accounting import CELL_ACCEPTED, CELL_ENDED, account
from worker.connection import Address, Connection
from worker.connection_state import State
from worker.deadlines import NEVER
from worker.departure import Departure
from worker.gate import ENDS, Gate
from worker.gates import Gates
from worker.generation import Generation
from worker.held import HeldSockets
from worker.http_client import HttpClient
from worker.http_plane import HttpPlane
from worker.limits import Limits, private_limits
from worker.listener import Listener, ListenSocket
from worker.pipes import PipePool
from worker.preface import PrefaceReader
from worker.preparing import Preparing
from worker.reactor import TICK_S, Reactor
from worker.refusals import LOGGED, Log, Refusals
from worker.route_report import RouteParts
from worker.timer_wheel import TimerWheel
from worker.tls_contexts import Contexts
from worker.tls_engine import clear

PAUSE_NOTE_S: Final = 10.0  # a shortage that lasts pauses accept every tick: one line for all


class DataPlane(Preparing):
    """Owns the reactor, the listeners, the generations and every connection of this worker.

    Every method is called from the loop's thread and returns at once; none of them awaits.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        slot: int,
        incarnation: int,
        counts: memoryview | None,
        limits: Limits | None = None,
        log: Log,
    ) -> None:
        """``counts``: three unsigned 64-bit cells (accepted, dialled, ended); outlive a kill.

        ``limits``: what is counted over all workers; None: this one is alone.
        """
        self.reactor = Reactor(loop, self._tick, self.on_bug)
        self.wheel: TimerWheel[Connection] = TimerWheel(TICK_S, self.reactor.now)
        self.pipes = PipePool()
        self.http = HttpPlane(loop, self.reactor.now)
        self.touched: set[Connection] = set()
        self.open: set[Connection] = set()
        self.is_paused = False  # accept waits for a free descriptor
        self.is_draining = False
        self.has_drain_deadline = False
        self._id_prefix = f"{slot}-{incarnation}-"
        self.number: int = 0  # of the last connection
        self.cells = counts if counts is not None else memoryview(bytearray(24)).cast("Q")
        self._log = log
        self._reserve = Reserve()
        self._accept_pauses = 0
        self.has_requests = False  # whether any route had one, of HTTP
        self._pause_note_at = self.reactor.now
        self._refusals = Refusals(self._id_prefix, log, self.reactor.now)
        self._listeners: dict[int, Listener] = {}
        super().__init__(
            limits if limits is not None else private_limits(),
            Contexts(),
            Access(self._id_prefix, log),
            HeldSockets(self._listeners.__contains__),
        )
        self.gates = Gates(self.limits)
        if self.contexts.warning:
            log("warning", self.contexts.warning, {})
        self._listener_counts: dict[str, ListenerCounts] = {}
        self._route_parts = RouteParts(self._lasting)
        self._current: Generation | None = None
        self._indexes: frozenset[int] = frozenset()
        self._departure: Departure | None = None

    # -- generations -----------------------------------------------------------------------

    @property
    def generation(self) -> int:
        """The committed one; 0 before the first."""
        return self._current.number if self._current is not None else 0

    def add_socket(self, listener: int, index: int, fd: int, generation: int) -> None:
        """Take over a listening descriptor that was lent for this generation.

        It is polled only once assigned and committed.
        """
        self._held.add((listener, index), fd, generation)

    def commit(self, generation: int) -> tuple[int, int]:
        """Serve new connections by the prepared generation; removed routes begin to drain.

        Returns how many connections go on as they are, and how many are of removed routes.
        """
        new, old = self._preparing(), self._current
        if new.number != generation:
            raise WorkerBootError(f"commit of {generation}, but {new.number} is prepared")
        self._current, self._next = new, None
        self.http.adopt(new.widest, new.error_pages)
        self.access.commit()
        self.gates.adopt(new, self.open, self.reactor.now)
        for plan in new.listeners.values():
            listener = self._listeners.get(plan.id)
            if listener is None:
                counts = self._listener_counts.setdefault(plan.name, ListenerCounts())
                listener = self._listeners[plan.id] = Listener(plan, counts)
                for index in range(plan.sockets):
                    sock = self._held[plan.id, index]
                    listener.sockets[index] = ListenSocket(self, listener, sock)
            listener.adopt(
                plan, new.matchers[plan.id], new.endpoints.addresses, self.gates.first, self.limits
            )
        for id_, listener in self._listeners.items():
            if id_ not in new.listeners:
                listener.door = None  # it asks the rules of its own time; those of now hold
        self._held.committed(generation)
        if old is not None:
            if returned := self._lasting.removed.intersection(new.routes):
                self._bring_back(returned)
            if removed := self._lasting.serve(new.routes, old.routes):
                self._remove(removed)
            self._chores.add(old.dismantle())
        self._poll_assigned()
        draining = self._lasting.draining()
        return len(self.open) - draining, draining

    def _remove(self, removed: set[str]) -> None:
        now = self.reactor.look_at_clock()
        for conn in list(self.open):
            phase = conn.phase
            if isinstance(phase, HttpClient):
                phase.removed(removed, now)
            elif conn.route is not None and conn.route.name in removed:
                conn.cut(now + conn.route.timeouts.drain, End.ROUTE_REMOVED)

    def _bring_back(self, returned: set[str]) -> None:
        """Routes that were removed are served again: their connections are not cut for that."""
        if self.has_drain_deadline:
            return  # a connection knows only the earlier of its two cuts
        for conn in list(self.open):
            if conn.cut_reason is not End.ROUTE_REMOVED or conn.state is State.CLOSING:
                continue  # CLOSING has put its own limit there
            phase = conn.phase
            if isinstance(phase, HttpClient):
                phase.returned(returned)
            elif conn.route is not None and conn.route.name in returned:
                conn.cut_at = NEVER

    def resolve(self, endpoints: Endpoints) -> None:
        """Take new addresses of names."""
        for generation in (self._current, self._next):
            if generation is not None:
                self._chores.add(generation.resolve(endpoints))
        if self._current is not None:
            for listener in self._listeners.values():
                listener.resolve(self._current.endpoints.addresses)

    # -- listeners -------------------------------------------------------------------------

    def assign(self, indexes: list[int]) -> None:
        """Poll exactly these socket indexes of every listener; one that is shared always."""
        self._indexes = frozenset(indexes)
        self._poll_assigned()

    def _poll_assigned(self) -> None:
        may_poll = not self.is_paused and not self.is_draining
        # A listener that left the config is served until the supervisor retires it: whoever dials
        # before the reload has answered does not wait for that.
        for listener in self._listeners.values():
            for index, sock in listener.sockets.items():
                is_ours = listener.plan.sockets == 1 or index in self._indexes
                sock.poll(may_poll and is_ours and bool(self._indexes))

    def give_up_next(self) -> None:
        """No supervisor will commit what was lent for a generation that is not final."""
        self._held.give_up()

    def listeners(self) -> list[Listener]:
        """All that are held, those on their way out included."""
        return list(self._listeners.values())

    def retire(self, listeners: list[int]) -> None:
        """Accept what waits on these listeners until EAGAIN, then close their descriptors."""
        for id_ in listeners:
            listener = self._listeners.pop(id_, None)
            if listener is not None:
                for sock in listener.sockets.values():
                    sock.accept_all()
                    sock.close()
            self._held.retire(id_)

    def pause_accept(self, why: OSError) -> None:
        """No descriptor (or memory) is left: what waits stays in the backlog until one is."""
        if self.is_paused:
            return
        self.is_paused = True
        self._accept_pauses += 1
        self._poll_assigned()
        if self.reactor.now < self._pause_note_at:
            return
        self._pause_note_at = self.reactor.now + PAUSE_NOTE_S
        self._log(
            "error", f"accept pauses: {why.strerror}; raise LimitNOFILE or lower the load", {}
        )

    def use_reserve(self) -> bool:
        """Give the reserve descriptor to the dial of a client that is already accepted."""
        if not self._reserve.use():
            return False
        self.pause_accept(OSError(errno.EMFILE, "the last descriptor went to a dial"))
        return True

    def _end_pause(self) -> None:
        if not self._reserve.refill():
            return
        self.is_paused = False
        self._poll_assigned()

    # -- leaving ---------------------------------------------------------------------------

    def drain(
        self,
        deadline_s: float | None,
        close_listeners: bool,
        on_done: Callable[[int, int], None],
    ) -> None:
        """Accept what waits, then finish; ``on_done(drained, cut)`` when no connection is left.

        Told again during a drain that has a deadline, it only brings that nearer.
        """
        now = self.reactor.look_at_clock()
        if self.has_drain_deadline and deadline_s is not None:
            self._cut_all(now + deadline_s)
            return
        for listener in self._listeners.values():
            for sock in listener.sockets.values():
                if sock.is_polled or close_listeners:
                    sock.poll(False)
                    sock.accept_all()
        self.is_draining = True
        self.has_drain_deadline = deadline_s is not None
        self._poll_assigned()
        self._departure = Departure(self.open, on_done)
        if close_listeners:
            self.retire(list(self._listeners))
        for conn in list(self.open):
            if isinstance(conn.phase, HttpClient):
                conn.phase.leave(at_once=deadline_s is not None)
            elif isinstance(conn.phase, PrefaceReader) and deadline_s is not None:
                conn.phase.leave()
        if deadline_s is not None:
            self._cut_all(now + deadline_s)
        self._departure.check()

    def _cut_all(self, at: float) -> None:
        for conn in list(self.open):
            conn.cut(at, End.DRAIN_DEADLINE)

    def stop(self) -> None:
        """Cut every connection as ``stopped``; a drain under way counts them as cut."""
        for conn in list(self.open):
            conn.end(End.STOPPED)

    # -- called by connections -------------------------------------------------------------

    @property
    def connections(self) -> int:
        """Open now."""
        return len(self.open)

    def connection_id(self, conn: Connection) -> str:
        """``<slot>-<incarnation>-<number>``."""
        return f"{self._id_prefix}{conn.number}"

    def ended(self, conn: Connection, reason: End, detail: str) -> None:
        """A connection has ended: count it where it belongs."""
        self.open.discard(conn)
        if self.gates.counts_open:
            self.limits.open_here[0] = len(self.open)
        self.cells[CELL_ENDED] += 1
        route = conn.counted_at or conn.route
        if reason in LOGGED:
            self._refusals.ended(conn, reason, detail)
        if self.access.is_on and not conn.has_told:
            self.access.line(conn, reason, self.reactor.now)
        if route is None:
            refused = conn.listener.counts.refused
            refused[reason] = refused.get(reason, 0) + 1
        else:
            route.tally.ended(reason)
            if conn.endpoint is not None:
                conn.endpoint.tally.active -= 1
        if self._departure is not None:
            self._departure.ended(reason)

    def refused_request(self, conn: Connection, end: End | None, detail: str) -> None:
        """A request was refused, or failed here; its connection may go on."""
        if end is not None and end in LOGGED:
            self._refusals.ended(conn, end, detail)

    def refuse(self, listener: Listener, peer: Address, refusal: int, gate: Gate) -> None:
        """Count a connection that was accepted and is closed at once, without a record of it."""
        end = ENDS[refusal]
        self.number += 1
        cells = self.cells
        cells[CELL_ACCEPTED] += 1
        cells[CELL_ENDED] += 1
        counts = listener.counts
        counts.accepted += 1
        counts.refused[end] = counts.refused.get(end, 0) + 1
        self._refusals.refused(self.number, listener, peer, refusal, gate)
        if self.access.is_on:
            self.access.refused(self.number, listener, peer, end, self.reactor.now)

    def on_bug(self, handler: object, exc: Exception) -> None:
        """A handler raised what it must not: end its connection, keep all others."""
        clear()
        found = handler if isinstance(handler, Connection) else getattr(handler, "conn", None)
        conn = found if isinstance(found, Connection) else None
        self._refusals.bug("internal error", exc, conn)
        if conn is not None:
            try:
                conn.end(End.INTERNAL_ERROR)
            except Exception as again:  # the others of the batch must not pay for it
                self.open.discard(conn)
                self._refusals.bug("internal error at the end of a connection", again, conn)

    # -- time and counters -----------------------------------------------------------------

    def _tick(self, now: float) -> None:
        self._account(now)
        for conn in self.wheel.expire(now):
            try:
                conn.on_deadline(now)
            except Exception as exc:
                self.on_bug(conn, exc)
        if self.is_paused:
            self._end_pause()
        self._chores.tick()
        self.http.tick(now)
        self._refusals.tick(now)
        self.gates.tick(now)
        if self.access.is_on:
            self.access.tick(now, self.open)

    def _account(self, now: float) -> None:
        touched, self.touched = self.touched, set()
        for conn in touched:
            if not conn.is_closed:
                conn.rest()
                if account(conn, now):
                    conn.touch()

    def report_parts(self) -> int:
        """How many parts all counters have; one, unless there are many routes."""
        return self._route_parts.count()

    def fill(self, snapshot: Snapshot, part: int) -> None:
        """Put the counters of this moment into ``snapshot``: of routes those of this part, of
        listeners with the first one.
        """
        self._account(self.reactor.now)
        snapshot.connections = len(self.open)
        snapshot.accept_pauses = self._accept_pauses
        snapshot.access_lines = self.access.lines
        snapshot.access_lines_dropped = self.access.dropped
        snapshot.limit_table_full = self.limits.not_counted
        served = self._current.routes if self._current is not None else {}
        snapshot.routes = self._route_parts.told(part, served, self.reactor.now)
        if part == 0:
            snapshot.listeners = self._listener_counts

    def last_words(self) -> None:
        """Write what waits for a log; nothing is logged after it."""
        self._refusals.tell()
        self.access.close()

    def close(self) -> None:
        """Stop the reactor and give every descriptor back.

        Nothing is accepted any more: what waits belongs to whoever else holds the listener.
        """
        self.stop()
        for listener in self._listeners.values():
            for sock in listener.sockets.values():
                sock.close()
        self._held.close()
        self.http.close()
        self.reactor.close()
        self.pipes.close()
        self.last_words()
        self._reserve.use()
