"""What the soak's controller and its traffic processes tell each other, and the account they keep.

JSON lines over a Unix socket. Instants are of time.monotonic, which all processes of a host share.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec
from msgspec import Struct, field

# Seconds that a tally keeps apart. A killed worker's bytes are in doubt for its last second or
# two only, so what is older can go into one sum.
SECONDS_KEPT: Final = 30
CONNECTIONS, TO_TARGET, TO_CLIENT = range(3)  # places in a row of a Tally

# crowd: more than a limit allows; guest: from addresses that a list blocks now and then.
ClientKind = Literal["short", "long", "gone", "crowd", "guest"]
LoadKind = Literal["saturating", "steady", "none"]


class Place(Struct, frozen=True):
    """Where clients connect, and the route that must serve them there."""

    route: str
    host: str
    port: int
    server_name: str = ""  # of TLS; "": clients speak in the clear
    is_passed: bool = False  # TLS goes through to the target

    @property
    def name(self) -> str:
        """``127.0.0.1:8080``, or with a server name ``127.0.0.1:8443/a.test``."""
        return f"{self.host}:{self.port}" + (f"/{self.server_name}" if self.server_name else "")


class Tally(Struct):
    """What one worker incarnation is known to have carried: rows of (connections, bytes, bytes).

    ``older`` and ``seconds`` (by whole second of the clock) add up to all of it.
    """

    older: list[int] = field(default_factory=lambda: [0, 0, 0])
    seconds: dict[int, list[int]] = field(default_factory=dict)

    def add(self, second: int, what: int, amount: int) -> None:
        """Count ``amount`` of CONNECTIONS, TO_TARGET or TO_CLIENT in this second."""
        row = self.seconds.get(second)
        if row is None:
            row = self.seconds[second] = [0, 0, 0]
            if len(self.seconds) > SECONDS_KEPT:
                _add_row(self.older, self.seconds.pop(min(self.seconds)))
        row[what] += amount

    def until(self, instant: float | None) -> list[int]:
        """The sum of what is surely older than ``instant``; of everything for None."""
        total = list(self.older)
        for second, row in self.seconds.items():
            if instant is None or second + 1 <= instant:
                _add_row(total, row)
        return total

    def merge(self, other: Tally) -> None:
        """Add what another traffic process saw of the same worker."""
        _add_row(self.older, other.older)
        for second, row in other.seconds.items():
            _add_row(self.seconds.setdefault(second, [0, 0, 0]), row)


def _add_row(into: list[int], row: list[int]) -> None:
    for place, amount in enumerate(row):
        into[place] += amount


class Numbers:
    """A set of small whole numbers, one bit each: a worker numbers its connections from 1."""

    def __init__(self) -> None:
        self.bits = bytearray()

    def add(self, number: int) -> bool:
        """False when it was in already."""
        place, bit = number >> 3, 1 << (number & 7)
        if place >= len(self.bits):
            self.bits.extend(bytes(place + 1024 - len(self.bits)))
        if self.bits[place] & bit:
            return False
        self.bits[place] |= bit
        return True


def union(one: bytes, other: bytes) -> bytes:
    """Of two sets as Numbers.bits has them."""
    both = int.from_bytes(one, "little") | int.from_bytes(other, "little")
    return both.to_bytes(max(len(one), len(other)), "little")


def without(one: bytes, other: bytes) -> int:
    """How many numbers of ``one`` are not in ``other``."""
    return (int.from_bytes(one, "little") & ~int.from_bytes(other, "little")).bit_count()


def parse_id(unique_id: str) -> tuple[int, int] | None:
    """Incarnation and number of a connection's id ``slot-incarnation-number``; None: no id."""
    parts = unique_id.split("-")
    if len(parts) != 3 or not (parts[1].isdigit() and parts[2].isdigit()):
        return None
    return int(parts[1]), int(parts[2])


