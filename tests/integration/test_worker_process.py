"""One worker as the supervisor sees it, around the moment in which its pid becomes known."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys

from supervisor.worker_process import Exit, WorkerProcess
from tests.conftest import StartProxyctl
from tests.helpers.named_echo import are_ready
from tests.helpers.ports import free_port
from tests.helpers.processes import config_of
from tests.helpers.waiting import wait_until


def test_who_was_to_end_before_its_pid_was_known_ends() -> None:
    """The order to kill is carried out once there is somebody to kill."""

    async def scenario(pid: int) -> Exit:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        with theirs:
            worker = WorkerProcess(0, 1, 0, ours, 0.0)
            try:
                worker.kill("no longer wanted")
                worker.watch(pid, lambda _, end: ended.set_result(end))
                async with asyncio.timeout(10.0):
                    return await ended
            finally:
                worker.close()

    sleeper = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    try:
        assert asyncio.run(scenario(sleeper.pid)) == Exit(0, signal.SIGKILL)
    finally:
        sleeper.kill()
        sleeper.wait()


def test_workers_that_come_and_go_at_once_leave_as_many_as_wanted(proxyctl: StartProxyctl) -> None:
    """One that is told to leave while it starts never counts as ready beside the others."""
    routes = {"a": (free_port(), "127.0.0.1:9")}
    running = proxyctl(config_of(routes, max_workers=4, workers=2), workers=None)
    for workers in (4, 2) * 4:
        running.write(config_of(routes, max_workers=4, workers=workers))
        assert running.ask("reload").exit_code == 0  # does not wait for the workers
    running.wait_for_workers(are_ready(2), "two are ready, and no other is there")
    workers = running.status()["workers"]
    assert (workers["wanted"], workers["ready"]) == (2, 2)
    assert '"worker":0' not in running.log()


def test_a_killed_fork_server_is_there_again_before_it_is_needed(proxyctl: StartProxyctl) -> None:
    """The next worker does not wait for its start."""
    running = proxyctl(config_of({"a": (free_port(), "127.0.0.1:9")}), workers=1)
    killed = running.fork_server_pid()
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: running.fork_server_pid() not in {0, killed}, "another has taken its place")
    running.wait_for_workers(are_ready(1), "the worker has stayed")
