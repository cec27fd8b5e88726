"""Samples of a comparison, and what they say: medians, ratios to the better peer, verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Final

from msgspec import Struct

from loadtests.works import BY_NAME, EVERYTHING, OFF, OVERHEAD, SOURCE, Work


class Sample(Struct, frozen=True, kw_only=True):
    """One measurement of one start of a proxy. ``value`` is in the unit of its work."""

    work: str
    proxy: str
    round: int
    value: float
    cpu_us: float | None = None  # per operation, over all processes of the proxy
    errors: int = 0
    note: str = ""  # what went wrong, in words


class Summary(Struct, frozen=True, kw_only=True):
    """All starts of one proxy at one work. ``ratio`` compares medians with the better peer's."""

    work: str
    proxy: str
    starts: int
    median: float
    low: float
    high: float
    cpu_us: float | None
    errors: int
    ratio: float | None  # None: no peer did this work
    round_ratios: list[float]  # of medians within each round; shows how steady the machine was
    passed: bool | None  # None: no floor holds for it


def summarize(work: Work, samples: Sequence[Sample]) -> list[Summary]:
    """One Summary per proxy that did ``work``, in the order in which they first appear."""
    mine = [sample for sample in samples if sample.work == work.name]
    proxies = list(dict.fromkeys(sample.proxy for sample in mine))
    rows = {proxy: [sample for sample in mine if sample.proxy == proxy] for proxy in proxies}
    medians = {proxy: median(sample.value for sample in rows[proxy]) for proxy in proxies}
    best = better_peer(work, medians)
    return [_summary(work, proxy, rows[proxy], best, by_round(mine)) for proxy in proxies]


def better_peer(work: Work, values: dict[str, float]) -> float | None:
    """The better value of those that a work is compared with, or None where none has one."""
    found = [values[peer] for peer in work.against if peer in values]
    if not found:
        return None
    return min(found) if work.lower_is_better else max(found)


def by_round(samples: Sequence[Sample]) -> list[dict[str, float]]:
    """Of each round, in order: by proxy, the median of its starts. All of one work."""
    found: dict[int, dict[str, list[float]]] = {}
    for sample in samples:
        found.setdefault(sample.round, {}).setdefault(sample.proxy, []).append(sample.value)
    return [
        {proxy: median(values) for proxy, values in found[number].items()}
        for number in sorted(found)
    ]


def _summary(
    work: Work,
    proxy: str,
    samples: Sequence[Sample],
    best: float | None,
    rounds: Sequence[dict[str, float]],
) -> Summary:
    values = [sample.value for sample in samples]
    costs = [sample.cpu_us for sample in samples if sample.cpu_us is not None]
    errors = sum(sample.errors for sample in samples)
    ratio = median(values) / best if best else None
    passed = None
    if is_judged(work, proxy):
        passed = reaches(work, ratio) and not errors
    return Summary(
        work=work.name,
        proxy=proxy,
        starts=len(samples),
        median=median(values),
        low=min(values),
        high=max(values),
        cpu_us=median(costs) if costs else None,
        errors=errors,
        ratio=ratio,
        round_ratios=[
            one[proxy] / best_of_round
            for one in rounds
            if proxy in one and (best_of_round := better_peer(work, one))
        ],
        passed=passed,
    )


def is_judged(work: Work, proxy: str) -> bool:
    """Whether the floor of a work holds for this proxy: not for a peer, nor for the source."""
    return proxy not in work.against and proxy != SOURCE


def reaches(work: Work, ratio: float | None) -> bool:
    """Whether a ratio reaches the floor of its work, where there is a peer and a floor."""
    if ratio is None or work.floor is None:
        return True
    return ratio <= work.floor if work.lower_is_better else ratio >= work.floor


def failures(summaries: Sequence[Summary]) -> list[str]:
    """What fails the run, one sentence each: a floor missed, or errors of any proxy."""
    found = []
    for row in summaries:
        work = BY_NAME[row.work]
        if row.errors:
            found.append(f"{row.work}: {row.proxy} had {row.errors} errors")
        is_held = is_judged(work, row.proxy) and work.floor is not None
        if is_held and not reaches(work, row.ratio):
            bound = "at most" if work.lower_is_better else "at least"
            found.append(
                f"{row.work}: {row.proxy} has {row.ratio:.3f}, must be {bound} {work.floor:.2f}"
            )
    return found + _overheads(summaries)


def overhead(summaries: Sequence[Summary], work: str) -> float | None:
    """What rules, limits and logs cost at a work, as a share of the rate without them.

    Of the medians over all starts; None where one of the two did not do the work.
    """
    return _share({row.proxy: row.median for row in summaries if row.work == work})


def round_overheads(samples: Sequence[Sample], work: str) -> list[float]:
    """The same within each round; shows how steady the verdict is."""
    rounds = by_round([sample for sample in samples if sample.work == work])
    return [share for one in rounds if (share := _share(one)) is not None]


def _share(medians: dict[str, float]) -> float | None:
    if not medians.get(OFF) or EVERYTHING not in medians:
        return None
    return 1 - medians[EVERYTHING] / medians[OFF]


def _overheads(summaries: Sequence[Summary]) -> list[str]:
    found = []
    for work in dict.fromkeys(row.work for row in summaries):
        share = overhead(summaries, work)
        if share is not None and share > OVERHEAD:
            found.append(f"{work}: everything on costs {share:.1%}, must be at most {OVERHEAD:.0%}")
    return found


def number(value: float) -> str:
    """A figure for people: three digits or so, thousands apart."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def _cells(row: Summary) -> list[str]:
    work = BY_NAME[row.work]
    spread = f"{number(row.low)} .. {number(row.high)}"
    cpu = "" if row.cpu_us is None else f"{row.cpu_us:.1f} {work.cpu_unit}"
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    floor, verdict = "", ""
    if row.passed is not None:
        if work.floor is not None:
            floor = f"{'≤' if work.lower_is_better else '≥'} {work.floor:.2f}"
        if row.round_ratios:
            ratio += f" ({min(row.round_ratios):.2f} .. {max(row.round_ratios):.2f})"
        verdict = "PASS" if row.passed else "FAIL"
    figure = f"{number(row.median)} {work.unit}"
    return [row.work, row.proxy, figure, spread, cpu, ratio, floor, str(row.errors), verdict]


HEADINGS: Final = (
    "work",
    "proxy",
    "median",
    "lowest .. highest",
    "CPU",
    "ratio (by round)",
    "floor",
    "errors",
    "",
)


def text_table(summaries: Sequence[Summary]) -> str:
    """The table for a terminal, columns aligned."""
    rows = [list(HEADINGS), *map(_cells, summaries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def markdown_table(summaries: Sequence[Summary]) -> str:
    """The same table in Markdown."""
    lines = [list(HEADINGS), ["---"] * len(HEADINGS), *map(_cells, summaries)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
