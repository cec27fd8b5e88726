"""What is done to proxyctl during a soak: reloads of every kind, resizes, kills and stops.

Two threads, each with its own random source, so that a reload meets a kill at any step of it.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable
from random import Random
from time import monotonic
from typing import Final

from loadtests.soak_certificates import SITE_FILE, version_file
from loadtests.soak_deeds import Deeds, Kind, Left, Signalled
from loadtests.soak_judge import Listed, Served
from loadtests.soak_log import LogReader
from loadtests.soak_proxy import Proxy
from loadtests.soak_shape import (
    BLOCKED_FILE,
    Shape,
    Site,
    blocked_hosts,
    blocked_list,
    broken,
    differences,
    document,
    first_shape,
    next_shape,
    places,
)
from loadtests.soak_wire import Place
from shared.messages import Reply

GAPS: Final = (0.2, 1.8)  # between deeds, as parts of the mean
SLOW_RELOAD_S: Final = 15.0  # workers may be silent meanwhile, one after the other
BROKEN_PART: Final = 0.12  # of all reloads
BURST_PART: Final = 0.06
TORN_PART: Final = 0.04  # the file is rewritten in place while a HUP makes it be read
TORN_S: Final = (0.0, 0.03)  # from the first half to the second
RESIZE_S: Final = 20.0
COMMAND_PART: Final = 0.05  # asked by the command itself, which costs a Python's start
LONG_STOP_S: Final = (1.1, 1.7)  # adopted by siblings, and awake before the watchdog
HEARD_S: Final = 1.0  # for the report of a worker that was woken among others that are busy
SHORT_STOP_S: Final = (0.05, 0.8)
_GONE_S: Final = 8.0  # for a stopped worker to be killed by the watchdog
_YOUNG_S: Final = 6.0  # a worker that ends within 5 s of its start counts as a failed start


class _Repeated:
    """A thread that does something at random instants, ``per_s`` on average."""

    def __init__(self, per_s: float, random: Random, deeds: Deeds) -> None:
        self._per_s = per_s
        self._deeds = deeds
        self.random = random
        self.is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin; nothing is done with a rate of 0."""
        if self._per_s > 0:
            self._thread.start()

    def stop(self) -> None:
        """End, after the deed that is under way."""
        self.is_over.set()
        if self._thread.is_alive():
            self._thread.join()

    def act(self) -> None:
        """One deed."""
        raise NotImplementedError

    def _run(self) -> None:
        due = monotonic()
        while not self.is_over.is_set():
            # A deed that takes long is followed by the next at once, so that the rate holds.
            due = max(due, monotonic() - 2.0) + self.random.uniform(*GAPS) / self._per_s
            if self.is_over.wait(max(0.0, due - monotonic())):
                return
            try:
                self.act()
            except Exception as error:
                self._deeds.wrong.append(f"{type(self).__name__}: {type(error).__name__}: {error}")
                return


