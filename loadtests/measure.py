"""One measurement each: a load on a proxy, its figure, the CPU that the proxy used, errors."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable
from time import monotonic
from typing import Final, TypeVar

from msgspec import Struct

from loadtests.figures import Sample
from loadtests.idle import IdleConnections
from loadtests.peers import V2, Subject, start_subject
from loadtests.processes import (
    LoadTestError,
    Workspace,
    cpu_us,
    find_program,
    pss_bytes,
    tree,
    wait_until,
)
from loadtests.tool_output import IperfRun, ToolError, WrkRun, parse_iperf, parse_wrk

KEPT: Final = 64  # connections of wrk
BULK_STREAMS: Final = 4
IDLE: Final = 5000
SETTLE_S: Final = 0.5  # for the last accept and the last timer before memory is read

_Run = TypeVar("_Run", WrkRun, IperfRun)


class Options(Struct, frozen=True, kw_only=True):
    """What every measurement needs: seconds of load, and idle connections."""

    seconds: int
    idle: int = IDLE


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
    command = [find_program("wrk"), f"-t{2 if keep else 1}", f"-c{KEPT}", f"-d{options.seconds}s"]
    command += [] if keep else ["-H", "Connection: close"]
    command += [f"http://127.0.0.1:{port}/"]

    def run() -> WrkRun:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=options.seconds + 30, check=False
        )
        return parse_wrk(done.stdout + done.stderr)

    found, used, note = _with_cpu(subject, run)
    if found is None:
        return Sample(work=work, proxy=subject.name, round=number, value=0, errors=1, note=note)
    return Sample(
        work=work,
        proxy=subject.name,
        round=number,
        value=found.per_s,
        cpu_us=used / max(found.requests, 1),
        errors=found.errors + (found.requests == 0),
        note="wrk reports failed requests" if found.errors else "",
    )


def bulk(subject: Subject, options: Options, number: int) -> Sample:
    """Gbit/s that iperf3's server receives over 4 connections."""
    command = [find_program("iperf3"), "--client", "127.0.0.1", "--json"]
    command += ["--port", str(subject.ports["bulk"]), "--parallel", str(BULK_STREAMS)]
    command += ["--time", str(options.seconds)]

    def run() -> IperfRun:
        deadline = monotonic() + 10
        while True:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=options.seconds + 30, check=False
            )
            try:
                return parse_iperf(done.stdout)
            except ToolError as error:  # its server takes one test at a time, and tidies up late
                if "busy" not in str(error) or monotonic() > deadline:
                    raise

    found, used, note = _with_cpu(subject, run)
    if found is None:
        return Sample(work="bulk", proxy=subject.name, round=number, value=0, errors=1, note=note)
    return Sample(
        work="bulk",
        proxy=subject.name,
        round=number,
        value=found.bits_per_s / 1e9,
        cpu_us=used / max(found.mib, 1.0),
        errors=int(found.received_bytes == 0),
    )


def _with_cpu(subject: Subject, run: Callable[[], _Run]) -> tuple[_Run | None, float, str]:
    """Run a load and count what the processes of ``subject`` used of the CPU, in microseconds.

    A process that ends or appears meanwhile is an error of that measurement.
    """
    pids = [pid for root in subject.pids for pid in tree(root)]
    try:
        before = cpu_us(pids)
        found = run()
        used = cpu_us(pids) - before
    except (ToolError, subprocess.TimeoutExpired) as error:
        return None, 0.0, str(error)
    except (FileNotFoundError, ProcessLookupError) as error:
        return None, 0.0, f"a process of {subject.name} ended under load ({error})"
    if sorted(pids) != sorted(pid for root in subject.pids for pid in tree(root)):
        return None, 0.0, f"the processes of {subject.name} changed under load"
    return found, used, ""


def memory(
    space: Workspace, name: str, template: str | None, options: Options, number: int
) -> Sample:
    """Bytes of PSS per idle connection, over all processes of a proxy started for this.

    A fresh one each time, so that no round reuses memory that another round left behind.
    """
    with IdleConnections() as idle:
        targets = {"memory": idle.target_port}
        subject = start_subject(space, name, targets, template, f"{name}-idle{number}")
        try:
            _let_pass(idle, SETTLE_S)
            idle.drop()  # the start's own probe of the port may have come through
            idle.ended = 0
            before = pss_bytes([pid for root in subject.pids for pid in tree(root)])
            idle.open(subject.ports["memory"], options.idle)
            _let_pass(idle, SETTLE_S)
            after = pss_bytes([pid for root in subject.pids for pid in tree(root)])
            lost = options.idle - idle.established
            if after <= before:
                raise LoadTestError(f"{name}: memory did not grow, so it was not measured")
        except LoadTestError as error:
            return Sample(
                work="memory", proxy=name, round=number, value=0, errors=1, note=str(error)
            )
        finally:
            for part in subject.started:
                space.stop(part)
    return Sample(
        work="memory",
        proxy=name,
        round=number,
        value=(after - before) / options.idle,
        errors=lost,
        note=f"{lost} idle connections were lost" if lost else "",
    )


def _let_pass(idle: IdleConnections, seconds: float) -> None:
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
