"""proxyctl beside HAProxy and nginx stream, in one run and in interleaved rounds.

    python -m loadtests.compare --rounds 5 --seconds 4

One start of a proxy differs from the next by several percent (hash seed, place in memory), and so
does one quarter of a minute of a shared machine from the next. So in each round all proxies are
started for a work, warmed up for a second, and then loaded in turn, a second at a time, forwards
and backwards; the median of its seconds is what a start has shown. The order rotates. proxyctl with
everything on and with everything off start twice each; so do 10,000 domains, or routes, and 10. For
memory each has the machine to itself, one after the other. With TLS and
with HTTP proxyctl has its defaults: the certificate, the target, nothing else; at some works of
HTTP it also runs from source, with nothing compiled, which is shown and not judged. The exit status
is 1 when a floor is missed, everything on costs too much, or anything failed. Another proxy can
stand beside them where there is neither: ``--proxy NAME='COMMAND {port} {target_port}'``.
``--work plain``, ``--work tls`` and ``--work http`` stand for all works of that kind.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final

import msgspec
from msgspec import Struct

from loadtests import http_measure, limit_cost, measure, tls_measure
from loadtests.field import RULES, Field, does, memory, start_field, started
from loadtests.figures import (
    Sample,
    Summary,
    failures,
    markdown_table,
    number,
    overhead,
    round_overheads,
    summarize,
    text_table,
)
from loadtests.machine import facts
from loadtests.processes import LoadTestError, Workspace, raise_descriptor_limit
from loadtests.works import (
    BY_NAME,
    EVERYTHING,
    FEW,
    HTTP,
    MANY,
    OFF,
    PLAIN,
    SOURCE,
    TLS,
    WORKS,
    expand,
)

RESULTS: Final = Path(__file__).parent / "results"
BUILT_IN: Final = f"haproxy,nginx,{EVERYTHING},{OFF},{SOURCE}"
GROUPS: Final = f"{PLAIN}, {TLS}, {HTTP}"
PAIRS: Final = ((EVERYTHING, OFF), (MANY, FEW))  # each started twice in a round, side by side
NEEDED_DESCRIPTORS: Final = 2 * measure.IDLE + 500


class Report(Struct, kw_only=True):
    """What compare.json holds."""

    machine: dict[str, str]
    rounds: int
    seconds: int
    idle_connections: int
    idle_tls_connections: int
    summaries: list[Summary]
    failures: list[str]
    samples: list[Sample]
    limits_us: dict[str, dict[int, float]]  # a connection: by limit, then by workers


def rotated(names: Sequence[str], number: int) -> list[str]:
    """The names, beginning with another one in each round."""
    shift = number % max(1, len(names))
    return [*names[shift:], *names[:shift]]


def starts(names: Sequence[str], number: int) -> list[str]:
    """Who is started, one after another, for a work that ``names`` do, in a round from 1 on.

    The two of a pair stand side by side, twice each, and either is the outer one in every other
    round.
    """
    order: list[str] = []
    pairs = {pair[0]: pair for pair in PAIRS if set(pair) <= set(names)}
    seconds_of = {pair[1] for pair in pairs.values()}
    for name in rotated([name for name in names if name not in seconds_of], number - 1):
        if name in pairs:
            pair = pairs[name] if number % 2 else pairs[name][::-1]
            order += [*pair, *reversed(pair)]
        else:
            order.append(name)
    return order


def run_round(
    space: Workspace, field: Field, options: measure.Options, number: int
) -> list[Sample]:
    """Give each work to each proxy, in starts of their own."""
    samples: list[Sample] = []
    for work in field.works:
        known = dict(field.templates)
        if EVERYTHING in known:  # the same program, with other configs
            known |= {MANY: None, FEW: None}
        names = starts(
            [name for name, template in known.items() if does(name, template, work)], number
        )
        if work.endswith("memory"):
            found = [memory(space, field, work, name, options, number) for name in names]
        else:
            found = _side_by_side(space, field, options, work, names, number, samples)
        for sample in found:
            _say(sample)
        samples += found
    return samples


def _side_by_side(
    space: Workspace,
    field: Field,
    options: measure.Options,
    work: str,
    names: Sequence[str],
    number: int,
    earlier: Sequence[Sample],
) -> list[Sample]:
    """One sample of each: all are started, and loaded in turn, a second at a time."""
    turns: list[list[Sample]] = [[] for _ in names]
    places = range(len(names))
    with contextlib.ExitStack() as stack:
        loads = []
        for place, name in enumerate(names):
            nth = names[:place].count(name)
            loads.append(stack.enter_context(started(space, field, work, name, nth, number)))
        for turn in range(options.seconds):
            second = msgspec.structs.replace(options, seconds=1, is_warm=turn > 0)
            for place in places if turn % 2 == 0 else reversed(places):
                turns[place].append(loads[place](second, earlier))
    return [merged(found) for found in turns]


def merged(turns: Sequence[Sample]) -> Sample:
    """One sample of all turns of one start: medians, and every error."""
    costs = [one.cpu_us for one in turns if one.cpu_us is not None]
    return msgspec.structs.replace(
        turns[0],
        value=median(one.value for one in turns),
        cpu_us=median(costs) if costs else None,
        errors=sum(one.errors for one in turns),
        note=next((one.note for one in turns if one.note), ""),
    )


def _say(sample: Sample) -> None:
    trouble = f"  {sample.errors} errors: {sample.note}" if sample.errors else ""
    print(
        f"round {sample.round}  {sample.work:<15} {sample.proxy:<14}"
        f" {number(sample.value):>10}{trouble}",
        file=sys.stderr,
        flush=True,
    )


def compare(
    works: list[str], templates: dict[str, str | None], rounds: int, options: measure.Options
) -> Report:
    """The whole comparison. LoadTestError when something cannot be started."""
    if raise_descriptor_limit() < NEEDED_DESCRIPTORS:
        raise LoadTestError(f"RLIMIT_NOFILE is below {NEEDED_DESCRIPTORS} (ulimit -Hn)")
    samples: list[Sample] = []
    with Workspace("proxyctl-compare-") as space:
        field = start_field(space, works, templates)
        for number in range(1, rounds + 1):
            samples += run_round(space, field, options, number)
    summaries = [row for work in WORKS if work.name in works for row in summarize(work, samples)]
    return Report(
        machine=facts(),
        rounds=rounds,
        seconds=options.seconds,
        idle_connections=options.idle,
        idle_tls_connections=tls_measure.IDLE_TLS,
        summaries=summaries,
        failures=failures(summaries),
        samples=samples,
        limits_us=limit_cost.costs() if set(works) & RULES else {},
    )


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.compare", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    names = ",".join(work.name for work in WORKS)
    parser.add_argument("--rounds", type=int, default=5, help="of all works and proxies (5)")
    parser.add_argument(
        "--seconds", type=int, default=4, help="of load a work, proxy and round (4)"
    )
    parser.add_argument("--work", default=names, help=f"which of {names}, {GROUPS}")
    parser.add_argument("--proxies", default=BUILT_IN, help=f"which of {BUILT_IN}")
    parser.add_argument(
        "--proxy",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="one more; {port} and {target_port} are filled in",
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="directory for JSON and PNG")
    parser.add_argument("--markdown", action="store_true", help="print the table in Markdown")
    options = parser.parse_args(argv)
    options.work = expand(options.work.split(","))
    if unknown := set(options.work) - set(BY_NAME):
        parser.error(f"unknown work: {', '.join(sorted(unknown))} (one of {names}, {GROUPS})")
    if http_measure.P99 in options.work and http_measure.KNEE not in options.work:
        parser.error(f"{http_measure.P99} needs {http_measure.KNEE}, whose rates it goes by")
    if options.rounds < 1 or options.seconds < 1:
        parser.error("--rounds and --seconds must be at least 1")
    options.templates = {name: None for name in options.proxies.split(",") if name}
    for entry in options.proxy:
        name, equals, command = entry.partition("=")
        if not equals or "{port}" not in command:
            parser.error(f"--proxy {entry!r} is not NAME=COMMAND with {{port}}")
        options.templates[name] = command
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, write; 0 when every floor is reached without an error, else 1."""
    options = _arguments(argv)
    from loadtests.plots import plot_comparison  # matplotlib is needed to run, not to import

    try:
        report = compare(
            options.work,
            options.templates,
            options.rounds,
            measure.Options(seconds=options.seconds),
        )
    except LoadTestError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    encoded = msgspec.json.format(msgspec.json.encode(report), indent=1)
    (options.out / "compare.json").write_bytes(encoded + b"\n")
    table = markdown_table(report.summaries)
    (options.out / "compare.md").write_text(table + "\n")
    plot_comparison(report.summaries, report.machine, options.out / "compare.png")
    print(table if options.markdown else text_table(report.summaries))
    for work in options.work:
        share = overhead(report.summaries, work)
        if share is not None:
            rounds = round_overheads(report.samples, work)
            print(
                f"{work}: every rule, limit and log together costs {share:.1%}"
                f" (by round {min(rounds):.1%} .. {max(rounds):.1%})"
            )
    if report.limits_us:
        print(limit_cost.table(report.limits_us))
    for sentence in report.failures:
        print(f"FAIL {sentence}")
    print("FAIL" if report.failures else "PASS")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
