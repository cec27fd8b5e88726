"""Ask the supervisor: one request, one reply, over `control.sock` in the runtime directory."""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from shared.errors import Problem
from shared.messages import Reply, Request, decode_reply, encode
from shared.runtime_files import CONTROL_SOCKET

if TYPE_CHECKING:
    import zmq

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
NOT_RUNNING: Final = 3
DEGRADED: Final = 4
TIMED_OUT: Final = 5
INTERRUPTED: Final = 130

# Answers whose coming is acknowledged, and how long that may take to go out.
_ACKNOWLEDGED: Final = ("reload",)
_RECEIPT_MS: Final = 200
_GLANCE_S: Final = 0.25  # how often a wait looks whether the supervisor still lives


def ask(directory: Path, verb: str, arguments: dict[str, Any], timeout_s: float | None) -> Reply:
    """Send one request and wait for its reply, at most ``timeout_s`` (None: as long as it runs).

    Always a Reply: with exit code 3 when no supervisor runs or it ends without an answer, 5 when
    the time is over, 1 when the answer cannot be read or the directory is another user's.
    """
    import zmq

    from supervisor import runtime_dir

    if (refusal := not_ours(directory)) is not None:
        return refusal
    if runtime_dir.running_pid(directory) is None:
        return not_running(directory)
    receipt = secrets.token_hex(8) if verb in _ACKNOWLEDGED else ""
    if receipt:
        arguments = {**arguments, "receipt": receipt}
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    # ZeroMQ's own context, not the shared one: nothing of this call outlives it.
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(f"ipc://{directory / CONTROL_SOCKET}")
        socket.send(encode(Request(verb=verb, arguments=arguments)))
        while not _has_answer(socket, deadline):
            if deadline is not None and time.monotonic() >= deadline:
                return timed_out(f"no answer to `{verb}` within {timeout_s:g} s")
            if runtime_dir.running_pid(directory) is None and not socket.poll(0):
                return _ended(verb)
        raw = socket.recv()
        if receipt:
            socket.setsockopt(zmq.LINGER, _RECEIPT_MS)
            socket.send(encode(Request(verb="received", arguments={"receipt": receipt})))
        return _decode(raw)


def not_ours(directory: Path) -> Reply | None:
    """The reply for another user's runtime directory; None where it may be used."""
    from supervisor import runtime_dir

    owner = runtime_dir.stranger(directory, os.geteuid())
    if owner is None:
        return None
    message = f"the runtime directory {directory} belongs to user {owner}, not to us"
    hint = "run this as that user or as root, or name another with --runtime-dir"
    return Reply(exit_code=FAILED, errors=[Problem(message=message, code="owner", hint=hint)])


def not_running(directory: Path) -> Reply:
    """The reply for a runtime directory without a supervisor."""
    from supervisor import runtime_dir

    orphans = runtime_dir.orphans(directory)
    if orphans:
        pids = ", ".join(map(str, orphans))
        message = f"no supervisor runs, but workers that lost theirs still serve (pid {pids})"
        hint = "`proxyctl stop` drains them"
    else:
        message = f"proxyctl is not running in {directory}"
        hint = (
            "start it with `proxyctl start --config FILE`, or name where it runs with --runtime-dir"
        )
    problem = Problem(message=message, code="not_running", hint=hint)
    return Reply(exit_code=NOT_RUNNING, errors=[problem])


def timed_out(message: str, hint: str = "") -> Reply:
    """The reply for a wait that took too long."""
    return Reply(
        exit_code=TIMED_OUT, errors=[Problem(message=message, code="timed_out", hint=hint)]
    )


def _has_answer(socket: zmq.Socket[bytes], deadline: float | None) -> bool:
    left_s = _GLANCE_S if deadline is None else min(_GLANCE_S, deadline - time.monotonic())
    return bool(socket.poll(max(0, int(left_s * 1000) + 1)))


def _ended(verb: str) -> Reply:
    problem = Problem(message=f"the supervisor ended before it answered `{verb}`", code="ended")
    return Reply(exit_code=NOT_RUNNING, errors=[problem])


def _decode(raw: bytes) -> Reply:
    import msgspec

    try:
        return decode_reply(raw)
    except msgspec.MsgspecError as error:
        problem = Problem(
            message=f"the supervisor's answer cannot be read: {error}",
            code="bad_answer",
            hint="is another version of proxyctl running?",
        )
        return Reply(exit_code=FAILED, errors=[problem])
