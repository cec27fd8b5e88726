"""The supervisor's ZeroMQ sockets: workers (ROUTER), their counters (PULL), the CLI (ROUTER).

Nothing here waits for a peer. What cannot be sent at once is dropped, and told to the caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec
import zmq
import zmq.asyncio

from shared.errors import Problem, StartError
from shared.log import Logger
from shared.messages import (
    FromWorker,
    Reply,
    Request,
    SupervisorMessage,
    decode_from_worker,
    decode_request,
    encode,
)
from supervisor.runtime_dir import RuntimeDir

# A generation of 10,000 routes is 40 messages; a worker that lets so many wait is dead.
_WORKER_QUEUE: Final = 10_000
_REQUEST_MAX_BYTES: Final = 1 << 20
_REQUESTS_AT_ONCE: Final = 64
_FLUSH_MS: Final = 500

OnRequest = Callable[[Request], Awaitable[Reply]]


class ControlServer:
    """All three sockets. The handlers are called from the loop and must not block."""

    def __init__(
        self,
        runtime_dir: RuntimeDir,
        log: Logger,
        *,
        on_message: Callable[[FromWorker], None],
        on_snapshot: Callable[[bytes], None],
        on_request: OnRequest,
    ) -> None:
        self.workers_addr = f"ipc://{runtime_dir.workers_path}"
        self.stats_addr = f"ipc://{runtime_dir.stats_path}"
        self._runtime_dir = runtime_dir
        self._run = runtime_dir.run
        self._log = log
        self._on_message = on_message
        self._on_snapshot = on_snapshot
        self._on_request = on_request
        self._tasks: list[asyncio.Task[None]] = []
        self._requests: set[asyncio.Task[None]] = set()
        self._context = zmq.asyncio.Context()
        self._workers = self._context.socket(zmq.ROUTER)
        self._workers.setsockopt(zmq.ROUTER_MANDATORY, 1)  # else a dead peer swallows messages
        self._workers.setsockopt(zmq.SNDHWM, _WORKER_QUEUE)
        self._workers.setsockopt(zmq.RCVHWM, 0)
        self._stats = self._context.socket(zmq.PULL)
        self._control = self._context.socket(zmq.ROUTER)
        self._control.setsockopt(zmq.MAXMSGSIZE, _REQUEST_MAX_BYTES)
        self._places = {
            runtime_dir.workers_path: self._workers,
            runtime_dir.stats_path: self._stats,
            runtime_dir.control_path: self._control,
        }

    def start(self) -> None:
        """Bind and serve; StartError when a socket cannot be bound."""
        self._bind(self._places)
        create = asyncio.get_running_loop().create_task
        self._tasks = [
            create(self._forever(self._workers, self._take_message)),
            create(self._forever(self._stats, self._take_snapshot)),
            create(self._forever(self._control, self._take_request)),
        ]

    def bind_missing(self) -> None:
        """Bind again where the file of a socket was removed; StartError when that cannot be.

        ZeroMQ goes on with whom it has, and listens once more.
        """
        missing = self._runtime_dir.missing()
        self._bind({path: socket for path, socket in self._places.items() if path in missing})

    def _bind(self, places: Mapping[Path, zmq.asyncio.Socket]) -> None:
        for path, socket in places.items():
            try:
                socket.bind(f"ipc://{path}")
            except zmq.ZMQError as error:
                raise StartError(f"cannot bind ipc://{path}: {error.strerror}") from error

    def send(self, incarnation: int, message: SupervisorMessage) -> bool:
        """Queue a message for a worker; False when it is not there or takes nothing."""
        return self.send_raw(incarnation, encode(message))

    def send_raw(self, incarnation: int, raw: bytes) -> bool:
        """As `send`, for what goes to several workers and was encoded once."""
        identity = f"{self._run}-{incarnation}".encode()
        return self._send(self._workers, [identity, raw])

    def read_queued_snapshots(self) -> None:
        """Take every snapshot that has come in, before a dead worker's are folded."""
        while True:
            received = asyncio.ensure_future(self._stats.recv_multipart(flags=zmq.NOBLOCK))
            if received.exception() is not None:  # NOBLOCK: it is done already
                return
            self._take_snapshot(received.result())

    async def close(self) -> None:
        """Answer what is under way, within a second, and close."""
        if self._requests:
            await asyncio.wait(self._requests, timeout=1.0)
        for task in (*self._tasks, *self._requests):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._requests, return_exceptions=True)
        self._control.close(linger=_FLUSH_MS)
        for socket in (self._workers, self._stats):
            socket.close(linger=0)
        # In a thread, since it waits for the last replies to go out.
        await asyncio.to_thread(self._context.term)

    async def _forever(
        self, socket: zmq.asyncio.Socket, take: Callable[[list[bytes]], None]
    ) -> None:
        while True:
            frames = await socket.recv_multipart()
            try:
                take(frames)
            except msgspec.MsgspecError as error:
                self._log.warning("a message cannot be read", error=str(error))
            except Exception:
                # One message must not end the loop that all others come by.
                self._log.exception("a message could not be handled")

    def _take_message(self, frames: list[bytes]) -> None:
        message = decode_from_worker(frames[-1])
        if message.run == self._run:
            self._on_message(message)

    def _take_snapshot(self, frames: list[bytes]) -> None:
        self._on_snapshot(frames[-1])

    def _take_request(self, frames: list[bytes]) -> None:
        *envelope, raw = frames
        if len(self._requests) >= _REQUESTS_AT_ONCE:
            self._answer(envelope, _failure("the supervisor is busy", "busy"))
            return
        try:
            request = decode_request(raw)
        except msgspec.MsgspecError as error:
            self._answer(envelope, _failure(f"the request cannot be read: {error}", "request"))
            return
        task = asyncio.get_running_loop().create_task(self._serve(envelope, request))
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    async def _serve(self, envelope: list[bytes], request: Request) -> None:
        try:
            reply = await self._on_request(request)
        except Exception as error:
            self._log.exception("a request failed", verb=request.verb)
            reply = _failure(f"{type(error).__name__}: {error}", "internal")
        self._answer(envelope, reply)

    def _answer(self, envelope: list[bytes], reply: Reply) -> None:
        if not self._send(self._control, [*envelope, encode(reply)]):
            self._log.debug("a command's caller is gone")

    def _send(self, socket: zmq.asyncio.Socket, frames: list[bytes]) -> bool:
        sent = asyncio.ensure_future(socket.send_multipart(frames, flags=zmq.NOBLOCK))
        return sent.exception() is None  # NOBLOCK: it is done already


def _failure(message: str, code: str) -> Reply:
    return Reply(exit_code=1, errors=[Problem(message=message, code=code)])
