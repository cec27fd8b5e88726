"""The listening sockets: opened by the supervisor, held for as long as their port is served.

Per address one SO_REUSEPORT socket for each slot, so that the kernel shares new connections out
among the workers; per Unix socket a single one that all workers share (a Unix socket knows no
SO_REUSEPORT). A worker gets copies of all of them and never closes the port by its end: a
connection waiting in a queue is accepted by whoever polls it next (design section 2).
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import stat
import threading
from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import Struct, structs

from shared import syn_filter
from shared.errors import StartError
from shared.plan import ListenerPlan, Plan, RoutePlan
from supervisor import port_owner, steering

# The host lacks the address or its family: skipped as long as another address binds.
_LACKING: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT})


class HeldListener(Struct):
    """The sockets of one listener; the place in ``sockets`` is the socket's index."""

    plan: ListenerPlan
    sockets: list[socket.socket]
    is_retiring: bool = False
    is_returning: bool = False  # wanted again by a generation that is not final yet
    is_pending: bool = True  # of a generation that is not final yet: nobody gets in
    is_listening: bool = True
    is_steered: bool = False
    inode: int = 0  # of a Unix socket's file

    def let_in(self) -> None:
        """Listen, where that was put off, and drop SYNs no more."""
        for one in self.sockets:
            syn_filter.let_in(one)
        self.is_listening = True

    def close(self) -> None:
        """Stop listening, and remove a Unix socket's file unless a successor has put its own.

        Not only our copies are concerned: a worker that hangs may still hold some, and a port
        that is gone must be refused all the same.
        """
        for held in self.sockets:
            try:
                held.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it did not listen yet
            held.close()
        if self.plan.path:
            _unlink(self.plan.path, self.inode)


class Opened(Struct):
    """What `Listeners.open` did: ids that are new, ids the host lacks, and why, for the log."""

    new: list[int]
    lacking: list[int]
    warnings: list[str]


