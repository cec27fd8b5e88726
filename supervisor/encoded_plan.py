"""A generation as the messages that carry it, encoded once for all workers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from msgspec import Struct, structs

from shared.messages import ROUTES_PER_MESSAGE, Prepare, PrepareRoutes, PrepareSet, encode
from shared.plan import Endpoints, Plan


class EncodedPlan(Struct, frozen=True):
    """``prepare``, then ``sets`` and ``batches``, in this order (`shared/messages.py`)."""

    plan: Plan
    prepare: bytes
    sets: list[bytes]
    batches: list[bytes]

    def messages(self) -> Iterator[bytes]:
        """All of it, in the order in which it is sent."""
        yield self.prepare
        yield from self.sets
        yield from self.batches

    def resolved(self, endpoints: Endpoints) -> EncodedPlan:
        """The same with new addresses of names; those that are not mentioned stay."""
        merged = {**self.plan.endpoints.addresses, **endpoints.addresses}
        plan = structs.replace(self.plan, endpoints=Endpoints(addresses=merged))
        return structs.replace(self, plan=plan, prepare=_encode_prepare(plan))


async def encode_plan(plan: Plan) -> EncodedPlan:
    """Encode in slices, so that thousands of routes do not hold the loop."""
    number = plan.generation
    sets = []
    for addresses in plan.address_sets:
        sets.append(encode(PrepareSet(generation=number, addresses=addresses)))
        await asyncio.sleep(0)
    batches = []
    for start in range(0, len(plan.routes), ROUTES_PER_MESSAGE):
        routes = list(plan.routes[start : start + ROUTES_PER_MESSAGE])
        batches.append(encode(PrepareRoutes(generation=number, routes=routes)))
        await asyncio.sleep(0)
    return EncodedPlan(plan, _encode_prepare(plan), sets, batches)


def _encode_prepare(plan: Plan) -> bytes:
    prepare = Prepare(
        generation=plan.generation,
        listeners=list(plan.listeners),
        routes=len(plan.routes),
        endpoints=plan.endpoints,
        security=plan.security,
        address_sets=len(plan.address_sets),
        access=plan.access,
    )
    return encode(prepare)
