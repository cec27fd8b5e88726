"""HTTP, HTTPS and WebSocket users while routes are replaced and workers are resized and killed.

    python -m loadtests.soak_http --seconds 30

Every request that was begun must be answered with the bytes that it asked for, but those on a
connection that a killed worker held. Targets send back what they get and say which worker a
connection came through, where a PROXY header tells them. Exits with 1 otherwise, and names what
was lost.
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
from time import monotonic
from typing import Any, Final

from msgspec import Struct

from loadtests.http_users import SPOKEN, Echo, Loss, Target, User
from loadtests.processes import LoadTestError, Workspace, raise_descriptor_limit
from loadtests.soak_certificates import AUTHORITY_FILE, SITE_FILE, make, version_file
from loadtests.soak_proxy import Proxy
from loadtests.soak_verdict import CLOCK_S

USERS: Final = 12  # of each kind
WORKERS: Final = 3
MOST_WORKERS: Final = 5
REST_S: Final = 20.0  # for the last requests to end
# A route that comes and goes is asked for when it is not there, too.
_GOOD_ENDS: Final = frozenset({"client_closed", "target_closed", "drained", "no_route", "killed"})


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

    def document(self, version: int) -> dict[str, Any]:
        """The config: one route stays, one changes each time, one comes and goes."""
        routes = []
        for kind, port in self.ports.items():
            routes.append(self._route(f"stays-{kind}", kind, port, "/s/*"))
            changing = self._route(f"changes-{kind}", kind, port, "/c/*")
            changing["action"]["headers"] = {"response": {"set": {"X-Version": str(version)}}}
            routes.append(changing)
            if version % 2:
                routes.append(self._route(f"comes-{kind}", kind, port, "/x/*"))
        return {
            "version": 1,
            "listen": ["127.0.0.1"],
            "workers": WORKERS,
            "max_workers": MOST_WORKERS + 1,
            "admin": None,
            "routes": routes,
        }

    def _route(self, name: str, kind: str, port: int, path: str) -> dict[str, Any]:
        target = self.plain if kind == "http" else self.named
        action: dict[str, Any] = {"type": "forward", "targets": [f"127.0.0.1:{target}"]}
        if kind != "http":
            action["tls"] = {"mode": "terminate", "certificates": [{"cert": SITE_FILE}]}
            action["send_proxy"], action["send_proxy_tlvs"] = "v2", ["unique_id"]
        return {"name": name, "match": {"ports": [port], "paths": [path]}, "action": action}


class Run:
    """One run. ``killed``: by incarnation, when."""

    def __init__(self, options: Options, space: Workspace) -> None:
        self._options = options
        self._space = space
        self._random = Random(options.seed)
        self._version = 0
        self.killed: dict[int, float] = {}
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []

    async def go(self) -> None:
        """All of it."""
        make(self._space.directory)
        plain, named = Target(Echo()), Target(Echo(has_header=True))
        site = Site(
            ports={kind: self._space.port() for kind in SPOKEN},
            plain=await plain.start(),
            named=await named.start(),
        )
        certificate = (self._space.directory / version_file(0)).read_text()
        text = json.dumps(site.document(0))
        proxy = await asyncio.to_thread(Proxy, self._space, text, {SITE_FILE: certificate}, None)
        authority = self._space.directory / AUTHORITY_FILE
        users = [
            User(kind, site.ports[kind], authority, Random(self._random.random()))
            for kind in SPOKEN
            for _ in range(USERS)
        ]
        tasks = [asyncio.create_task(user.run()) for user in users]
        await self._disturb(proxy, site)
        for user in users:
            user.is_over = True
        done, late = await asyncio.wait(tasks, timeout=REST_S)
        for task in late:
            task.cancel()
        for task in done:
            task.result()
        if late:
            self.wrong.append(f"{len(late)} users still wait for an answer")
        self._judge(users)
        await asyncio.to_thread(self._stop, proxy)
        await plain.close()
        await named.close()

    async def _disturb(self, proxy: Proxy, site: Site) -> None:
        """Reloads, resizes and kills, each kind once and then by chance, for the run's time."""
        end = monotonic() + self._options.seconds
        rates = {
            "reload": self._options.reloads_per_s,
            "resize": self._options.resizes_per_s,
            "kill": self._options.kills_per_minute / 60,
        }
        while monotonic() < end:
            await asyncio.sleep(self._random.expovariate(sum(rates.values())))
            (what,) = self._random.choices(list(rates), list(rates.values()))
            what = next((one for one in rates if rates[one] and not self.counts[one]), what)
            self.counts[what] += 1
            if what == "reload":
                self._version += 1
                proxy.write(json.dumps(site.document(self._version)))
                code, said = await asyncio.to_thread(proxy.run, "reload")
                if code not in (0, 4):  # 4: while a killed worker is not replaced
                    self.wrong.append(f"a reload ended with {code}: {said}")
            elif what == "resize":
                proxy.send(self._random.choice([signal.SIGTTIN, signal.SIGTTOU]))
            else:
                await asyncio.to_thread(self._kill, proxy)

    def _kill(self, proxy: Proxy) -> None:
        victim = self._random.choice(proxy.workers())
        self.killed[victim["incarnation"]] = monotonic()
        if not proxy.signal_child(victim["pid"], signal.SIGKILL):
            del self.killed[victim["incarnation"]]

    def _stop(self, proxy: Proxy) -> None:
        ends: set[str] = set(proxy.data("status")["totals"]["ends"])
        if strange := ends - _GOOD_ENDS:
            self.wrong.append(f"connections ended by {sorted(strange)}")
        status, _ = proxy.stop(lambda seconds: None)
        if status != 0:
            self.wrong.append(f"proxyctl ended with {status}: {proxy.started.tail()}")

    def _judge(self, users: Sequence[User]) -> None:
        for user in users:
            self.counts.update(user.counts)
            for loss in user.losses:
                excused = is_excused(loss, self.killed)
                self.counts["held by killed workers" if excused else "lost"] += 1
                if not excused:
                    self.wrong.append(f"{user.kind}: {loss}")


def is_excused(loss: Loss, killed: dict[int, float]) -> bool:
    """Whether a killed worker held the connection, or may have where its worker is not known."""
    if loss.incarnation is not None:
        return killed.get(loss.incarnation, float("inf")) <= loss.ended_at
    return any(loss.idle_since - CLOCK_S <= at <= loss.ended_at for at in killed.values())


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