class Listeners:
    """Every listener that is held, by its id.

    `open` may run in a thread of its own; everything else is for the loop's.
    """

    def __init__(self) -> None:
        self.held: dict[int, HeldListener] = {}
        self._steered: tuple[int, ...] = ()  # socket indexes; empty: the kernel's own hash
        self._steering = threading.Lock()

    def open(self, plans: Sequence[ListenerPlan]) -> Opened:
        """Hold all of ``plans``; those held already stay as they are.

        Nobody gets in at what is new before `listen`: a generation may still be refused, and then
        a port must not have accepted anyone whom it resets. StartError when one cannot be bound,
        or when the host has none of their addresses; then nothing that was opened here is kept.
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

    def listen(self) -> list[str]:
        """The generation is final: let connections in where it listens; what failed, as text."""
        problems = []
        back = [id_ for id_, held in self.held.items() if held.is_returning]
        self.accept_again(back)
        for id_ in back:
            self.held[id_].is_retiring = self.held[id_].is_returning = False
        pending = [held for held in self.held.values() if held.is_pending]
        for held in pending:
            held.is_pending = False
            try:
                held.let_in()
            except OSError as error:
                problems.append(f"{held.plan.name}: {error.strerror}")
        with self._steering:
            for held in pending:
                self._steer(held)
        return problems

    def steer(self, indexes: Iterable[int]) -> str:
        """Send new connections to these socket indexes only, evenly; empty: to all, by hash.

        Returns why the kernel refuses, "" when it does not; then shares are as its hash makes
        them, and nothing else is worse.
        """
        problem = ""
        with self._steering:
            self._steered = tuple(sorted(indexes))
            for held in self.held.values():
                problem = self._steer(held) or problem
        return problem

    def _steer(self, held: HeldListener) -> str:
        count = len(held.sockets)
        wanted = self._steered if all(index < count for index in self._steered) else ()
        if count == 1 or not (wanted or held.is_steered):
            return ""  # shared by all workers, or never steered
        if not held.is_listening:
            return ""  # a socket with a program could not begin to listen beside others of its port
        try:
            if wanted:
                steering.attach(held.sockets[0], wanted)
            else:
                steering.detach(held.sockets[0])
        except OSError as error:
            return f"{held.plan.name}: {error.strerror}"
        held.is_steered = bool(wanted)
        return ""

    def stop_accepting(self, ids: Iterable[int]) -> str:
        """Drop new SYNs; handshakes in flight complete. Says where the kernel refused it, or ""."""
        problem = ""
        for held in self._tcp(ids):
            for one in held.sockets:
                try:
                    syn_filter.attach(one)
                except OSError as error:
                    problem = f"{held.plan.name}: {error.strerror}"
        return problem

    def accept_again(self, ids: Iterable[int]) -> None:
        """Undo `stop_accepting`."""
        for held in self._tcp(ids):
            for one in held.sockets:
                syn_filter.detach(one)

    def wait_in(self, ids: Iterable[int]) -> bool:
        """Whether connections wait to be accepted at any of these."""
        queues = select.poll()
        for id_ in ids:
            for one in self.held[id_].sockets if id_ in self.held else ():
                queues.register(one, select.POLLIN)
        # One that does not listen yet hangs up, which poll(2) tells unasked.
        return any(events & select.POLLIN for _, events in queues.poll(0))

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
        others = list(self.held.values())  # in one step: the loop may close one meanwhile
        ours = [held.plan.id for held in others if overlap(plan, held.plan)]
        # Who listens has the port for sure, so that is done now, with SYNs dropped; but a socket
        # beside others of ours would take connections from them, and one of Unix has no SYNs.
        is_listening = not plan.path and set(ours) <= set(opened.new)
        try:
            if plan.path:
                sockets = _bind_unix(plan)
            else:
                sockets = _open_tcp(plan, may_join=bool(ours), is_listening=is_listening)
        except OSError as error:
            if error.errno in _LACKING:
                opened.lacking.append(plan.id)
                opened.warnings.append(f"cannot listen on {plan.name}: {error.strerror}; skipped")
                return
            raise _refusal(plan, error) from error
        held = HeldListener(plan=plan, sockets=sockets)
        held.inode = os.lstat(plan.path).st_ino if plan.path else 0
        held.is_listening = is_listening
        opened.new.append(plan.id)
        with self._steering:
            self.held[plan.id] = held
            self._steer(held)


def _open_tcp(plan: ListenerPlan, *, may_join: bool, is_listening: bool) -> list[socket.socket]:
    # Without SO_REUSEPORT the first bind fails when anyone listens there, even one of our
    # own user, who would else silently share the port. Set afterwards, it lets ours join.
    sockets = [_bind_tcp(plan, may_join=may_join, is_listening=is_listening)]
    try:
        while len(sockets) < plan.sockets:
            sockets.append(_bind_tcp(plan, may_join=True, is_listening=is_listening))
    except OSError:
        for one in sockets:
            one.close()
        raise
    return sockets


def _without(route: RoutePlan, lacking: frozenset[int]) -> RoutePlan:
    listeners = tuple(listener for listener in route.listeners if listener not in lacking)
    return structs.replace(route, listeners=listeners, single_port=route.single_port - lacking)


def overlap(one: ListenerPlan, other: ListenerPlan) -> bool:
    """Whether a connection to one of them could be the other's, were it not there."""
    if one.path or other.path or one.port != other.port:
        return False
    if (":" in one.host) != (":" in other.host):
        return False  # IPv6 sockets are v6only, so the families never clash
    wildcards = ("0.0.0.0", "::")
    return one.host == other.host or one.host in wildcards or other.host in wildcards


def _bind_tcp(plan: ListenerPlan, *, may_join: bool, is_listening: bool) -> socket.socket:
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
        if is_listening:
            with contextlib.suppress(OSError):  # of a kernel without filters
                syn_filter.attach(one)
            one.listen(syn_filter.BACKLOG)
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


def _bind_unix(plan: ListenerPlan) -> list[socket.socket]:
    _remove_stale(plan.path)
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        one.bind(plan.path)
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
