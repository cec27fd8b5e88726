"""A generation as the messages that carry it, encoded once for all workers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

from msgspec import Struct, structs

from shared.messages import (
    ROUTES_PER_MESSAGE,
    Prepare,
    PrepareBodies,
    PrepareCertificates,
    PrepareRoutes,
    PrepareSet,
    encode,
)
from shared.plan import AuthorityPlan, CertificatePlan, Endpoints, Plan, RoutePlan
from supervisor.sent_bodies import SentBodies

# A worker decodes a message in one step, and builds at most so many contexts from it.
CERTIFICATES_PER_MESSAGE: Final = 64
CERTIFICATE_BYTES_PER_MESSAGE: Final = 256 << 10  # a system's bundle of authorities has 0.2 MiB
BODY_BYTES_PER_MESSAGE: Final = 256 << 10
PLACES_PER_MESSAGE: Final = 2000  # of routes in a worker's tables; 1,000 take some 3 ms


class EncodedPlan(Struct, frozen=True):
    """``prepare``, then ``sets``, ``certificates``, ``bodies`` and ``batches``, in this order.

    ``body_count``: how many are in ``bodies``. See `shared/messages.py`. The certificates' messages
    hold their keys: no repr shows them.
    """

    plan: Plan
    prepare: bytes
    sets: list[bytes]
    certificates: list[bytes]
    bodies: list[bytes]
    body_count: int
    batches: list[bytes]

    def __repr__(self) -> str:
        return f"EncodedPlan({self.plan.generation})"

    def messages(self) -> Iterator[bytes]:
        """All of it, in the order in which it is sent."""
        yield self.prepare
        yield from self.sets
        yield from self.certificates
        yield from self.bodies
        yield from self.batches

    def resolved(self, endpoints: Endpoints) -> EncodedPlan:
        """The same with new addresses of names; those that are not mentioned stay."""
        merged = {**self.plan.endpoints.addresses, **endpoints.addresses}
        plan = structs.replace(self.plan, endpoints=Endpoints(addresses=merged))
        return structs.replace(self, plan=plan, prepare=_encode_prepare(plan, self.body_count))


async def encode_plan(plan: Plan) -> EncodedPlan:
    """Encode in slices, so that thousands of routes do not hold the loop."""
    number = plan.generation
    sets = []
    for addresses in plan.address_sets:
        sets.append(encode(PrepareSet(generation=number, addresses=addresses)))
        await asyncio.sleep(0)
    certificates = []
    for batch in _certificate_batches(plan):
        certificates.append(encode(batch))
        await asyncio.sleep(0)
    sent = SentBodies()
    batches = []
    for some in _slices(plan.routes, _places, PLACES_PER_MESSAGE, ROUTES_PER_MESSAGE):
        routes = [sent.without(one) for one in some]
        batches.append(encode(PrepareRoutes(generation=number, routes=routes)))
        await asyncio.sleep(0)
    bodies = []
    for few in _slices(sent.bodies.items(), lambda one: len(one[1]), BODY_BYTES_PER_MESSAGE):
        bodies.append(encode(PrepareBodies(generation=number, bodies=dict(few))))
        await asyncio.sleep(0)
    count = len(sent.bodies)
    prepare = _encode_prepare(plan, count)
    return EncodedPlan(plan, prepare, sets, certificates, bodies, count, batches)


def _places(route: RoutePlan) -> int:
    """What it costs a worker to put it where it is found, and to make its targets."""
    asked = route.http.match.paths if route.http is not None else ()
    found_by = max(1, len(route.domains)) * max(1, len(route.client_ips)) * max(1, len(asked))
    return found_by + len(route.targets)


def _certificate_batches(plan: Plan) -> Iterator[PrepareCertificates]:
    """All certificates, then all authorities, each in the plan's order."""
    for certificates in _slices(
        plan.certificates,
        lambda one: len(one.chain) + len(one.key),
        CERTIFICATE_BYTES_PER_MESSAGE,
    ):
        yield PrepareCertificates(generation=plan.generation, certificates=certificates)
    for authorities in _slices(
        plan.authorities, lambda one: len(one.pem), CERTIFICATE_BYTES_PER_MESSAGE
    ):
        yield PrepareCertificates(generation=plan.generation, authorities=authorities)


_Sent = TypeVar("_Sent", CertificatePlan, AuthorityPlan, RoutePlan, tuple[str, bytes])


def _slices(
    items: Iterable[_Sent],
    size_of: Callable[[_Sent], int],
    most_size: int,
    most: int = CERTIFICATES_PER_MESSAGE,
) -> Iterator[list[_Sent]]:
    """As many as go into one message; one that is too large alone goes alone."""
    taken: list[_Sent] = []
    size = 0
    for item in items:
        more = size_of(item)
        is_full = len(taken) == most
        if taken and (is_full or size + more > most_size):
            yield taken
            taken, size = [], 0
        taken.append(item)
        size += more
    if taken:
        yield taken


def _encode_prepare(plan: Plan, bodies: int) -> bytes:
    prepare = Prepare(
        generation=plan.generation,
        listeners=list(plan.listeners),
        routes=len(plan.routes),
        endpoints=plan.endpoints,
        security=plan.security,
        address_sets=len(plan.address_sets),
        access=plan.access,
        certificates=len(plan.certificates),
        authorities=len(plan.authorities),
        error_pages=plan.error_pages,
        bodies=bodies,
    )
    return encode(prepare)
