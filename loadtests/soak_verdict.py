"""The verdict over a soak: which losses are excused, and whether the books agree. Pure.

Connections that a killed worker held may fail (design section 3), and what it counted by route,
reason and byte in its last moments may be missing. Everything else has to be exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct, field

from loadtests.soak_deeds import Left, Signalled
from loadtests.soak_watch import Restart
from loadtests.soak_wire import CONNECTIONS, TO_CLIENT, TO_TARGET, Account, Lost, Probe

# What a worker counted up to this long before its end has reached the supervisor: reports go out
# every 0.5 s, and bytes are accounted once a tick.
REPORTED_S: Final = 1.5
CLOCK_S: Final = 0.25  # between the instant that is noted for a signal and its effect
REFUSES_S: Final = 4.0  # after a port has left (design section 2)
_GOOD_ENDS: Final = frozenset({"client_closed", "target_closed", "limit", "blocked"})


class Killed(Struct, kw_only=True):
    """Workers that were killed, by us or by the watchdog.

    ``at``: by incarnation, the instant from which it may have done nothing more, which ``again_at``
    is for certain where that is another one. The sums are the supervisor's own, of `status`; None
    where it does not say.
    """

    at: dict[int, float] = field(default_factory=dict)
    again_at: dict[int, float] = field(default_factory=dict)
    workers: int | None = None
    accepted: int | None = None
    dialled: int | None = None
    ended: int | None = None

    @property
    def undialled(self) -> int:
        """Connections that they had accepted and not dialled, refused ones included."""
        return (self.accepted or 0) - (self.dialled or 0)

    @property
    def held(self) -> int:
        """Connections that they had accepted and not dialled, and may have held at their end."""
        if self.ended is None:
            return self.undialled
        return min(self.undialled, (self.accepted or 0) - self.ended)


class Excuses(Struct, kw_only=True):
    """How the connections that failed are excused; ``lost`` are those that nothing excuses."""

    held: dict[int, int] = field(default_factory=dict)  # by the killed worker that held them
    not_dialled: int = 0  # no target saw them: as many as the killed had accepted and not dialled
    turned_away: int = 0  # dialled after a reload that removed the place had returned
    lost: list[Lost] = field(default_factory=list)

    @property
    def held_by_killed(self) -> int:
        """The sum of ``held``."""
        return sum(self.held.values())


def killed_of(
    signalled: Mapping[int, Signalled], restarts: Iterable[Restart], totals: Mapping[str, Any]
) -> Killed:
    """Whose end is excused: those that we killed, and those that the watchdog did."""
    ended = {restart.incarnation for restart in restarts} | {
        restart.pid for restart in restarts if restart.incarnation is None
    }
    excused = {
        incarnation: one
        for incarnation, one in signalled.items()
        if one.kind == "kill" or incarnation in ended or one.pid in ended
    }
    sums = totals.get("killed", {})
    return Killed(
        at={incarnation: one.at for incarnation, one in excused.items()},
        again_at={incarnation: one.again_at for incarnation, one in excused.items()},
        workers=sums.get("workers"),
        accepted=sums.get("accepted"),
        dialled=sums.get("dialled"),
        ended=sums.get("ended"),
    )


def judge_restarts(
    restarts: Iterable[Restart], signalled: Mapping[int, Signalled], fork_server_kills: int
) -> list[str]:
    """Workers that ended although nobody touched them."""
    pids = {one.pid for one in signalled.values()}
    return [
        f"worker {one.pid} (slot {one.slot}) ended unasked: {one.kind}, {one.reason}"
        for one in restarts
        if not (one.incarnation in signalled or one.pid in pids)
        and not (one.kind == "fork" and fork_server_kills)
    ]


def excuse(losses: Iterable[Lost], killed: Killed, left: Mapping[str, Sequence[Left]]) -> Excuses:
    """Sort the connections that failed."""
    found = Excuses()
    for one in losses:
        if one.incarnation is not None:
            if killed.at.get(one.incarnation, float("inf")) <= one.ended_at:
                found.held[one.incarnation] = found.held.get(one.incarnation, 0) + 1
            else:
                found.lost.append(one)
        elif one.is_established and _meets_an_end(one, killed):
            found.not_dialled += 1
        elif not one.is_established and _has_left(one, left.get(one.place.name, [])):
            found.turned_away += 1
        else:
            found.lost.append(one)
    return found


def _meets_an_end(one: Lost, killed: Killed) -> bool:
    return any(
        one.begun_at <= max(at, killed.again_at.get(incarnation, 0.0)) + CLOCK_S
        and at <= one.ended_at
        for incarnation, at in killed.at.items()
    )


def _has_left(one: Lost, windows: Sequence[Left]) -> bool:
    return any(window.gone_at <= one.begun_at < window.back_at for window in windows)


def judge_losses(excuses: Excuses, killed: Killed) -> list[str]:
    """What the sums of the killed do not cover.

    One more for each killed worker: it may have been killed between accept(2) and its count.
    """
    wrong = []
    if excuses.lost:
        wrong.append(f"{len(excuses.lost)} connections lost that nothing excuses")
    if killed.at and killed.workers is None:
        wrong.append("`status` has no data.totals.killed")
    most = killed.held + len(killed.at)
    if excuses.not_dialled > most:
        wrong.append(
            f"{excuses.not_dialled} connections failed before a dial, but the {len(killed.at)}"
            f" killed workers held only {killed.held} that they had not dialled"
        )
    if killed.workers is not None and killed.workers != len(killed.at):
        wrong.append(f"{len(killed.at)} workers were killed, `status` counts {killed.workers}")
    return wrong


def judge_probes(probes: Iterable[Probe], left: Mapping[str, Sequence[Left]]) -> list[str]:
    """Places that have left must refuse once REFUSES_S have passed."""
    wrong = []
    for probe in probes:
        for window in left.get(probe.place.name, []):
            is_late = probe.begun_at >= window.gone_at + REFUSES_S - 0.01
            if is_late and probe.ended_at < window.back_begun_at and probe.how != "refused":
                after = probe.begun_at - window.gone_at
                wrong.append(f"{probe.place.name}: {probe.how} {after:.2f} s after it had left")
                break
    return wrong


class Range(Struct, frozen=True):
    """A count that has to be within these, both included."""

    what: str
    found: int
    least: int
    most: int

    @property
    def wrong(self) -> list[str]:
        """One sentence, or none."""
        if self.least <= self.found <= self.most:
            return []
        due = str(self.most) if self.least == self.most else f"{self.least} to {self.most}"
        return [f"{self.what}: {self.found}, not {due} ({self.found - self.most:+d})"]


def judge_books(
    account: Account, status: Mapping[str, Any], killed: Killed, cut: Mapping[str, int]
) -> list[str]:
    """Compare the traffic's account with the counters; exact where no worker was killed.

    ``cut``: by route, guests who count as blocked and may have been held by the killed: what such
    a worker had routed and not dialled stays in the route's total.
    """
    totals = status["totals"]
    routes: Mapping[str, Any] = totals["routes"]
    refused = {
        "limit": account.outcomes.get("limited", 0),
        "blocked": account.outcomes.get("blocked", 0),
    }
    established = sum(account.established.values()) + refused["blocked"]
    accepted, active = totals["accepted"], status["connections"]
    slack = len(killed.at)
    # With TLS of its own to the target a worker has dialled once that is there, behind the header.
    unshaken = sum(account.unshaken.get(incarnation, 0) for incarnation in killed.at)
    least_dialled = account.headers - slack - unshaken
    sure = sure_of(account, killed)
    carried = sum(tally.until(None)[CONNECTIONS] for tally in account.incarnations.values())
    doubt = carried - sure[CONNECTIONS] + (killed.undialled + slack if slack else 0)
    ends = dict(totals["ends"])
    targets = [one for route in routes.values() for one in route["targets"].values()]
    checks = [
        Range("connections now", active, account.open, account.open),
        Range("accepted", accepted, established - slack, established),
        Range("ended + active", totals["ended"] + active, accepted, accepted),
        Range("dialled", totals["dialled"], least_dialled, account.headers),
        Range("ends + active", sum(ends.values()) + active, accepted - doubt, accepted),
        *(Range(end, ends.get(end, 0), count - doubt, count) for end, count in refused.items()),
        *(
            Range(
                f"total of {name}", routes[name]["total"], count - doubt, count + cut.get(name, 0)
            )
            for name, count in sorted(account.established.items())
            if name in routes
        ),
        Range("bytes received", totals["received"], sure[TO_TARGET], account.sent),
        Range("bytes sent", totals["sent"], sure[TO_CLIENT], account.target_sent),
        _bytes("bytes to targets", targets, "sent", sure[TO_TARGET], account.sent),
        _bytes("bytes from targets", targets, "received", sure[TO_CLIENT], account.target_sent),
    ]
    wrong = [sentence for check in checks for sentence in check.wrong]
    wrong += [f"no counters of {name}" for name in account.established if name not in routes]
    if not killed.at:
        due = {f"{who}_closed": count for who, count in account.first.items()}
        due |= {end: count for end, count in refused.items() if count}
        if ends != due:
            wrong.append(f"ends: {ends}, not {due}")
    strange = {end: count for end, count in ends.items() if end not in {*_GOOD_ENDS, "killed"}}
    if strange:
        wrong.append(f"ended for reasons that were not given: {strange}")
    wrong += account.limit_wrong
    if account.not_resumed:
        wrong.append(f"{account.not_resumed} TLS sessions were not resumed")
    for name in ("access_lines_dropped", "limit_table_full"):
        if totals.get(name):
            wrong.append(f"{name}: {totals[name]}, not 0")
    if account.wrong_headers or account.strangers:
        wrong.append(
            f"targets read {account.wrong_headers} wrong headers,"
            f" {account.strangers} of unknown clients"
        )
        wrong += account.strange
    return wrong


def _bytes(what: str, targets: list[Any], key: str, least: int, most: int) -> Range:
    return Range(what, sum(one[key] for one in targets), least, most)


def sure_of(account: Account, killed: Killed) -> list[int]:
    """The sum of all tallies, without the last moments of the killed."""
    total = [0, 0, 0]
    for incarnation, tally in account.incarnations.items():
        at = killed.at.get(incarnation)
        row = tally.until(None if at is None else at - REPORTED_S)
        total = [have + more for have, more in zip(total, row, strict=True)]
    return total
