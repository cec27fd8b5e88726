"""What the service manager is told, read from a real notify socket."""

from __future__ import annotations

import os
import re
import secrets
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.sd_notify import Notifier
from tests.conftest import StartProxyctl
from tests.helpers.notify_socket import NotifySocket
from tests.helpers.ports import free_port
from tests.helpers.processes import Proxyctl, config_of
from tests.helpers.sockets import EchoServer, connect, exchange
from tests.helpers.waiting import wait_until


@pytest.fixture(params=["path", "abstract"])
def notify(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NotifySocket]:
    """A manager on a socket file, and on an abstract name."""
    name = f"@proxyctl-test-{secrets.token_hex(8)}"
    with NotifySocket(name if request.param == "abstract" else str(tmp_path / "notify")) as one:
        yield one


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[NotifySocket]:
    """A manager on a socket file."""
    with NotifySocket(str(tmp_path / "notify")) as one:
        yield one


def monotonic_usec() -> int:
    """The clock that RELOADING is stamped with."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def environment_of(pid: int) -> set[str]:
    """Names of the variables that a process was started with."""
    raw = Path(f"/proc/{pid}/environ").read_bytes()
    return {entry.partition(b"=")[0].decode() for entry in raw.split(b"\0")}


def reload(running: Proxyctl, notify: NotifySocket) -> tuple[int, dict[str, str], dict[str, str]]:
    """Reload: exit code, the message that it begins, and the one that it is over."""
    start, before = len(notify.read()), monotonic_usec()
    code, _ = running.run("reload")
    # Whoever has the answer finds that the manager was told before.
    heard = notify.read()[start:]
    begins = next(place for place, one in enumerate(heard) if one.get("RELOADING") == "1")
    over = next(one for one in heard[begins:] if one.get("READY") == "1")
    assert before <= int(heard[begins]["MONOTONIC_USEC"]) <= monotonic_usec()
    return code, heard[begins], over


def test_a_life_as_the_manager_sees_it(
    proxyctl: StartProxyctl, echo: EchoServer, notify: NotifySocket
) -> None:
    """Start, a good and a refused reload, a worker killed, and the stop, each is told of."""
    config = config_of({"a": (free_port(), echo.address)})
    running = proxyctl(config, environment={"NOTIFY_SOCKET": notify.address})
    ready = notify.wait_for(lambda one: one.get("READY") == "1", "READY")
    assert notify.messages[ready] == {
        "READY": "1",
        "MAINPID": str(running.pid),
        "STATUS": "2/2 workers, generation 1",
    }
    for pid in (*running.ready_pids(), running.fork_server_pid()):
        assert "NOTIFY_SOCKET" not in environment_of(pid)

    code, begins, over = reload(running, notify)
    assert (code, begins["STATUS"]) == (0, "reloading, 2/2 workers, generation 1")
    assert over["STATUS"] == "2/2 workers, generation 2"

    running.write({**config, "routse": []})
    code, _, over = reload(running, notify)
    assert code == 1
    assert re.fullmatch(
        r"2/2 workers, generation 2, reload refused \d\d:\d\d:\d\d, kept generation 2: .*routse.*",
        over["STATUS"],
    )
    running.write(config)
    assert reload(running, notify)[2]["STATUS"] == "2/2 workers, generation 3"

    start = len(notify.read())
    os.kill(running.ready_pids()[0], signal.SIGKILL)
    down = notify.wait_for_status("1/2 workers, generation 3", start)
    up = notify.wait_for_status("2/2 workers, generation 3", down)

    assert running.run("stop")[0] == 0
    assert running.wait() == 0
    stopping = notify.wait_for(lambda one: one.get("STOPPING") == "1", "STOPPING", up)
    assert notify.messages[stopping]["STATUS"].startswith("stopping, ")
    assert int(notify.messages[stopping]["EXTEND_TIMEOUT_USEC"]) > 30_000_000  # the drain
    assert not any("READY" in one for one in notify.read()[stopping:])


def test_hup_is_announced_like_the_command(
    proxyctl: StartProxyctl, echo: EchoServer, manager: NotifySocket
) -> None:
    """RELOADING and READY frame a reload that nobody waits for, also one without a file."""
    port = free_port()
    config = config_of({"a": (port, echo.address)})
    running = proxyctl(config, environment={"NOTIFY_SOCKET": manager.address})
    start = len(manager.read())
    with connect(port) as client:
        assert exchange(client, b"one") == b"one"
        running.config_path.unlink()
        running.signal(signal.SIGHUP)
        begins = manager.wait_for(lambda one: "RELOADING" in one, "RELOADING", start)
        over = manager.wait_for(lambda one: "READY" in one, "READY", begins)
        assert "kept generation 1: " in manager.messages[over]["STATUS"]
        assert exchange(client, b"two") == b"two"


def test_the_watchdog_is_pinged_while_a_worker_answers(
    proxyctl: StartProxyctl, echo: EchoServer, manager: NotifySocket
) -> None:
    """Pings come while one worker beats, stop when all hang, and come again when one wakes."""
    config = config_of({"a": (free_port(), echo.address)}, timeouts={"watchdog": "5m"})
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "100000"}
    running = proxyctl(config, environment=environment)

    def wait_for_ping(start: int) -> int:
        return manager.wait_for(lambda one: one == {"WATCHDOG": "1"}, "a ping", start)

    first, second = running.ready_pids()
    os.kill(first, signal.SIGSTOP)
    try:
        one_hangs = manager.wait_for_status("1/2 workers, generation 1")
        wait_for_ping(wait_for_ping(one_hangs) + 1)
        os.kill(second, signal.SIGSTOP)
        all_hang = manager.wait_for_status("0/2 workers, generation 1", one_hangs)
        assert running.run("status")[0] == 4  # as long as several pings would take
        manager.read()
    finally:
        for pid in (first, second):
            os.kill(pid, signal.SIGCONT)
    back = manager.wait_for(lambda one: "STATUS" in one, "a worker is back", all_hang + 1)
    assert {"WATCHDOG": "1"} not in manager.messages[all_hang:back]
    wait_for_ping(back)


def test_another_process_watchdog_is_not_ours() -> None:
    """WATCHDOG_PID names whom it is meant for, and nothing of it is left to children."""
    environ = {
        "NOTIFY_SOCKET": "/run/notify",
        "WATCHDOG_USEC": "3000000",
        "WATCHDOG_PID": str(os.getpid()),
        "HOME": "/",
    }
    for pid, wanted in ((str(os.getpid()), 3.0), ("1", None), ("", 3.0)):
        given = {**environ, "WATCHDOG_PID": pid}
        notifier = Notifier.from_environment(given)
        assert (notifier.is_on, notifier.watchdog_s) == (True, wanted)
        assert given == {"HOME": "/"}
        notifier.close()
    for text in ("0", "soon", "-1", "²"):
        notifier = Notifier.from_environment({**environ, "WATCHDOG_USEC": text})
        assert notifier.watchdog_s is None
        notifier.close()
    nobody = Notifier.from_environment({"NOTIFY_SOCKET": "vsock:2:1234"})
    assert not nobody.is_on
    nobody.ready("unheard")


def test_a_full_queue_loses_no_order_and_a_dead_manager_harms_nobody(tmp_path: Path) -> None:
    """What finds no room goes out later; without a manager everything goes on."""
    with NotifySocket(str(tmp_path / "notify")) as manager:
        notifier = Notifier(manager.address)
        sent = 0
        # The kernel's queue (net.unix.max_dgram_qlen) is full when a message has to wait.
        while not notifier.is_waiting:
            notifier.status(f"{sent}")
            sent += 1
        notifier.ready("at last")
        manager.read()
        notifier.flush()
        heard = [one["STATUS"] for one in manager.read()]
        assert heard == [*map(str, range(sent)), "at last"]
    notifier.status("nobody reads this")
    (tmp_path / "notify").unlink()
    notifier.stopping("nor this", 1.0)
    assert not notifier.is_waiting
    notifier.close()
    notifier.ping()


def test_a_manager_that_is_not_there_stops_no_start(
    proxyctl: StartProxyctl, echo: EchoServer, tmp_path: Path
) -> None:
    """A NOTIFY_SOCKET that leads nowhere changes nothing."""
    port = free_port()
    config = config_of({"a": (port, echo.address)})
    running = proxyctl(config, environment={"NOTIFY_SOCKET": str(tmp_path / "none")})
    assert running.run("reload")[0] == 0
    with connect(port) as client:
        assert exchange(client, b"one") == b"one"
    assert running.run("stop")[0] == 0
    wait_until(lambda: running.exit_code() == 0, "it has ended")
