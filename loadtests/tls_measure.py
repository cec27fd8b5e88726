"""One measurement each over TLS, like those of measure.py."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Final

import msgspec

from loadtests.figures import Sample
from loadtests.idle import IdleConnections
from loadtests.measure import KEPT, Options, idle_memory, with_cpu, wrk
from loadtests.peers import Subject
from loadtests.processes import LoadTestError, Workspace, find_program
from loadtests.tls_peers import (
    BODY,
    BODY_BYTES,
    NAMES,
    REENCRYPT,
    SERVER_NAME,
    SNI,
    Origins,
    client_context,
    domain,
    domains,
    running_tls,
)
from loadtests.tool_output import HandshakeRun, ToolError, parse_s_time

RESUMED: Final = "tls_resumed"
HANDSHAKERS: Final = 16  # of openssl s_time, which makes one connection after the other
BULK_CONNECTIONS: Final = 16
IDLE_TLS: Final = 2000
RESUMPTIONS: Final = 6  # that are tried on each proxy: more than it has workers


def measure(
    space: Workspace, subject: Subject, work: str, origins: Origins, options: Options, number: int
) -> Sample:
    """One load of a proxy that was started for this work."""
    return _loads(space, origins)[work](subject, options, number)


def memory(
    space: Workspace, name: str, port: int, origins: Origins, options: Options, number: int
) -> Sample:
    """Bytes of PSS per idle connection after a TLS 1.3 handshake."""
    options = msgspec.structs.replace(options, idle=IDLE_TLS)
    with IdleConnections(client_context(origins), SERVER_NAME) as idle:
        its = msgspec.structs.replace(origins, plain=idle.target_port)
        start = running_tls(space, name, "tls_memory", port, its)
        return idle_memory("tls_memory", name, start, idle, options, number)


_Load = Callable[[Subject, Options, int], Sample]


def _loads(space: Workspace, origins: Origins) -> dict[str, _Load]:
    def full(subject: Subject, options: Options, number: int) -> Sample:
        return handshakes(subject, "tls_handshakes", options, number)

    def resumed(subject: Subject, options: Options, number: int) -> Sample:
        if not options.is_warm:
            check_resumed(subject.ports[RESUMED], origins)
        return handshakes(subject, RESUMED, options, number)

    def bulk(subject: Subject, options: Options, number: int) -> Sample:
        return _bodies(subject, "tls_bulk", options, number)

    def reencrypt(subject: Subject, options: Options, number: int) -> Sample:
        return _bodies(subject, REENCRYPT, options, number)

    def by_name(subject: Subject, options: Options, number: int) -> Sample:
        return _hellos(space, subject, options, number)

    return {
        "tls_handshakes": full,
        RESUMED: resumed,
        "tls_messages": messages,
        "tls_bulk": bulk,
        REENCRYPT: reencrypt,
        SNI: by_name,
        NAMES: by_name,
    }


def handshakes(subject: Subject, work: str, options: Options, number: int) -> Sample:
    """TLS 1.3 handshakes per second, with one answer each: all of them new, or all resumed.

    By openssl s_time, whose every connection says which it was. wrk and h2load never make new ones
    where a proxy gives tickets; and wrk polls a socket for room while it waits for the answer to
    its ClientHello, so it takes a CPU of its own from the proxy whatever the proxy does with it.
    """
    is_resumed = work == RESUMED
    command = [find_program("openssl"), "s_time", "-reuse" if is_resumed else "-new", "-tls1_3"]
    command += ["-www", "/"]
    command += ["-no-CAfile", "-no-CApath", "-no-CAstore"]  # not read: it verifies nothing
    command += ["-connect", f"127.0.0.1:{subject.ports[work]}", "-time"]

    def run(seconds: int) -> HandshakeRun:
        with _ended() as started:
            begun_at = monotonic()
            for _ in range(HANDSHAKERS):
                started.append(
                    subprocess.Popen(
                        [*command, str(seconds)],
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.STDOUT,
                        text=True,
                    )
                )
            texts = [one.communicate(timeout=seconds + 30)[0] for one in started]
            took_s = monotonic() - begun_at
        failed = sum(one.returncode != 0 for one in started)
        if failed:
            raise ToolError(f"openssl s_time failed: {texts[0].strip()[-300:]!r}")
        count = sum(parse_s_time(text, is_resumed) for text in texts)
        return HandshakeRun(count, count / took_s, 0)

    runs, used, note = with_cpu(subject, run, options)
    if not runs:
        return Sample(work=work, proxy=subject.name, round=number, value=0, errors=1, note=note)
    found = runs[-1]
    return Sample(
        work=work,
        proxy=subject.name,
        round=number,
        value=found.per_s,
        cpu_us=used / max(found.connections, 1),
        errors=sum(one.connections == 0 for one in runs),
    )


@contextlib.contextmanager
def _ended() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes, none of which is left at the end."""
    started: list[subprocess.Popen[str]] = []
    try:
        yield started
    finally:
        for one in started:
            if one.poll() is None:
                one.kill()
                one.wait()


