"""A traffic process of the soak: clients, and the targets that their connections end at.

    python -m loadtests.soak_traffic SOCKET NUMBER SEED SOURCES [NETNS]

The directory of SOCKET has the certificates.

Both ends are in one process, so that what a target read of a connection (the worker's id, in the
unique_id TLV) is known for the client at once, with no message that could be late or lost.
SOCKET is the controller's, SOURCES the first two bytes of the addresses that clients dial from
("127.16"), NETNS a file that names the network namespace of the targets where it is another.
"""

from __future__ import annotations

import random
import socket
import sys
from collections import deque
from functools import partial
from pathlib import Path
from typing import Final

from loadtests.delay_line import namespace
from loadtests.processes import raise_descriptor_limit
from loadtests.soak_certificates import Contexts
from loadtests.soak_client import HEAD, Client, Way, block
from loadtests.soak_loop import READ_BYTES, Loop
from loadtests.soak_names import Names
from loadtests.soak_rules import Refusals, is_refusable, open_ids
from loadtests.soak_shape import SOURCE_NETS
from loadtests.soak_target import Target, Targets
from loadtests.soak_tls import TlsClient, TlsTarget
from loadtests.soak_wire import (
    Account,
    AnyAnswer,
    AnyOrder,
    Beat,
    ClientKind,
    Finish,
    Gone,
    Lines,
    Listening,
    Load,
    Place,
    Probe,
    Rules,
    Serve,
    Settle,
    Settled,
    Stopping,
    decode_order,
    encode_line,
)

TURN_S: Final = 0.01
SHORT_S: Final = 20.0  # for a short connection: a SYN is sent again after 1, 3 and 7 s
# A target may still read the header of a connection that has failed: over a slow path its dial is
# under way for round trips, and then waits in a long queue to be accepted.
SUSPECT_S: Final = 2.0
SUSPECT_ON_PATH_S: Final = 10.0
# Over it the proxy learns this late, at the most, of an end that a client has seen.
LATE_ON_PATH_S: Final = 1.0
MOST_OPEN: Final = 4000  # short ones at a time; a steady load waits then
NEW_A_TURN: Final = 64
BULK_EVERY: Final = 200  # one short connection of so many moves more than a pipe holds
TLS_PART: Final = 0.25  # of the short connections; of the long ones half
PROBES_S: Final = (0.0, 0.4, 1.6, 4.0)  # after a place has left; the last one must be refused
GONE_S: Final = 3.0  # for such a dial to get an answer
WHOLE_RUN: Final = 0.25  # part of the long connections that last until the end
FRESH_S: Final = 0.25  # what takes longer waits for somebody, and does not hold up a full load
STOP_LOAD_S: Final = 1.5  # of dials after a full stop has begun
STOP_LONG_S: Final = (0.3, 3.5)  # then half of the long ones end by themselves
EARLY_S: Final = 0.2  # by which a deadline may be early: a worker's clock has ticks of 0.1 s
LATE_S: Final = 2.6  # after a stop began every port has been retired


