"""Listeners as a worker sees them: whom they believe, which routes they have, and accept."""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, cast

from shared.matching import Matcher
from shared.networks import NetworkSet
from shared.plan import ListenerPlan, ProxyPolicy
from shared.stats import ListenerCounts
from worker.accounting import CELL_ACCEPTED
from worker.connection import Address, Connection
from worker.door import Door
from worker.gate import Gate
from worker.generation import Route
from worker.limits import NOT_COUNTED, Limits
from worker.reactor import IN
from worker.sockets import accept

if TYPE_CHECKING:
    import _socket

    from worker.data_plane import DataPlane
    from worker.sockets import Socket

ACCEPTS_A_WAKE: Final = 16  # more would starve the connections that are there (design section 2)
# Plain numbers: an IntEnum is converted anew with every call.
AF_INET: Final = int(socket.AF_INET)
MOST_REMEMBERED: Final = 4096  # verdicts on peers; a balancer has few addresses

# What accept(2) says of one connection and not of the listener; the next may be fine.
PASSING_ERRORS: Final = frozenset(
    {
        errno.ECONNABORTED,
        errno.EPROTO,
        errno.EPERM,
        errno.ENETDOWN,
        errno.ENOPROTOOPT,
        errno.EHOSTDOWN,
        errno.ENONET,
        errno.EHOSTUNREACH,
        errno.EOPNOTSUPP,
        errno.ENETUNREACH,
        errno.EINTR,
    }
)


class Policy:
    """A listener's PROXY settings, ready to be asked once per connection."""

    __slots__ = (
        "_networks",
        "_verdicts",
        "closes_local",
        "closes_others",
        "guards",
        "header_timeout",
        "reads_headers",
        "required",
        "versions",
    )

    def __init__(self, plan: ProxyPolicy, addresses: Mapping[str, Sequence[str]]) -> None:
        resolved = [ip for name in plan.trusted_names for ip in addresses.get(name, ())]
        self._networks = NetworkSet([*plan.trusted, *resolved])
        self._verdicts: dict[str, bool] = {}
        # `trusted: []` means that no header is read at all, so nobody is suspected of one either.
        self.reads_headers = bool(plan.trusted or plan.trusted_names)
        self.closes_others = plan.untrusted == "close"
        self.guards = plan.untrusted == "reject"
        self.closes_local = plan.local == "close"
        self.required = plan.required
        self.header_timeout = plan.header_timeout
        self.versions = frozenset(plan.versions)

    def trusts(self, ip: str) -> bool:
        """Whether a header from this peer is believed; a Unix socket has no address to trust."""
        verdict = self._verdicts.get(ip)
        if verdict is None:
            verdict = bool(ip) and self._networks.contains(ip)
            if len(self._verdicts) >= MOST_REMEMBERED:
                self._verdicts.clear()
            self._verdicts[ip] = verdict
        return verdict


class Listener:
    """One bound address of the committed generation, with the sockets that this worker holds."""

    def __init__(self, plan: ListenerPlan, counts: ListenerCounts) -> None:
        self.id = plan.id
        self.name = plan.name
        self.port = plan.port
        self.counts = counts
        self.sockets: dict[int, ListenSocket] = {}
        self.plan = plan
        self.policy = Policy(plan.proxy, {})
        self.only_route: Route | None = None
        self.matcher: Matcher[Route] = Matcher()
        self.door: Door | None = None  # at accept
        self.inner_door: Door | None = None  # behind the PROXY header
        wildcard = plan.host in ("0.0.0.0", "::")
        self.fixed_destination: Address | None = None if wildcard else (plan.host, plan.port)

    def adopt(
        self,
        plan: ListenerPlan,
        matcher: Matcher[Route],
        addresses: Mapping[str, Sequence[str]],
        first: Gate | None,
        limits: Limits,
    ) -> None:
        """Serve new connections by these routes and settings. ``first``: the gate of everyone."""
        self.plan = plan
        self.policy = Policy(plan.proxy, addresses)
        self.matcher = matcher
        self.only_route = matcher.only
        self.door = self.inner_door = None
        if self.only_route is None:
            return
        gate = self.only_route.gate
        if gate is not None or (first is not None and first.looks_at_address):
            if self.policy.reads_headers:
                self.inner_door = Door(first, gate, limits, is_inner=True)
            else:
                self.door = Door(first, gate, limits)

    def resolve(self, addresses: Mapping[str, Sequence[str]]) -> None:
        """Take new addresses of trusted names."""
        if self.plan.proxy.trusted_names:
            self.policy = Policy(self.plan.proxy, addresses)

    def destination(self, sock: Socket) -> Address:
        """The local address of an accepted socket; asked only where we listen on a wildcard."""
        if self.fixed_destination is not None:
            return self.fixed_destination
        try:
            return plain_address(sock.getsockname())
        except OSError:
            return ("", 0)

    def count_header(self, result: str) -> None:
        """Count what became of a PROXY header."""
        results = self.counts.proxy_headers
        results[result] = results.get(result, 0) + 1


