"""HTTP in the comparison: the same work for all, and figures that mean what they say."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests import http_measure, http_peers
from loadtests.compare import main
from loadtests.figures import Sample
from loadtests.http_peers import ALL_ROUTES, LOGGED, ROUTES, HttpOrigin
from loadtests.measure import Options, wrk
from loadtests.peers import Subject
from loadtests.processes import LoadTestError, Workspace
from loadtests.tool_output import ToolError, parse_wrk_p99
from loadtests.works import EVERYTHING, FEW, HTTP, MANY, WORKS
from tests.helpers.targets import Target

ORIGIN = HttpOrigin(both=Path("/nowhere/both.pem"), authority=Path("/nowhere/ca"), port=91)
FIELDS = ("For", "Proto", "Host")
HTTP_WORKS = [work.name for work in WORKS if work.group == HTTP]


@pytest.fixture
def space() -> Iterator[Workspace]:
    """A workspace that leaves the handler of SIGTERM as it was."""
    before = signal.getsignal(signal.SIGTERM)
    with Workspace("proxyctl-test-") as found:
        yield found
    signal.signal(signal.SIGTERM, before)


def texts(work: str) -> list[str]:
    """The configs of all proxies that do a work."""
    place = Path("/nowhere")
    if work in (ROUTES, ALL_ROUTES):
        return [http_peers.proxyctl_config(place, name, work, 81, ORIGIN) for name in (MANY, FEW)]
    return [
        http_peers.haproxy_config(work, 81, ORIGIN),
        http_peers.nginx_config(place, "nginx", work, 81, ORIGIN),
        http_peers.proxyctl_config(place, EVERYTHING, work, 81, ORIGIN),
    ]


@pytest.mark.parametrize("work", HTTP_WORKS)
def test_the_same_work(work: str) -> None:
    """Target, port and certificate are the same; a log is kept in the one work that has it."""
    for text in texts(work):
        assert "127.0.0.1:91" in text
        assert "81" in text
        assert (str(ORIGIN.both) in text) == work.startswith("https_")
        has_log = '"access"' in text or "httplog" in text or "combined" in text
        assert has_log == (work == LOGGED)


@pytest.mark.parametrize("work", ["http_kept", "https_kept"])
def test_peers_write_what_we_write(work: str) -> None:
    """Every field of forwarding, and kept connections to the target, as proxyctl has them."""
    for text in texts(work)[:2]:
        for name in (*(f"X-Forwarded-{one}" for one in FIELDS), "X-Real-IP", "X-Request-ID"):
            assert f" {name} " in text
        assert " Forwarded " in text
        assert "keepalive 256;" in text or "pool-max-conn 512" in text


def test_routes() -> None:
    """10,000 and 10, each with a path of its own and the same target."""
    many, few = (json.loads(text)["routes"] for text in texts(ROUTES))
    assert (len(many), len(few)) == (10_000, 10)
    assert many[9999]["match"]["paths"] == ["/r09999/*"]
    assert many[0]["action"] == few[9]["action"]


@pytest.mark.program("wrk")
@pytest.mark.parametrize(("work", "name"), [(ROUTES, MANY), (ROUTES, FEW), (ALL_ROUTES, MANY)])
def test_wrk_asks_the_routes(space: Workspace, work: str, name: str) -> None:
    """wrk runs the script, and what it asks for are paths of routes that there are."""
    asked: set[str] = set()
    lock = threading.Lock()

    def serve(sock: socket.socket) -> None:
        received = b""
        while part := sock.recv(65536):
            received += part
            while b"\r\n\r\n" in received:
                head, _, received = received.partition(b"\r\n\r\n")
                with lock:
                    asked.add(head.split()[1].decode())
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    target = Target(serve)
    try:
        subject = Subject(name=name, ports={work: target.port})
        command = http_measure.command(space, subject, work)
        sample = wrk(subject, work, command, Options(seconds=1), 1)
    finally:
        target.close()
    assert (sample.errors, sample.note) == (0, "")
    routes = {int(path[2:7]) for path in asked}
    if work == ALL_ROUTES:
        assert len(routes) > 10
    else:
        assert routes == set(range(0, http_peers.ROUTE_COUNTS[name], 1000 if name == MANY else 1))


@pytest.mark.program("wrk", "nginx")
def test_origin_and_peers_run(space: Workspace) -> None:
    """nginx accepts both of its configs; through it come the files, and idle connections hold."""
    origin = http_peers.start_origin(space)
    port = space.port()
    options = Options(seconds=1, idle=20)
    with http_peers.running_http(space, "nginx", "https_64k", port, origin) as subject:
        command = http_measure.command(space, subject, "https_64k")
        size = http_measure.size_of("https_64k")
        sample = wrk(subject, "https_64k", command, options, 1, size)
        assert (sample.errors, sample.value > 0) == (0, True), sample
        kept = http_measure.KeptConnections(
            ssl.create_default_context(cafile=str(origin.authority))
        )
        kept.open(port, 5)
        kept.turn(0)
        assert (kept.established, kept.ended) == (5, 0)
    kept.turn(1.0)
    assert kept.ended == 5
    kept.drop()
    assert kept.established == 0


def test_knee() -> None:
    """It is the slowest proxy's rate in the same round; without one there is no load to give."""
    rates = {"haproxy": 300.0, "nginx": 200.0, EVERYTHING: 100.0}
    samples = [
        Sample(work="http_kept", proxy=name, round=number, value=value * number)
        for name, value in rates.items()
        for number in (1, 2)
    ]
    assert http_measure.knee(samples, 2) == 200.0
    with pytest.raises(LoadTestError, match="http_p99 needs http_kept"):
        http_measure.knee(samples, 3)


def test_pace() -> None:
    """256 connections that wait 128 ms between requests make 2000 a second."""
    assert "math.random(0, 256)" in http_measure.pace_script(2000.0)


@pytest.mark.parametrize(
    ("line", "ms"),
    [("     99%    1.25ms", 1.25), ("     99%  820.00us", 0.82), ("  99%  2.00s", 2e3)],
)
def test_percentile(line: str, ms: float) -> None:
    """In whatever unit wrk prints it."""
    text = (
        f"  Latency Distribution\n     50%  500.00us\n     90%    1.00ms\n{line}\n  10 requests\n"
    )
    assert parse_wrk_p99(text) == pytest.approx(ms)


def test_no_percentile() -> None:
    """A run without --latency is not taken for one."""
    with pytest.raises(ToolError, match="no percentiles"):
        parse_wrk_p99("Requests/sec: 10\n")


def test_percentile_without_rates(capsys: pytest.CaptureFixture[str]) -> None:
    """The work that goes by the rates of another is not taken alone."""
    with pytest.raises(SystemExit):
        main(["--work", "http_p99"])
    assert "http_p99 needs http_kept" in capsys.readouterr().err
