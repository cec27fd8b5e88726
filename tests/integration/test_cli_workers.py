"""`proxyctl workers add` and `remove`: they wait, say how it went, and touch no connection."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from tests.conftest import StartProxyctl
from tests.helpers.ports import free_port
from tests.helpers.processes import Proxyctl, config_of
from tests.helpers.sockets import EchoServer, connect, exchange
from tests.helpers.waiting import wait_until


def resize(running: Proxyctl, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`proxyctl workers` as people run it."""
    command = [sys.executable, "-P", "-m", "supervisor.cli", "workers", *arguments]
    return subprocess.run(
        [*command, "--runtime-dir", str(running.runtime_dir)],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_add_and_remove_within_the_room(proxyctl: StartProxyctl, echo: EchoServer) -> None:
    """Each waits until it is so; out of room or below one nothing changes, with a way to mend."""
    running = proxyctl(config_of({"a": (free_port(), echo.address)}, max_workers=3), workers=1)
    done = resize(running, "add", "2")
    assert (done.returncode, done.stdout) == (0, "workers: 3 wanted, 3 ready\n"), done.stderr
    assert len(running.ready_pids()) == 3
    full = resize(running, "add")
    assert (full.returncode, full.stdout) == (1, "")
    assert "there is room for 3 workers" in full.stderr
    assert "raise max_workers and start anew" in full.stderr
    few = resize(running, "remove", "3")
    assert few.returncode == 1
    assert "at least one worker stays" in few.stderr
    assert len(running.ready_pids()) == 3
    code, document = running.run("workers", "remove", "2")
    assert code == 0
    assert (document["data"]["wanted"], document["data"]["ready"]) == (1, 1)
    running.wait_for_workers(lambda found: len(found) == 1, "the others have ended")
    assert running.status()["restarts"] == []


def test_a_removed_worker_drains_and_is_shown_so(proxyctl: StartProxyctl, echo: EchoServer) -> None:
    """`remove` returns while connections go on; `workers` and `status` show who has them."""
    port = free_port()
    running = proxyctl(config_of({"a": (port, echo.address)}, max_workers=2), workers=2)
    with ExitStack() as stack:
        clients = []

        def has_every_worker_some() -> bool:
            clients.append(stack.enter_context(connect(port)))
            assert exchange(clients[-1], b"before") == b"before"
            return all(worker["connections"] for worker in running.workers())

        wait_until(has_every_worker_some, "each worker has a connection")
        leaving = running.workers()[1]
        done = resize(running, "remove")
        assert done.returncode == 0, done.stderr
        assert done.stdout == "workers: 1 wanted, 1 ready, 1 draining\n"
        assert re.search(rf"^ *1 +{leaving['pid']} +draining ", resize(running).stdout, re.M)
        (drains,) = running.status()["draining_workers"]
        assert (drains["slot"], drains["pid"]) == (1, leaving["pid"])
        assert drains["connections"] > 0
        for client in clients:
            assert exchange(client, b"after") == b"after"
        accepted = sum(worker["accepted"] for worker in running.workers())
        assert accepted == len(clients)
    running.wait_for_workers(lambda found: len(found) == 1, "it has ended")


def test_a_worker_that_does_not_come_is_waited_for_no_longer_than_asked(
    proxyctl: StartProxyctl, echo: EchoServer
) -> None:
    """Exit code 5 while it is under way; a reload that is asked for meanwhile comes after it."""
    config = config_of({"a": (free_port(), echo.address)}, max_workers=2)
    running = proxyctl(config, workers=1)
    fork_server = running.fork_server_pid()
    os.kill(fork_server, signal.SIGSTOP)
    try:
        late = resize(running, "add", "--timeout", "300ms")
        assert (late.returncode, late.stdout) == (5, "")
        assert "not there within 0.3 s" in late.stderr
    finally:
        os.kill(fork_server, signal.SIGCONT)
    wait_until(lambda: len(running.ready_pids()) == 2, "it has come after all")


def test_a_reload_waits_for_the_resize_before_it(proxyctl: StartProxyctl, echo: EchoServer) -> None:
    """TTIN, then HUP while the new worker cannot start yet: the log has them in this order."""
    config = config_of({"a": (free_port(), echo.address)}, max_workers=2)
    running = proxyctl(config, workers=1)
    fork_server = running.fork_server_pid()
    os.kill(fork_server, signal.SIGSTOP)
    try:
        running.signal(signal.SIGTTIN)
        wait_until(lambda: "number of workers changed" in running.log(), "the resize has begun")
        running.signal(signal.SIGHUP)
        assert running.status()["generation"] == 1
    finally:
        os.kill(fork_server, signal.SIGCONT)
    wait_until(lambda: running.status()["generation"] == 2, "the reload's turn")
    wait_until(lambda: "reload ok" in running.log(), "it is logged")
    log = running.log()
    assert log.rindex("worker ready") < log.index("reload ok")
    assert len(running.ready_pids()) == 2


def test_a_slot_that_fails_is_exit_code_4(
    proxyctl: StartProxyctl, echo: EchoServer, tmp_path: Path
) -> None:
    """When the new worker cannot start the answer says why; the others serve on."""
    broken, flag = tmp_path / "broken", tmp_path / "flag"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text(
        "import os, sys\n"
        f"if 'worker.fork_server' in sys.orig_argv and os.path.exists({str(flag)!r}):\n"
        "    os._exit(9)\n"
    )
    config = config_of({"a": (free_port(), echo.address)}, max_workers=2)
    running = proxyctl(config, workers=1, environment={"PYTHONPATH": str(broken)})
    flag.touch()
    os.kill(running.fork_server_pid(), signal.SIGKILL)
    done = resize(running, "add", "--timeout", "60s")
    assert done.returncode == 4, done.stderr
    assert "1 worker cannot start" in done.stderr
    assert "status 9" in done.stderr
    assert done.stdout == "workers: 2 wanted, 1 ready, 1 failed\n"
