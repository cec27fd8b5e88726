"""proxyctl beside HAProxy and nginx stream, in one run and in interleaved rounds.

    python -m loadtests.compare --rounds 5 --seconds 4

Every proxy starts once and stays up, idle while another is measured. Each round gives each work
to each proxy, in an order that rotates; one round before them is not counted. The exit status is
1 when a floor is missed or anything failed. Another proxy can stand beside them:
``--proxy NAME='COMMAND {port} {target_port}'``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from loadtests import limit_cost, measure
from loadtests.figures import (
    EVERYTHING,
    OFF,
    WORKS,
    Sample,
    Summary,
    failures,
    markdown_table,
    number,
    overhead,
    summarize,
    text_table,
)
from loadtests.machine import facts
from loadtests.peers import (
    V2,
    Subject,
    front_config,
    origin_config,
    start_haproxy,
    start_nginx,
    start_subject,
)
from loadtests.processes import (
    LoadTestError,
    Workspace,
    find_program,
    raise_descriptor_limit,
    wait_listening,
)

RESULTS: Final = Path(__file__).parent / "results"
BUILT_IN: Final = f"haproxy,nginx,{EVERYTHING},{OFF}"
NEEDED_DESCRIPTORS: Final = 2 * measure.IDLE + 500


class Report(Struct, kw_only=True):
    """What compare.json holds."""

    machine: dict[str, str]
    rounds: int
    seconds: int
    idle_connections: int
    summaries: list[Summary]
    failures: list[str]
    samples: list[Sample]
    limits_us: dict[str, dict[int, float]]  # a connection: by limit, then by workers


class Field(Struct, kw_only=True):
    """Everything that takes part: the works, the proxies, and where their clients connect."""

    works: list[str]
    templates: dict[str, str | None]  # by proxy, in the order of the first round
    subjects: dict[str, Subject]
    fronts: dict[str, int]  # by proxy: where the HAProxy in front takes its clients


def does(name: str, template: str | None, work: str) -> bool:
    """Whether a proxy does a work: nginx stream sends v1 only, of a command nothing is known.

    With all rules off only the two works are measured in which they could be felt.
    """
    if name == OFF:
        return work in ("connections", "messages")
    return work != V2 or (name != "nginx" and template is None)


def rotated(names: Sequence[str], number: int) -> list[str]:
    """The names, beginning with another one in each round."""
    shift = number % len(names)
    return [*names[shift:], *names[:shift]]


def start_field(space: Workspace, works: list[str], templates: dict[str, str | None]) -> Field:
    """Start the origins, every proxy, and the HAProxy in front; nothing is measured yet."""
    port, v2_port, bulk_port = space.port(), space.port(), space.port()
    start_nginx(space, "origin", origin_config(space.directory, port, v2_port), port)
    origins = {"connections": port, "messages": port, "bulk": bulk_port, V2: v2_port}
    if "bulk" in works:
        command = [find_program("iperf3"), "--server", "--bind", "127.0.0.1"]
        iperf = space.start("iperf3", [*command, "--port", str(bulk_port)])
        wait_listening(iperf, bulk_port)
    field = Field(works=works, templates=templates, subjects={}, fronts={})
    for name, template in templates.items():
        targets = {
            work: target
            for work, target in origins.items()
            if work in works and does(name, template, work)
        }
        if targets:
            field.subjects[name] = start_subject(space, name, targets, template, name)
    _start_front(space, field)
    return field


def _start_front(space: Workspace, field: Field) -> None:
    forwards = {
        name: (space.port(), subject.ports[V2])
        for name, subject in field.subjects.items()
        if V2 in subject.ports
    }
    if not forwards:
        return
    field.fronts = {name: port for name, (port, _) in forwards.items()}
    first = next(iter(field.fronts.values()))
    start_haproxy(space, "front", front_config(forwards), first)
    for name, port in field.fronts.items():
        measure.check_address(field.subjects[name], port)


def run_round(
    space: Workspace, field: Field, options: measure.Options, number: int
) -> list[Sample]:
    """Give each work to each proxy once."""
    samples = []
    for work in field.works:
        for name in rotated(list(field.templates), number - 1):
            if not does(name, field.templates[name], work):
                continue
            sample = _measure(space, field, options, work, name, number)
            samples.append(sample)
            _say(sample)
    return samples


def _measure(
    space: Workspace, field: Field, options: measure.Options, work: str, name: str, number: int
) -> Sample:
    if work == "memory":
        return measure.memory(space, name, field.templates[name], options, number)
    subject = field.subjects[name]
    if work == V2:
        return measure.proxy_v2(subject, field.fronts[name], options, number)
    single = {
        "connections": measure.connections,
        "messages": measure.messages,
        "bulk": measure.bulk,
    }
    return single[work](subject, options, number)


def _say(sample: Sample) -> None:
    trouble = f"  {sample.errors} errors: {sample.note}" if sample.errors else ""
    lead = f"round {sample.round}" if sample.round else "warm-up"
    print(
        f"{lead}  {sample.work:<12} {sample.proxy:<10} {number(sample.value):>10}{trouble}",
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
        warm_up = Field(
            works=[work for work in works if work != "memory"],  # always fresh, nothing to warm
            templates=templates,
            subjects=field.subjects,
            fronts=field.fronts,
        )
        run_round(space, warm_up, msgspec.structs.replace(options, seconds=1), 0)
        for number in range(1, rounds + 1):
            samples += run_round(space, field, options, number)
    summaries = [row for work in WORKS if work.name in works for row in summarize(work, samples)]
    return Report(
        machine=facts(),
        rounds=rounds,
        seconds=options.seconds,
        idle_connections=options.idle,
        summaries=summaries,
        failures=failures(summaries),
        samples=samples,
        limits_us=limit_cost.costs(),
    )


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.compare", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    names = ",".join(work.name for work in WORKS)
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds (5)")
    parser.add_argument("--seconds", type=int, default=4, help="of each load (4)")
    parser.add_argument("--work", default=names, help=f"which of {names}")
    parser.add_argument("--proxies", default=BUILT_IN, help=f"which of {BUILT_IN}")
    parser.add_argument(
        "--proxy",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="one more, started per work; {port} and {target_port} are filled in",
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="directory for JSON and PNG")
    parser.add_argument("--markdown", action="store_true", help="print the table in Markdown")
    options = parser.parse_args(argv)
    options.work = options.work.split(",")
    if unknown := set(options.work) - {work.name for work in WORKS}:
        parser.error(f"unknown work: {', '.join(sorted(unknown))} (one of {names})")
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
            print(f"{work}: every rule, limit and log together costs {share:.1%}")
    print(limit_cost.table(report.limits_us))
    for sentence in report.failures:
        print(f"FAIL {sentence}")
    print("FAIL" if report.failures else "PASS")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
