"""What workers say, sorted to those whom it concerns."""

from __future__ import annotations

from shared.log import Logger
from shared.messages import (
    PROTOCOL,
    Assigned,
    Committed,
    Drained,
    Event,
    FromWorker,
    Heartbeat,
    Hello,
    Leaving,
    LogsReopened,
    Prepared,
    Progress,
    Refused,
    Retired,
    WorkerMessage,
)
from supervisor.log_control import LogControl
from supervisor.ticket_secret import TicketSecrets
from supervisor.worker_pool import WorkerPool
from supervisor.worker_process import WorkerProcess


class Inbox:
    """Takes every message of every worker; one of a worker that is gone concerns nobody."""

    def __init__(
        self, pool: WorkerPool, logs: LogControl, tickets: TicketSecrets, log: Logger
    ) -> None:
        self._pool = pool
        self._logs = logs
        self._tickets = tickets
        self._log = log

    def take(self, message: FromWorker) -> None:
        """Handle one message."""
        worker = self._pool.find(message.incarnation)
        if worker is None:
            return
        worker.pid = worker.pid or message.pid  # it may speak before the fork server answers
        self._pool.heard(worker)
        self._sort(worker, message.body)

    def _sort(self, worker: WorkerProcess, body: WorkerMessage) -> None:
        generations = self._pool.generations
        match body:
            case Heartbeat(lag_s=lag_s, connections=connections, generation=generation):
                worker.lag_s, worker.connections = lag_s, connections
                generations.serves(worker, generation)
            case Hello(protocol=protocol):
                if protocol == PROTOCOL:
                    self._tickets.greet(worker)
                    generations.hello(worker)
                    self._logs.greet(worker)
                else:
                    worker.kill(f"speaks protocol {protocol}, not {PROTOCOL}")
            case Progress():
                generations.progress(worker)
            case Prepared(generation=generation):
                generations.prepared(worker, generation)
            case Refused(generation=generation, reason=reason, is_final=is_final):
                generations.refused(worker, generation, reason, is_final=is_final)
            case Committed(generation=generation, kept=kept, draining=draining):
                generations.has_committed(worker, generation, kept, draining)
            case Assigned(epoch=epoch):
                self._pool.assigner.assigned(worker, epoch)
            case Retired(listeners=listeners):
                generations.retired(worker, listeners)
                self._pool.changed.set()
            case Drained(drained=drained, cut=cut):
                worker.drained = (drained, cut)
            case Leaving():
                self._pool.leave(worker)
            case LogsReopened(request=request, error=error):
                self._logs.reopened(worker, request, error)
            case Event(level=level, message=text, fields=fields):
                if level == "error":
                    worker.last_error = text
                self._log.debug(text, slot=worker.slot, worker=worker.pid, **fields)
