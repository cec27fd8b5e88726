"""HTTP, HTTPS and WebSocket users while routes are replaced and workers are resized and killed.

    python -m loadtests.soak_http --seconds 30

Every request that was begun must be answered with the bytes that it asked for, but those on a
connection that a killed worker held. Targets send back what they get and say which worker a
connection came through. First nothing is killed, then workers are, and behind either part all
users rest: requests by route and class, connections and bytes as they have them must be what
proxyctl has counted and logged. A full stop under load ends the run: what was asked is answered,
and WebSockets go on until the drain is over. Exits with 1 otherwise, and names what was lost.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from random import Random, SystemRandom
from threading import Event
from time import monotonic
from typing import Any, Final

from msgspec import Struct

from loadtests.http_books import (
    Account,
    judge_books,
    judge_losses,
    judge_requests,
    requests_in,
)
from loadtests.http_echo import Echo, Target
from loadtests.http_users import ROUTES, SPOKEN, Stage, User
from loadtests.processes import LoadTestError, Workspace, raise_descriptor_limit
from loadtests.soak_certificates import AUTHORITY_FILE, SITE_FILE, VERSIONS, make, version_file
from loadtests.soak_judge import STOPPED
from loadtests.soak_proxy import Proxy
from loadtests.soak_verdict import Killed

USERS: Final = 12  # of each kind; half of those with WebSockets have theirs for the whole run
WORKERS: Final = 3
MOST_WORKERS: Final = 5
REST_S: Final = 20.0  # for the requests under way to end
AGREE_S: Final = 6.0  # for the last reports of the workers to come in
CALM_PART: Final = 0.4  # of the time; the rest has kills
BEFORE_STOP_S: Final = 1.0  # of load
DRAIN_S: Final = 2.0  # of the last config
ACCESS_FILE: Final = "access.log"
_NAMED: Final = {("tells", "http"), ("tells", "https"), ("changes", "https")}


class Options(Struct, frozen=True, kw_only=True):
    """As the command line has them."""

    seconds: float
    reloads_per_s: float
    resizes_per_s: float
    kills_per_minute: float
    seed: int


class Site(Struct, frozen=True, kw_only=True):
    """Where proxyctl listens for each kind of user, and where the targets are."""

    ports: dict[str, int]
    plain: int
    named: int  # behind a PROXY header
    log: str

    def document(self, version: int, drain_s: float | None = None) -> dict[str, Any]:
        """The config: routes that stay, one that changes each time, one that comes and goes."""
        routes = []
        for kind, port in self.ports.items():
            for letter, name in ROUTES.items():
                route = self._route(name, kind, port, f"/{letter}/*")
                if name == "changes":
                    route["action"]["headers"] = {"response": {"set": {"X-Version": f"{version}"}}}
                if name != "comes" or version % 2:
                    routes.append(route)
        document: dict[str, Any] = {
            "version": 1,
            "listen": ["127.0.0.1"],
            "workers": WORKERS,
            "max_workers": MOST_WORKERS + 1,
            "admin": None,
            "log": {"access": {"file": self.log, "format": "json"}},
            "routes": routes,
        }
        if drain_s is not None:
            document["timeouts"] = {"drain": drain_s}
        return document

    def _route(self, name: str, kind: str, port: int, path: str) -> dict[str, Any]:
        """Those that say who the client is have connections for it alone, the others share."""
        is_named = kind == "ws" or (name, kind) in _NAMED
        target = self.named if is_named else self.plain
        action: dict[str, Any] = {"type": "forward", "targets": [f"127.0.0.1:{target}"]}
        if is_named:
            action["send_proxy"], action["send_proxy_tlvs"] = "v2", ["unique_id"]
        if kind != "http":
            action["tls"] = {"mode": "terminate", "certificates": [{"cert": SITE_FILE}]}
        return {
            "name": f"{name}-{kind}",
            "match": {"ports": [port], "paths": [path]},
            "action": action,
        }


class Run:
    """One run. ``killed``: by incarnation, when."""

    def __init__(self, options: Options, space: Workspace) -> None:
        self._options = options
        self._space = space
        self._random = Random(options.seed)
        self._version = 0
        self._account = Account()
        self._killed = Killed()
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []

    async def go(self) -> None:
        """All of it."""
        directory = self._space.directory
        make(directory)
        self._targets = [Target(Echo()), Target(Echo(has_header=True))]
        plain, named = [await target.start() for target in self._targets]
        ports = {kind: self._space.port() for kind in SPOKEN}
        log = str(directory / ACCESS_FILE)
        self._site = site = Site(ports=ports, plain=plain, named=named, log=log)
        certificate = (directory / version_file(0)).read_text()
        text = json.dumps(site.document(0))
        proxy = await asyncio.to_thread(Proxy, self._space, text, {SITE_FILE: certificate}, None)
        self._stage = stage = Stage()
        self._users = [
            User(
                kind,
                (site.ports[kind], directory / AUTHORITY_FILE),
                Random(self._random.random()),
                self._account,
                stage,
                lasts=kind == "ws" and number % 2 == 0,
            )
            for kind in SPOKEN
            for number in range(USERS)
        ]
        tasks = [asyncio.create_task(user.run()) for user in self._users]
        seconds, per_s = self._options.seconds, self._options.kills_per_minute / 60
        calm = seconds * CALM_PART if per_s else seconds
        await self._part(proxy, "calm", calm, 0.0)
        if per_s:
            await self._part(proxy, "kills", seconds - calm, per_s)
        await self._stop(proxy)
        await self._end(tasks)
        self._judge_end()

    async def _part(self, proxy: Proxy, name: str, seconds: float, kills_per_s: float) -> None:
        """Load with disturbances, then a rest at which the books must agree."""
        await self._disturb(proxy, seconds, kills_per_s)
        self._stage.may_go.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REST_S):
                for user in self._users:
                    await user.is_resting.wait()
        if late := sum(not user.is_resting.is_set() for user in self._users):
            self.wrong.append(f"{name}: {late} users still wait for an answer")
        wrong = await self._agree(proxy)
        self.wrong += [f"{name}: {sentence}" for sentence in wrong]
        ages_s = [monotonic() - one.begun_at for one in self._users if one.lasts and one.holds]
        print(
            f"{name}: {self._account.established} connections,"
            f" {self._account.sums().requests} answers so far; {len(ages_s)} lasting WebSockets,"
            f" the oldest for {max(ages_s, default=0.0):.0f} s;"
            f" {self.counts['reload']} reloads;"
            f" {'BOOKS DO NOT AGREE' if wrong else 'books agree'}",
            flush=True,
        )
        self._stage.may_go.set()

    async def _agree(self, proxy: Proxy) -> list[str]:
        """Wait until the counters agree, AGREE_S at the longest; what does not."""
        give_up = monotonic() + AGREE_S
        while True:
            status = await asyncio.to_thread(proxy.data, "status")
            self._killed = Killed(at=self._killed.at, **status["totals"]["killed"])
            held = sum(user.holds for user in self._users)
            echoes = [target.echo for target in self._targets]
            wrong = judge_books(self._account, status, self._killed, held, echoes)
            wrong += self._judge_log()
            if not self._killed.at:
                lines = self._account.sums().requests + self._account.relays_ended
                if (found := status["totals"]["access_lines"]) != lines:
                    wrong.append(f"access_lines: {found}, not {lines}")
            if not wrong or monotonic() > give_up:
                return wrong
            await asyncio.sleep(0.2)

    def _judge_log(self) -> list[str]:
        lines = (self._space.directory / ACCESS_FILE).read_text().splitlines()
        return judge_requests("access log", requests_in(lines), self._account, self._killed)

    async def _disturb(self, proxy: Proxy, seconds: float, kills_per_s: float) -> None:
        """Reloads, resizes and kills, each kind once and then by chance, for so long."""
        end = monotonic() + seconds
        rates = {
            "reload": self._options.reloads_per_s,
            "resize": self._options.resizes_per_s,
            "kill": kills_per_s,
        }
        while monotonic() < end:
            await asyncio.sleep(self._random.expovariate(sum(rates.values())))
            (what,) = self._random.choices(list(rates), list(rates.values()))
            what = next((one for one in rates if rates[one] and not self.counts[one]), what)
            self.counts[what] += 1
            if what == "reload":
                await self._reload(proxy)
            elif what == "resize":
                proxy.send(self._random.choice([signal.SIGTTIN, signal.SIGTTOU]))
            else:
                await asyncio.to_thread(self._kill, proxy)

    async def _reload(self, proxy: Proxy, drain_s: float | None = None) -> None:
        """The next config, with the next certificate."""
        self._version += 1
        proxy.write_file(SITE_FILE, proxy.read_file(version_file(self._version % VERSIONS)))
        proxy.write(json.dumps(self._site.document(self._version, drain_s)))
        reply = await asyncio.to_thread(proxy.ask, "reload")
        if reply.exit_code != 0:
            said = "; ".join(problem.message for problem in reply.errors)
            self.wrong.append(f"a reload ended with {reply.exit_code}: {said}")

    def _kill(self, proxy: Proxy) -> None:
        victim = self._random.choice(proxy.workers())
        self._killed.at[victim["incarnation"]] = monotonic()
        if not proxy.signal_child(victim["pid"], signal.SIGKILL):
            del self._killed.at[victim["incarnation"]]

    async def _stop(self, proxy: Proxy) -> None:
        """Under load; who dials then is refused, and goes."""
        await self._reload(proxy, DRAIN_S)
        await asyncio.sleep(BEFORE_STOP_S)
        self._stage.stop_at, self._stage.drain_s = monotonic(), DRAIN_S
        pause = Event()

        def listen(seconds: float) -> None:
            pause.wait(seconds)

        status, self._said = await asyncio.to_thread(proxy.stop, listen)
        if status != 0:
            self.wrong.append(f"proxyctl ended with {status}: {proxy.started.tail()}")
        if not await asyncio.to_thread(proxy.wait, lambda: not proxy.left(), 3.0, "none is left"):
            self.wrong.append(f"processes are left: {proxy.left()}")

    async def _end(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        done, late = await asyncio.wait(tasks, timeout=REST_S)
        for task in late:
            task.cancel()
        for task in done:
            task.result()
        if late:
            self.wrong.append(f"{len(late)} users still wait for an answer")
        for target in self._targets:
            await target.close()

    def _judge_end(self) -> None:
        """What was lost in all, what the stop has said, and the whole access log."""
        account, counts = self._account, self.counts
        self.wrong += judge_losses(account, self._killed)
        self.wrong += [f"end: {sentence}" for sentence in self._judge_log()]
        found = STOPPED.fullmatch(self._said)
        if found is None or int(found[2]) != account.cut:
            self.wrong.append(f"the stop printed {self._said!r}, {account.cut} WebSockets were cut")
        for (route, code), row in account.sums().rows.items():
            kind = route.rpartition("-")[2] or "no route"
            counts[f"{kind} answers" if code else f"{kind} messages"] += row.count
        counts["connections"] = account.established
        counts["failed with killed workers"] = len(account.losses)
        counts["closed between requests by the stop"] = account.closed_by_stop
        counts["cut by the stop"] = account.cut


def parse(argv: Sequence[str] | None) -> Options:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.soak_http", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seconds", type=float, default=30.0, help="of load (30)")
    parser.add_argument("--reloads-per-s", type=float, default=2.0)
    parser.add_argument("--resizes-per-s", type=float, default=0.3)
    parser.add_argument("--kills-per-minute", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(1 << 31))
    return Options(**vars(parser.parse_args(argv)))


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print the verdict; 0 when nothing is wrong, else 1."""
    options = parse(argv)
    print(f"seed {options.seed}", flush=True)
    raise_descriptor_limit()
    with contextlib.ExitStack() as stack:
        run = Run(options, stack.enter_context(Workspace("proxyctl-soak-http-")))
        try:
            asyncio.run(run.go())
        except LoadTestError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    print(", ".join(f"{name}: {count}" for name, count in sorted(run.counts.items())))
    for sentence in run.wrong:
        print(f"FAIL {sentence}")
    print("FAIL" if run.wrong else "PASS")
    return 1 if run.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
