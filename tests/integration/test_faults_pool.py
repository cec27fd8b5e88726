"""The pool when there is no room left for what it needs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from shared.errors import InternalError
from shared.log import Logging, LogSettings
from supervisor.control_server import ControlServer
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
