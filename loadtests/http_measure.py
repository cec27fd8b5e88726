"""One measurement each over HTTP, like those of measure.py."""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Sequence
from typing import Final

import msgspec

from loadtests.figures import Sample
from loadtests.http_peers import (
    ALL_ROUTES,
    BODIES,
    ROUTE_COUNTS,
    ROUTES,
    HttpOrigin,
    is_secure,
    running_http,
)
from loadtests.measure import KEPT, Options, idle_memory, wrk, wrk_runs
from loadtests.peers import Subject
from loadtests.processes import LoadTestError, Workspace, find_program
from loadtests.tls_measure import handshakes
from loadtests.tls_peers import SERVER_NAME
from loadtests.tool_output import parse_wrk_p99

KNEE: Final = "http_kept"  # its rates say what a load of 70 % is
P99: Final = "http_p99"
LOAD: Final = 0.7
PACED: Final = 256  # connections of a paced load: few enough of them wait at a time
IDLE_HTTP: Final = 2000
BODY_CONNECTIONS: Final = 16
PATHS: Final = 10_000  # asked for in turn, however many routes there are
ASKED: Final = 10  # routes, the others only stand by; each has kept connections of its own
OPENED_AT_ONCE: Final = 100
_REQUEST: Final = b"GET / HTTP/1.1\r\nHost: " + SERVER_NAME.encode() + b"\r\n\r\n"
_ANSWER_END: Final = b"ok\n"


class KeptConnections:
    """Connections that have had one answer each, and are idle. ``ended``: lost since."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._open: list[socket.socket] = []
        self.ended = 0

    @property
    def is_tls(self) -> bool:
        """Whether they speak TLS."""
        return self._tls is not None

    @property
    def established(self) -> int:
        """How many were open and not lost since."""
        return len(self._open) - self.ended

    def open(self, port: int, count: int) -> None:
        """Open ``count`` more; LoadTestError when one of them gets no answer."""
        while count > 0:
            batch = [self._dial(port) for _ in range(min(count, OPENED_AT_ONCE))]
            count -= len(batch)
            for one in batch:
                one.sendall(_REQUEST)
            for one in batch:
                received = b""
                while not received.endswith(_ANSWER_END):
                    part = one.recv(4096)
                    if not part:
                        raise LoadTestError(f"port {port} ended after {received!r}")
                    received += part

    def _dial(self, port: int) -> socket.socket:
        try:
            sock = socket.create_connection(("127.0.0.1", port), timeout=10)
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_hostname=SERVER_NAME)
        except OSError as error:
            raise LoadTestError(f"port {port}: {error}") from None
        self._open.append(sock)
        return sock

    def turn(self, timeout_s: float) -> None:
        """Let time pass; nothing is to come, so what can be read then is an end."""
        poll = select.poll()
        for one in self._open:
            poll.register(one, select.POLLIN)
        self.ended = len(poll.poll(timeout_s * 1000))

    def drop(self) -> None:
        """Close them."""
        for one in self._open:
            one.close()
        self._open.clear()
        self.ended = 0


def measure(
    space: Workspace,
    subject: Subject,
    work: str,
    options: Options,
    number: int,
    earlier: Sequence[Sample],
) -> Sample:
    """One load of a proxy that was started for this work. ``earlier``: known of this round."""
    if work == "https_connections":
        return handshakes(subject, work, options, number)
    if work == P99:
        return latency(space, subject, options, number, knee(earlier, number))
    return wrk(subject, work, command(space, subject, work), options, number, size_of(work))


def size_of(work: str) -> int:
    """Bytes of the bodies of a work; 0 where answers are counted instead."""
    return BODIES.get(work.rpartition("_")[2], 0)


def command(space: Workspace, subject: Subject, work: str) -> list[str]:
    """wrk for a work, all but the time."""
    size = work.rpartition("_")[2]
    scheme = "https" if is_secure(work) else "http"
    base = f"{scheme}://127.0.0.1:{subject.ports[work]}/"
    found = [find_program("wrk")]
    if size in BODIES:
        return [*found, "-t2", f"-c{BODY_CONNECTIONS}", base + size]
    if work == "http_connections":
        return [*found, "-t1", f"-c{KEPT}", "-H", "Connection: close", base]
    if work in (ROUTES, ALL_ROUTES):
        count = ROUTE_COUNTS[subject.name]
        asked = count if work == ALL_ROUTES else ASKED
        script = space.write(f"routes-{count}.lua", routes_script(count, asked))
        return [*found, "-t2", f"-c{KEPT}", "-s", str(script), base]
    return [*found, "-t2", f"-c{KEPT}", base]


def routes_script(count: int, asked: int) -> str:
    """A script of wrk that asks ``asked`` of ``count`` routes, always for as many paths in all."""
    return (
        "local asked, made = 0, {}\n"
        "init = function()\n"
        f"  for n = 0, {PATHS - 1} do\n"
        f"    local route = n % {asked} * {count // asked}\n"
        '    made[n] = wrk.format("GET", string.format("/r%05d/%05d", route, n))\n'
        "  end\nend\n"
        "request = function()\n"
        f"  asked = (asked + 7919) % {PATHS}\n"
        "  return made[asked]\n"
        "end\n"
    )


def knee(samples: Sequence[Sample], number: int) -> float:
    """Requests per second of the slowest proxy of this round, at full load.

    LoadTestError where that was not measured.
    """
    found = [one.value for one in samples if one.work == KNEE and one.round == number]
    if not found or not min(found):
        raise LoadTestError(f"{P99} needs {KNEE} in the same round")
    return min(found)


def pace_script(rate: float) -> str:
    """A script of wrk whose connections wait as long as gives ``rate`` in all, by chance."""
    return f"function delay() return math.random(0, {round(2000 * PACED / rate)}) end\n"


def latency(
    space: Workspace, subject: Subject, options: Options, number: int, knee_per_s: float
) -> Sample:
    """The 99th percentile, in ms, at 70 % of ``knee_per_s``: the same load for every proxy."""
    script = space.write("pace.lua", pace_script(LOAD * knee_per_s))
    load = [find_program("wrk"), "-t2", f"-c{PACED}", "--latency", "-s", str(script)]
    load += [f"http://127.0.0.1:{subject.ports[P99]}/"]
    texts: list[str] = []
    sample = wrk_runs(subject, P99, load, options, number, texts)
    if not texts or not sample.value:
        return sample
    return msgspec.structs.replace(sample, value=parse_wrk_p99(texts[-1]))


def memory(
    space: Workspace,
    name: str,
    work: str,
    port: int,
    origin: HttpOrigin,
    options: Options,
    number: int,
) -> Sample:
    """Bytes of PSS per kept connection that has had an answer and asks no more."""
    options = msgspec.structs.replace(options, idle=IDLE_HTTP)
    context: ssl.SSLContext | None = None
    if is_secure(work):
        context = ssl.create_default_context(cafile=str(origin.authority))
    idle = KeptConnections(context)
    try:
        start = running_http(space, name, work, port, origin)
        return idle_memory(work, name, start, idle, options, number)
    finally:
        idle.drop()