class Reloader:
    """Knows what is served, and tells the traffic of every change."""

    def __init__(
        self,
        proxy: Proxy,
        site: Site,
        shape: Shape,
        deeds: Deeds,
        tell: Callable[[list[Place], list[Place], float], None],
    ) -> None:
        """``tell``: what is served now, what has just left, and when."""
        self.shape = shape
        self._pause = threading.Event()
        self._proxy = proxy
        self._site = site
        self._deeds = deeds
        self._tell = tell
        now = monotonic()
        deeds.lists.append(Listed(hosts=blocked_hosts(shape, site), begun_at=now, done_at=now))
        deeds.certificates.append(Served(version=shape.certificate, begun_at=now, done_at=now))

    def reload(self, shape: Shape, random: Random) -> None:
        """Bring in another shape; it must be accepted."""
        old, new = places(self.shape, self._site), places(shape, self._site)
        removed = [place for place in old if place not in new]
        self._write(shape)
        begun_at = monotonic()
        self._deeds.tell(f"reload {differences(self.shape, shape)}")
        for place in new:
            for left in self._deeds.left.get(place.name, [])[-1:]:
                left.back_begun_at = min(left.back_begun_at, begun_at)
        code, said = self._ask(random)
        at = monotonic()
        self._deeds.tell(f"reload returned {code}")
        if code != 0:
            self._deeds.wrong.append(f"a good config was refused ({code}): {said}")
            return
        self.shape = shape
        for written in (self._deeds.lists[-1], self._deeds.certificates[-1]):
            written.done_at = min(written.done_at, at)
        self._deeds.count("reload accepted")
        seconds = at - begun_at
        self._deeds.slowest_reload_s = max(self._deeds.slowest_reload_s, seconds)
        if seconds > SLOW_RELOAD_S:
            self._deeds.wrong.append(f"a reload took {seconds:.1f} s, from {begun_at:.3f} on")
        for place in removed:
            self._deeds.left.setdefault(place.name, []).append(Left(gone_at=at))
        for place in new:
            for left in self._deeds.left.get(place.name, [])[-1:]:
                left.back_at = min(left.back_at, at)
        self._tell(new, removed, at)

    def reload_broken(self, random: Random) -> None:
        """Bring in a file that must be refused, and see that the old generation is kept."""
        before = self._proxy.data("status")["generation"]
        self._proxy.write(broken(self.shape, self._site, random))
        code, said = self._ask(random)
        after = self._proxy.data("status")["generation"]
        if code != 1:
            self._deeds.wrong.append(f"a broken config was answered with {code}: {said}")
        if after != before:
            self._deeds.wrong.append(f"generation {before} became {after} by a refused config")
        self._deeds.count("reload refused")
        self._deeds.tell(f"broken config returned {code}")

    def burst(self, random: Random) -> None:
        """Several HUPs at once, over a config that serves the same places."""
        shape = next_shape(self.shape, self._site, random, keeps_places=True)
        self._write(shape)
        for _ in range(random.randint(3, 6)):
            self._proxy.send(signal.SIGHUP)
            self._deeds.count("HUP")
        self.reload(shape, random)
        self._proxy.ask("reload")  # the HUPs may have become one more, which is over then

    def torn(self, random: Random) -> None:
        """A file that is rewritten in place while it is read: all of it is served, or none."""
        shape = next_shape(self.shape, self._site, random, keeps_places=True)
        self._write_files(shape)

        def between() -> None:
            self._proxy.send(signal.SIGHUP)
            self._pause.wait(random.uniform(*TORN_S))

        self._proxy.write_torn(json.dumps(document(shape, self._site)), between)
        self._deeds.count("torn file")
        self.reload(shape, random)
        self._proxy.ask("reload")

    def _write(self, shape: Shape) -> None:
        self._write_files(shape)
        self._proxy.write(json.dumps(document(shape, self._site)))

    def _write_files(self, shape: Shape) -> None:
        """What the config names: the block list, and the certificate."""
        deeds, proxy = self._deeds, self._proxy
        if deeds.certificates[-1].version != shape.certificate:
            deeds.count("certificate")
            deeds.certificates.append(Served(version=shape.certificate, begun_at=monotonic()))
        proxy.write_file(SITE_FILE, proxy.read_file(version_file(shape.certificate)))
        hosts = blocked_hosts(shape, self._site)
        if deeds.lists[-1].hosts != hosts:
            deeds.lists.append(Listed(hosts=hosts, begun_at=monotonic()))
        proxy.write_file(BLOCKED_FILE, blocked_list(shape, self._site))

    def settle(self, workers: int, random: Random) -> None:
        """Bring in the shape of the start, with as many workers, all of them ready."""
        self.reload(first_shape(self._site, workers), random)

        def is_settled() -> bool:
            found = self._proxy.data("status")["workers"]
            if found["wanted"] != workers:
                is_few = found["wanted"] < workers
                self._proxy.send(signal.SIGTTIN if is_few else signal.SIGTTOU)
                return False
            return bool(found["ready"] == workers)

        if not self._proxy.wait(is_settled, 40.0, "workers are settled"):
            found = self._proxy.data("status")["workers"]
            self._deeds.wrong.append(f"workers do not settle at {workers}: {found}")

    def _ask(self, random: Random) -> tuple[int, str]:
        if random.random() < COMMAND_PART:
            return self._proxy.run("reload")
        reply: Reply = self._proxy.ask("reload")
        return reply.exit_code, "; ".join(problem.message for problem in reply.errors)


