"""The pool when there is no room left for what it needs."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from shared.errors import ControlError, InternalError
from shared.log import Logging, LogSettings
from shared.messages import Spawn
from supervisor import fork_client
from supervisor.control_server import ControlServer
from supervisor.fork_client import ForkServer
from supervisor.ledger import Ledger
from supervisor.listeners import Listeners
from supervisor.runtime_dir import RuntimeDir
from supervisor.worker_pool import WorkerPool
from tests.helpers.waiting import wait_until


def take_all(pool: WorkerPool) -> None:
    """Every row that is left; InternalError when none is."""
    while True:
        pool.counts.take(0)


def test_without_a_row_to_count_in_a_start_fails_and_is_tried_again(tmp_path: Path) -> None:
    """All rows of shared memory in use: a failed start with its reason, not a slot that is dead."""

    async def scenario() -> None:
        runtime_dir = RuntimeDir(tmp_path / "run")
        runtime_dir.open()
        settings = LogSettings(file=str(tmp_path / "log"), format="json")
        log = Logging(settings).logger

        async def answer(_: Any) -> Any:
            raise AssertionError("nobody asks")

        control = ControlServer(
            runtime_dir,
            log,
            on_message=lambda _: None,
            on_snapshot=lambda _: None,
            on_request=answer,
        )
        control.start()
        pool = WorkerPool(
            run=runtime_dir.run,
            runtime_dir=str(runtime_dir.path),
            slots=1,
            wanted=1,
            control=control,
            listeners=Listeners(),
            ledger=Ledger(runtime_dir.run),
            log_settings=settings,
            log=log,
        )
        row = pool.counts.take(0)
        with pytest.raises(InternalError, match="in use"):
            take_all(pool)
        duty = asyncio.create_task(pool.run())
        try:
            assert await pool.wait(lambda: "rows of the counts table" in pool.failure(), 10.0)
            pool.counts.fold(row)
            assert await asyncio.to_thread(
                wait_until,
                lambda: any(worker.pid for worker in list(pool.workers.values())),
                "a worker is there",
            )
        finally:
            pool.is_stopping = True
            for worker in pool.workers.values():
                worker.kill("the test ends")
            await pool.wait(pool.is_empty, 10.0)
            duty.cancel()
            await pool.close()
            await control.close()
            runtime_dir.close()
        assert pool.is_empty()
        assert "cannot start a worker" in (tmp_path / "log").read_text()

    asyncio.run(scenario())


def test_a_fork_server_that_hangs_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason of the failed start says how long there was no answer."""
    monkeypatch.setattr(fork_client, "_ANSWER_S", 0.3)
    spawn = Spawn(
        run="r",
        slot=0,
        incarnation=1,
        control_addr="",
        stats_addr="",
        runtime_dir="",
        counts_row=0,
        log_level="info",
        log_format="json",
        log_file="",
    )

    async def scenario() -> None:
        server = ForkServer(Logging(LogSettings(level="error")).logger)
        server.start()
        os.kill(server.pid, signal.SIGSTOP)
        ours, theirs = socket.socketpair()
        with ours, theirs, pytest.raises(ControlError) as caught:
            await server.spawn(spawn, theirs, ())
        assert str(caught.value) == "the fork server does not answer: no answer within 0.3 s"
        server.stop()

    asyncio.run(scenario())
