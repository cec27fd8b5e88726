"""One measurement each: a load on a proxy, its figure, the CPU that the proxy used, errors.

Before each load comes a short one that warms up a proxy that has just been started. Its figure
does not count, its errors do.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from time import monotonic
from typing import Final, Protocol, TypeVar

from msgspec import Struct

from loadtests.figures import Sample
from loadtests.idle import IdleConnections
from loadtests.peers import V2, Subject, running
from loadtests.processes import (
    LoadTestError,
    Workspace,
    cpu_us,
    find_program,
    pss_bytes,
    tree,
    wait_until,
)
from loadtests.tool_output import (
    MIB,
    HandshakeRun,
    IperfRun,
    ToolError,
    WrkRun,
    parse_iperf,
    parse_wrk,
)

KEPT: Final = 64  # connections of wrk
BULK_STREAMS: Final = 4
IDLE: Final = 5000
FIRST_HANDSHAKES: Final = 20
WARM_UP_S: Final = 1  # the least that wrk and iperf3 can do
SETTLE_S: Final = 0.5  # for the last accept and the last timer before memory is read

_Found = TypeVar("_Found", WrkRun, IperfRun, HandshakeRun)


class Idle(Protocol):
    """Connections that are held open. ``ended``: how many were lost."""

    ended: int

    @property
    def is_tls(self) -> bool:
        """Whether they speak TLS."""
        ...

    @property
    def established(self) -> int:
        """How many were open and not lost since."""
        ...

    def open(self, port: int, count: int) -> None:
        """Open ``count`` more; LoadTestError when that fails."""
        ...

    def turn(self, timeout_s: float) -> None:
        """Handle the events of at most ``timeout_s``."""
        ...

    def drop(self) -> None:
        """Close all of them."""
        ...


class Options(Struct, frozen=True, kw_only=True):
    """What every measurement needs: seconds of load after the warm-up, and idle connections."""

    seconds: int
    idle: int = IDLE
    is_warm: bool = False  # nothing of the subject is new to it: no warm-up


def connections(subject: Subject, options: Options, number: int) -> Sample:
    """New connections per second: wrk, one request each, through to a plain nginx."""
    return _wrk(subject, "connections", subject.ports["connections"], options, number)


def messages(subject: Subject, options: Options, number: int) -> Sample:
    """Small messages per second on kept connections: one request is one message."""
    return _wrk(subject, "messages", subject.ports["messages"], options, number)


def proxy_v2(subject: Subject, front_port: int, options: Options, number: int) -> Sample:
    """New connections per second through an HAProxy that sends PROXY v2 to the proxy."""
    return _wrk(subject, V2, front_port, options, number)


def _wrk(subject: Subject, work: str, port: int, options: Options, number: int) -> Sample:
    keep = work == "messages"
    command = [find_program("wrk"), f"-t{2 if keep else 1}", f"-c{KEPT}"]
    command += [] if keep else ["-H", "Connection: close"]
    command += [f"http://127.0.0.1:{port}/"]
    return wrk(subject, work, command, options, number)


def wrk(
    subject: Subject,
    work: str,
    command: list[str],
    options: Options,
    number: int,
    body_bytes: int = 0,
) -> Sample:
    """One load of wrk: answers per second, or Gbit/s of bodies of ``body_bytes``, then per MiB."""
    return wrk_runs(subject, work, command, options, number, [], body_bytes)


def wrk_runs(
    subject: Subject,
    work: str,
    command: list[str],
    options: Options,
    number: int,
    texts: list[str],
    body_bytes: int = 0,
) -> Sample:
    """The same; what wrk prints is added to ``texts``."""

    def run(seconds: int) -> WrkRun:
        done = _run([*command, f"-d{seconds}s"], seconds)
        texts.append(done.stdout + done.stderr)
        return parse_wrk(texts[-1])

    runs, used, note = with_cpu(subject, run, options)
    if not runs:
        return Sample(work=work, proxy=subject.name, round=number, value=0, errors=1, note=note)
    found = runs[-1]
    failed = sum(one.errors for one in runs)
    return Sample(
        work=work,
        proxy=subject.name,
        round=number,
        value=found.per_s * body_bytes * 8 / 1e9 if body_bytes else found.per_s,
        cpu_us=used / max(found.requests * (body_bytes / MIB if body_bytes else 1), 1),
        errors=failed + sum(one.requests == 0 for one in runs),
        note="wrk reports failed requests" if failed else "",
    )


def bulk(subject: Subject, options: Options, number: int) -> Sample:
    """Gbit/s that iperf3's server receives over 4 connections."""
    command = [find_program("iperf3"), "--client", "127.0.0.1", "--json"]
    command += ["--port", str(subject.ports["bulk"]), "--parallel", str(BULK_STREAMS)]

    def run(seconds: int) -> IperfRun:
        deadline = monotonic() + 10
        while True:
            done = _run([*command, "--time", str(seconds)], seconds)
            try:
                return parse_iperf(done.stdout)
            except ToolError as error:  # its server takes one test at a time, and tidies up late
                if "busy" not in str(error) or monotonic() > deadline:
                    raise

    runs, used, note = with_cpu(subject, run, options)
    if not runs:
        return Sample(work="bulk", proxy=subject.name, round=number, value=0, errors=1, note=note)
    found = runs[-1]
    return Sample(
        work="bulk",
        proxy=subject.name,
        round=number,
        value=found.bits_per_s / 1e9,
        cpu_us=used / max(found.mib, 1.0),
        errors=sum(one.received_bytes == 0 for one in runs),
    )


