"""The secret that workers derive the keys of session tickets from (design section 8).

All workers have the same one, so a session that began in one resumes in any other. It lives in
memory alone and is this supervisor's own: another host, or the next run, has another. A new one
takes the place of the old at once, in all workers; what was sealed under the old one ends in a
full handshake.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Final

from shared.log import Logger
from shared.messages import TicketSecret
from supervisor.control_server import ControlServer
from supervisor.worker_process import WorkerProcess

RENEW_S: Final = 24 * 3600.0
_SECRET_BYTES: Final = 32
_LOOK_S: Final = 1.0  # for a worker whose queue was full


class TicketSecrets:
    """``workers`` is shared, by incarnation. ``renew_s``: how long a secret is used."""

    def __init__(
        self,
        workers: dict[int, WorkerProcess],
        control: ControlServer,
        log: Logger,
        renew_s: float = RENEW_S,
    ) -> None:
        self._workers = workers
        self._control = control
        self._log = log
        self._renew_s = renew_s
        self._loop = asyncio.get_running_loop()
        self._told: set[int] = set()  # incarnations that have the secret of now
        self._renew()

    def greet(self, worker: WorkerProcess) -> None:
        """To be called at a worker's Hello, before it is sent its first generation."""
        self._tell(worker)

    def renew(self) -> None:
        """Use a new secret from now on, and tell every worker."""
        self._renew()
        self._log.info("the secret of session tickets was renewed")
        self._tell_all()

    async def run(self) -> None:
        """Renew it whenever it is time, for ever."""
        while True:
            now = self._loop.time()
            if now >= self._due:
                self.renew()
            else:
                self._tell_all()
            await asyncio.sleep(min(max(0.0, self._due - now), _LOOK_S))

    def _renew(self) -> None:
        self._message = TicketSecret(secret=secrets.token_bytes(_SECRET_BYTES))
        self._due = self._loop.time() + self._renew_s
        self._told.clear()

    def _tell_all(self) -> None:
        self._told &= self._workers.keys()
        for worker in self._workers.values():
            if worker.has_said_hello and worker.incarnation not in self._told:
                self._tell(worker)

    def _tell(self, worker: WorkerProcess) -> None:
        if self._control.send(worker.incarnation, self._message):
            self._told.add(worker.incarnation)