class Reloads(_Repeated):
    """Reloads, most of them good."""

    def __init__(
        self, reloader: Reloader, site: Site, per_s: float, random: Random, deeds: Deeds
    ) -> None:
        super().__init__(per_s, random, deeds)
        self._reloader = reloader
        self._site = site

    def act(self) -> None:
        """A broken file, a burst of HUPs, a file that is being written, or another config."""
        chance = self.random.random()
        if chance < BROKEN_PART:
            self._reloader.reload_broken(self.random)
        elif chance < BROKEN_PART + BURST_PART:
            self._reloader.burst(self.random)
        elif chance < BROKEN_PART + BURST_PART + TORN_PART:
            self._reloader.torn(self.random)
        else:
            shape = next_shape(self._reloader.shape, self._site, self.random)
            self._reloader.reload(shape, self.random)


class Disturbances(_Repeated):
    """What harms nobody: workers more or less, rotations, stops that end before the watchdog."""

    def __init__(
        self, proxy: Proxy, log: LogReader, per_s: float, random: Random, deeds: Deeds
    ) -> None:
        super().__init__(per_s, random, deeds)
        self._proxy = proxy
        self._log = log

    def act(self) -> None:
        """One of them."""
        deeds = ("TTIN", "TTOU", "add", "remove", "rotation", "short stop", "long stop")
        match self.random.choices(deeds, (2, 2, 2, 2, 3, 2, 2))[0]:
            case "TTIN" as kind:
                self._proxy.send(signal.SIGTTIN)
            case "TTOU" as kind:
                if self._proxy.data("status")["workers"]["wanted"] <= 2:
                    return
                self._proxy.send(signal.SIGTTOU)
            case "add" | "remove" as kind:
                self._resize(kind)
                return
            case "rotation" as kind:
                if not self._log.rotate():
                    return
                self._proxy.send(signal.SIGUSR1)
            case kind:
                self._stop_for_a_while(kind)
                return
        self._deeds.count(kind)
        self._deeds.tell(kind)

    def _resize(self, kind: str) -> None:
        """As `proxyctl workers add` and `remove` ask; there may be no room for it."""
        wanted = self._proxy.data("status")["workers"]["wanted"]
        if kind == "remove" and wanted <= 2:
            return
        change = 1 if kind == "add" else -1
        begun_at = monotonic()
        reply = self._proxy.ask("resize", {"change": change, "timeout_s": RESIZE_S})
        codes = {problem.code for problem in reply.errors}
        self._deeds.tell(f"workers {kind} returned {reply.exit_code}")
        if reply.exit_code == 1 and codes == {"room"}:
            return
        self._deeds.count(f"workers {kind}")
        if reply.exit_code != 0:
            said = "; ".join(problem.message for problem in reply.errors)
            self._deeds.wrong.append(
                f"workers {kind} from {begun_at:.3f} on: {reply.exit_code}, {said}"
            )

    def _stop_for_a_while(self, kind: str) -> None:
        # To wake a worker that is meant to hang would spoil that.
        if self._deeds.standing_still.acquire(blocking=False):
            try:
                self._stop_one(kind)
            finally:
                self._deeds.standing_still.release()

    def _stop_one(self, kind: str) -> None:
        ready = [worker for worker in self._proxy.workers() if worker["state"] == "ready"]
        if not ready:
            return
        victim = self.random.choice(ready)
        seconds = self.random.uniform(*(SHORT_STOP_S if kind == "short stop" else LONG_STOP_S))
        # The watchdog may be quicker than we wake it; then it was our doing.
        incarnation, pid = victim["incarnation"], victim["pid"]
        noted = Signalled(incarnation=incarnation, pid=pid, kind="stop", at=monotonic())
        if incarnation in self._deeds.signalled:
            return
        self._deeds.note(noted)
        is_stopped = self._proxy.signal_child(pid, signal.SIGSTOP)
        try:
            self.is_over.wait(seconds if is_stopped else 0.0)
        finally:
            self._proxy.signal_child(pid, signal.SIGCONT)
            self._deeds.stops.append((noted.at, monotonic()))
        self._deeds.count(kind)
        self._deeds.tell(
            f"worker {pid} (incarnation {incarnation}) was stopped for {seconds:.2f} s"
        )
        # It must live on: a stop that ends before the watchdog excuses nothing. Until it is heard
        # of, the silence before the stop still counts.
        self.is_over.wait(HEARD_S)
        if any(worker["incarnation"] == incarnation for worker in self._proxy.workers()):
            self._deeds.forget(noted)


