"""Control messages on the wire."""

from __future__ import annotations

import msgspec
import pytest

from shared import messages
from shared.errors import Problem
from shared.plan import (
    AddressSet,
    AuthorityPlan,
    CertificatePlan,
    Endpoints,
    ListenerPlan,
    ProxyPolicy,
    RoutePlan,
    TargetPlan,
)

LISTENER = ListenerPlan(
    id=3, name="[::1]:80", host="::1", port=80, sockets=4, proxy=ProxyPolicy(trusted=("::/0",))
)
ROUTE = RoutePlan(
    name="r", order=0, listeners=(3,), single_port=frozenset({3}), targets=(TargetPlan(name="t"),)
)
ENDPOINTS = Endpoints(addresses={"host": ("192.0.2.1", "2001:db8::1"), "down": ()})
TO_WORKER = [
    messages.Prepare(generation=2, listeners=[LISTENER], routes=1, endpoints=ENDPOINTS),
    messages.PrepareSet(generation=2, addresses=AddressSet(v4_first=b"\0" * 4, v4_last=b"\1" * 4)),
    messages.PrepareBodies(generation=2, bodies={"d": b"<p>Sorry</p>"}),
    messages.PrepareCertificates(
        generation=2,
        certificates=[
            CertificatePlan(
                name="a.pem",
                names=("a.example",),
                chain=b"chain",
                key=b"key",
                key_algorithm="EC256",
                signature_algorithm="SHA256",
                digest="d",
            )
        ],
        authorities=[AuthorityPlan(name="ca.pem", pem=b"pem", digest="e")],
    ),
    messages.PrepareRoutes(generation=2, routes=[ROUTE]),
    messages.TicketSecret(secret=bytes(32)),
    messages.Commit(generation=2),
    messages.Abort(generation=2),
    messages.Assign(epoch=9, indexes=[0, 3]),
    messages.Retire(listeners=[3]),
    messages.Resolve(endpoints=ENDPOINTS),
    messages.Drain(deadline_s=None),
    messages.Drain(deadline_s=1.5, close_listeners=True),
    messages.Stop(),
    messages.ReopenLogs(request=1),
]
OF_WORKER = [
    messages.Hello(),
    messages.Heartbeat(lag_s=0.1, connections=5, generation=2),
    messages.Progress(generation=2, routes=256),
    messages.Prepared(generation=2),
    messages.Refused(generation=2, reason="why"),
    messages.Committed(generation=2),
    messages.Assigned(epoch=9),
    messages.Retired(listeners=[3]),
    messages.Drained(drained=4, cut=1),
    messages.Leaving(),
    messages.LogsReopened(request=1, error="full"),
    messages.Event(level="error", message="m", fields={"a": "b"}),
]


@pytest.mark.parametrize("message", TO_WORKER, ids=lambda message: type(message).__name__)
def test_messages_to_workers_survive_the_wire(message: messages.SupervisorMessage) -> None:
    """What the supervisor sends is what the worker reads."""
    assert messages.decode_supervisor_message(messages.encode(message)) == message


@pytest.mark.parametrize("body", OF_WORKER, ids=lambda body: type(body).__name__)
def test_messages_of_workers_survive_the_wire(body: messages.WorkerMessage) -> None:
    """What a worker sends is what the supervisor reads, with who said it."""
    envelope = messages.FromWorker(run="r", slot=1, pid=2, incarnation=3, body=body)
    assert messages.decode_from_worker(messages.encode(envelope)) == envelope


def test_every_message_is_tried() -> None:
    """No kind of message is missing from the lists above."""
    to_worker = set(messages.ToWorker.__subclasses__())
    of_worker = set(messages.OfWorker.__subclasses__())
    assert {type(message) for message in TO_WORKER} == to_worker
    assert {type(body) for body in OF_WORKER} == of_worker


def test_reply_carries_problems() -> None:
    """A reply's problems keep their place in the file."""
    reply = messages.Reply(exit_code=1, errors=[Problem(message="m", file="f", line=3, col=4)])
    assert messages.decode_reply(messages.encode(reply)) == reply


@pytest.mark.parametrize(
    "raw", [b"", b"\xc1", b"\x80", messages.encode({"type": "unheard_of"}), b"\x93\x01\x02\x03"]
)
def test_damaged_messages_are_refused(raw: bytes) -> None:
    """Garbage is a MsgspecError and nothing else, in every direction."""
    for decode in (
        messages.decode_supervisor_message,
        messages.decode_from_worker,
        messages.decode_request,
        messages.decode_fork_request,
    ):
        with pytest.raises(msgspec.MsgspecError):
            decode(raw)