class Account(Struct):
    """The totals of a traffic process since its start. Bytes are payload of a relay, as proxyctl
    counts: of TLS that it passes through everything, else the plaintext.

    ``outcomes`` adds up to ``begun`` less ``open``: ok, turned_away (dials to a place that has
    left, or at the full stop), limited and blocked (closed by the rules), cut (by the full stop's
    deadline), refused, reset, timeout, truncated (also: no close_notify), tls (an alert, a
    certificate that is not good), wrong.
    """

    begun: int = 0
    open: int = 0  # long ones that go on, held still while the account is drawn up
    outcomes: dict[str, int] = field(default_factory=dict)
    established: dict[str, int] = field(default_factory=dict)  # by route
    first: dict[str, int] = field(default_factory=dict)  # who ended good ones first: client, target
    sent: int = 0  # by the clients
    received: int = 0
    target_received: int = 0
    target_sent: int = 0
    headers: int = 0  # valid ones that targets read
    strangers: int = 0  # headers that name no client that is known
    strange: list[str] = field(default_factory=list)  # the first of them, one sentence each
    wrong_headers: int = 0
    longest_s: float = 0.0  # from dial to outcome, of good short connections
    slow: int = 0  # good short connections that took over a second
    incarnations: dict[int, Tally] = field(default_factory=dict)
    ids: dict[int, bytes] = field(default_factory=dict)  # by incarnation: numbers, as in Numbers
    open_ids: list[str] = field(default_factory=list)  # of the long ones that go on
    oldest_s: float = 0.0  # the longest time that one of them has been open
    # Of these headers, TLS of proxyctl's own behind them never came about; by incarnation.
    unshaken: dict[int, int] = field(default_factory=dict)
    handshakes: int = 0  # of TLS, by the clients
    resumed: int = 0
    not_resumed: int = 0  # handshakes that were full although a session was offered
    crowd_most: int = 0  # of the limited route, open at one time
    limit_wrong: list[str] = field(default_factory=list)
    ended_after_stop: int = 0  # good ones
    late_long_ends: int = 0  # long ones of these, well after the stop began

    def merge(self, other: Account) -> None:
        """Add another process's account."""
        for name in ("begun", "open", "sent", "received", "target_received", "target_sent"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.headers += other.headers
        self.strangers += other.strangers
        self.strange += other.strange
        self.wrong_headers += other.wrong_headers
        self.slow += other.slow
        self.handshakes += other.handshakes
        self.resumed += other.resumed
        self.not_resumed += other.not_resumed
        self.longest_s = max(self.longest_s, other.longest_s)
        self.oldest_s = max(self.oldest_s, other.oldest_s)
        self.crowd_most = max(self.crowd_most, other.crowd_most)
        self.limit_wrong += other.limit_wrong
        self.open_ids += other.open_ids
        self.ended_after_stop += other.ended_after_stop
        self.late_long_ends += other.late_long_ends
        for mine, others in (
            (self.outcomes, other.outcomes),
            (self.established, other.established),
            (self.first, other.first),
        ):
            for key, count in others.items():
                mine[key] = mine.get(key, 0) + count
        for incarnation, count in other.unshaken.items():
            self.unshaken[incarnation] = self.unshaken.get(incarnation, 0) + count
        for incarnation, tally in other.incarnations.items():
            self.incarnations.setdefault(incarnation, Tally()).merge(tally)
        for incarnation, bits in other.ids.items():
            self.ids[incarnation] = union(self.ids.get(incarnation, b""), bits)


class Order(Struct, tag=True):
    """Base of what the controller tells a traffic process."""


class Serve(Order, tag="serve"):
    """Spread short connections over these places from now on, and long ones over the others."""

    short: list[Place]
    long: list[Place]


class Gone(Order, tag="gone"):
    """These places are served no more: a reload that took them away has returned at ``at``."""

    places: list[Place]
    at: float


class Load(Order, tag="load"):
    """How many short connections: ``rate`` a second (steady) or ``open`` at a time (saturating).

    ``long`` connections are kept open besides; what was held still goes on.
    """

    kind: LoadKind
    rate: float = 0.0
    open: int = 0
    long: int = 0


class Rules(Order, tag="rules"):
    """What the rules of the config refuse, for as long as the run lasts.

    ``limited`` serves at most ``most`` connections of one address, ``bound`` with the overshoot
    that several workers may have. ``crowd`` and ``guests`` are addresses to dial from.
    """

    limited: Place
    most: int
    bound: int
    crowd: str
    guests: list[str]


class Stopping(Order, tag="stopping"):
    """TERM is sent next: what is established is served, the rest may be turned away.

    Long ones that are still open ``drain_s`` after ``at`` may be cut.
    """

    at: float
    drain_s: float


class Settle(Order, tag="settle"):
    """Begin nothing, let all short ones end, hold long ones still, then answer Settled."""


class Finish(Order, tag="finish"):
    """As Settle, but long ones end too; the process ends after its answer."""


AnyOrder = Serve | Gone | Load | Rules | Stopping | Settle | Finish


class Answer(Struct, tag=True):
    """Base of what a traffic process tells the controller."""


class Listening(Answer, tag="listening"):
    """The targets listen on these ports of every address; on the second one they speak TLS."""

    port: int
    tls_port: int


class Beat(Answer, tag="beat"):
    """Once a second."""

    begun: int
    ok: int
    open: int
    failed: int


class Lost(Answer, tag="lost"):
    """A connection that did not end well, with all that is known of it."""

    token: int
    kind: ClientKind
    place: Place
    client: str  # its address, "127.16.3.9:41234"
    how: str  # refused, reset, timeout, truncated, tls, wrong
    begun_at: float
    ended_at: float
    is_established: bool
    sent: int
    received: int
    unique_id: str  # "" when no target saw a header of it

    @property
    def incarnation(self) -> int | None:
        """Of the worker that held it, where its id tells."""
        known = parse_id(self.unique_id)
        return None if known is None else known[0]

    def text(self) -> str:
        """One line for people."""
        worker = f"id {self.unique_id}" if self.unique_id else "no target saw it"
        return (
            f"{self.kind} {self.token:#x} from {self.client} to {self.place.name}"
            f" ({self.place.route}): {self.how} after {self.ended_at - self.begun_at:.3f} s"
            f" at {self.ended_at:.3f}, {self.sent} sent, {self.received} back, {worker}"
        )


class Probe(Answer, tag="probe"):
    """What became of a dial to a place that has left; as in Account.outcomes."""

    place: Place
    begun_at: float
    ended_at: float
    how: str


class Guest(Answer, tag="guest"):
    """What became of a connection from an address that may be blocked: ok or blocked."""

    host: str
    route: str
    begun_at: float
    ended_at: float
    how: str


class Shown(Answer, tag="shown"):
    """A client was shown this certificate by proxyctl, at some instant between these two."""

    version: int  # its place among those that are served in turn; -1: none of them
    begun_at: float
    ended_at: float


class Settled(Answer, tag="settled"):
    """Nothing moves: the account as it stands."""

    account: Account


AnyAnswer = Listening | Beat | Lost | Probe | Guest | Shown | Settled

encode_line: Final = msgspec.json.Encoder().encode
decode_order: Final = msgspec.json.Decoder(AnyOrder).decode
decode_answer: Final = msgspec.json.Decoder(AnyAnswer).decode


class Lines:
    """Splits a byte stream into its lines; what is not whole yet stays here."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now, without their ends."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        return whole
