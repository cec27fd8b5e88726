"""Control messages: one tagged union per direction, msgpack on the wire.

    supervisor -> worker   ROUTER-DEALER  SupervisorMessage
    worker -> supervisor   ROUTER-DEALER  FromWorker(envelope) around a WorkerMessage
    worker -> supervisor   PUSH-PULL      shared.stats.Report around a Snapshot
    supervisor -> worker   socket pair    ListenerSockets, with the descriptors as SCM_RIGHTS
    supervisor -> fork server             Spawn, with two descriptors; Spawned comes back
    CLI -> supervisor      REQ-ROUTER     Request; Reply comes back

A generation goes Prepare, PrepareSet (each), PrepareCertificates, PrepareBodies and PrepareRoutes
(in batches), then Prepared or Refused from each worker, then Commit and Committed, or Abort (design
section 3).
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct, field

from shared.errors import Problem
from shared.plan import (
    AccessPlan,
    AddressSet,
    AnswerPlan,
    AuthorityPlan,
    CertificatePlan,
    Endpoints,
    ListenerPlan,
    RoutePlan,
    SecurityPlan,
)

PROTOCOL: Final = 1
ROUTES_PER_MESSAGE: Final = 64  # design section 3: a batch must not hold a loop over 20 ms
DESCRIPTORS_PER_MESSAGE: Final = 64  # design section 3; the kernel's own limit is 253
HEARTBEAT_S: Final = 0.25
STATS_S: Final = 0.5


class ToWorker(Struct, frozen=True, kw_only=True, tag=True):
    """Base of what the supervisor tells a worker."""


class Prepare(ToWorker, frozen=True, kw_only=True, tag="prepare"):
    """Begin to build a generation.

    ``address_sets`` sets follow in PrepareSet, then ``certificates`` certificates and
    ``authorities`` authorities in PrepareCertificates, then ``bodies`` bodies in PrepareBodies,
    then ``routes`` routes in PrepareRoutes, each in order.
    """

    generation: int
    listeners: list[ListenerPlan]
    routes: int
    endpoints: Endpoints
    security: SecurityPlan = SecurityPlan()
    address_sets: int = 0
    access: AccessPlan | None = None
    certificates: int = 0
    authorities: int = 0
    error_pages: tuple[tuple[int, AnswerPlan], ...] = ()
    bodies: int = 0


class PrepareCertificates(ToWorker, frozen=True, kw_only=True, tag="prepare_certificates"):
    """The next certificates and authorities of the generation that is being prepared."""

    generation: int
    certificates: list[CertificatePlan] = field(default_factory=list)
    authorities: list[AuthorityPlan] = field(default_factory=list)


class TicketSecret(ToWorker, frozen=True, kw_only=True, tag="ticket_secret"):
    """Derive the keys of session tickets from this 32-byte secret from now on.

    Sent before the first Prepare, and whenever it is renewed.
    """

    secret: bytes

    def __repr__(self) -> str:
        return "TicketSecret()"


class PrepareSet(ToWorker, frozen=True, kw_only=True, tag="prepare_set"):
    """The next address set of the generation that is being prepared."""

    generation: int
    addresses: AddressSet


class PrepareBodies(ToWorker, frozen=True, kw_only=True, tag="prepare_bodies"):
    """The next bodies of answers of the generation that is being prepared, by their digest."""

    generation: int
    bodies: dict[str, bytes]


class PrepareRoutes(ToWorker, frozen=True, kw_only=True, tag="prepare_routes"):
    """The next batch of routes of the generation that is being prepared."""

    generation: int
    routes: list[RoutePlan]


class Commit(ToWorker, frozen=True, kw_only=True, tag="commit"):
    """Serve new connections by this generation from now on."""

    generation: int


class Abort(ToWorker, frozen=True, kw_only=True, tag="abort"):
    """Forget the generation that is being prepared."""

    generation: int


class Assign(ToWorker, frozen=True, kw_only=True, tag="assign"):
    """Poll exactly these socket indexes of every listener; one that is shared always.

    ``epoch`` grows with each assignment to this worker and comes back in Assigned.
    """

    epoch: int
    indexes: list[int]


class Retire(ToWorker, frozen=True, kw_only=True, tag="retire"):
    """These listeners left the config: accept until EAGAIN, close the descriptors, say Retired."""

    listeners: list[int]


class Resolve(ToWorker, frozen=True, kw_only=True, tag="resolve"):
    """Names have new addresses; takes the place of what the worker knew."""

    endpoints: Endpoints


class Drain(ToWorker, frozen=True, kw_only=True, tag="drain"):
    """Stop polling, accept until EAGAIN, finish what is open, say Drained, end.

    After ``deadline_s`` the rest is cut as ``drain_deadline``; None: no deadline (resize). With
    ``close_listeners`` the descriptors are closed as well (full stop).
    """

    deadline_s: float | None
    close_listeners: bool = False


class Stop(ToWorker, frozen=True, kw_only=True, tag="stop"):
    """End at once; what is open ends as ``stopped``."""


class ReopenLogs(ToWorker, frozen=True, kw_only=True, tag="reopen_logs"):
    """Open the log files again, by path, the access log's too; say LogsReopened.

    With ``log_level``: only the operational log, which is as these three say from now on, as in
    Spawn.
    """

    request: int
    log_level: str = ""
    log_format: str = ""
    log_file: str = ""


SupervisorMessage = (
    Prepare | PrepareSet | PrepareCertificates | PrepareBodies | PrepareRoutes | TicketSecret
    | Commit | Abort | Assign | Retire | Resolve | Drain | Stop | ReopenLogs
)  # fmt: skip


class OfWorker(Struct, frozen=True, kw_only=True, tag=True):
    """Base of what a worker tells the supervisor."""


class Hello(OfWorker, frozen=True, kw_only=True, tag="hello"):
    """The first message: the worker's loop turns."""

    protocol: int = PROTOCOL


