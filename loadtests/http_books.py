"""What HTTP users and their targets have seen, and whether the counters agree with it. Pure.

Exact where no worker was killed. What a killed worker counted in its last moments may be missing,
and a request that it held may have been counted or not: a number may differ by so much.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from time import monotonic
from typing import Any, Final

from msgspec import Struct, field

from loadtests.http_echo import Echo
from loadtests.soak_verdict import CLOCK_S, REPORTED_S, Killed, Range

SLICE_S: Final = 0.25  # answers are summed up by it
NOBODY: Final = ""  # the route of what no route took
# What proxyctl adds to a head for the target, and a target's head for what it sends back, at most.
HEAD_BYTES: Final = 1000
GOOD_ENDS: Final = frozenset({"client_closed", "target_closed", "drained", "no_route"})

RouteCode = tuple[str, str]  # a route, and the class of an answer: 2xx


class Loss(Struct, frozen=True, kw_only=True):
    """A request that failed. ``idle_since``: when its connection was last known to be good;
    ``sent``: its bytes.
    """

    what: str
    why: str
    incarnation: int | None  # of the worker, where a target has said
    idle_since: float
    ended_at: float
    route: str = NOBODY
    sent: int = 0


class Row(Struct):
    """Answers, or messages on WebSockets that came back; bytes from clients, without what frames
    chunks; bytes to them.
    """

    count: int = 0
    received: int = 0
    sent: int = 0

    def add(self, other: Row) -> None:
        """Add it."""
        self.count += other.count
        self.received += other.received
        self.sent += other.sent


class Sums(Struct):
    """Rows by route and class; messages on WebSockets have "" for a class."""

    rows: dict[RouteCode, Row] = field(default_factory=dict)

    def answers(self, key: RouteCode) -> int:
        """Of a route, with that class."""
        return self.rows[key].count if key in self.rows else 0

    def of(self, route: str) -> Row:
        """All classes of a route."""
        total = Row()
        for (name, _), row in self.rows.items():
            if name == route:
                total.add(row)
        return total

    @property
    def requests(self) -> int:
        """All answers, those that no route took too."""
        return sum(row.count for (_, code), row in self.rows.items() if code)

    @property
    def total(self) -> Row:
        """All of it, but what no route took."""
        total = Row()
        for route in {name for name, _ in self.rows if name != NOBODY}:
            total.add(self.of(route))
        return total


class Account:
    """What the users have done, all of them together."""

    def __init__(self) -> None:
        self.established = 0  # connections that TCP had
        self.unnamed = 0  # of them those that were lost before a target told the worker
        self.relays_ended = 0
        self.losses: list[Loss] = []
        self.closed_by_stop = 0
        self.cut = 0
        self._rows: dict[tuple[int, int], dict[RouteCode, Row]] = {}
        self._named: Counter[tuple[int, int]] = Counter()

    def name(self, incarnation: int, begun_at: float) -> None:
        """The worker of a connection is known now."""
        self._named[incarnation, int(begun_at / SLICE_S)] += 1

    @property
    def named(self) -> int:
        """Connections whose worker is known: all that had an answer."""
        return self._named.total()

    def answer(self, incarnation: int, route: str, code: str, received: int, sent: int) -> None:
        """An answer came back whole; without ``code`` it is a message on a WebSocket."""
        rows = self._rows.setdefault((incarnation, int(monotonic() / SLICE_S)), {})
        rows.setdefault((route, code), Row()).add(Row(1, received, sent))

    def sums(self) -> Sums:
        """All answers."""
        return self._sums(self._rows)

    def doubtful(self, killed: Killed) -> Sums:
        """Those by killed workers, in the moments before their end."""
        return self._sums(one for one in self._rows if _is_late(one, killed))

    def young(self, killed: Killed) -> int:
        """Connections that killed workers may not have reported."""
        late = sum(count for one, count in self._named.items() if _is_late(one, killed))
        return late + self.unnamed if killed.at else 0

    def _sums(self, keys: Iterable[tuple[int, int]]) -> Sums:
        found = Sums()
        for key in keys:
            for name, row in self._rows[key].items():
                found.rows.setdefault(name, Row()).add(row)
        return found


def _is_late(one: tuple[int, int], killed: Killed) -> bool:
    incarnation, slice_ = one
    at = killed.at.get(incarnation)
    return at is not None and (slice_ + 1) * SLICE_S >= at - REPORTED_S


def is_excused(loss: Loss, killed: Mapping[int, float]) -> bool:
    """Whether a killed worker held the connection, or may have where its worker is not known."""
    if loss.incarnation is not None:
        return killed.get(loss.incarnation, float("inf")) <= loss.ended_at
    return any(loss.idle_since - CLOCK_S <= at <= loss.ended_at for at in killed.values())


def judge_losses(account: Account, killed: Killed) -> list[str]:
    """Requests that nothing excuses, and more of them than the killed had connections."""
    lost = [loss for loss in account.losses if not is_excused(loss, killed.at)]
    wrong = [f"lost: {loss}" for loss in lost]
    held = len(account.losses) - len(lost)
    most = (killed.accepted or 0) - (killed.ended or 0) + len(killed.at)
    if held > most:
        wrong.append(f"{held} requests were lost with the killed, who held {most} connections")
    return wrong


def judge_books(
    account: Account, status: Mapping[str, Any], killed: Killed, open_: int, targets: Iterable[Echo]
) -> list[str]:
    """Compare the users' account with the counters, at rest. ``open_``: connections of users."""
    totals, slack = status["totals"], len(killed.at)
    accepted, active, ends = totals["accepted"], status["connections"], totals["ends"]
    checks = [
        Range("connections now", active, open_, open_),
        Range("accepted", accepted, account.established - slack, account.established),
        Range("ended + active", totals["ended"] + active, accepted, accepted),
        Range(
            "ends + active", sum(ends.values()) + active, accepted - account.young(killed), accepted
        ),
        Range("dialled", totals["dialled"], account.named - slack, account.named + account.unnamed),
        *_route_checks(account, totals["routes"], killed),
        *_target_checks(account, totals["routes"], killed, list(targets)),
    ]
    wrong = [sentence for check in checks for sentence in check.wrong]
    wrong += judge_requests("counter", requests_of(totals), account, killed)
    strange = set(ends) - GOOD_ENDS - ({"killed"} if killed.at else set())
    if strange:
        wrong.append(f"connections ended by {sorted(strange)}")
    if (killed.workers or 0) != len(killed.at):
        wrong.append(f"{len(killed.at)} workers were killed, `status` counts {killed.workers}")
    if totals["access_lines_dropped"]:
        wrong.append(f"access_lines_dropped: {totals['access_lines_dropped']}, not 0")
    return wrong


