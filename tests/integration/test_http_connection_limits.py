"""Limits of routes that speak HTTP: which connections count towards them."""

from __future__ import annotations

import pytest

from shared.plan import AnswerPlan, HttpPlan, RatePlan, SecurityPlan
from tests.helpers.http_talk import get, route, serving
from tests.helpers.waiting import wait_until


def test_a_connection_counts_for_each_route_it_asks_for() -> None:
    """From its first request there until it ends, once; other routes go on meanwhile."""
    with serving() as plane:
        listener = plane.listen()
        said = HttpPlan(answer=AnswerPlan(status=200, body=b"ok"))
        few = SecurityPlan(max_connections=2)
        plane.commit(
            route("free", listener, domains=("free.example",), http=said),
            route("few", listener, domains=("few.example",), http=said, security=few, order=1),
        )
        clients = [plane.client(listener) for _ in range(3)]
        for client in clients:
            assert client.ask(get("/", host="free.example")).status == 200
        for client in clients[:2] * 3:
            assert client.ask(get("/", host="few.example")).status == 200
            assert client.ask(get("/", host="free.example")).status == 200
        refused = clients[2].ask(get("/", host="few.example"))
        assert (refused.status, refused.fields["connection"]) == (503, "close")
        clients[0].close()
        wait_until(lambda: len(plane.plane.open) == 1, "one is left")
        later = plane.client(listener)
        assert later.ask(get("/", host="few.example")).status == 200
        assert plane.client(listener).ask(get("/", host="few.example")).status == 503


@pytest.mark.parametrize(
    ("limit", "status"),
    [
        (SecurityPlan(max_connections=1), 503),
        (SecurityPlan(max_connections_per_ip=1), 503),
        (SecurityPlan(connection_rate_per_ip=RatePlan(connections=1, period_s=3600.0)), 429),
    ],
)
def test_a_limit_that_is_new(limit: SecurityPlan, status: int) -> None:
    """Who has a connection by then has it still, and counts once; the next one is refused."""
    with serving() as plane:
        listener = plane.listen()
        said = HttpPlan(answer=AnswerPlan(status=200, body=b"ok"))
        plane.commit(route("r", listener, http=said))
        client = plane.client(listener)
        assert client.ask(get()).status == 200
        plane.commit(route("r", listener, http=said, security=limit))
        for _ in range(3):
            assert client.ask(get()).status == 200
        assert plane.client(listener).ask(get()).status == status
