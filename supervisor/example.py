"""What `proxyctl start` serves without a config: a page and an echo, behind plain routes.

Both come from a small process of their own on Unix sockets in the runtime directory, so that the
traffic takes the same way as any other: client, worker, route, target.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from shared.errors import StartError

if TYPE_CHECKING:
    from shared.config import Config

PAGE: Final = "127.0.0.1:8080"
ECHO: Final = "127.0.0.1:8081"
ADMIN: Final = "127.0.0.1:9901"
PAGE_SOCKET: Final = "example-page.sock"
ECHO_SOCKET: Final = "example-echo.sock"
PORT_TAKEN_HINT: Final = (
    "the built-in example uses 8080, 8081 and 9901; for other ports write a config, see README.md,"
    " and run `proxyctl start --config FILE`"
)
_READY_S: Final = 20.0  # importing takes half a second; a machine under load many times that
_STOP_S: Final = 3.0

Log = Callable[[str, str, dict[str, str]], None]  # level, message, fields


def example_document(runtime_dir: Path) -> dict[str, Any]:
    """The example's config as the plain data that a config file would hold."""

    def route(name: str, listen: str, file: str) -> dict[str, Any]:
        return {
            "name": name,
            "match": {"ports": [int(listen.rpartition(":")[2])]},
            "action": {"type": "forward", "targets": [f"unix:{runtime_dir / file}"]},
        }

    routes = [route("page", PAGE, PAGE_SOCKET), route("echo", ECHO, ECHO_SOCKET)]
    admin = {"listen": ADMIN}
    return {"version": 1, "listen": ["127.0.0.1"], "admin": admin, "routes": routes}


def example_config(runtime_dir: Path) -> Config:
    """The built-in config; its targets are the sockets of an ExampleProcess in ``runtime_dir``."""
    import msgspec

    from shared.config import Config, decode_hook

    return msgspec.convert(example_document(runtime_dir), Config, dec_hook=decode_hook)


class ExampleProcess:
    """The process behind the example's routes. It ends by itself when its supervisor is gone.

    Start it only under the lock of ``runtime_dir``: it takes over socket files of an earlier run.
    ``log`` is told when the process dies; it is not started again.
    """

    def __init__(self, runtime_dir: Path, log: Log) -> None:
        self._runtime_dir = runtime_dir
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._gone = asyncio.Event()
        self._is_stopping = False

    @property
    def pid(self) -> int:
        """Of the process; 0 while there is none."""
        return self._process.pid if self._process else 0

    async def start(self) -> None:
        """Start it and wait until both sockets listen; StartError when they do not."""
        process = subprocess.Popen(  # noqa: ASYNC220 - the fork takes a millisecond
            [sys.executable, "-P", "-m", "supervisor.example_server", str(self._runtime_dir)],
            stdin=subprocess.PIPE,  # held open: its end tells the process to go
            stdout=subprocess.PIPE,
            process_group=0,  # Ctrl-C is for the supervisor alone
        )
        self._process = process
        # A pidfd rather than asyncio's own child watcher, which would install a SIGCHLD handler.
        self._pidfd = os.pidfd_open(process.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_exit)
        assert process.stdout is not None
        try:
            async with asyncio.timeout(_READY_S):
                line = await asyncio.to_thread(process.stdout.readline)
        except TimeoutError:
            line = b""
        if line != b"ready\n":
            await self.stop()
            raise StartError("the built-in example's process did not get ready", "see above")

    async def wait(self) -> None:
        """Return once the process has ended, for whatever reason."""
        await self._gone.wait()

    async def stop(self) -> None:
        """End it, by force if it does not go within a few seconds."""
        process = self._process
        self._is_stopping = True
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(_STOP_S):
                await self._gone.wait()
        except TimeoutError:
            process.kill()
            await self._gone.wait()
        for file in (PAGE_SOCKET, ECHO_SOCKET):
            (self._runtime_dir / file).unlink(missing_ok=True)

    def _on_exit(self) -> None:
        process = self._process
        assert process is not None
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        status = process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        self._process = None
        self._gone.set()
        if not self._is_stopping:
            fields = {"pid": str(process.pid), "status": str(status)}
            self._log("warning", "the built-in example's process has ended", fields)
