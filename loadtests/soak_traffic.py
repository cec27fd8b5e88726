"""A traffic process of the soak: clients, and the targets that their connections end at.

    python -m loadtests.soak_traffic SOCKET NUMBER SEED SOURCES [NETNS]

Both ends are in one process, so that what a target read of a connection (the worker's id, in the
unique_id TLV) is known for the client at once, with no message that could be late or lost.
SOCKET is the controller's, SOURCES the first two bytes of the addresses that clients dial from
("127.16"), NETNS a file that names the network namespace of the targets where it is another.
"""

from __future__ import annotations

import random
import socket
import sys
from functools import partial
from typing import Final

from loadtests.delay_line import namespace
from loadtests.processes import raise_descriptor_limit
from loadtests.soak_client import HEAD, Client, Key, Way, block
from loadtests.soak_loop import READ_BYTES, Loop
from loadtests.soak_target import Targets
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
    Serve,
    Settle,
    Settled,
    Tally,
    decode_order,
    encode_line,
)

TURN_S: Final = 0.01
SHORT_S: Final = 20.0  # for a short connection: a SYN is sent again after 1, 3 and 7 s
SUSPECT_S: Final = 3.0  # a target may still read the header of a connection that has failed
MOST_OPEN: Final = 4000  # short ones at a time; a steady load waits then
NEW_A_TURN: Final = 64
BULK_EVERY: Final = 200  # one short connection of so many moves more than a pipe holds
PROBES_S: Final = (0.0, 0.4, 1.6, 4.0)  # after a place has left; the last one must be refused
GONE_S: Final = 3.0  # for such a dial to get an answer
WHOLE_RUN: Final = 0.25  # part of the long connections that last until the end


