"""proxyctl beside HAProxy and nginx stream, in one run and in interleaved rounds.

    python -m loadtests.compare --rounds 5 --seconds 4

One start of a proxy differs from the next by several percent (hash seed, place in memory). So each
round gives each work to each proxy in a start of its own: start, one second of warm-up, load, stop.
The order rotates. proxyctl with everything on and with everything off start twice each, A B B A,
so that neither is always the earlier one; so do 10,000 domains, or routes, and 10. With TLS and
with HTTP proxyctl has its defaults: the certificate, the target, nothing else; at some works of
HTTP it also runs from source, with nothing compiled, which is shown and not judged. The exit status
is 1 when a floor is missed, everything on costs too much, or anything failed. Another proxy can
stand beside them where there is neither: ``--proxy NAME='COMMAND {port} {target_port}'``.
``--work plain``, ``--work tls`` and ``--work http`` stand for all works of that kind.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from loadtests import http_measure, limit_cost, measure, tls_measure
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
from loadtests.http_peers import ALL_ROUTES, ROUTES, HttpOrigin, start_origin
from loadtests.machine import facts
from loadtests.peers import (
    V2,
    front_config,
    origin_config,
    running,
    start_haproxy,
    start_nginx,
)
from loadtests.processes import (
    LoadTestError,
    Workspace,
    find_program,
    raise_descriptor_limit,
    wait_listening,
)
from loadtests.tls_peers import NAMES, Origins, start_origins
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
FROM_SOURCE: Final = frozenset(
    {"http_kept", "http_connections", "http_1m", "https_kept", "https_connections", "https_1m"}
)
RULES: Final = frozenset({"connections", "messages"})  # where rules, limits and log are felt
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


class Field(Struct, kw_only=True):
    """Everything that takes part. Ports are taken once; each start of a proxy binds them again."""

    works: list[str]
    templates: dict[str, str | None]  # by proxy, in the order of the first round
    forwards: dict[str, dict[str, tuple[int, int]]]  # by proxy and work: (port, target port)
    fronts: dict[str, int]  # by proxy: where the HAProxy in front takes its clients
    origins: Origins | None  # behind the works with TLS
    http_origin: HttpOrigin | None  # behind the works with HTTP
    own_ports: dict[str, int]  # by work of either, for whichever proxy does it


def does(name: str, template: str | None, work: str) -> bool:
    """Whether a proxy does a work: nginx stream sends v1 only, of a command nothing is known.

    With all rules off only the two works are measured in which they could be felt, from source
    some of HTTP.
    """
    if name == SOURCE:
        return work in FROM_SOURCE
    if BY_NAME[work].group in (TLS, HTTP):
        is_pair = name in (FEW, MANY)
        return template is None and is_pair == (work in (NAMES, ROUTES, ALL_ROUTES)) and name != OFF
    if name in (FEW, MANY):
        return False
    if name == OFF:
        return work in RULES
    return work != V2 or (name != "nginx" and template is None)


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


def start_field(space: Workspace, works: list[str], templates: dict[str, str | None]) -> Field:
    """Start the origins, and the HAProxy in front, which stay up; no proxy is started yet."""
    groups = {BY_NAME[work].group for work in works}
    field = Field(
        works=works,
        templates=templates,
        forwards={},
        fronts={},
        origins=start_origins(space) if TLS in groups else None,
        http_origin=start_origin(space) if HTTP in groups else None,
        own_ports={work: space.port() for work in works if BY_NAME[work].group != PLAIN},
    )
    if PLAIN not in groups:
        return field
    port, v2_port, bulk_port = space.port(), space.port(), space.port()
    start_nginx(space, "origin", origin_config(space.directory, port, v2_port), port)
    origins = {"connections": port, "messages": port, "bulk": bulk_port, V2: v2_port}
    if "bulk" in works:
        command = [find_program("iperf3"), "--server", "--bind", "127.0.0.1"]
        iperf = space.start("iperf3", [*command, "--port", str(bulk_port)])
        wait_listening(iperf, bulk_port)
    field.forwards = {
        name: {
            work: (space.port(), target)
            for work, target in origins.items()
            if work in works and does(name, template, work)
        }
        for name, template in templates.items()
    }
    _start_front(space, field)
    return field


def _start_front(space: Workspace, field: Field) -> None:
    forwards = {
        name: (space.port(), forwards[V2][0])
        for name, forwards in field.forwards.items()
        if V2 in forwards
    }
    if not forwards:
        return
    field.fronts = {name: port for name, (port, _) in forwards.items()}
    first = next(iter(field.fronts.values()))
    start_haproxy(space, "front", front_config(forwards), first)


def run_round(
    space: Workspace, field: Field, options: measure.Options, number: int
) -> list[Sample]:
    """Give each work to each proxy, in starts of their own."""
    samples: list[Sample] = []
    for work in field.works:
        known = dict(field.templates)
        if EVERYTHING in known:  # the same program, with other configs
            known |= {MANY: None, FEW: None}
        names = [name for name, template in known.items() if does(name, template, work)]
        for name in starts(names, number):
            sample = _measure(space, field, options, work, name, number, samples)
            samples.append(sample)
            _say(sample)
    return samples


def _measure(
    space: Workspace,
    field: Field,
    options: measure.Options,
    work: str,
    name: str,
    number: int,
    earlier: list[Sample],
) -> Sample:
    group = BY_NAME[work].group
    if field.http_origin is not None and group == HTTP:
        port, origin = field.own_ports[work], field.http_origin
        return http_measure.measure(space, name, work, port, origin, options, number, earlier)
    if field.origins is not None and group == TLS:
        port = field.own_ports[work]
        if work == "tls_memory":
            return tls_measure.memory(space, name, port, field.origins, options, number)
        return tls_measure.measure(space, name, work, port, field.origins, options, number)
    template = field.templates[name]
    if work == "memory":
        return measure.memory(space, name, template, options, number)
    forwards = field.forwards[name]
    if template is not None:  # one program for each work: the others would only stand by
        forwards = {work: forwards[work]}
    with running(space, name, forwards, template, name) as subject:
        if work == V2:
            measure.check_address(subject, field.fronts[name])
            return measure.proxy_v2(subject, field.fronts[name], options, number)
        single = {
            "connections": measure.connections,
            "messages": measure.messages,
            "bulk": measure.bulk,
        }
        return single[work](subject, options, number)


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
