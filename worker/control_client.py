"""The worker's end of ZeroMQ: messages to and from the supervisor, and counters to it."""

from __future__ import annotations

import asyncio
from typing import Final

import zmq
import zmq.asyncio

from shared.messages import (
    FromWorker,
    Spawn,
    SupervisorMessage,
    WorkerMessage,
    decode_supervisor_message,
    encode,
)

# A supervisor that reads nothing for so long is dead or stopped; messages beyond are dropped.
_SEND_QUEUE: Final = 1000
_STATS_QUEUE: Final = 8  # (parts of) snapshots; they are cumulative: a lost one is harmless
_FLUSH_MS: Final = 1000  # for the last messages of an orderly end


class ControlClient:
    """DEALER for messages and PUSH for snapshots."""

    def __init__(self, spawn: Spawn, pid: int) -> None:
        self._spawn = spawn
        self._pid = pid
        self._context = zmq.asyncio.Context()
        self._dealer = self._context.socket(zmq.DEALER)
        # The supervisor addresses us by incarnation, a number that is never used twice.
        self._dealer.setsockopt(zmq.IDENTITY, f"{spawn.run}-{spawn.incarnation}".encode())
        self._dealer.setsockopt(zmq.SNDHWM, _SEND_QUEUE)
        self._dealer.setsockopt(zmq.RCVHWM, 0)  # the supervisor bounds what it sends
        self._dealer.setsockopt(zmq.LINGER, _FLUSH_MS)
        self._dealer.connect(spawn.control_addr)
        self._push = self._context.socket(zmq.PUSH)
        self._push.setsockopt(zmq.SNDHWM, _STATS_QUEUE)
        self._push.setsockopt(zmq.LINGER, _FLUSH_MS)
        self._push.connect(spawn.stats_addr)

    async def receive(self) -> SupervisorMessage:
        """The next message; a damaged one is msgspec.MsgspecError."""
        message: SupervisorMessage = decode_supervisor_message(await self._dealer.recv())
        return message

    def say(self, body: WorkerMessage) -> None:
        """Send a message; dropped when the queue is full. Never waits."""
        envelope = FromWorker(
            run=self._spawn.run,
            slot=self._spawn.slot,
            pid=self._pid,
            incarnation=self._spawn.incarnation,
            body=body,
        )
        self._send(self._dealer, encode(envelope))

    async def push(self, raw: bytes) -> bool:
        """Send a snapshot; waits a moment for room. False when it was not taken.

        Whoever runs besides has had its turn by then.
        """
        try:
            async with asyncio.timeout(_FLUSH_MS / 1000):
                await self._push.send(raw)
        except TimeoutError:
            return False  # the supervisor reads nothing: it is dead or stopped
        await asyncio.sleep(0)
        return True

    def close(self, *, flush: bool) -> None:
        """Close both sockets. With ``flush`` what is queued still goes out, for a second at most.

        Without it nothing more is tried: a DEALER would go on to look for a supervisor.
        """
        self._context.destroy(linger=_FLUSH_MS if flush else 0)

    def _send(self, socket: zmq.asyncio.Socket, raw: bytes) -> None:
        sent = asyncio.ensure_future(socket.send(raw, flags=zmq.NOBLOCK))
        # NOBLOCK: pyzmq has tried already, and the future is done. Asking for the exception marks
        # it as seen: a full queue means that the supervisor is dead or stopped.
        sent.exception()
