"""A real data plane on a uvloop loop in a thread of the test process, on loopback sockets.

    with running() as plane:
        target = plane.target()
        listener = plane.serve(target)
        client = plane.connect(listener)
        server = target.accept()
        ...
        plane.wait_ends({"client_closed": 1})

On the way out everything is closed. Where the test itself did not fail, it is also checked that
nothing is left: no connection, nothing in the wheel, no pipe lent, no descriptor, no bug logged.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from shared.address_set import build, parse_range
from shared.messages import Prepare, PrepareCertificates
from shared.plan import (
    AccessPlan,
    AnswerPlan,
    AuthorityPlan,
    CertificatePlan,
    Endpoints,
    ListenerPlan,
    ProxyPolicy,
    RoutePlan,
    SecurityPlan,
    TargetPlan,
    Timeouts,
)
from shared.stats import RouteCounts, Snapshot, TargetCounts
from tests.data_plane_sockets import (
    TIMEOUT_S,
    Target,
    descriptors,
    read_what_is_there,
    send_until_full,
)
from tests.helpers.waiting import wait_until
from worker.data_plane import DataPlane
from worker.listener import ListenSocket

T = TypeVar("T")
Line = tuple[str, str, dict[str, str]]  # level, message, fields of a log line


def route(
    name: str,
    listeners: ListenerPlan | Sequence[ListenerPlan],
    *targets: Target | TargetPlan,
    **settings: Any,
) -> RoutePlan:
    """A plan of a route; ``order`` 0 unless told."""
    several = (listeners,) if isinstance(listeners, ListenerPlan) else tuple(listeners)
    ids = tuple(listener.id for listener in several)
    plans = tuple(one.plan() if isinstance(one, Target) else one for one in targets)
    order = settings.pop("order", 0)
    return RoutePlan(name=name, order=order, listeners=ids, targets=plans, **settings)


class Plane:
    """The data plane under test; see `running`."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.lines: list[Line] = []
        self.cells = memoryview(bytearray(24)).cast("Q")  # accepted, dialled, ended
        self.listeners: list[ListenerPlan] = []
        self._loop = uvloop.new_event_loop()
        self.plane = DataPlane(
            self._loop,
            slot=3,
            incarnation=7,
            counts=self.cells,
            log=lambda *line: self.lines.append(line),
        )
        self._thread = threading.Thread(target=self._loop.run_forever, name="data plane")
        self._thread.start()
        self._ids = iter(range(1, 1000))

    def call(self, function: Callable[[], T]) -> T:
        """Run on the loop's thread, as all of the data plane does; the loop waits meanwhile."""
        done: concurrent.futures.Future[T] = concurrent.futures.Future()

        def run() -> None:
            try:
                done.set_result(function())
            except BaseException as exc:
                done.set_exception(exc)

        self._loop.call_soon_threadsafe(run)
        return done.result(TIMEOUT_S)

    # -- listeners, targets, routes --------------------------------------------------------

    def keep(self, closable: Any) -> Any:
        """Close it at the end, whatever happens; returns it."""
        self._stack.callback(closable.close)
        return closable

    def target(self, host: str = "127.0.0.1", path: str = "", port: int = 0) -> Target:
        """A target on a free port, or on ``path``."""
        made = Target("" if path else host, path, port, self.keep)
        self.keep(made.sock)
        return made

    def dead_target(self) -> TargetPlan:
        """A target that refuses: its port is bound, so nobody else gets it, but not listened on."""
        sock = self.keep(socket.socket())
        sock.bind(("127.0.0.1", 0))
        port = int(sock.getsockname()[1])
        return TargetPlan(name=f"dead:{port}", host="127.0.0.1", port=port)

    def black_hole(self) -> TargetPlan:
        """A target that never answers: its backlog is full, so the kernel drops every SYN."""
        sock = self.keep(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = int(sock.getsockname()[1])
        self.keep(socket.create_connection(("127.0.0.1", port), TIMEOUT_S))
        return TargetPlan(name=f"black-hole:{port}", host="127.0.0.1", port=port)

    def directory(self) -> Path:
        """An empty directory with a short path, for Unix sockets."""
        return Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="plane")))

    def listen(
        self,
        policy: ProxyPolicy | None = None,
        host: str = "127.0.0.1",
        path: str = "",
        sockets: int = 1,
    ) -> ListenerPlan:
        """Open a listener on a free port (or ``path``) and hand its sockets to the data plane."""
        id_, port = next(self._ids), 0
        made: list[socket.socket] = []
        for _ in range(sockets):
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            sock = socket.socket(socket.AF_UNIX if path else family)
            if path:
                sock.bind(path)
            else:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                sock.bind((host, port))
                port = int(sock.getsockname()[1])
            sock.listen(2048)
            sock.setblocking(False)
            made.append(sock)
        name = f"unix:{path}" if path else f"{host}:{port}"
        plan = ListenerPlan(
            id=id_,
            name=name,
            host="" if path else host,
            port=port,
            path=path,
            sockets=sockets,
            proxy=policy or ProxyPolicy(),
        )
        for index, sock in enumerate(made):
            fd = sock.detach()
            self.call(lambda index=index, fd=fd: self.lend(id_, index, fd))  # type: ignore[misc]
        self.listeners.append(plan)
        return plan

    def lend(self, listener: int, index: int, fd: int) -> None:
        """Hand a listening descriptor to the data plane, for its next generation."""
        self.plane.add_socket(listener, index, fd, self.plane.generation + 1)

    def commit(
        self,
        *routes: RoutePlan,
        addresses: Mapping[str, Sequence[str]] | None = None,
        sets: Sequence[Sequence[str]] = (),
        security: SecurityPlan | None = None,
        access: AccessPlan | None = None,
        certificates: Sequence[CertificatePlan] = (),
        authorities: Sequence[AuthorityPlan] = (),
        error_pages: Sequence[tuple[int, AnswerPlan]] = (),
    ) -> None:
        """Make these routes, on all listeners so far, the next generation.

        ``sets``: lists of addresses, which rules name by their place.
        """
        names = {name: tuple(ips) for name, ips in (addresses or {}).items()}

        def swap() -> None:
            number = self.plane.generation + 1
            self.plane.begin(
                Prepare(
                    generation=number,
                    listeners=self.listeners,
                    routes=len(routes),
                    endpoints=Endpoints(addresses=names),
                    security=security or SecurityPlan(),
                    address_sets=len(sets),
                    access=access,
                    error_pages=tuple(error_pages),
                )
            )
            for entries in sets:
                self.plane.add_set(build(map(parse_range, entries)))
            self.plane.add_certificates(
                PrepareCertificates(
                    generation=number,
                    certificates=list(certificates),
                    authorities=list(authorities),
                )
            )
            assert self.plane.add_routes(list(routes)) == len(routes)
            while not self.plane.build_ahead():
                pass
            assert self.plane.missing_sockets() == []
            self.plane.commit(number)
            if number == 1:
                self.plane.assign([0])

        self.call(swap)

    def resolve(self, addresses: Mapping[str, Sequence[str]]) -> None:
        """New addresses of names."""
        names = {name: tuple(ips) for name, ips in addresses.items()}
        self.call(lambda: self.plane.resolve(Endpoints(addresses=names)))

    def serve(
        self,
        *targets: Target | TargetPlan,
        policy: ProxyPolicy | None = None,
        host: str = "127.0.0.1",
        path: str = "",
        timeouts: Timeouts | None = None,
        **settings: Any,
    ) -> ListenerPlan:
        """One listener with one route, "r", to these targets; returns the listener."""
        listener = self.listen(policy, host, path)
        self.commit(route("r", listener, *targets, timeouts=timeouts or Timeouts(), **settings))
        return listener

    def connect(self, listener: ListenerPlan, source: str = "", buffer: int = 0) -> socket.socket:
        """A client; ``buffer`` sets its receive and send buffers, in bytes."""
        return self.connect_later(listener, source, buffer)()

    def connect_later(
        self, listener: ListenerPlan, source: str = "", buffer: int = 0
    ) -> Callable[[], socket.socket]:
        """As `connect`: the descriptor is taken now, the connection made by calling the result."""
        if listener.path:
            client = self.keep(socket.socket(socket.AF_UNIX))
        else:
            is_v6 = ":" in listener.host
            client = self.keep(socket.socket(socket.AF_INET6 if is_v6 else socket.AF_INET))
        client.settimeout(TIMEOUT_S)
        if buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        if source:
            client.bind((source, 0))
        wildcards = {"0.0.0.0": "127.0.0.1", "::": "::1"}
        host = wildcards.get(listener.host, listener.host)
        sock: socket.socket = client

        def connect() -> socket.socket:
            sock.connect(listener.path or (host, listener.port))
            return sock

        return connect

    # -- what can be seen ------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """The counters of this moment."""
        snapshot = Snapshot()

        def fill() -> None:
            self.plane.fill(snapshot, 0)

        self.call(fill)
        return snapshot

    def counts(self, name: str = "r") -> RouteCounts:
        """Of one route."""
        return self.snapshot().routes.get(name, RouteCounts())

    def target_counts(self, target: Target | TargetPlan, name: str = "r") -> TargetCounts:
        """Of one target of a route."""
        return self.counts(name).targets.get(target.name, TargetCounts())

    def ends(self) -> dict[str, int]:
        """All ends so far by reason, of routes and of connections that got none."""
        snapshot, found = self.snapshot(), Counter[str]()
        for counts in snapshot.routes.values():
            found.update({str(end): count for end, count in counts.ends.items()})
        for listener in snapshot.listeners.values():
            found.update({str(end): count for end, count in listener.refused.items()})
        return dict(found)

    def headers(self) -> dict[str, int]:
        """What became of PROXY headers, by result, over all listeners."""
        found = Counter[str]()
        for listener in self.snapshot().listeners.values():
            found.update(listener.proxy_headers)
        return dict(found)

    def wait_ends(self, expected: Mapping[str, int]) -> None:
        """Wait until exactly these ends have been counted and no connection is open."""
        total = sum(expected.values())
        wait_until(
            lambda: sum(self.ends().values()) >= total and self.plane.connections == 0,
            f"{expected}, have {self.ends()}",
        )
        assert self.ends() == dict(expected)

    @property
    def lent(self) -> int:
        """Pipes lent now."""
        return self.call(lambda: self.plane.pipes.lent)

    def splice(
        self, writer: socket.socket, reader: socket.socket, data: bytes
    ) -> tuple[int, bytes]:
        """Send ``data`` until its direction is spliced and every buffer on the way is full.

        Returns how many bytes were sent, and those that the reader got meanwhile: a direction
        must move to prove that it is bulk.
        """
        before, sent, received = self.lent, 0, b""
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            more = send_until_full(writer, data[sent:])
            sent += more
            if not more and self.lent > before:
                return sent, received
            assert sent < len(data), "all was sent and nothing spliced"
            assert time.monotonic() < deadline, "never spliced"
            if self.lent == before:
                received += read_what_is_there(reader)

    def logged(self, text: str) -> list[Line]:
        """Log lines whose message has ``text``."""
        return [line for line in self.lines if text in line[1]]

    def assert_nothing_left(self, expects_bugs: bool = False) -> None:
        """No connection, deadline, pipe, or event source but the listeners; counts agree."""
        plane = self.plane
        wait_until(
            lambda: self.call(lambda: plane.connections == len(plane.wheel) == 0),
            f"{plane.connections} connections left, wheel {len(plane.wheel)}",
            5.0,
        )
        wait_until(lambda: self.call(lambda: not plane.touched), "an account of all", 5.0)
        others = [one for one in plane.reactor.table.values() if not isinstance(one, ListenSocket)]
        assert others == []
        assert plane.pipes.lent == 0
        assert self.call(lambda: len(asyncio.all_tasks(self._loop))) == 0
        snapshot = self.snapshot()
        for counts in snapshot.routes.values():
            assert counts.active == 0
            assert counts.total == sum(counts.ends.values())
            assert all(target.active == 0 for target in counts.targets.values())
        accepted, dialled, ended = self.cells
        assert accepted == ended == sum(self.ends().values())
        totals = [t.total for counts in snapshot.routes.values() for t in counts.targets.values()]
        assert dialled == sum(totals) or expects_bugs

    def close(self) -> None:
        """Stop the data plane and its loop, and give every descriptor back."""
        try:
            self.call(self.plane.close)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(TIMEOUT_S)
            self._loop.close()


@cache
def _warm_up() -> None:
    """libuv opens a pipe for signals with the first loop of a process and keeps it."""
    loop = uvloop.new_event_loop()
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()


@contextmanager
def running(expects_bugs: bool = False) -> Iterator[Plane]:
    """A data plane; ``expects_bugs``: the test provokes an internal error."""
    _warm_up()
    before = descriptors()
    with ExitStack() as stack:
        plane = Plane(stack)
        stack.callback(plane.close)
        yield plane
        plane.assert_nothing_left(expects_bugs)
        if not expects_bugs:
            assert plane.logged("internal error") == []
    assert descriptors() == before
