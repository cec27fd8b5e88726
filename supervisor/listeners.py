"""The listening sockets: opened by the supervisor, held for as long as their port is served.

Per address one SO_REUSEPORT socket for each slot, so that the kernel shares new connections out
among the workers; per Unix socket a single one that all workers share (a Unix socket knows no
SO_REUSEPORT). A worker gets copies of all of them and never closes the port by its end: a
connection waiting in a queue is accepted by whoever polls it next (design section 2).
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import Struct, structs

from shared.errors import StartError
from shared.plan import ListenerPlan, Plan, RoutePlan
from supervisor import port_owner, syn_filter

BACKLOG: Final = 4096  # net.core.somaxconn since Linux 5.4

# The host lacks the address or its family: skipped as long as another address binds.
_LACKING: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT})


class HeldListener(Struct):
    """The sockets of one listener; the place in ``sockets`` is the socket's index."""

    plan: ListenerPlan
    sockets: list[socket.socket]
    is_retiring: bool = False
    inode: int = 0  # of a Unix socket's file

    def close(self) -> None:
        """Close our copies, and remove a Unix socket's file unless a successor has put its own."""
        for held in self.sockets:
            held.close()
        if self.plan.path:
            _unlink(self.plan.path, self.inode)


class Opened(Struct):
    """What `Listeners.open` did: ids that are new, ids the host lacks, and why, for the log."""

    new: list[int]
    lacking: list[int]
    warnings: list[str]


class Listeners:
    """Every listener that is held, by its id."""

    def __init__(self) -> None:
        self.held: dict[int, HeldListener] = {}

    def open(self, plans: Sequence[ListenerPlan]) -> Opened:
        """Hold all of ``plans``; those held already stay as they are.

        StartError when one cannot be bound, or when the host has none of their addresses; then
        nothing that was opened here is kept.
        """
        opened = Opened(new=[], lacking=[], warnings=[])
        try:
            for plan in plans:
                held = self.held.get(plan.id)
                if held is not None:
                    held.plan = plan
                    continue
                self._open_one(plan, opened)
            if plans and len(opened.lacking) == len(plans):
                raise StartError(
                    f"this host has none of the addresses to listen on: {opened.warnings[0]}",
                    "see `listen` in the config",
                )
        except BaseException:
            self.close(opened.new)
            raise
        return opened

    def close(self, ids: Iterable[int]) -> None:
        """Close these listeners and forget them."""
        for listener_id in list(ids):
            held = self.held.pop(listener_id, None)
            if held is not None:
                held.close()

    def stop_accepting(self, ids: Iterable[int]) -> None:
        """Drop new SYNs; handshakes in flight complete."""
        for held in self._tcp(ids):
            for one in held.sockets:
                syn_filter.attach(one)

    def accept_again(self, ids: Iterable[int]) -> None:
        """Undo `stop_accepting`."""
        for held in self._tcp(ids):
            for one in held.sockets:
                syn_filter.detach(one)

    def names(self) -> list[str]:
        """Of the listeners that are served, in order of their ids."""
        held = self.held.copy()  # in one step, since `open` may run in a thread
        return [held[one].plan.name for one in sorted(held) if not held[one].is_retiring]

    def fit(self, plan: Plan, opened: Opened) -> Plan:
        """``plan`` as it can be served here: without what the host lacks, and with as many
        sockets per listener as are held, for that number stays while the port is served."""
        lacking = frozenset(opened.lacking)
        listeners = tuple(
            structs.replace(listener, sockets=len(self.held[listener.id].sockets))
            for listener in plan.listeners
            if listener.id not in lacking
        )
        routes = plan.routes
        if lacking:
            routes = tuple(_without(route, lacking) for route in plan.routes)
        return structs.replace(plan, listeners=listeners, routes=routes)

    def _tcp(self, ids: Iterable[int]) -> list[HeldListener]:
        found = (self.held.get(listener_id) for listener_id in ids)
        return [held for held in found if held is not None and not held.plan.path]

    def _open_one(self, plan: ListenerPlan, opened: Opened) -> None:
        try:
            sockets = _open_unix(plan) if plan.path else self._open_tcp(plan)
        except OSError as error:
            if error.errno in _LACKING:
                opened.lacking.append(plan.id)
                opened.warnings.append(f"cannot listen on {plan.name}: {error.strerror}; skipped")
                return
            raise _refusal(plan, error) from error
        inode = os.lstat(plan.path).st_ino if plan.path else 0
        self.held[plan.id] = HeldListener(plan=plan, sockets=sockets, inode=inode)
        opened.new.append(plan.id)

    def _open_tcp(self, plan: ListenerPlan) -> list[socket.socket]:
        # Without SO_REUSEPORT the first bind fails when anyone listens there, even one of our
        # own user, who would else silently share the port. Set afterwards, it lets ours join.
        is_ours = any(_overlap(plan, held.plan) for held in self.held.values())
        sockets = [_bind_tcp(plan, may_join=is_ours)]
        try:
            while len(sockets) < plan.sockets:
                sockets.append(_bind_tcp(plan, may_join=True))
        except OSError:
            for one in sockets:
                one.close()
            raise
        return sockets