class ListenSocket:
    """One of a listener's sockets: level-triggered, so that what is left over wakes us again."""

    __slots__ = ("_most", "fd", "is_over", "is_polled", "listener", "plane", "sock")

    def __init__(self, plane: DataPlane, listener: Listener, sock: _socket.socket) -> None:
        self.plane = plane
        self.listener = listener
        self.sock = sock
        self.fd = sock.fileno()
        self.is_polled = False
        self.is_over = False
        self._most = 1  # accepts at the next wake

    def poll(self, wanted: bool) -> None:
        """Have the reactor watch this socket, or not."""
        if wanted == self.is_polled or (wanted and self.is_over):
            return
        self.is_polled = wanted
        reactor = self.plane.reactor
        if wanted:
            reactor.table[self.fd] = self
            reactor.register(self.fd, IN)
        else:
            del reactor.table[self.fd]
            reactor.unregister(self.fd)

    def ready(self, events: int) -> None:
        """Accept what waits, ACCEPTS_A_WAKE at the most.

        To learn that none waits costs a system call, and what is left wakes us again: so one more
        is tried only where the last wake found all that it tried.
        """
        if self.accept(self._most):
            self._most = min(2 * self._most, ACCEPTS_A_WAKE)
        else:
            self._most = 1

    def accept(self, most: int) -> bool:
        """Accept up to ``most`` connections; False when none waits any more, or none can be had."""
        plane, listener = self.plane, self.listener
        family = int(self.sock.family)
        limits = plane.limits
        for _ in range(most):
            try:
                found = accept(self.sock, self.fd)
            except OSError as exc:
                if exc.errno in PASSING_ERRORS:
                    continue
                if exc.errno == errno.EINVAL:  # shut down by its owner: it accepts no more
                    self.give_up()
                    return False
                plane.pause_accept(exc)
                return False
            if found is None:
                return False
            sock, fd, address = found
            peer = cast(Address, address) if family == AF_INET else plain_address(address)
            gate = plane.gates.first
            door = listener.door
            counted = None if door is None else door.enter(peer[0], plane.reactor.now)
            if counted is None and gate is not None:
                policy = listener.policy
                if policy.reads_headers and policy.trusts(peer[0]):
                    cell = gate.enter_unknown()
                else:
                    cell = gate.enter(peer[0], plane.reactor.now)
                if cell < NOT_COUNTED:  # before anything was made for it
                    sock.close()
                    plane.refuse(listener, peer, cell, gate)
                    continue
            conn = Connection(plane, listener, sock, fd, peer)
            open_ = plane.open
            open_.add(conn)
            if counted is not None:
                assert door is not None
                conn.counted_in = counted
                conn.admitted_by = door.gate
            elif gate is not None and cell >= 0:
                conn.counted_in = (cell,)
            if gate is not None and gate.most:
                limits.open_here[0] = len(open_)
            plane.cells[CELL_ACCEPTED] += 1
            listener.counts.accepted += 1
            try:
                conn.begin()
            except Exception as exc:
                plane.on_bug(conn, exc)
            if plane.is_paused:
                return False
        return True

    def accept_all(self) -> None:
        """Accept until none waits: before this socket is left to others, or closed."""
        while self.accept(ACCEPTS_A_WAKE):
            pass

    def give_up(self) -> None:
        """It listens no more; it would wake us for ever."""
        self.is_over = True
        self.poll(False)

    def close(self) -> None:
        """Give the descriptor back."""
        self.poll(False)
        self.sock.close()


def plain_address(address: object) -> Address:
    """(ip, port) of a socket address: IPv4-mapped unfolded, no zone; ("", 0) for a Unix socket."""
    if not isinstance(address, tuple):
        return ("", 0)
    host, port = str(address[0]), int(address[1])
    if host.startswith("::ffff:") and "." in host:
        host = host[7:]
    return host.partition("%")[0], port
