"""Rests of a soak, at which the books must agree, and the report over all of it."""

from __future__ import annotations

from time import monotonic
from typing import Any, Final

from msgspec import Struct, field

from loadtests.delay_line import LineCounts
from loadtests.processes import LoadTestError
from loadtests.soak_crowd import MOST_KEPT, Crowd
from loadtests.soak_deeds import Deeds
from loadtests.soak_judge import (
    by_worker,
    cut_guests,
    judge_guests,
    judge_shown,
    judge_spread,
    judge_stop,
)
from loadtests.soak_log import LogReader, LogSums, judge_log
from loadtests.soak_memory import Trend, judge_descriptors
from loadtests.soak_proxy import Figures, Proxy
from loadtests.soak_verdict import (
    Excuses,
    Killed,
    excuse,
    judge_books,
    judge_losses,
    judge_probes,
    judge_restarts,
    killed_of,
)
from loadtests.soak_watch import Restart, Watch
from loadtests.soak_wire import Account

AGREE_S: Final = 6.0  # for the last reports and lines of the workers to come in
OLD_S: Final = 20.0  # a worker of this age has its share of long connections
_SHOWN: Final = 12
_KEPT: Final = 1000


class Rest(Struct, kw_only=True):
    """One moment at which nothing moved. ``wrong``: what the books do not agree on."""

    name: str
    account: Account
    connections: int = 0
    accepted: int = 0
    dialled: int = 0
    ended: int = 0
    killed_workers: int = 0
    per_second: float = 0.0
    log_lines: int = 0
    figures: list[Figures] = field(default_factory=list)
    long_by_worker: dict[int, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def text(self) -> str:
        """One line."""
        account = self.account
        outcomes = ", ".join(f"{count} {how}" for how, count in sorted(account.outcomes.items()))
        verdict = "books agree" if not self.wrong else "BOOKS DO NOT AGREE"
        return (
            f"{self.name}: {self.per_second:.0f}/s; {account.begun} begun so far: {outcomes};"
            f" {account.open} open over {len(self.long_by_worker)} workers, the oldest for"
            f" {account.oldest_s:.0f} s; {self.log_lines} lines; {self.killed_workers} workers"
            f" killed; {verdict}"
        )


class Report(Struct, kw_only=True):
    """The whole run. ``wrong`` empty: nothing was lost, and everything agrees."""

    seed: int
    rests: list[Rest] = field(default_factory=list)
    deeds: dict[str, int] = field(default_factory=dict)
    slowest_reload_s: float = 0.0
    samples: int = 0
    killed: Killed = field(default_factory=Killed)
    restarts: list[Restart] = field(default_factory=list)
    held_by_killed: int = 0
    not_dialled: int = 0
    turned_away: int = 0
    guests: int = 0
    shown: int = 0  # certificates that were looked at
    log: LogSums = field(default_factory=LogSums)
    trends: list[Trend] = field(default_factory=list)
    supervisor_kib: list[tuple[float, int]] = field(default_factory=list)
    final: Account | None = None  # after the full stop
    probes: int = 0
    lost: list[str] = field(default_factory=list)  # the first ones that nothing excuses
    before: list[str] = field(default_factory=list)  # what was done shortly before the first one
    stopped: str = ""
    line: LineCounts | None = None
    line_drops: int = 0
    wrong: list[str] = field(default_factory=list)
    journal: list[str] = field(default_factory=list)  # the last deeds, with their instants

    def text(self) -> str:
        """For people."""
        last = self.rests[-1]
        account, killed = self.final or last.account, self.killed
        deeds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.deeds.items()))
        outcomes = account.outcomes
        lines = [
            f"connections  {account.begun} begun,"
            f" {outcomes.get('ok', 0)} ok, {account.slow} of them over 1 s,"
            f" the slowest {account.longest_s:.2f} s",
            f"deeds        {deeds}; slowest reload {self.slowest_reload_s:.2f} s",
            f"killed       {len(killed.at)} workers, which had accepted {killed.accepted},"
            f" dialled {killed.dialled} and ended {killed.ended}",
            f"excused      {self.held_by_killed} held by the killed, {self.not_dialled} not yet"
            f" dialled by them, {self.turned_away} turned away by places that had left",
            f"rules        {outcomes.get('blocked', 0)} of {self.guests} guests blocked,"
            f" {outcomes.get('limited', 0)} of the crowds refused, at most {account.crowd_most}"
            f" open at one time",
            f"TLS          {account.handshakes} handshakes, {account.resumed} of them resumed,"
            f" {self.shown} certificates looked at",
            f"access log   {self.log.lines} lines, {self.log.undialled} without a target,"
            f" {self.log.malformed} torn, {self.log.rotations} rotations",
            f"long         the oldest for {last.account.oldest_s:.0f} s, by worker"
            f" {last.long_by_worker}",
            f"probes       {self.probes} dials to places that had left",
            f"samples      {self.samples} of the counters",
            *(f"descriptors  {rest.name}: {_descriptors(rest)}" for rest in _ends(self.rests)),
            *(f"memory       {trend.text()}" for trend in _shown(self.trends)),
            f"end          {self.stopped}",
        ]
        if self.line is not None:
            lines.append(
                f"path         {self.line.carried} packets, {self.line.dropped} dropped by the"
                f" line, {self.line_drops} by its devices, {self.line.refused} refused,"
                f" at most {self.line.late_s * 1000:.1f} ms late"
            )
        lines += [f"LOST {text}" for text in self.lost[:_SHOWN]]
        lines += [f"deed {text}" for text in self.before]
        lines += [f"FAIL {sentence}" for sentence in self.wrong]
        lines.append(f"FAIL (seed {self.seed})" if self.wrong else f"PASS (seed {self.seed})")
        return "\n".join(lines)