def _run(command: list[str], seconds: int) -> subprocess.CompletedProcess[str]:
    """Run a load of so many seconds to its end."""
    return subprocess.run(
        command, capture_output=True, text=True, timeout=seconds + 30, check=False
    )


def with_cpu(
    subject: Subject, run: Callable[[int], _Found], options: Options
) -> tuple[list[_Found], float, str]:
    """Warm up, run a load, and count what ``subject`` used of the CPU for it, in microseconds.

    Returns the runs, the load last, or none and why. A process that ends or appears under load is
    an error of that measurement.
    """
    try:
        runs = [] if options.is_warm else [run(WARM_UP_S)]
        pids = [pid for root in subject.pids for pid in tree(root)]
        before = cpu_us(pids)
        runs.append(run(options.seconds))
        used = cpu_us(pids) - before
    except (ToolError, subprocess.TimeoutExpired) as error:
        return [], 0.0, str(error)
    except (FileNotFoundError, ProcessLookupError) as error:
        return [], 0.0, f"a process of {subject.name} ended under load ({error})"
    if sorted(pids) != sorted(pid for root in subject.pids for pid in tree(root)):
        return [], 0.0, f"the processes of {subject.name} changed under load"
    return runs, used, ""


def memory(
    space: Workspace, name: str, template: str | None, options: Options, number: int
) -> Sample:
    """Bytes of PSS per idle connection, over all processes of a proxy started for this."""
    with IdleConnections() as idle:
        forwards = {"memory": (space.port(), idle.target_port)}
        start = running(space, name, forwards, template, f"{name}-idle{number}")
        return idle_memory("memory", name, start, idle, options, number)


def idle_memory(
    work: str,
    name: str,
    start: AbstractContextManager[Subject],
    idle: Idle,
    options: Options,
    number: int,
) -> Sample:
    """What idle connections cost a proxy that ``start`` starts.

    A fresh one each time, so that no round reuses memory that another round left behind.
    """
    with start as subject:
        try:
            _let_pass(idle, SETTLE_S)
            idle.drop()  # the start's own probe of the port may have come through
            idle.ended = 0
            if idle.is_tls:  # the first handshakes pay for what is made once
                idle.open(subject.ports[work], FIRST_HANDSHAKES)
                idle.drop()
                _let_pass(idle, SETTLE_S)
            before = pss_bytes([pid for root in subject.pids for pid in tree(root)])
            idle.open(subject.ports[work], options.idle)
            _let_pass(idle, SETTLE_S)
            after = pss_bytes([pid for root in subject.pids for pid in tree(root)])
            lost = options.idle - idle.established
            if after <= before:
                raise LoadTestError(f"{name}: memory did not grow, so it was not measured")
        except LoadTestError as error:
            return Sample(work=work, proxy=name, round=number, value=0, errors=1, note=str(error))
    return Sample(
        work=work,
        proxy=name,
        round=number,
        value=(after - before) / options.idle,
        errors=lost,
        note=f"{lost} idle connections were lost" if lost else "",
    )


def _let_pass(idle: Idle, seconds: float) -> None:
    """Go on handling events for a while."""
    end = monotonic() + seconds
    while (left := end - monotonic()) > 0:
        idle.turn(left)


def check_address(subject: Subject, front_port: int) -> None:
    """Require that the origin sees the client's own address through front and proxy.

    LoadTestError when it sees another one: a proxy that drops the header must not be timed.
    """

    def seen() -> bool:
        with socket.create_connection(("127.0.0.1", front_port), timeout=5) as client:
            host, port = client.getsockname()
            client.sendall(b"GET /seen HTTP/1.0\r\n\r\n")
            answer = b""
            while part := client.recv(4096):
                answer += part
        body = answer.rpartition(b"\r\n\r\n")[2]
        if not body:
            return False  # the front was not up yet
        if body != f"{host} {port}\n".encode():
            raise LoadTestError(f"{subject.name}: the origin saw {body!r}, not {host} {port}")
        return True

    wait_until(seen, 10.0, f"{subject.name}: an answer through PROXY v2")