def _without(route: RoutePlan, lacking: frozenset[int]) -> RoutePlan:
    listeners = tuple(listener for listener in route.listeners if listener not in lacking)
    return structs.replace(route, listeners=listeners, single_port=route.single_port - lacking)


def _overlap(one: ListenerPlan, other: ListenerPlan) -> bool:
    if one.path or other.path or one.port != other.port:
        return False
    if (":" in one.host) != (":" in other.host):
        return False  # IPv6 sockets are v6only, so the families never clash
    wildcards = ("0.0.0.0", "::")
    return one.host == other.host or one.host in wildcards or other.host in wildcards


def _bind_tcp(plan: ListenerPlan, *, may_join: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in plan.host else socket.AF_INET
    one = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if may_join:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind(_address(plan))
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Accepted sockets inherit it, which saves a system call for each.
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one.listen(BACKLOG)
    except OSError:
        one.close()
        raise
    return one


def _address(plan: ListenerPlan) -> tuple[str, int] | tuple[str, int, int, int]:
    if "%" not in plan.host:
        return plan.host, plan.port
    _, _, scope = plan.host.partition("%")
    number = int(scope) if scope.isdigit() else socket.if_nametoindex(scope)
    return plan.host.partition("%")[0], plan.port, 0, number


def _open_unix(plan: ListenerPlan) -> list[socket.socket]:
    _remove_stale(plan.path)
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        one.bind(plan.path)
        one.listen(BACKLOG)
    except OSError:
        one.close()
        raise
    return [one]


def _remove_stale(path: str) -> None:
    """Unlink a socket file that nobody listens on; anything else is left for bind to refuse."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as trial:
        if trial.connect_ex(path) == errno.ECONNREFUSED:
            os.unlink(path)


def _unlink(path: str, inode: int) -> None:
    try:
        if os.lstat(path).st_ino == inode:
            os.unlink(path)
    except OSError:
        return  # someone else removed it: what matters is that it is gone


def _refusal(plan: ListenerPlan, error: OSError) -> StartError:
    message = f"cannot listen on {plan.name}: {error.strerror or error}"
    if error.errno == errno.EADDRINUSE:
        if plan.path:
            return StartError(message, "stop who listens there, or remove the file in the way")
        by = port_owner.by_whom(plan.host, plan.port)
        return StartError(f"{message}{by}", "stop that program, or choose another port or address")
    if error.errno in (errno.EACCES, errno.EPERM) and not plan.path:
        hint = "ports below net.ipv4.ip_unprivileged_port_start need root or CAP_NET_BIND_SERVICE"
        return StartError(message, hint)
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return StartError(message, "raise the limit of open files (ulimit -n, LimitNOFILE=)")
    return StartError(message, "see `listen` and the ports in the config")
