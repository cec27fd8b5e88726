"""Generations and the end of a worker: what is under way finishes as it began."""

from __future__ import annotations

import pytest

from shared.plan import AnswerPlan, FieldRules, HttpPlan, Timeouts
from tests.helpers.http_talk import OK, Served, Talker, answer, get, post, route, serving
from tests.helpers.waiting import wait_until
from worker.http_client import HttpClient

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"


def drain(plane: Served, deadline_s: float | None = None) -> list[tuple[int, int]]:
    """Begin to leave; what is returned is filled once all connections have ended."""
    done: list[tuple[int, int]] = []
    plane.call(lambda: plane.plane.drain(deadline_s, False, lambda *counts: done.append(counts)))
    return done


def begun(client: Talker, server: Talker) -> None:
    """A request under way, whose answer's body has begun."""
    client.send(get())
    server.head()
    server.send(HEAD + b"abc")
    client.head()
    assert client.exactly(3) == b"abc"


def _heads_begun(plane: Served) -> int:
    phases = [conn.phase for conn in plane.plane.open]
    return sum(isinstance(phase, HttpClient) and bool(phase.inbox) for phase in phases)


def test_a_request_in_flight_finishes_as_it_began() -> None:
    """The next one on the same connection sees the new table: other rules, another target."""
    with serving() as plane:
        old, new = plane.target(), plane.target()
        plan = HttpPlan(response=FieldRules(set=(("X-Age", "old"),)))
        listener = plane.http(old, plan=plan)
        client, server = plane.pair(listener, old)
        client.send(get())
        server.message()
        renewed = HttpPlan(response=FieldRules(set=(("X-Age", "new"),)))
        plane.commit(route("r", listener, new, http=renewed))
        server.send(OK)
        found = client.message()
        assert (found.fields["x-age"], "connection" in found.fields) == ("old", False)
        client.send(get())
        server = plane.accepted(new)
        server.message()
        server.send(OK)
        assert client.message().fields["x-age"] == "new"


def test_kept_connections_of_an_unchanged_route_go_on() -> None:
    """Those of clients, and those to targets."""
    with serving() as plane:
        target = plane.target()
        listener = plane.http(target)
        client, server = plane.pair(listener, target)
        for _ in range(3):
            plane.commit(route("r", listener, target, http=HttpPlan()))
            client.send(post(b"x"))
            server.message()
            server.send(OK)
            found = client.message()
            assert (found.body, "connection" in found.fields) == (b"ok", False)
        assert target.has_none()


@pytest.mark.parametrize("when", ["idle", "before the answer"])
def test_a_removed_route(when: str) -> None:
    """The connection ends behind its next answer, which says so."""
    with serving() as plane:
        target = plane.target()
        listener = plane.http(target)
        client, server = plane.pair(listener, target)
        if when == "before the answer":
            client.send(get())
            server.message()
        other = plane.target()
        plane.commit(route("other", listener, other, http=HttpPlan()))
        if when == "before the answer":
            server.send(OK)
            found = client.message()
            assert found.body == b"ok"
        else:
            client.send(get())
            server = plane.accepted(other)
            server.message()
            server.send(answer(b"new"))
            found = client.message()
            assert found.body == b"new"
        assert found.fields["connection"] == "close"
        assert client.is_ended()
        client.close()
        plane.wait_ends({"client_closed": 1})


def test_a_route_that_is_removed_within_an_answer() -> None:
    """Its head has said nothing of an end: the next answer does, and no request is lost."""
    with serving() as plane:
        target, other = plane.target(), plane.target()
        listener = plane.http(target)
        client, server = plane.pair(listener, target)
        begun(client, server)
        plane.commit(route("other", listener, other, http=HttpPlan()))
        client.send(get(), get())
        server.send(b"defghij")
        assert client.exactly(7) == b"defghij"
        server = plane.accepted(other)
        server.message()
        server.send(OK)
        assert client.message().fields["connection"] == "close"
        assert client.is_ended()


def test_a_removed_route_has_its_drain() -> None:
    """What is not done by then is cut."""
    with serving() as plane:
        target = plane.target()
        listener = plane.http(target, timeouts=Timeouts(drain=0.3))
        client, server = plane.pair(listener, target)
        begun(client, server)
        plane.commit(route("other", listener, target, http=HttpPlan()))
        assert client.is_cut()
        assert server.is_cut()
        plane.wait_ends({"route_removed": 1})


def test_a_removed_route_that_comes_back_keeps_its_connections() -> None:
    """Neither is what is under way cut, nor is the next answer the last one."""
    with serving() as plane:
        target, other = plane.target(), plane.target()
        times = Timeouts(drain=0.3)
        listener = plane.http(target, timeouts=times)
        client, server = plane.pair(listener, target)
        begun(client, server)
        idle, _ = plane.pair(listener, target)
        plane.commit(route("other", listener, other, http=HttpPlan(), timeouts=times))
        going, answering = plane.pair(listener, other)
        begun(going, answering)
        plane.commit(route("r", listener, target, http=HttpPlan(), timeouts=times))
        assert going.is_cut()  # a moment after the first one was to be cut
        server.send(b"defghij")
        assert client.exactly(7) == b"defghij"
        for one in (client, idle):
            one.send(get())
            server.message()  # the target's connection that was used last serves the next one
            server.send(OK)
            assert "connection" not in one.message().fields


