"""The traffic processes of a soak, together: told what is served, listened to, asked to rest."""

from __future__ import annotations

import contextlib
import selectors
import socket
import sys
from collections.abc import Callable
from random import Random
from time import monotonic
from typing import Final

import msgspec

from loadtests.delay_line import namespace
from loadtests.processes import LoadTestError, Started, Workspace, require_running
from loadtests.soak_loop import READ_BYTES
from loadtests.soak_shape import (
    CROWD_HOST,
    LIMIT,
    MOST_WORKERS,
    RANGE_PORTS,
    SIDES,
    Ports,
    Site,
    guest_hosts,
    limited_place,
    of_traffic,
)
from loadtests.soak_wire import (
    Account,
    AnyOrder,
    Beat,
    Finish,
    Gone,
    Guest,
    Lines,
    Listening,
    Load,
    Lost,
    Place,
    Probe,
    Rules,
    Serve,
    Settle,
    Settled,
    Shown,
    Stopping,
    decode_answer,
    encode_line,
)

START_S: Final = 20.0
REST_S: Final = 60.0  # for every connection to have its outcome
MOST_KEPT: Final = 100_000  # losses, until the killed are known
_RANGES: Final = (20_000, 32_000)  # below the kernel's own choice of ports


class _Member:
    """One traffic process."""

    def __init__(self, started: Started, channel: socket.socket) -> None:
        self.started = started
        self.channel = channel
        self.lines = Lines()
        self.port = self.tls_port = 0
        self.begun = self.ok = 0
        self.account: Account | None = None

    def tell(self, order: AnyOrder) -> None:
        """Send an order."""
        self.channel.sendall(encode_line(order) + b"\n")


