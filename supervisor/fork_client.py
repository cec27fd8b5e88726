"""The supervisor's end of the fork server: starts it, asks it for workers, replaces it."""

from __future__ import annotations

import array
import asyncio
import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

import msgspec

from shared.errors import ControlError
from shared.log import Logger
from shared.messages import Spawn, Spawned, decode_spawned, encode

_MODULE: Final = "worker.fork_server"
_ANSWER_S: Final = 10.0  # importing takes a quarter of a second; a loaded machine many times that
_ANSWER_MAX_BYTES: Final = 65536
_HASH_SEEDS: Final = 2**32 - 1  # PYTHONHASHSEED takes 1 to this
_PR_SET_CHILD_SUBREAPER: Final = 36  # linux/prctl.h


def become_subreaper() -> None:
    """From now on orphaned descendants become our children, so that workers do."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class ForkServer:
    """At most one fork server process at a time; started when a worker is asked for."""

    def __init__(self, log: Logger) -> None:
        self._log = log
        # Workers find an address in shared memory by Python's hash of it: every fork server of
        # this run, and so every worker, must have the same key, which nobody else can guess.
        self._hash_seed = str(1 + secrets.randbelow(_HASH_SEEDS))
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._control: socket.socket | None = None
        self._waiting: dict[int, asyncio.Future[Spawned]] = {}

    @property
    def pid(self) -> int:
        """Of the process; 0 while there is none."""
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Start the process if there is none. OSError when that fails."""
        if self._process is not None:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                # -P: the current directory must not be searched for `worker` (design section 7).
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", _MODULE, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    env={**os.environ, "PYTHONHASHSEED": self._hash_seed},
                    process_group=0,  # Ctrl-C is for the supervisor alone
                )
            except OSError:
                ours.close()
                raise
        ours.setblocking(False)
        self._control = ours
        self._pidfd = os.pidfd_open(self._process.pid)
        loop = asyncio.get_running_loop()
        loop.add_reader(ours.fileno(), self._on_answer)
        loop.add_reader(self._pidfd, self._on_exit)
        self._log.debug("fork server started", fork_server=self._process.pid)

    async def spawn(self, request: Spawn, channel: socket.socket, shared: Sequence[int]) -> int:
        """Fork a worker; returns its pid. ControlError when that fails or takes too long.

        ``shared``: the descriptors of counts and limits.
        """
        try:
            self.start()
        except OSError as error:
            raise ControlError(f"cannot start the fork server: {error}") from error
        assert self._control is not None
        answer: asyncio.Future[Spawned] = asyncio.get_running_loop().create_future()
        self._waiting[request.incarnation] = answer
        descriptors = array.array("i", [channel.fileno(), *shared])
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)]
        try:
            # A full queue (BlockingIOError) is a fork server that hangs; so is no answer.
            self._control.sendmsg([encode(request)], rights)
            async with asyncio.timeout(_ANSWER_S):
                spawned = await answer
        except OSError as error:
            self._kill()
            # A TimeoutError, which is an OSError too, says nothing of itself.
            why = error.strerror or f"no answer within {_ANSWER_S:g} s"
            raise ControlError(f"the fork server does not answer: {why}") from error
        finally:
            self._waiting.pop(request.incarnation, None)
        if not spawned.pid:
            raise ControlError(spawned.error)
        return spawned.pid

    def stop(self) -> None:
        """Let it end, by closing its socket, and wait for that no longer than a moment."""
        process = self._process
        self._close()
        if process is not None:
            try:
                process.wait(1.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _kill(self) -> None:
        if self._pidfd >= 0:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _on_answer(self) -> None:
        assert self._control is not None
        try:
            raw = self._control.recv(_ANSWER_MAX_BYTES)
        except BlockingIOError:
            return
        except OSError:
            raw = b""
        if not raw:
            # Its exit follows; until then there is nothing to read.
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            return
        try:
            spawned = decode_spawned(raw)
        except msgspec.MsgspecError as error:
            self._log.error("the fork server's answer cannot be read", error=str(error))
            return
        waiting = self._waiting.get(spawned.incarnation)
        if waiting is not None and not waiting.done():
            waiting.set_result(spawned)

    def _on_exit(self) -> None:
        assert self._process is not None
        status = self._process.wait()
        self._log.warning("fork server ended", fork_server=self._process.pid, status=status)
        self._close()
        for answer in self._waiting.values():
            if not answer.done():
                error = ControlError(f"the fork server ended with status {status}")
                answer.set_exception(error)

    def _close(self) -> None:
        loop = asyncio.get_running_loop()
        if self._control is not None:
            loop.remove_reader(self._control.fileno())
            self._control.close()
            self._control = None
        if self._pidfd >= 0:
            loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        self._process = None