class Heartbeat(OfWorker, frozen=True, kw_only=True, tag="heartbeat"):
    """Every HEARTBEAT_S. ``lag_s``: by how much this one is late."""

    lag_s: float
    connections: int
    generation: int


class Progress(OfWorker, frozen=True, kw_only=True, tag="progress"):
    """Still building this generation; ``routes`` of them are built."""

    generation: int
    routes: int


class Prepared(OfWorker, frozen=True, kw_only=True, tag="prepared"):
    """The generation is built, and every listener of it is held."""

    generation: int


class Refused(OfWorker, frozen=True, kw_only=True, tag="refused"):
    """This generation cannot be built here.

    ``is_final``: its Commit came, and it was not prepared; what was served before is served on.
    """

    generation: int
    reason: str
    is_final: bool = False


class Committed(OfWorker, frozen=True, kw_only=True, tag="committed"):
    """New connections are served by this generation.

    ``kept`` connections go on as they are; ``draining`` ones are of routes that it has no more.
    """

    generation: int
    kept: int = 0
    draining: int = 0


class Assigned(OfWorker, frozen=True, kw_only=True, tag="assigned"):
    """Exactly the sockets of this assignment are polled."""

    epoch: int


class Retired(OfWorker, frozen=True, kw_only=True, tag="retired"):
    """Nothing of these listeners is held any more."""

    listeners: list[int]


class Drained(OfWorker, frozen=True, kw_only=True, tag="drained"):
    """Every connection has ended; ``cut`` of them at the deadline. The process ends next."""

    drained: int
    cut: int


class Leaving(OfWorker, frozen=True, kw_only=True, tag="leaving"):
    """The worker got TERM: give its listeners to others, then send Drain."""


class LogsReopened(OfWorker, frozen=True, kw_only=True, tag="logs_reopened"):
    """``error`` is empty where all went well."""

    request: int
    error: str = ""


class Event(OfWorker, frozen=True, kw_only=True, tag="event"):
    """Something for the operational log: one line, rate limited at its source."""

    level: str  # debug, info, warning, error
    message: str
    fields: dict[str, str] = field(default_factory=dict)


WorkerMessage = (
    Hello | Heartbeat | Progress | Prepared | Refused | Committed | Assigned | Retired | Drained
    | Leaving | LogsReopened | Event
)  # fmt: skip


class FromWorker(Struct, frozen=True, kw_only=True):
    """Envelope: who says it. ``incarnation`` is never used twice within a run."""

    run: str
    slot: int
    pid: int
    incarnation: int
    body: WorkerMessage


class ListenerSockets(Struct, frozen=True, kw_only=True):
    """On the socket pair: (listener id, socket index) of each descriptor in the same datagram.

    They are lent for ``generation``: when that is given up, the worker closes them.
    """

    generation: int
    sockets: list[tuple[int, int]]


class Spawn(Struct, frozen=True, kw_only=True, tag="spawn"):
    """Ask the fork server for a worker. Descriptors: its socket pair end, counts, limits."""

    run: str
    slot: int
    incarnation: int
    control_addr: str  # of the supervisor's ROUTER, "ipc:///..."
    stats_addr: str  # of the supervisor's PULL
    runtime_dir: str
    counts_row: int  # row of both memfds that this incarnation writes
    log_level: str
    log_format: str  # console, json, journald or auto
    log_file: str  # "" is standard error


class Spawned(Struct, frozen=True, kw_only=True, tag="spawned"):
    """The fork server's answer. ``pid`` 0: it failed, ``error`` says why."""

    slot: int
    incarnation: int
    pid: int
    error: str = ""


class Request(Struct, frozen=True, kw_only=True):
    """What the CLI asks: a verb of the supervisor, with its arguments."""

    verb: str
    arguments: dict[str, Any] = field(default_factory=dict)


class Reply(Struct, frozen=True, kw_only=True):
    """One object per command, the ``--json`` shape of design section 4, and the exit code."""

    exit_code: int
    data: dict[str, Any] = field(default_factory=dict)
    errors: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


encode: Final = msgspec.msgpack.Encoder().encode
decode_supervisor_message: Final = msgspec.msgpack.Decoder(SupervisorMessage).decode
decode_from_worker: Final = msgspec.msgpack.Decoder(FromWorker).decode
decode_listener_sockets: Final = msgspec.msgpack.Decoder(ListenerSockets).decode
decode_fork_request: Final = msgspec.msgpack.Decoder(Spawn).decode
decode_spawned: Final = msgspec.msgpack.Decoder(Spawned).decode
decode_request: Final = msgspec.msgpack.Decoder(Request).decode
decode_reply: Final = msgspec.msgpack.Decoder(Reply).decode