def _ends(rests: list[Rest]) -> list[Rest]:
    with_figures = [rest for rest in rests if rest.figures]
    return with_figures[:1] + with_figures[1:][-1:]


def _descriptors(rest: Rest) -> str:
    return ", ".join(
        f"{one.role} {one.descriptors}" + (f" with {one.workers} workers" if one.workers else "")
        for one in rest.figures
    )


def _shown(trends: list[Trend]) -> list[Trend]:
    """The two that were there longest, of each role."""
    roles = sorted({one.role for one in trends})
    return [one for role in roles for one in [t for t in trends if t.role == role][:2]]


class Books:
    """Draws up accounts and compares them with the counters."""

    def __init__(
        self, crowd: Crowd, proxy: Proxy, watch: Watch, deeds: Deeds, log: LogReader
    ) -> None:
        self._crowd = crowd
        self._proxy = proxy
        self._watch = watch
        self._deeds = deeds
        self._log = log
        self._first: list[Figures] = []

    def killed(self, totals: dict[str, Any]) -> Killed:
        """The workers whose end is excused, as far as is known now."""
        return killed_of(self._deeds.signalled, self._watch.restarts, totals)

    def draw_up(self, name: str, *, is_last: bool) -> Rest:
        """Have everything rest, and wait until the counters agree, AGREE_S at the longest."""
        rest = Rest(name=name, account=Account())
        begun_at = monotonic()
        try:
            rest.account = self._crowd.rest(is_last=is_last)
        except LoadTestError as error:
            rest.wrong.append(str(error))
            return rest
        deadline = monotonic() + AGREE_S
        while True:
            data = self._watch.sample()
            killed = self.killed(data["totals"])
            sums = self._log.read()
            cut = cut_guests(self._crowd.guests, killed.at.values())
            rest.wrong = judge_books(rest.account, data, killed, cut)
            rest.wrong += judge_log(sums, rest.account, killed, self._excuses(killed).held)
            counted = data["totals"]["access_lines"]
            if not killed.at and counted != sums.lines:
                rest.wrong.append(f"access_lines: {counted}, but the file has {sums.lines}")
            if not rest.wrong or monotonic() > deadline:
                break
            self._crowd.listen(0.2)
        totals = data["totals"]
        rest.connections = data["connections"]
        rest.accepted, rest.dialled = totals["accepted"], totals["dialled"]
        rest.ended = totals["ended"]
        rest.killed_workers = len(killed.at)
        rest.log_lines = sums.lines
        if not is_last:
            rest.long_by_worker = by_worker(rest.account)
            ages_s = {
                worker["incarnation"]: worker["age_s"] - (monotonic() - begun_at)
                for worker in self._proxy.workers()
                if worker["state"] == "ready"
            }
            rest.wrong += judge_spread(rest.account, ages_s, OLD_S)
            self._judge_descriptors(rest)
        return rest

    def _judge_descriptors(self, rest: Rest) -> None:
        """Against the first rest; ports that have just left may take a moment to be closed."""
        deadline = monotonic() + AGREE_S
        while True:
            rest.figures = self._proxy.figures()
            self._first = self._first or rest.figures
            wrong = judge_descriptors(self._first, rest.figures)
            if not wrong or monotonic() > deadline:
                break
            self._crowd.listen(0.2)
        rest.wrong += wrong

    def _excuses(self, killed: Killed) -> Excuses:
        return excuse(self._crowd.losses, killed, self._deeds.left)

    def judge_end(self, report: Report, status: int) -> None:
        """After a full stop under load: its numbers, the last outcomes, and every line."""
        account = report.final = self._crowd.rest(is_last=True)
        excuses = self._excuses(report.killed)
        report.wrong += judge_stop(account, status, report.stopped)
        sums = report.log = self._log.read()
        report.wrong += judge_log(sums, account, report.killed, excuses.held)
        if (cut := sums.ends.get("drain_deadline", 0)) != account.outcomes.get("cut", 0):
            report.wrong.append(f"the access log has {cut} connections cut at the deadline")
        if more := len(excuses.lost) - len(report.lost):
            report.lost += [one.text() for one in excuses.lost[-more:]]
            report.before = report.before or self._deeds.before(excuses.lost[-more].ended_at)
            report.wrong.append(f"{more} connections lost by the full stop")

    def close(self, report: Report) -> None:
        """Everything that is known into the report."""
        deeds, watch, crowd = self._deeds, self._watch, self._crowd
        report.deeds = deeds.counts
        report.slowest_reload_s = deeds.slowest_reload_s
        report.journal = list(deeds.journal)
        report.samples = watch.samples
        report.restarts = watch.restarts
        killed = report.killed = self.killed(self._proxy.data("status")["totals"])
        excuses = self._excuses(killed)
        report.held_by_killed = excuses.held_by_killed
        report.not_dialled = excuses.not_dialled
        report.turned_away = excuses.turned_away
        report.turned_away += report.rests[-1].account.outcomes.get("turned_away", 0)
        report.probes = crowd.probe_count
        report.guests = len(crowd.guests)
        report.shown = len(crowd.shown)
        report.log = self._log.read()
        report.trends = watch.memory.trends()
        report.supervisor_kib = watch.memory.supervisor()
        report.lost = [one.text() for one in excuses.lost[:_KEPT]]
        report.before = [line for one in excuses.lost[:1] for line in deeds.before(one.ended_at)]
        report.wrong += deeds.wrong
        report.wrong += watch.wrong + self._log.wrong
        report.wrong += judge_guests(crowd.guests, deeds.lists, deeds.stops, killed.at.values())
        report.wrong += judge_shown(crowd.shown, deeds.certificates, deeds.stops)
        report.wrong += [sentence for trend in report.trends for sentence in trend.wrong]
        report.wrong += judge_losses(excuses, killed)
        report.wrong += judge_probes(crowd.probes, deeds.left)
        report.wrong += judge_restarts(
            watch.restarts, deeds.signalled, deeds.counts.get("fork server", 0)
        )
        if crowd.lost_count > MOST_KEPT:
            report.wrong.append(f"{crowd.lost_count} connections failed")


def wrong_at_rest(report: Report) -> list[str]:
    """What did not agree at a rest."""
    return [f"{rest.name}: {sentence}" for rest in report.rests for sentence in rest.wrong]
