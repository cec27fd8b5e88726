"""Every connection accounted for, whatever is done to proxyctl: `make soak`.

    python -m loadtests.soak --seconds 60

Starts proxyctl, clients and targets, and reloads, resizes, kills, stops and rotates what can be,
at random (``--seed``). A quarter of the connections is TLS: passed through by server name, ended,
or ended and encrypted again; and reloads change certificates. Every connection that was begun has
one outcome: ok when every byte came back and then the end; else it must have been held by a worker
that was killed, dialled to a port that a reload had taken away, or refused by a rule of the config.
At every rest the counters and the access log of proxyctl must agree with that account, and a limit
must let in exactly as many as it says. A full stop under load ends the run. Exits with 1 otherwise,
and names what was lost.

A long run by hand, which goes on until all the counts are reached:

    python -m loadtests.soak --seconds 60 --load saturating \\
        --connections 1000000 --reloads 1000 --kills 100

As root, ``--path 50ms`` puts the clients behind a path with that round trip (delay_line.py).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random, SystemRandom
from time import monotonic
from typing import Final

import msgspec
from msgspec import Struct

from loadtests import soak_shape
from loadtests.delay_line import FAR, NEAR
from loadtests.delay_line import Path as SlowPath
from loadtests.processes import LoadTestError, Workspace, raise_descriptor_limit
from loadtests.soak_books import Books, Report, wrong_at_rest
from loadtests.soak_certificates import SITE_FILE, version_file
from loadtests.soak_certificates import make as make_certificates
from loadtests.soak_crowd import Crowd
from loadtests.soak_deeds import Deeds
from loadtests.soak_faults import Disturbances, Kills, Reloader, Reloads
from loadtests.soak_log import LogReader
from loadtests.soak_proxy import LOG, Proxy
from loadtests.soak_watch import Watch
from loadtests.soak_wire import Load, LoadKind, Place

WATCHDOG_S: Final = 2.0
DISTURBANCES_PER_S: Final = 0.4
OPEN: Final = 96  # saturating: short connections at a time, over all traffic processes
OPEN_ON_PATH: Final = 5 * OPEN  # over a slow path, where each waits for round trips
LONG: Final = 60
WARM_PART, CALM_PART = 0.1, 0.3  # of the time; the rest has kills
WARM_S: Final = 10.0  # at most
BEFORE_STOP_S: Final = 2.0  # of load
EXTRA_PHASE_S: Final = 120.0  # from one rest to the next, while counts are not reached


class Options(Struct, frozen=True, kw_only=True):
    """As the command line has them. ``rate``: connections a second of a steady load."""

    seconds: float
    load: str
    rate: float
    reloads_per_s: float
    kills_per_minute: float
    seed: int
    workers: int
    drivers: int
    path_s: float
    connections: int
    reloads: int
    kills: int
    max_seconds: float
    end_with_stop: bool
    report: Path | None
    log: Path | None


class Phase(Struct, frozen=True, kw_only=True):
    """A part of a run, with a rest at its end."""

    name: str
    seconds: float
    load: LoadKind
    has_kills: bool


def phases(options: Options) -> list[Phase]:
    """Warm up, then without kills (the books must agree exactly), then with them."""
    kinds: list[LoadKind] = ["steady", "saturating"]
    if options.load != "both":
        kinds = [kind for kind in kinds if kind == options.load]
    warm = min(WARM_S, options.seconds * WARM_PART)
    calm = options.seconds * CALM_PART if options.kills_per_minute else options.seconds - warm
    found = [Phase(name="warm-up", seconds=warm, load=kinds[0], has_kills=False)]
    parts = [("calm", calm, False), ("faults", options.seconds - warm - calm, True)]
    for name, seconds, has_kills in parts:
        if seconds > 0:
            found += [
                Phase(
                    name=f"{name}, {kind}",
                    seconds=seconds / len(kinds),
                    load=kind,
                    has_kills=has_kills,
                )
                for kind in kinds
            ]
    return found


class Soak:
    """One run, from the start of every process to the verdict."""

    def __init__(self, options: Options, space: Workspace, line: SlowPath | None) -> None:
        self._options = options
        self._random = Random(options.seed)
        self._deeds = Deeds()
        near, far = (NEAR, line.near) if line is not None else ("127.16", None)
        far_netns = line.far if line is not None else None
        make_certificates(space.directory)
        self._crowd = Crowd(space, options.drivers, options.seed, near, far, far_netns)
        first = f"{FAR}.0.1" if line is not None else "127.0.0.1"
        second = f"{FAR}.0.2" if line is not None else "127.0.0.2"
        self._site = self._crowd.site(first, second, "127.0.1", WATCHDOG_S)
        shape = soak_shape.first_shape(self._site, options.workers)
        first = version_file(shape.certificate)
        text = json.dumps(soak_shape.document(shape, self._site))
        files = {
            soak_shape.BLOCKED_FILE: soak_shape.blocked_list(shape, self._site),
            SITE_FILE: (space.directory / first).read_text(),
        }
        self._proxy = Proxy(space, text, files, far_netns)
        self._log = LogReader(space.directory / soak_shape.ACCESS_FILE)
        self._watch = Watch(self._proxy)
        self._reloader = Reloader(self._proxy, self._site, shape, self._deeds, self._tell)
        self._books = Books(self._crowd, self._proxy, self._watch, self._deeds, self._log)

    def run(self) -> Report:
        """All phases; LoadTestError when it cannot go on."""
        options, report = self._options, Report(seed=self._options.seed)
        begun_at = monotonic()
        self._tell(soak_shape.places(self._reloader.shape, self._site), [], begun_at)
        self._crowd.rules(self._site)
        self._log.start()
        self._watch.start()
        for phase in phases(options):
            self._run_phase(phase, report)
        while (more := self._missing()) and monotonic() - begun_at < options.max_seconds:
            self._run_phase(phase, report, until_reached=True)
        if more:
            report.wrong.append(f"not reached within {options.max_seconds:g} s: {more}")
        if not options.end_with_stop:
            report.rests.append(self._books.draw_up("end", is_last=True))
        self._watch.stop()
        self._books.close(report)
        self._end(report)
        self._log.stop()
        self._crowd.close()
        return report

    def _missing(self) -> str:
        """What was asked for and is not there yet; "" when all is."""
        options, counts = self._options, self._deeds.counts
        reloads = counts.get("reload accepted", 0) + counts.get("reload refused", 0)
        kills = counts.get("kill", 0) + counts.get("hang", 0)
        asked = [
            ("connections", self._crowd.ok, options.connections),
            ("reloads", reloads, options.reloads),
            ("kills", kills, options.kills),
        ]
        return ", ".join(f"{have} of {want} {what}" for what, have, want in asked if have < want)

    def _run_phase(self, phase: Phase, report: Report, *, until_reached: bool = False) -> None:
        options, deeds = self._options, self._deeds
        begun = self._crowd.begun
        self._crowd.load(self._load(phase.load), options.drivers)
        reloads = options.reloads_per_s
        threads = [
            Reloads(self._reloader, self._site, reloads, self._source(), deeds),
            Disturbances(self._proxy, self._log, DISTURBANCES_PER_S, self._source(), deeds),
        ]
        if phase.has_kills:
            per_s = options.kills_per_minute / 60
            threads.append(Kills(self._proxy, per_s, self._source(), deeds))
        for thread in threads:
            thread.start()
        begun_at = monotonic()
        seconds = EXTRA_PHASE_S if until_reached else phase.seconds
        try:
            while (left := begun_at + seconds - monotonic()) > 0:
                self._crowd.listen(min(1.0, left))
                if until_reached and not self._missing():
                    break
        finally:
            for thread in threads:
                thread.stop()
        seconds = monotonic() - begun_at
        self._crowd.listen(0.0)
        per_second = (self._crowd.begun - begun) / seconds
        self._reloader.settle(options.workers, self._random)
        rest = self._books.draw_up(phase.name, is_last=False)
        rest.per_second = per_second
        report.rests.append(rest)
        print(rest.text(), flush=True)

    def _load(self, kind: LoadKind) -> Load:
        many = OPEN_ON_PATH if self._options.path_s else OPEN
        return Load(kind=kind, rate=self._options.rate, open=many, long=LONG)

    def _tell(self, served: list[Place], removed: list[Place], at: float) -> None:
        self._crowd.serve(served, soak_shape.long_places(self._site), removed, at)

    def _source(self) -> Random:
        return Random(self._random.randrange(1 << 32))

    def _end(self, report: Report) -> None:
        """Stop proxyctl: under load or at rest, and nothing of it may be left."""
        options, proxy, drain_s = self._options, self._proxy, soak_shape.END_DRAIN_S
        if options.end_with_stop:
            shape = msgspec.structs.replace(self._reloader.shape, end_drain_s=drain_s)
            self._reloader.reload(shape, self._random)
            self._crowd.load(self._load("steady"), options.drivers)
            self._crowd.listen(BEFORE_STOP_S)
            self._crowd.stopping(monotonic(), drain_s)
        status, report.stopped = proxy.stop(self._crowd.listen)
        if options.end_with_stop:
            self._books.judge_end(report, status)
        elif status != 0:
            report.wrong.append(f"proxyctl ended with {status}: {proxy.started.tail()}")
        if not proxy.wait(lambda: not proxy.left(), 3.0, "no process is left"):
            report.wrong.append(f"processes are left: {proxy.left()}")
        report.wrong += wrong_at_rest(report)


def run(options: Options) -> Report:
    """The whole run."""
    raise_descriptor_limit()
    with contextlib.ExitStack() as stack:
        space = stack.enter_context(Workspace("proxyctl-soak-"))
        line = stack.enter_context(SlowPath(options.path_s)) if options.path_s else None
        try:
            report = Soak(options, space, line).run()
        finally:
            if options.log is not None and (space.directory / LOG).exists():
                shutil.copyfile(space.directory / LOG, options.log)
        if line is not None:
            line.finish()
            report.line = line.counts
            report.line_drops = line.device_drops
    return report


def parse(argv: Sequence[str] | None) -> Options:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.soak", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seconds", type=float, default=60.0, help="of load, rests apart (60)")
    parser.add_argument("--load", choices=("saturating", "steady", "both"), default="both")
    parser.add_argument("--rate", type=float, default=1500.0, help="a second, steady (1500)")
    parser.add_argument("--reloads-per-s", type=float, default=2.5)
    parser.add_argument("--kills-per-minute", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(1 << 31))
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--drivers", type=int, default=2, help="traffic processes (2)")
    parser.add_argument("--path", default="0ms", metavar="50ms", help="round trip; as root")
    for what in ("connections", "reloads", "kills"):
        parser.add_argument(f"--{what}", type=int, default=0, help="go on until so many")
    parser.add_argument("--max-seconds", type=float, default=1800.0, help="but no longer (1800)")
    parser.add_argument(
        "--end-with-stop", action=argparse.BooleanOptionalAction, default=True, help="under load"
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the report as JSON")
    parser.add_argument("--log", type=Path, metavar="FILE", help="keep proxyctl's log")
    found = parser.parse_args(argv)
    if not found.path.endswith("ms") or not found.path.removesuffix("ms").isdigit():
        parser.error("--path is a number of milliseconds: 50ms")
    if found.seconds <= 0 or not 1 <= found.workers <= soak_shape.MOST_WORKERS:
        parser.error(f"--seconds must be over 0, --workers 1 to {soak_shape.MOST_WORKERS}")
    values = {**vars(found), "path_s": int(found.path.removesuffix("ms")) / 1000}
    return Options(**{name: values[name] for name in Options.__struct_fields__})


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print the verdict; 0 when nothing is wrong, else 1."""
    options = parse(argv)
    print(f"seed {options.seed}", flush=True)
    try:
        report = run(options)
    except LoadTestError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(report.text())
    if options.report is not None:
        encoded = msgspec.json.format(msgspec.json.encode(report), indent=1)
        options.report.write_bytes(encoded + b"\n")
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
