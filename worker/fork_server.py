"""The fork server: imports the worker once, then forks one whenever the supervisor asks.

Started as ``python -P -m worker.fork_server FD``, where FD is its end of a SOCK_SEQPACKET pair:
without -P a folder named worker/ in the current directory would be imported in our place. It has
no loop, no thread, no ZeroMQ context and no listener, for a fork copies none of these well; the
supervisor, which has some, must not fork itself. It ends when its socket closes.

A worker is forked twice, so that it becomes the child of the supervisor (which is a child
subreaper) and its exit status comes there. Signals stay blocked here: nothing but the end of the
socket, or SIGKILL, ends this process.
"""

from __future__ import annotations

import array
import gc
import os
import signal
import socket
import sys
import traceback
from typing import Final

from shared.log import die_note
from shared.messages import Spawn, Spawned, decode_fork_request, encode
from worker import runtime

_MESSAGE_MAX_BYTES: Final = 65536
_DESCRIPTORS: Final = 3  # the worker's end of its socket pair, the memfds of counts and limits
_INT_BYTES: Final = array.array("i").itemsize
_CRASHED: Final = 70  # EX_SOFTWARE of sysexits.h


def serve(control: socket.socket) -> None:
    """Fork workers until the supervisor's end of ``control`` closes."""
    while True:
        try:
            data, ancillary, _, _ = control.recvmsg(
                _MESSAGE_MAX_BYTES,
                socket.CMSG_SPACE(_DESCRIPTORS * _INT_BYTES),
                socket.MSG_CMSG_CLOEXEC,
            )
        except ConnectionResetError:
            return  # the supervisor died with something of ours unread
        if not data:
            return
        descriptors = _descriptors(ancillary)
        spawn = decode_fork_request(data)
        try:
            pid = _fork(spawn, control, descriptors)
            answer = Spawned(slot=spawn.slot, incarnation=spawn.incarnation, pid=pid)
        except OSError as error:
            answer = Spawned(
                slot=spawn.slot, incarnation=spawn.incarnation, pid=0, error=str(error)
            )
        finally:
            for fd in descriptors:
                os.close(fd)
        try:
            control.send(encode(answer))
        except (BrokenPipeError, ConnectionResetError):
            return


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % _INT_BYTES])
    return list(found)


def _fork(spawn: Spawn, control: socket.socket, descriptors: list[int]) -> int:
    """Fork a worker that is no child of ours; returns its pid. OSError when that fails."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        between = os.fork()
        if between == 0:
            _fork_again(spawn, control, descriptors, writer)
        os.close(writer)
        writer = -1
        # It has ended before its pid is told, so the worker is the supervisor's child by then.
        os.waitpid(between, 0)
        text = os.read(reader, 32)
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)
    if not text.isdigit():
        raise OSError(f"cannot fork a worker: {text.decode(errors='replace')}")
    return int(text)


def _fork_again(spawn: Spawn, control: socket.socket, descriptors: list[int], writer: int) -> None:
    """In the process between: fork the worker, tell its pid, end. Never returns."""
    try:
        pid = os.fork()
        if pid == 0:
            os.close(writer)
            control.close()
            _become_worker(spawn, descriptors)
        os.write(writer, b"%d" % pid)
    except OSError as error:
        os.write(writer, (error.strerror or "fork").encode()[:30])
    finally:
        os._exit(0)


def _become_worker(spawn: Spawn, descriptors: list[int]) -> None:
    """In the worker: run it and end. Never returns, nor does anything of the fork server run."""
    code = _CRASHED
    try:
        # Ctrl-C at the terminal reaches the supervisor alone. A session of its own would do that
        # too, but make each worker an autogroup (sched(7)): more switches, about 5 % more CPU.
        os.setpgid(0, 0)
        # Not the supervisor's standard output: whoever reads that waits for its end.
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1)
        os.close(null)
        channel_fd, counts_fd, limits_fd = descriptors
        code = runtime.run(spawn, socket.socket(fileno=channel_fd), counts_fd, limits_fd)
    except BaseException:
        # Whatever it is, it must not climb into the fork server's loop.
        die_note(f"worker {spawn.slot} crashed\n{traceback.format_exc()}")
    finally:
        os._exit(code)


def main(arguments: list[str]) -> int:
    """Entry: the number of the socket's descriptor is the only argument."""
    signal.pthread_sigmask(signal.SIG_BLOCK, runtime.SIGNALS)
    control = socket.socket(fileno=int(arguments[1]))
    control.set_inheritable(False)
    gc.collect()
    gc.freeze()  # the collector of a worker shall not touch, and so copy, what all share
    serve(control)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