def test_a_removed_route_is_cut_though_its_connection_is_armed_for_later() -> None:
    """An event before its deadline must not put that off."""
    with serving() as plane:
        target = plane.target()
        listener = plane.http(target, timeouts=Timeouts(drain=1.0, http_keep_alive=0.3))
        client, server = plane.pair(listener, target)  # armed for the end of its keep-alive time
        begun(client, server)
        plane.commit(route("other", listener, target, http=HttpPlan()))
        assert client.is_cut()
        plane.wait_ends({"route_removed": 1})


def test_a_removed_route_ends_soon_behind_an_answer_that_promised_more() -> None:
    """A request that is on its way is awaited for a moment, not for all of the keep-alive time."""
    with serving() as plane:
        target = plane.target()
        times = Timeouts(drain=60.0, http_keep_alive=60.0)
        listener = plane.http(target, timeouts=times)
        client, server = plane.pair(listener, target)
        begun(client, server)
        plane.commit(route("other", listener, target, http=HttpPlan()))
        server.send(b"defghij")
        assert client.exactly(7) == b"defghij"
        assert client.is_ended()
        plane.wait_ends({"route_removed": 1})


def test_idle_ones_have_one_more_answer_when_a_worker_leaves_the_others() -> None:
    """A request that is on its way is not lost; the answer says that it is the last."""
    with serving() as plane:
        target = plane.target()
        idle, server = plane.pair(plane.http(target), target)
        done = drain(plane)
        idle.send(get())
        server.message()
        server.send(OK)
        found = idle.message()
        assert (found.body, found.fields["connection"]) == (b"ok", "close")
        assert idle.is_ended()
        wait_until(lambda: done == [(1, 0)], "it has drained")


def test_idle_ones_end_at_once_on_a_full_stop() -> None:
    """And busy ones behind their answer, which says so where its head is still to come."""
    with serving() as plane:
        target = plane.target()
        listener = plane.http(target)
        idle, first = plane.pair(listener, target)
        waiting, in_body, uploading = (plane.client(listener) for _ in range(3))
        waiting.send(get())
        first.message()
        in_body.send(get())
        second = plane.accepted(target)
        second.message()
        second.send(HEAD + b"abc")
        assert "connection" not in in_body.head().fields
        uploading.send(get("/", "Content-Length: 10", method="POST") + b"abc")
        third = plane.accepted(target)
        third.head()
        assert third.exactly(3) == b"abc"
        done = drain(plane, 30.0)
        assert idle.is_ended()
        first.send(OK)
        found = waiting.message()
        assert (found.body, found.fields["connection"]) == (b"ok", "close")
        assert waiting.is_ended()
        second.send(b"defghij")
        assert in_body.exactly(10) == b"abcdefghij"
        assert in_body.is_ended()
        uploading.send(b"defghij")
        assert third.exactly(7) == b"defghij"
        third.send(OK)
        assert uploading.message().fields["connection"] == "close"
        assert uploading.is_ended()
        wait_until(lambda: done, "all have ended")
        assert done == [(4, 0)]


@pytest.mark.parametrize("has_begun", [False, True], ids=["nothing", "half a head"])
def test_a_full_stop_awaits_a_first_request_for_a_moment(has_begun: bool) -> None:
    """A browser dials ahead: such a connection must not hold up the stop to its deadline."""
    with serving() as plane:
        listener = plane.http(plan=HttpPlan(answer=AnswerPlan(status=200, body=b"x")))
        silent, late = plane.client(listener), plane.client(listener)
        wait_until(lambda: len(plane.plane.open) == 2, "they are accepted")
        if has_begun:
            late.send(b"GET / HTTP/1.1\r\nHost")
            wait_until(lambda: plane.call(lambda: _heads_begun(plane)) == 1, "a head has begun")
        done = drain(plane, 60.0)
        late.send(b": a\r\n\r\n" if has_begun else get())
        found = late.message()
        assert (found.body, found.fields["connection"]) == (b"x", "close")
        assert late.is_ended()
        assert silent.is_ended()
        wait_until(lambda: done, "all have ended")
        assert done == [(2, 0)]


def test_a_request_that_arrives_while_a_worker_leaves() -> None:
    """It was on its way: it is answered, and told that this was the last."""
    with serving() as plane:
        listener = plane.http(plan=HttpPlan(answer=AnswerPlan(status=200, body=b"x")))
        clients = [plane.client(listener) for _ in range(5)]
        for client in clients:
            client.send(b"GET / HTTP/1.1\r\nHost")
        wait_until(lambda: plane.call(lambda: _heads_begun(plane)) == 5, "heads have begun")
        done = drain(plane)
        for client in clients:
            client.send(b": a\r\n\r\n")
            found = client.message()
            assert (found.body, found.fields["connection"]) == (b"x", "close")
            assert client.is_ended()
        wait_until(lambda: done, "all have ended")
        assert done == [(5, 0)]


def test_a_worker_that_may_not_wait_any_longer() -> None:
    """At the deadline what is left is cut, and counted so."""
    with serving() as plane:
        target = plane.target()
        client, server = plane.pair(plane.http(target), target)
        begun(client, server)
        done = drain(plane, 0.3)
        assert client.is_cut()
        assert server.is_cut()
        wait_until(lambda: done, "all have ended")
        assert done == [(0, 1)]
        plane.wait_ends({"drain_deadline": 1})
