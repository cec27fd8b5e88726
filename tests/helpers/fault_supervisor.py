"""The real supervisor, with a fault at one chosen step of a generation.

Started as ``python -m tests.helpers.fault_supervisor PLAN start ...`` in place of proxyctl. PLAN is
a file with a `Fault` as JSON, read anew at each step; the fault happens once, and the file is
removed when it has. Workers, sockets, messages and signals are all real; what this program adds
is the moment.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from shared.messages import (
    Commit,
    Committed,
    FromWorker,
    Heartbeat,
    Prepare,
    Prepared,
    PrepareRoutes,
    Refused,
    SupervisorMessage,
    decode_supervisor_message,
    encode,
)
from shared.plan import Endpoints, RoutePlan
from supervisor.cli.main import main
from supervisor.control_server import ControlServer
from supervisor.inbox import Inbox
from supervisor.worker_process import WorkerProcess

Step = Literal["before_prepare", "after_prepared", "between_commits", "before_committed"]
What = Literal["kill", "stop", "refuse"]

NO_SUCH_LISTENER: Final = 999_999
UNBUILDABLE: Final = RoutePlan(name="unbuildable", order=0, listeners=(NO_SUCH_LISTENER,))


class Fault(Struct, frozen=True, kw_only=True):
    """What happens to ``victim`` (an incarnation), and when."""

    step: Step
    what: What
    victim: int


class FaultMaker:
    """Stands between the supervisor and its control server."""

    def __init__(self, plan: Path) -> None:
        self._plan = plan
        self._pids: dict[int, int] = {}
        self._send_raw = ControlServer.send_raw
        self._take = Inbox.take
        self._held_back: list[FromWorker] = []
        self._waits_for_refusal = False
        self._muted = 0  # incarnation whose heartbeats, which tell its generation, do not come

    def install(self) -> None:
        """Be asked at every message."""
        maker, watch = self, WorkerProcess.watch

        def note_pid(worker: WorkerProcess, pid: int, on_exit: Any) -> None:
            maker._pids[worker.incarnation] = pid
            watch(worker, pid, on_exit)

        def send(control: ControlServer, incarnation: int, message: SupervisorMessage) -> bool:
            return maker.outgoing(control, incarnation, encode(message))

        def send_raw(control: ControlServer, incarnation: int, raw: bytes) -> bool:
            return maker.outgoing(control, incarnation, raw)

        def take(inbox: Inbox, message: FromWorker) -> None:
            maker.incoming(inbox, message)

        setattr(WorkerProcess, "watch", note_pid)  # noqa: B010 # mypy forbids the plain form
        setattr(ControlServer, "send", send)  # noqa: B010
        setattr(ControlServer, "send_raw", send_raw)  # noqa: B010
        setattr(Inbox, "take", take)  # noqa: B010

    def outgoing(self, control: ControlServer, incarnation: int, raw: bytes) -> bool:
        """A message to a worker."""
        fault = self._fault(incarnation)
        message = decode_supervisor_message(raw) if fault else None
        if fault and isinstance(message, Prepare) and fault.step == "before_prepare":
            self._happens()
            if fault.what == "refuse":
                self._send_raw(control, incarnation, raw)
                return self._make_refuse(control, incarnation, message.generation)
            self._signal(fault)
        elif fault and isinstance(message, Commit) and fault.step == "between_commits":
            self._happens()
            if fault.what == "refuse":
                self._make_refuse(control, incarnation, message.generation)
            self._signal(fault)
        return self._send_raw(control, incarnation, raw)

    def incoming(self, inbox: Inbox, message: FromWorker) -> None:
        """A message from a worker."""
        if isinstance(message.body, Prepared) and self._holds_back(message.incarnation):
            self._held_back.append(message)
            return
        fault = self._fault(message.incarnation)
        body = message.body
        if fault and isinstance(body, Prepared) and fault.step == "after_prepared":
            self._happens()
            self._signal(fault)
            if fault.what == "refuse":
                self._waits_for_refusal = True
                control = inbox._pool._control
                self._make_refuse(control, message.incarnation, body.generation)
        elif fault and isinstance(body, Committed) and fault.step == "before_committed":
            self._happens()
            self._signal(fault)
            if fault.what == "refuse":
                self._muted = fault.victim
                control = inbox._pool._control
                self._make_refuse(control, message.incarnation, body.generation)
            return  # it never comes
        if isinstance(body, Refused):
            self._muted = 0
        elif isinstance(body, Heartbeat) and message.incarnation == self._muted:
            return
        self._take(inbox, message)
        if isinstance(body, Refused) and self._waits_for_refusal:
            self._waits_for_refusal = False
            held_back, self._held_back = self._held_back, []
            for one in held_back:
                self._take(inbox, one)

    def _holds_back(self, incarnation: int) -> bool:
        """The others' answers wait, or all would be committed before the refusal comes."""
        fault = self._planned()
        is_planned = fault is not None and (fault.step, fault.what) == ("after_prepared", "refuse")
        is_other = fault is not None and fault.victim != incarnation
        return self._waits_for_refusal or (is_planned and is_other)

    def _planned(self) -> Fault | None:
        try:
            return msgspec.json.decode(self._plan.read_bytes(), type=Fault)
        except FileNotFoundError:
            return None

    def _fault(self, incarnation: int) -> Fault | None:
        fault = self._planned()
        return fault if fault is not None and fault.victim == incarnation else None

    def _happens(self) -> None:
        self._plan.unlink()

    def _signal(self, fault: Fault) -> None:
        if fault.what == "kill":
            os.kill(self._pids[fault.victim], signal.SIGKILL)
        elif fault.what == "stop":
            os.kill(self._pids[fault.victim], signal.SIGSTOP)

    def _make_refuse(self, control: ControlServer, incarnation: int, generation: int) -> bool:
        """Have it build a route on a listener that there is not."""
        nothing = Endpoints(addresses={})
        prepare = Prepare(generation=generation, listeners=[], routes=1, endpoints=nothing)
        routes = PrepareRoutes(generation=generation, routes=[UNBUILDABLE])
        is_sent = self._send_raw(control, incarnation, encode(prepare))
        return is_sent and self._send_raw(control, incarnation, encode(routes))


if __name__ == "__main__":
    FaultMaker(Path(sys.argv.pop(1))).install()
    main()