class Crowd:
    """All of them.

    ``losses``, ``guests``, ``shown`` and ``probes`` (those that were not refused) are what they
    reported; ``lost_count`` and ``probe_count`` count all.
    """

    def __init__(
        self,
        space: Workspace,
        count: int,
        seed: int,
        sources: str,
        near: str | None,
        far: str | None,
    ) -> None:
        """``near``, ``far``: the namespaces of clients and of targets; None: this one."""
        self.losses: list[Lost] = []
        self.lost_count = 0
        self.probes: list[Probe] = []
        self.probe_count = 0
        self.guests: list[Guest] = []
        self.shown: list[Shown] = []
        self._sources = sources
        self._space = space
        self._random = Random(seed)
        self._far = far
        self._taken: socket.socket | None = None
        self._held = contextlib.ExitStack()
        self._selector = selectors.DefaultSelector()
        self._members: list[_Member] = []
        path = space.directory / "traffic.sock"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen(count)
            listener.settimeout(START_S)
            for number in range(count):
                command = [sys.executable, "-m", "loadtests.soak_traffic", str(path)]
                command += [str(number), str(seed), sources]
                with namespace(near):
                    started = space.start(f"traffic{number}", [*command, *([far] if far else [])])
                self._members.append(_Member(started, self._accept(listener, started)))
        for member in self._members:
            self._selector.register(member.channel, selectors.EVENT_READ, member)
        self._until(lambda: all(member.port for member in self._members), START_S, "they listen")

    def site(self, first: str, second: str, target_net: str, watchdog_s: float) -> Site:
        """Free ports for every route that a config may have."""
        with namespace(self._far):
            self._taken = self._held.enter_context(socket.create_server((first, 0)))
        return Site(
            first=first,
            second=second,
            sources=self._sources,
            target_net=target_net,
            traffic=tuple(
                Ports(
                    number=number,
                    short=self._free_ports(1),
                    long=self._free_ports(1),
                    changing=self._free_ports(1),
                    limited=self._free_ports(1),
                    sides=tuple(self._free_ports(1) for _ in range(SIDES)),
                    range_first=self._free_ports(RANGE_PORTS),
                    tls=self._free_ports(1),
                    target=member.port,
                    tls_target=member.tls_port,
                )
                for number, member in enumerate(self._members)
            ),
            taken_port=int(self._taken.getsockname()[1]),
            watchdog_s=watchdog_s,
        )

    @property
    def begun(self) -> int:
        """Connections that were begun so far."""
        return sum(member.begun for member in self._members)

    @property
    def ok(self) -> int:
        """Those of them that ended well."""
        return sum(member.ok for member in self._members)

    def serve(
        self, served: list[Place], long: list[Place], removed: list[Place], at: float
    ) -> None:
        """What is served now, and what a reload has taken away that returned at ``at``."""
        for number, member in enumerate(self._members):
            member.tell(Serve(short=of_traffic(served, number), long=of_traffic(long, number)))
            if gone := of_traffic(removed, number):
                member.tell(Gone(places=gone, at=at))

    def rules(self, site: Site) -> None:
        """What the config refuses."""
        for number, member in enumerate(self._members):
            member.tell(
                Rules(
                    limited=limited_place(site, number),
                    most=LIMIT,
                    bound=LIMIT + MOST_WORKERS - 1,  # design section 5, "Limits"
                    crowd=f"{site.sources}.{CROWD_HOST}",
                    guests=guest_hosts(site),
                )
            )

    def stopping(self, at: float, drain_s: float) -> None:
        """A full stop begins."""
        for member in self._members:
            member.tell(Stopping(at=at, drain_s=drain_s))

    def load(self, load: Load, parts: int) -> None:
        """Spread a load over all of them."""
        for member in self._members:
            member.tell(
                msgspec.structs.replace(
                    load,
                    rate=load.rate / parts,
                    open=max(1, load.open // parts),
                    long=max(1, load.long // parts),
                )
            )

    def listen(self, seconds: float) -> None:
        """Take in what they say for so long."""
        deadline = monotonic() + seconds
        while (left := deadline - monotonic()) > 0:
            self._take(left)

    def rest(self, *, is_last: bool) -> Account:
        """Have all connections end but the long ones, ``is_last`` these too: the account."""
        for member in self._members:
            member.account = None
            member.tell(Finish() if is_last else Settle())
        self._until(
            lambda: all(member.account is not None for member in self._members),
            REST_S,
            "every connection has its outcome",
        )
        total = Account()
        for member in self._members:
            if member.account is not None:
                total.merge(member.account)
                member.begun = member.account.begun
        return total

    def close(self) -> None:
        """Let go of what is held."""
        for member in self._members:
            member.channel.close()
        self._selector.close()
        self._held.close()

    def _until(self, is_so: Callable[[], bool], timeout_s: float, what: str) -> None:
        deadline = monotonic() + timeout_s
        while not is_so():
            if monotonic() > deadline:
                tails = "\n".join(member.started.tail(5) for member in self._members)
                raise LoadTestError(f"not within {timeout_s:g} s: {what}\n{tails}")
            self._take(0.1)

    def _take(self, most_s: float) -> None:
        for key, _ in self._selector.select(most_s):
            member: _Member = key.data
            data = member.channel.recv(READ_BYTES)
            if not data:
                self._selector.unregister(member.channel)
                if member.account is None:
                    member.started.popen.wait(5.0)
                    require_running(member.started)
                continue
            for line in member.lines.feed(data):
                self._hear(member, decode_answer(line))

    def _hear(self, member: _Member, answer: object) -> None:
        match answer:
            case Listening():
                member.port, member.tls_port = answer.port, answer.tls_port
            case Beat():
                member.begun, member.ok = answer.begun, answer.ok
            case Lost():
                self.lost_count += 1
                if len(self.losses) < MOST_KEPT:
                    self.losses.append(answer)
            case Guest():
                self.guests.append(answer)
            case Shown():
                self.shown.append(answer)
            case Probe():
                self.probe_count += 1
                if answer.how != "refused":
                    self.probes.append(answer)
            case Settled():
                member.account = answer.account

    def _accept(self, listener: socket.socket, started: Started) -> socket.socket:
        try:
            return listener.accept()[0]
        except TimeoutError:
            raise LoadTestError(f"{started.name} does not come:\n{started.tail()}") from None

    def _free_ports(self, count: int) -> int:
        """The first of so many free ports in a row, held until the end.

        None that the kernel gives to clients: one of ours may dial from it at the moment when
        proxyctl binds the wildcard, and no option of the listener's makes the two get along.
        """
        while True:
            first = self._random.randrange(*_RANGES)
            with contextlib.ExitStack() as stack:
                try:
                    for step in range(count):
                        socket.create_server(("0.0.0.0", first + step)).close()
                        held = stack.enter_context(socket.socket())
                        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                        held.bind(("127.0.0.1", first + step))
                except OSError:
                    continue
                self._held.enter_context(stack.pop_all())
                return first
