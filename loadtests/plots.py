"""PNG plots of the results. matplotlib is imported here only, with its file-only backend."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.figure import Figure

from loadtests.figures import Summary
from loadtests.works import WORKS, Work

mpl.use("Agg")

COLOURS: Final = {"haproxy": "#4c78a8", "nginx": "#54a24b", "proxyctl": "#f58518"}
MOST_COLUMNS: Final = 5
OTHER: Final = "#9d755d"


def plot_comparison(summaries: Sequence[Summary], machine: dict[str, str], path: Path) -> None:
    """One panel per work: medians as bars, lowest to highest start as a line, the floor dashed."""
    works = [work for work in WORKS if any(row.work == work.name for row in summaries)]
    columns = min(len(works), MOST_COLUMNS)
    lines = -(-len(works) // columns)
    figure = Figure(figsize=(3.2 * columns + 0.6, 3.9 * lines + 0.3), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).flatten()
    for panel in panels[len(works) :]:
        panel.set_axis_off()
    for work, panel in zip(works, panels, strict=False):
        rows = [row for row in summaries if row.work == work.name]
        names = [row.proxy for row in rows]
        medians = [row.median for row in rows]
        spread = [
            [row.median - row.low for row in rows],
            [row.high - row.median for row in rows],
        ]
        colours = [COLOURS.get(name, OTHER) for name in names]
        bars = panel.bar(names, medians, yerr=spread, capsize=3, color=colours)
        panel.bar_label(bars, labels=[_label(row) for row in rows], fontsize=7, padding=2)
        if (floor := floor_value(work, rows)) is not None:
            panel.axhline(floor, linestyle="--", linewidth=1, color="#b00020")
        panel.set_title(f"{work.title}\n{work.unit}", fontsize=8)
        panel.tick_params(labelsize=7)
        panel.margins(y=0.15)
    figure.suptitle(
        f"{machine.get('cpu', '')}, {machine.get('cpus', '')} CPUs, commit"
        f" {machine.get('commit', '')}; dashed: the floor",
        fontsize=8,
    )
    figure.savefig(path, dpi=120)


def floor_value(work: Work, rows: Sequence[Summary]) -> float | None:
    """The floor in the unit of the work: its ratio times the better peer's median."""
    if work.floor is None:
        return None
    found = [row.median / row.ratio for row in rows if row.ratio]
    return found[0] * work.floor if found else None


def _label(row: Summary) -> str:
    return "" if row.ratio is None else f"{row.ratio:.2f}"


def plot_load(
    counts: dict[int, int], reloads: Sequence[float], failures: dict[int, int], path: Path
) -> None:
    """Requests per second of a load run, with a mark at each reload, and failures in red.

    ``counts`` and ``failures``: by whole second since the epoch. ``reloads``: such instants.
    """
    start = min(counts, default=0)
    seconds = range(start, max(counts, default=0) + 1)
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    panel = figure.subplots()
    axis = [second - start for second in seconds]
    panel.plot(axis, [counts.get(second, 0) for second in seconds], color=COLOURS["proxyctl"])
    panel.plot(axis, [failures.get(second, 0) for second in seconds], color="#b00020")
    for instant in reloads:
        panel.axvline(instant - start, linewidth=0.6, linestyle=":", color="#555555")
    panel.set_title("requests/s; red: failures/s; dotted: a reload", fontsize=9)
    panel.set_xlabel("seconds", fontsize=8)
    figure.savefig(path, dpi=120)