class Traffic:
    """Everything of the process; clients and targets keep their account here."""

    def __init__(self, channel: socket.socket, number: int, seed: int, sources: str) -> None:
        self.loop = Loop()
        self.random = random.Random(seed * 1000 + number)
        self.block = block(seed)
        self.account = Account()
        self.clients: dict[Client, None] = {}  # in the order of their dials
        self.by_key: dict[Key, Client] = {}
        self._suspects: set[Client] = set()  # failed a moment ago
        self._channel = channel
        self._lines = Lines()
        self._number = number
        self._sources = sources
        self._tokens = number << 48
        self._short: list[Place] = []
        self._long: list[Place] = []
        self._load = Load(kind="none")
        self._due = 0.0  # short connections that the rate allows now
        self._counted_at = self.loop.now
        self._short_open = 0
        self.targets_open = 0
        self._ending: Settle | Finish | None = None
        self.is_over = False

    # What clients and targets say

    def named(self, key: Key, unique_id: str) -> Tally:
        """A target read a header: the tally of its worker."""
        self.account.headers += 1
        parts = unique_id.split("-")
        incarnation = int(parts[1]) if len(parts) == 3 and parts[1].isdigit() else -1
        tally = self.account.incarnations.get(incarnation)
        if tally is None:
            tally = self.account.incarnations[incarnation] = Tally()
        client = self.by_key.get(key)
        if client is None or client.unique_id:
            self.account.strangers += 1
        else:
            client.unique_id, client.tally = unique_id, tally
        return tally

    def over(self, client: Client) -> None:
        """A client has its outcome."""
        del self.clients[client]
        self._short_open -= client.kind != "long"
        how = client.how
        if client.kind == "gone":
            self._tell_probe(client)
            if not client.is_established:
                how = "turned_away"
        self.account.outcomes[how] = self.account.outcomes.get(how, 0) + 1
        if how in ("ok", "turned_away"):
            self.by_key.pop(client.key, None)
        else:
            self._suspects.add(client)
            self.loop.after(SUSPECT_S, partial(self._report, client))

    def _report(self, client: Client) -> None:
        if self.by_key.get(client.key) is client:
            del self.by_key[client.key]
        self._suspects.discard(client)
        self._tell(client.lost())

    def _tell_probe(self, client: Client) -> None:
        self._tell(
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
                self._short, self._long = order.short, order.long
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
            case Settle() | Finish():
                self._ending = order
                self._load = Load(kind="none")
                for client in self.clients:
                    client.is_held = True

    def _tell(self, answer: AnyAnswer) -> None:
        self._channel.sendall(encode_line(answer) + b"\n")

    # What happens all the time

    def run(self, targets: Targets) -> None:
        """Until the account is closed, or the controller is gone."""
        self._tell(Listening(port=targets.port))
        self._beat()
        self._look()
        while not self.is_over:
            self.loop.turn(TURN_S)
            self._begin_short()

    def source(self) -> str:
        """An address to dial from."""
        return f"{self._sources}.{self.random.randrange(1, 255)}.{self.random.randrange(1, 255)}"

    def _begin_short(self) -> None:
        load, now = self._load, self.loop.now
        if load.kind == "none" or not self._short:
            return
        if load.kind == "saturating":
            count = load.open - self._short_open
        else:
            self._due = min(self._due + (now - self._counted_at) * load.rate, load.rate)
            count = min(int(self._due), MOST_OPEN - self._short_open)
        self._counted_at = now
        count = max(0, min(count, NEW_A_TURN))
        self._due -= count
        for _ in range(count):
            is_bulk = self.random.randrange(BULK_EVERY) == 0
            size = self.random.randrange(100_000, 300_000) if is_bulk else self._small()
            way = Way(self.random.randrange(3))
            self._begin(self.random.choice(self._short), size, way)

    def _dial_gone(self, place: Place) -> None:
        if self._ending is None and place not in self._short:
            self._begin(place, self._small(), Way.CLIENT_EARLY, "gone")

    def _small(self) -> int:
        return self.random.randrange(HEAD.size, 2048)

    def _begin(
        self,
        place: Place,
        size: int,
        way: Way,
        kind: ClientKind = "short",
        until: float | None = None,
    ) -> None:
        self._tokens += 1
        client = Client(self, place, self._tokens, size, way, kind, until)
        self.clients[client] = None
        self.account.begun += 1
        self._short_open += kind != "long"
        client.dial(self.source())

    def _look(self) -> None:
        """Ten times a second: messages of the long ones, what takes too long, the end."""
        now = self.loop.now
        for client in [client for client in self.clients if client.kind == "long"]:
            client.look(now)
        for client in [client for client in self.clients if client.kind != "long"]:
            is_away = client.kind == "gone" and not client.is_established
            if now - client.begun_at > (GONE_S if is_away else SHORT_S):
                client.timed_out()
        missing = self._load.long - (len(self.clients) - self._short_open)
        for _ in range(missing if self._long else 0):
            is_lasting = self.random.random() < WHOLE_RUN
            until = float("inf") if is_lasting else now + self.random.uniform(1.0, 30.0)
            place = self.random.choice(self._long)
            self._begin(place, self._small(), Way.CLIENT_LATE, "long", until)
        self._settle()
        self.loop.after(0.1, self._look)

    def _settle(self) -> None:
        ending = self._ending
        if ending is None or self._suspects:
            return
        if isinstance(ending, Finish):
            for client in [client for client in self.clients if client.is_still()]:
                client.finish()
            is_still = not self.clients and not self.targets_open
        else:
            is_still = all(client.is_still() for client in self.clients)
            is_still = is_still and self.targets_open == len(self.clients)
        if not is_still:
            return
        self._ending = None
        self.account.open = len(self.clients)
        self._tell(Settled(account=self.account))
        self.is_over = isinstance(ending, Finish)

    def _beat(self) -> None:
        outcomes = self.account.outcomes
        ok = outcomes.get("ok", 0)
        failed = sum(outcomes.values()) - ok
        begun = self.account.begun
        self._tell(Beat(begun=begun, ok=ok, open=len(self.clients), failed=failed))
        self.loop.after(1.0, self._beat)


def main(arguments: list[str]) -> int:
    """Entry; see the module's docstring."""
    path, number, seed, sources, *netns = arguments
    raise_descriptor_limit()
    channel = socket.socket(socket.AF_UNIX)
    channel.connect(path)
    with namespace(netns[0] if netns else None):
        listener = socket.create_server(("0.0.0.0", 0), backlog=4096)
    traffic = Traffic(channel, int(number), int(seed), sources)
    traffic.loop.add(channel, traffic)
    targets = Targets(traffic, listener)
    try:
        traffic.run(targets)
    except (BrokenPipeError, ConnectionResetError):
        return 1  # the controller is gone
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