class Traffic:
    """Everything of the process; clients and targets keep their account here."""

    def __init__(
        self,
        channel: socket.socket,
        number: int,
        seed: int,
        sources: str,
        contexts: Contexts,
        *,
        is_far: bool = False,
    ) -> None:
        """``is_far``: there is a slow path between clients, proxy and targets."""
        self.contexts = contexts
        self.loop = Loop()
        self.random = random.Random(seed * 1000 + number)
        self.block = block(seed)
        self.account = Account()
        self.clients: dict[Client, None] = {}  # in the order of their dials
        self.names = Names(self.account)
        self.refusals = Refusals(self)
        self._suspects: set[Client] = set()  # failed a moment ago
        self._suspect_s = SUSPECT_ON_PATH_S if is_far else SUSPECT_S
        self._late_s = LATE_ON_PATH_S if is_far else 0.0
        self._ended: deque[float] = deque(maxlen=4096)  # when good ones did, the latest
        self._channel = channel
        self._lines = Lines()
        self._number = number
        self._sources = sources
        self._tokens = number << 48
        self._short: list[Place] = []
        self._long: list[Place] = []
        self._short_tls: list[Place] = []
        self._long_tls: list[Place] = []
        self._load = Load(kind="none")
        self._due = 0.0  # short connections that the rate allows now
        self._counted_at = self.loop.now
        self._short_open = 0
        self._waiting = 0  # of these, older than FRESH_S a moment ago
        self._stop: Stopping | None = None
        self.targets_open = 0
        self._ending: Settle | Finish | None = None
        self.is_over = False

    # What clients and targets say

    def over(self, client: Client) -> None:
        """A client has its outcome."""
        del self.clients[client]
        self._short_open -= client.until is None
        how = client.how
        if client.kind == "gone":
            self._tell_probe(client)
            if not client.is_established:
                how = "turned_away"
        if how == "ok":
            self._ended.append(client.ended_at)
        if self._stop is not None:
            how = self._outcome_at_stop(client, how, self._stop)
        if how in ("ok", "turned_away", "cut"):
            self.names.forget(client)
            self._count(client, how)
        else:
            self._suspects.add(client)
            # One that is refused has no header; others may have one that is late.
            seconds = SUSPECT_S if is_refusable(client) else self._suspect_s
            self.loop.after(seconds, partial(self._report, client))

    def _outcome_at_stop(self, client: Client, how: str, stop: Stopping) -> str:
        if how == "ok":
            self.account.ended_after_stop += 1
            is_late = client.ended_at >= stop.at + LATE_S
            self.account.late_long_ends += client.kind == "long" and is_late
        elif how in ("refused", "timeout", "unreachable") and not client.is_established:
            return "turned_away"
        elif client.kind == "long" and client.ended_at >= stop.at + stop.drain_s - EARLY_S:
            return "cut"
        return how

    def _count(self, client: Client, how: str) -> None:
        self.account.outcomes[how] = self.account.outcomes.get(how, 0) + 1
        if is_refusable(client):
            self.refusals.tell(client, how)

    def _report(self, client: Client) -> None:
        self.names.forget(client)
        self._suspects.discard(client)
        how = self.refusals.settle(client) if is_refusable(client) else client.how
        self._count(client, how)
        if how == client.how:
            self.tell(client.lost())

    def _tell_probe(self, client: Client) -> None:
        self.tell(
            Probe(
                place=client.place,
                begun_at=client.begun_at,
                ended_at=client.ended_at,
                how=client.how,
            )
        )

    # What the controller says

    def ready(self, _: int) -> None:
        """Orders came."""
        while True:
            try:
                data = self._channel.recv(READ_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            if not data:
                self.is_over = True  # the controller is gone
                return
            for line in self._lines.feed(data):
                self._obey(decode_order(line))

    def _obey(self, order: AnyOrder) -> None:
        match order:
            case Serve():
                self._short, self._short_tls = _by_tls(order.short)
                self._long, self._long_tls = _by_tls(order.long)
            case Load():
                self._load = order
                self._due, self._counted_at = 0.0, self.loop.now
                for client in self.clients:
                    client.is_held = False
            case Gone():
                for place in order.places:
                    for seconds in PROBES_S:
                        left = order.at + seconds - self.loop.now
                        self.loop.after(max(0.0, left), partial(self._dial_gone, place))
            case Rules():
                self.refusals.obey(order)
            case Stopping():
                self._stopping(order)
            case Settle() | Finish():
                self._ending = order
                self.refusals.begin_rest()
                self._load = Load(kind="none")
                for client in self.clients:
                    client.is_held = True

    def _stopping(self, order: Stopping) -> None:
        self._stop = order
        # These the proxy may see to their end after the stop has begun.
        self.account.ended_after_stop += sum(at > order.at - self._late_s for at in self._ended)
        self.loop.after(STOP_LOAD_S, partial(self._obey, Load(kind="none")))
        for place, client in enumerate(self.clients):
            if client.kind == "long" and place % 2:
                client.until = order.at + self.random.uniform(*STOP_LONG_S)
            elif client.until is not None:
                client.until = float("inf") if client.kind == "long" else order.at

    def tell(self, answer: AnyAnswer) -> None:
        """Send an answer to the controller."""
        self._channel.sendall(encode_line(answer) + b"\n")

    # What happens all the time

    def run(self, targets: Targets, tls_targets: Targets) -> None:
        """Until the account is closed, or the controller is gone."""
        self.tell(Listening(port=targets.port, tls_port=tls_targets.port))
        self._beat()
        self._look()
        while not self.is_over:
            self.loop.turn(TURN_S)
            self.refusals.check()
            self._begin_short()

    def source(self) -> str:
        """An address to dial from."""
        net = self.random.randrange(1, SOURCE_NETS + 1)
        return f"{self._sources}.{net}.{self.random.randrange(1, 255)}"

    def _begin_short(self) -> None:
        load, now = self._load, self.loop.now
        if load.kind == "none" or not self._short:
            return
        if load.kind == "saturating":
            count = min(load.open + self._waiting, MOST_OPEN) - self._short_open
        else:
            self._due = min(self._due + (now - self._counted_at) * load.rate, load.rate)
            count = min(int(self._due), MOST_OPEN - self._short_open)
        self._counted_at = now
        count = max(0, min(count, NEW_A_TURN))
        self._due -= count
        for _ in range(count):
            is_bulk = self.random.randrange(BULK_EVERY) == 0
            size = self.random.randrange(100_000, 300_000) if is_bulk else self.small()
            way = Way(self.random.randrange(3))
            self.begin(self._one_of(self._short, self._short_tls, TLS_PART), size, way)

    def _dial_gone(self, place: Place) -> None:
        if self._ending is None and place not in (*self._short, *self._short_tls):
            self.begin(place, self.small(), Way.CLIENT_EARLY, "gone")

    def _one_of(self, plain: list[Place], with_tls: list[Place], part: float) -> Place:
        is_tls = bool(with_tls) and self.random.random() < part
        return self.random.choice(with_tls if is_tls else plain)

    def small(self) -> int:
        """Bytes of a message that fits one read."""
        return self.random.randrange(HEAD.size, 2048)

    def stable_place(self) -> Place | None:
        """One whose route is the same in every config."""
        return next((place for place in self._short if place.route.startswith("short-")), None)

    def begin(
        self,
        place: Place,
        size: int,
        way: Way,
        kind: ClientKind = "short",
        until: float | None = None,
        source: str = "",
    ) -> Client:
        """Dial one more connection."""
        self._tokens += 1
        make = TlsClient if place.server_name else Client
        client = make(self, place, self._tokens, size, way, kind, until)
        self.clients[client] = None
        self.account.begun += 1
        self._short_open += until is None
        client.dial(source or self.source())
        return client

    def _look(self) -> None:
        """Ten times a second: messages of the long ones, what takes too long, the end."""
        now = self.loop.now
        for client in [client for client in self.clients if client.until is not None]:
            client.look(now)
        short = [client for client in self.clients if client.until is None]
        self._waiting = sum(now - client.begun_at > FRESH_S for client in short)
        for client in short:
            is_away = client.kind == "gone" and not client.is_established
            if now - client.begun_at > (GONE_S if is_away else SHORT_S):
                client.timed_out()
        if self._load.kind != "none" and self._stop is None:
            self._begin_long(now)
            self.refusals.look(now)
        self._settle()
        self.loop.after(0.1, self._look)

    def _begin_long(self, now: float) -> None:
        missing = self._load.long - sum(client.kind == "long" for client in self.clients)
        for _ in range(missing if self._long else 0):
            is_lasting = self.random.random() < WHOLE_RUN
            until = float("inf") if is_lasting else now + self.random.uniform(1.0, 30.0)
            place = self._one_of(self._long, self._long_tls, 0.5)
            self.begin(place, self.small(), Way.CLIENT_LATE, "long", until)

    def _settle(self) -> None:
        ending = self._ending
        if ending is None or self._suspects:
            return
        for client in self.clients:
            if client.kind == "crowd" and client.is_still():
                client.finish()
        if any(client.kind != "long" for client in self.clients) and not self.refusals.is_busy:
            return
        if self._stop is None and not self.refusals.rested():
            return
        clients = list(self.clients)
        if isinstance(ending, Finish):
            for client in clients:
                if client.is_still():
                    client.finish()
            is_still = not clients and not self.targets_open
        else:
            is_still = all(client.is_still() for client in clients)
            is_still = is_still and self.targets_open == len(clients)
        if not is_still:
            return
        self._ending = None
        account = self.account
        account.open, account.open_ids = len(clients), open_ids(clients)
        account.oldest_s = max((self.loop.now - one.begun_at for one in clients), default=0.0)
        account.ids = self.names.ids()
        self.tell(Settled(account=account))
        self.is_over = isinstance(ending, Finish)

    def _beat(self) -> None:
        outcomes = self.account.outcomes
        ok = outcomes.get("ok", 0)
        failed = sum(outcomes.values()) - ok
        begun = self.account.begun
        self.tell(Beat(begun=begun, ok=ok, open=len(self.clients), failed=failed))
        self.loop.after(1.0, self._beat)


def _by_tls(places: list[Place]) -> tuple[list[Place], list[Place]]:
    """Those without TLS, and those with it."""
    plain = [place for place in places if not place.server_name]
    return plain, [place for place in places if place.server_name]


def main(arguments: list[str]) -> int:
    """Entry; see the module's docstring."""
    path, number, seed, sources, *netns = arguments
    raise_descriptor_limit()
    channel = socket.socket(socket.AF_UNIX)
    channel.connect(path)
    with namespace(netns[0] if netns else None):
        listener = socket.create_server(("0.0.0.0", 0), backlog=4096)
        tls_listener = socket.create_server(("0.0.0.0", 0), backlog=4096)
    contexts = Contexts(Path(path).parent)
    traffic = Traffic(channel, int(number), int(seed), sources, contexts, is_far=bool(netns))
    traffic.loop.add(channel, traffic)
    targets = Targets(traffic, listener, Target)
    tls_targets = Targets(traffic, tls_listener, TlsTarget)
    try:
        traffic.run(targets, tls_targets)
    except (BrokenPipeError, ConnectionResetError):
        return 1  # the controller is gone
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
