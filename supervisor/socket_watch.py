"""The runtime directory while we run: what somebody removes from it is put there again.

Without its sockets no command finds us and no new worker can speak to us; without the lock another
supervisor could start in the same place.
"""

from __future__ import annotations

import asyncio
from typing import Final

from shared.errors import StartError
from shared.log import Logger
from supervisor.control_server import ControlServer
from supervisor.runtime_dir import RuntimeDir

_LOOK_S: Final = 1.0


class SocketWatch:
    """Looks, mends, and says so once."""

    def __init__(self, runtime_dir: RuntimeDir, control: ControlServer, log: Logger) -> None:
        self._runtime_dir = runtime_dir
        self._control = control
        self._log = log
        self._has_failed = False

    async def run(self) -> None:
        """Look every second, for ever."""
        while True:
            await asyncio.sleep(_LOOK_S)
            self.look()

    def look(self) -> None:
        """Put back what is missing; an error of the log says what keeps us from it, once."""
        if self._runtime_dir.is_whole():
            self._has_failed = False
            return
        directory = str(self._runtime_dir.path)
        try:
            self._runtime_dir.restore()
            self._control.bind_missing()
        except (OSError, StartError) as error:
            if not self._has_failed:
                self._log.error(
                    "the runtime directory was removed: no command works and no worker can start;"
                    " start anew, or mend what keeps us from making it again",
                    directory=directory,
                    error=str(error),
                )
            self._has_failed = True
        else:
            self._has_failed = False
            self._log.warning(
                "something was removed from the runtime directory, and is there again",
                directory=directory,
            )