class Kills(_Repeated):
    """kill -9 of workers and of the fork server, and workers that hang until the watchdog."""

    def __init__(self, proxy: Proxy, per_s: float, random: Random, deeds: Deeds) -> None:
        super().__init__(per_s, random, deeds)
        self._proxy = proxy

    def act(self) -> None:
        """One of them; two workers at once now and then."""
        match self.random.choices(["worker", "two", "hang", "fork server"], (60, 8, 17, 15))[0]:
            case "worker":
                self._kill(1)
            case "two":
                self._kill(2)
            case "hang":
                with self._deeds.standing_still:
                    self._hang()
            case _:
                self._kill_fork_server()

    def _kill(self, count: int) -> None:
        found = self._proxy.workers()
        for victim in self.random.sample(found, min(count, len(found))):
            self._signal(victim["incarnation"], victim["pid"], "kill", signal.SIGKILL)

    def _signal(self, incarnation: int, pid: int, kind: Kind, number: signal.Signals) -> bool:
        noted = Signalled(incarnation=incarnation, pid=pid, kind=kind, at=monotonic())
        self._deeds.note(noted)
        if not self._proxy.signal_child(pid, number):
            self._deeds.forget(noted)
            return False
        self._deeds.count(kind)
        self._deeds.tell(f"{kind} of worker {pid} (incarnation {incarnation})")
        return True

    def _hang(self) -> None:
        old = [
            worker
            for worker in self._proxy.workers()
            if worker["state"] == "ready" and worker["age_s"] > _YOUNG_S
        ]
        if not old:
            self._kill(1)
            return
        victim = self.random.choice(old)
        pid, begun_at = victim["pid"], monotonic()
        if not self._signal(victim["incarnation"], pid, "hang", signal.SIGSTOP):
            return

        def is_gone() -> bool:
            return all(worker["pid"] != pid for worker in self._proxy.workers())

        is_replaced = self._proxy.wait(is_gone, _GONE_S, "the hung worker is replaced")
        self._deeds.stops.append((begun_at, monotonic()))
        if not is_replaced:
            self._deeds.wrong.append(f"worker {pid} was stopped and is there {_GONE_S:g} s later")
            self._proxy.signal_child(pid, signal.SIGCONT)

    def _kill_fork_server(self) -> None:
        pid = self._proxy.fork_server()
        if pid is None or self._proxy.fork_server() != pid:
            return
        if self._proxy.signal_child(pid, signal.SIGKILL):
            self._deeds.count("fork server")
            self._deeds.tell(f"kill of fork server {pid}")
