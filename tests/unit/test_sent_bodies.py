"""Long bodies of answers go to a worker once, and stand in all routes again there."""

from __future__ import annotations

import asyncio

import pytest
from msgspec import structs

from shared.messages import Prepare, PrepareBodies, PrepareRoutes, decode_supervisor_message
from shared.plan import AnswerPlan, Endpoints, HttpPlan, Plan, RoutePlan
from supervisor import sent_bodies as sending
from supervisor.encoded_plan import BODY_BYTES_PER_MESSAGE, encode_plan
from worker import sent_bodies as receiving

LONG = bytes(range(256)) * 80
SHORT = b"<p>Sorry</p>"
ENDPOINTS = Endpoints(addresses={})


def page(status: int, body: bytes) -> AnswerPlan:
    """One with a header."""
    return AnswerPlan(status=status, headers=(("Content-Type", "text/html"),), body=body)


def plan(*routes: RoutePlan) -> Plan:
    """A generation of these."""
    return Plan(generation=3, listeners=(), routes=routes, endpoints=ENDPOINTS)


def route(name: str, http: HttpPlan | None) -> RoutePlan:
    """One that speaks HTTP so."""
    return RoutePlan(name=name, order=0, listeners=(), http=http)


def received(sent: Plan) -> tuple[list[PrepareBodies], list[RoutePlan], list[RoutePlan]]:
    """Messages with bodies; routes as they come; routes as they are built."""
    prepare, *messages = map(decode_supervisor_message, asyncio.run(encode_plan(sent)).messages())
    assert isinstance(prepare, Prepare)
    bodies = [one for one in messages if isinstance(one, PrepareBodies)]
    routes = [one for one in messages if isinstance(one, PrepareRoutes)]
    assert messages == [*bodies, *routes]
    here = receiving.SentBodies()
    assert sum(len(one.bodies) for one in bodies) == prepare.bodies
    for one in bodies:
        here.add(one.bodies)
    came = [one for batch in routes for one in batch.routes]
    built = [
        one if one.http is None else structs.replace(one, http=here.fill(one.http)) for one in came
    ]
    return bodies, came, built


def test_what_many_routes_share_comes_once() -> None:
    """Pages, maintenance and answers; short bodies stay where they are."""
    pages = ((404, page(404, SHORT)), (502, page(502, LONG)))
    http = HttpPlan(error_pages=pages, maintenance=page(503, LONG))
    routes = [route(f"r{number}", http) for number in range(100)]
    routes += [route("own", HttpPlan(answer=page(200, LONG * 2))), route("tcp", None)]
    bodies, came, built = received(plan(*routes))
    assert built == routes
    assert sorted(body for one in bodies for body in one.bodies.values()) == sorted(
        [LONG, LONG * 2]
    )
    first = came[0].http
    assert first is not None
    assert [(one.body, bool(one.sent_body)) for _, one in first.error_pages] == [
        (SHORT, False),
        (b"", True),
    ]


def test_routes_share_the_very_objects() -> None:
    """Of thousands of routes a worker holds one page."""
    http = HttpPlan(error_pages=((502, page(502, LONG)),), maintenance=page(503, LONG))
    _, _, (first, second) = received(plan(route("a", http), route("b", http)))
    assert first.http is not None
    assert second.http is not None
    assert first.http.error_pages is second.http.error_pages
    assert first.http.maintenance is second.http.maintenance


def test_so_many_bytes_in_one_message() -> None:
    """A body that is larger than that goes alone."""
    half = BODY_BYTES_PER_MESSAGE // 2
    sizes = (half, half, 1000, 3 * half, 1000)
    sent = [
        route(str(number), HttpPlan(answer=page(200, bytes([number]) * size)))
        for number, size in enumerate(sizes)
    ]
    bodies, _, built = received(plan(*sent))
    assert [len(one.bodies) for one in bodies] == [2, 1, 1, 1]
    assert built == sent


def test_new_addresses_leave_the_bodies() -> None:
    """Prepare is made anew, and still says how many follow."""
    encoded = asyncio.run(encode_plan(plan(route("a", HttpPlan(answer=page(200, LONG))))))
    prepare = decode_supervisor_message(encoded.resolved(ENDPOINTS).prepare)
    assert isinstance(prepare, Prepare)
    assert prepare.bodies == 1


def test_a_body_that_has_not_come() -> None:
    """The route cannot be built; Refused says so."""
    bare = sending.SentBodies().without(route("a", HttpPlan(answer=page(200, LONG)))).http
    assert bare is not None
    with pytest.raises(LookupError):
        receiving.SentBodies().fill(bare)
