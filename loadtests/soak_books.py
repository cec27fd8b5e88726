"""Rests of a soak, at which the books must agree, and the report over all of it."""

from __future__ import annotations

from time import monotonic
from typing import Any, Final

from msgspec import Struct, field

from loadtests.delay_line import LineCounts
from loadtests.processes import LoadTestError
from loadtests.soak_crowd import MOST_KEPT, Crowd
from loadtests.soak_faults import Deeds
from loadtests.soak_proxy import Figures, Proxy
from loadtests.soak_verdict import (
    Killed,
    excuse,
    judge_books,
    judge_figures,
    judge_losses,
    judge_probes,
    judge_restarts,
    killed_of,
)
from loadtests.soak_watch import Restart, Watch
from loadtests.soak_wire import Account

AGREE_S: Final = 6.0  # for the last reports of the workers to come in
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
    figures: list[Figures] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def text(self) -> str:
        """One line."""
        account = self.account
        outcomes = ", ".join(f"{count} {how}" for how, count in sorted(account.outcomes.items()))
        verdict = "books agree" if not self.wrong else "BOOKS DO NOT AGREE"
        return (
            f"{self.name}: {self.per_second:.0f}/s; {account.begun} begun so far: {outcomes};"
            f" {account.open} open; {self.killed_workers} workers killed; {verdict}"
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
    probes: int = 0
    lost: list[str] = field(default_factory=list)  # the first ones that nothing excuses
    stopped: str = ""
    line: LineCounts | None = None
    line_drops: int = 0
    wrong: list[str] = field(default_factory=list)
    journal: list[str] = field(default_factory=list)  # the last deeds, with their instants

    def text(self) -> str:
        """For people."""
        last = self.rests[-1]
        account, killed = last.account, self.killed
        deeds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.deeds.items()))
        lines = [
            f"connections  {account.begun} begun,"
            f" {account.outcomes.get('ok', 0)} ok, {account.slow} of them over 1 s,"
            f" the slowest {account.longest_s:.2f} s",
            f"deeds        {deeds}; slowest reload {self.slowest_reload_s:.2f} s",
            f"killed       {len(killed.at)} workers, which had accepted {killed.accepted}"
            f" and dialled {killed.dialled}",
            f"excused      {self.held_by_killed} held by the killed, {self.not_dialled} not yet"
            f" dialled by them, {self.turned_away} turned away by places that had left",
            f"probes       {self.probes} dials to places that had left",
            f"samples      {self.samples} of the counters",
            *(_figures_text(rest) for rest in (self.rests[0], last)),
            f"end          {self.stopped}",
        ]
        if self.line is not None:
            lines.append(
                f"path         {self.line.carried} packets, {self.line.dropped} dropped by the"
                f" line, {self.line_drops} by its devices, {self.line.refused} refused,"
                f" at most {self.line.late_s * 1000:.1f} ms late"
            )
        lines += [f"LOST {text}" for text in self.lost[:_SHOWN]]
        lines += [f"FAIL {sentence}" for sentence in self.wrong]
        lines.append(f"FAIL (seed {self.seed})" if self.wrong else f"PASS (seed {self.seed})")
        return "\n".join(lines)


def _figures_text(rest: Rest) -> str:
    parts = [
        f"{one.role} {one.descriptors} fds {one.pss_kib / 1024:.1f} MiB PSS"
        f" {one.anonymous_kib / 1024:.1f} anonymous {one.shmem_kib / 1024:.1f} shared memory"
        for one in rest.figures
    ]
    return f"{rest.name + ':':<13}" + "; ".join(parts)


class Books:
    """Draws up accounts and compares them with the counters."""

    def __init__(self, crowd: Crowd, proxy: Proxy, watch: Watch, deeds: Deeds) -> None:
        self._crowd = crowd
        self._proxy = proxy
        self._watch = watch
        self._deeds = deeds

    def killed(self, totals: dict[str, Any]) -> Killed:
        """The workers whose end is excused, as far as is known now."""
        return killed_of(self._deeds.signalled, self._watch.restarts, totals)

    def draw_up(self, name: str, *, is_last: bool) -> Rest:
        """Have everything rest, and wait until the counters agree, AGREE_S at the longest."""
        rest = Rest(name=name, account=Account())
        try:
            rest.account = self._crowd.rest(is_last=is_last)
        except LoadTestError as error:
            rest.wrong.append(str(error))
            return rest
        deadline = monotonic() + AGREE_S
        while True:
            data = self._watch.sample()
            killed = self.killed(data["totals"])
            rest.wrong = judge_books(rest.account, data, killed)
            if not rest.wrong or monotonic() > deadline:
                break
            self._crowd.listen(0.2)
        totals = data["totals"]
        rest.connections = data["connections"]
        rest.accepted, rest.dialled = totals["accepted"], totals["dialled"]
        rest.ended = totals["ended"]
        rest.killed_workers = len(killed.at)
        rest.figures = self._proxy.figures()
        return rest

    def close(self, report: Report) -> None:
        """Everything that is known into the report."""
        deeds, watch, crowd = self._deeds, self._watch, self._crowd
        report.deeds = deeds.counts
        report.slowest_reload_s = deeds.slowest_reload_s
        report.journal = list(deeds.journal)
        report.samples = watch.samples
        report.restarts = watch.restarts
        killed = report.killed = self.killed(self._proxy.data("status")["totals"])
        excuses = excuse(crowd.losses, killed, deeds.left)
        report.held_by_killed = excuses.held_by_killed
        report.not_dialled = excuses.not_dialled
        report.turned_away = excuses.turned_away
        report.turned_away += report.rests[-1].account.outcomes.get("turned_away", 0)
        report.probes = len(crowd.probes)
        report.lost = [one.text() for one in excuses.lost[:_KEPT]]
        report.wrong += deeds.wrong
        report.wrong += watch.wrong
        report.wrong += judge_losses(excuses, killed)
        report.wrong += judge_probes(crowd.probes, deeds.left)
        report.wrong += judge_restarts(
            watch.restarts, deeds.signalled, deeds.counts.get("fork server", 0)
        )
        if crowd.lost_count > MOST_KEPT:
            report.wrong.append(f"{crowd.lost_count} connections failed")
        crowd.close()


def wrong_at_rest(report: Report) -> list[str]:
    """What did not agree at a rest, and what has grown from the first to the last."""
    wrong = [f"{rest.name}: {sentence}" for rest in report.rests for sentence in rest.wrong]
    return wrong + judge_figures(report.rests[0].figures, report.rests[-1].figures)
