"""What `reload` answers and `status` shows afterwards, with connections that live through it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.conftest import StartProxyctl
from tests.helpers.named_echo import LongConnection, named_route, serve
from tests.helpers.ports import free_port, free_ports
from tests.helpers.processes import Config, Proxyctl, config_of
from tests.helpers.sockets import EchoServer, connect, exchange
from tests.helpers.targets import Target
from tests.helpers.waiting import wait_until


@pytest.fixture
def target() -> Iterator[Target]:
    """Tells each connection which worker has it."""
    with closing(Target(serve)) as one:
        yield one


def text_of(running: Proxyctl, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command as people run it."""
    command = [sys.executable, "-P", "-m", "supervisor.cli", *arguments]
    return subprocess.run(
        [*command, "--runtime-dir", str(running.runtime_dir)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_reload_counts_the_connections_it_met(proxyctl: StartProxyctl, echo: EchoServer) -> None:
    """One line: what changed, how many connections go on, how many are to end."""
    stays, goes, comes = free_ports(3)
    timeouts = {"drain": "5m"}
    routes = {"stays": (stays, echo.address), "goes": (goes, echo.address)}
    running = proxyctl(config_of(routes, timeouts=timeouts))
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(port)) for port in (stays, stays, stays, goes)]
        for client in clients:
            assert exchange(client, b"before") == b"before"
        routes = {"stays": (stays, echo.address), "comes": (comes, echo.address)}
        running.write(config_of(routes, timeouts=timeouts))
        done = text_of(running, "reload")
        assert done.returncode == 0, done.stderr
        assert re.fullmatch(
            r"reload ok in \d+\.\d s, generation 2: \+1 route, -1;"
            r" 3 connections kept, 1 draining\n",
            done.stdout,
        )
        for client in clients:
            assert exchange(client, b"after") == b"after"
        draining = [{"route": "goes", "connections": 1}]
        wait_until(lambda: running.status()["draining"] == draining, "the counters say so")
        shown = text_of(running, "status").stdout
        assert re.search(r"^DRAINING ROUTE +CONNECTIONS\ngoes +1$", shown, re.MULTILINE)
        assert "(the last reload was ok, " in shown
        code, document = running.run("reload")
        assert code == 0
        # Both the one that still drains and the others are as they were.
        assert document["data"]["connections"]["kept"] == 3
        assert document["data"]["summary"] == "no route changed"
    wait_until(lambda: running.status()["draining"] == [], "nothing drains any more")


def test_a_reload_names_the_settings_that_changed(
    proxyctl: StartProxyctl, echo: EchoServer, tmp_path: Path
) -> None:
    """Where no route did: keys of the config, and rules whose file is another one now."""
    blocked = tmp_path / "blocked.txt"
    blocked.write_text("192.0.2.1\n")
    routes = {"a": (free_port(), echo.address)}
    security = {"block": [f"file:{blocked}"]}
    running = proxyctl(config_of(routes, security=security))

    def summary() -> str:
        code, document = running.run("reload")
        assert code == 0
        return str(document["data"]["summary"])

    assert summary() == "no route changed"
    blocked.write_text("192.0.2.1\n192.0.2.2\n")
    assert summary() == "no route changed, but security"
    running.write(config_of(routes, security=security, log={"level": "debug"}))
    assert summary() == "no route changed, but log"
    running.write(config_of({"a": (routes["a"][0], echo.address)}))
    assert summary() == "no route changed, but log, security"


def test_a_reload_says_that_only_the_order_changed(proxyctl: StartProxyctl, target: Target) -> None:
    """Of two routes for the same clients the first wins: swapped, the other one has them."""
    (port,) = free_ports(1)
    first, second = (named_route(name, [port], target) for name in ("first", "second"))
    config: Config = {"listen": ["127.0.0.1"], "admin": None}
    running = proxyctl({**config, "routes": [first, second]})
    for routes, settings in (([second, first], ""), ([first, second], ", log")):
        level = {"log": {"level": "debug"}} if settings else {}
        running.write({**config, **level, "routes": routes})
        code, document = running.run("reload")
        assert (code, document["data"]["routes"]["reordered"]) == (0, True)
        wanted = f"no route changed, but their order{settings}"
        assert document["data"]["summary"] == wanted
        assert wanted in text_of(running, "status").stdout
        with closing(LongConnection(port)):
            wait_for_busy(running, [routes[0]["name"]])
        wait_for_busy(running, [])
    _, document = running.run("reload")
    assert document["data"]["routes"]["reordered"] is False
    assert document["data"]["summary"] == "no route changed"


def wait_for_busy(running: Proxyctl, names: list[str]) -> None:
    """Wait until these routes have connections, and no other."""

    def look() -> bool:
        routes = running.status()["totals"]["routes"]
        return [name for name, counts in routes.items() if counts["active"]] == names

    wait_until(look, f"connections are of {names}")


def test_a_refused_reload_shows_all_errors_and_what_is_kept(
    proxyctl: StartProxyctl, echo: EchoServer
) -> None:
    """Every error with its place, then the generation that goes on, and exit code 1."""
    config = config_of({"a": (free_port(), echo.address)})
    running = proxyctl(config)
    running.write({**config, "routse": [], "listen": ["not an address"]})
    done = text_of(running, "reload")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count(": error: ") == 2
    assert done.stderr.endswith("kept generation 1\n")
    last = running.status()["last_reload"]
    assert (last["result"], last["generation"], len(last["errors"])) == ("refused", 1, 2)


def test_an_access_log_that_cannot_be_written_refuses_start_and_reload(
    proxyctl: StartProxyctl, echo: EchoServer, tmp_path: Path
) -> None:
    """The file is named before any worker changes; a start with it ends at once."""
    routes = {"a": (free_port(), echo.address)}
    running = proxyctl(config_of(routes))
    nowhere = tmp_path / "missing" / "access.log"
    bad = config_of(routes, log={"access": {"file": str(nowhere)}})
    running.write(bad)
    code, document = running.run("reload")
    assert code == 1
    assert str(nowhere) in document["errors"][0]["message"]
    assert document["data"]["generation"] == 1
    assert all(worker["generation"] == 1 for worker in running.workers())
    other = config_of({"b": (free_port(), echo.address)}, log=bad["log"])
    failed = proxyctl(other, runtime_dir=tmp_path / "other", is_ready_expected=False)
    assert failed.wait() == 1
    assert str(nowhere) in failed.log()


def test_status_tells_of_the_kernel_and_of_what_was_lost(
    proxyctl: StartProxyctl, echo: EchoServer
) -> None:
    """Numbers that an operator may want to watch stand there from the start, at 0."""
    running = proxyctl(config_of({"a": (free_port(), echo.address)}))
    status = running.status()
    known = Path("/proc/sys/net/ipv4/tcp_migrate_req")
    wanted = known.read_text().strip() == "1" if known.exists() else None
    assert status["kernel"] == {"tcp_migrate_req": wanted}
    totals = status["totals"]
    assert totals["killed"] == {"workers": 0, "accepted": 0, "dialled": 0, "ended": 0}
    for name in ("access_lines", "access_lines_dropped", "log_lines_dropped", "limit_table_full"):
        assert totals[name] == 0
    assert status["draining_workers"] == []