def messages(subject: Subject, options: Options, number: int) -> Sample:
    """Small messages per second on kept connections: one request is one message."""
    work = "tls_messages"
    command = [find_program("wrk"), "-t2", f"-c{KEPT}"]
    command += [f"https://127.0.0.1:{subject.ports[work]}/"]
    return wrk(subject, work, command, options, number)


def _bodies(subject: Subject, work: str, options: Options, number: int) -> Sample:
    command = [find_program("wrk"), "-t2", f"-c{BULK_CONNECTIONS}"]
    command += [f"https://127.0.0.1:{subject.ports[work]}/{BODY}"]
    return wrk(subject, work, command, options, number, BODY_BYTES)


def _hellos(space: Workspace, subject: Subject, options: Options, number: int) -> Sample:
    """New connections per second: wrk sends a ClientHello, which is all that a proxy may read."""
    (work,) = subject.ports
    count = len(domains(subject.name))
    script = space.write(f"hello-{count}.lua", hello_script(client_hello(domain(0)), count))
    command = [find_program("wrk"), "-t1", f"-c{KEPT}", "-s", str(script)]
    command += [f"http://127.0.0.1:{subject.ports[work]}/"]
    return wrk(subject, work, command, options, number)


def client_hello(name: str) -> bytes:
    """The ClientHello that Python's OpenSSL sends for this name, as its record."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        connection.do_handshake()
    return outgoing.read()


def hello_script(hello: bytes, count: int) -> str:
    """A script for wrk that sends ``hello`` with the names of ``count`` domains in turn.

    wrk wants to understand the first request that it asks for, and sends it nowhere. Each answer
    says "Connection: close", so each request is a connection.
    """
    name = domain(0).encode()
    if hello.count(name) != 1:
        raise LoadTestError("the server name does not stand in the ClientHello once")
    before, _, after = hello.partition(name)
    digits, rest = name[1:6], name[6:]
    assert digits.isdigit()
    return (
        f"local before, after = {_lua(before + b'd')}, {_lua(rest + after)}\n"
        f"local asked = 0\n"
        f"request = function()\n"
        f"  asked = asked + 1\n"
        f'  if asked == 1 then return "GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n" end\n'
        f'  return before .. string.format("%05d", (asked * 7919) % {count}) .. after\n'
        f"end\n"
    )


def _lua(data: bytes) -> str:
    """Bytes as a string of Lua."""
    return '"' + "".join(f"\\{byte:03}" for byte in data) + '"'


def check_resumed(port: int, origins: Origins) -> None:
    """Require that a session is resumed whoever of the proxy takes the next connection.

    LoadTestError when one is not: full handshakes must not be timed as resumed ones.
    """
    context = client_context(origins)
    session: ssl.SSLSession | None = None
    for attempt in range(RESUMPTIONS):
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=SERVER_NAME, session=session) as client,
        ):
            if attempt and not client.session_reused:
                raise LoadTestError(f"a session was not resumed on port {port}")
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            while client.recv(4096):  # tickets come before the answer
                pass
            session = client.session