def requests_of(totals: Mapping[str, Any]) -> Counter[RouteCode]:
    """What proxyctl counts, by route and class. LookupError where it answered by itself."""
    found: Counter[RouteCode] = Counter()
    for listener in totals["listeners"].values():
        for code, count in listener["requests"].items():
            found[NOBODY, code] += count
    for name, route in totals["routes"].items():
        for code, count in route["requests"].items():
            found[f"{name}, without a target", code] += count
        for target in route["targets"].values():
            for code, count in target["requests"].items():
                found[name, code] += count
    return found


def requests_in(lines: Iterable[str]) -> Counter[RouteCode]:
    """The same of an access log in JSON; lines about connections are left out."""
    found: Counter[RouteCode] = Counter()
    for line in lines:
        entry = json.loads(line)
        if "status" in entry:
            route = entry["route"] or NOBODY
            if entry["route"] and entry["target"] is None:
                route += ", without a target"
            found[route, f"{(entry['status'] or 499) // 100}xx"] += 1
    return found


def judge_requests(
    what: str, found: Counter[RouteCode], account: Account, killed: Killed
) -> list[str]:
    """Answers by route and class, as proxyctl tells them and as the users have them."""
    sums, doubtful = account.sums(), account.doubtful(killed)
    lost = Counter(loss.route for loss in account.losses)
    wrong = []
    for key in sorted({*found, *sums.rows}):
        if not key[1]:
            continue
        route, code = key
        answers = sums.answers(key)
        name = f"{what}: {code} of {route or 'no route'}"
        # One that was asked for a route which comes and goes may have found it or not.
        most = answers + lost[route] + (lost.total() if route == NOBODY else 0)
        check = Range(name, found[key], answers - doubtful.answers(key), most)
        wrong += check.wrong
    return wrong


def _route_checks(account: Account, routes: Mapping[str, Any], killed: Killed) -> list[Range]:
    sums, doubtful = account.sums(), account.doubtful(killed)
    checks = []
    for name, counts in routes.items():
        row, doubt = sums.of(name), doubtful.of(name)
        lost = [loss for loss in account.losses if loss.route == name]
        more = sum(loss.sent for loss in lost)
        checks += [
            Range(
                f"bytes received by {name}",
                counts["received"],
                row.received - doubt.received,
                row.received + more,
            ),
            Range(
                f"bytes sent by {name}",
                counts["sent"],
                row.sent - doubt.sent,
                row.sent + more + HEAD_BYTES * len(lost),
            ),
        ]
    return checks


def _target_checks(
    account: Account, routes: Mapping[str, Any], killed: Killed, echoes: list[Echo]
) -> list[Range]:
    """Connections to targets and bytes on them, over all routes: they are shared."""
    counts = [target for route in routes.values() for target in route["targets"].values()]
    total = sum(one["total"] for one in counts)
    came = sum(echo.connections for echo in echoes)
    still = sum(echo.open for echo in echoes)
    doubt, losses = account.doubtful(killed).total, account.losses
    slack = (doubt.count + len(losses)) * HEAD_BYTES + sum(loss.sent for loss in losses)
    checks = [
        Range("connections to targets now", sum(one["active"] for one in counts), still, still),
        Range("connections to targets", total, 0 if killed.at else came, came),
    ]
    for what, key, seen, sure in (
        ("to", "sent", sum(echo.received for echo in echoes), doubt.received),
        ("from", "received", sum(echo.sent for echo in echoes), doubt.sent),
    ):
        found = sum(one[key] for one in counts)
        checks.append(Range(f"bytes {what} targets", found, seen - sure - slack, seen + slack))
    return checks
