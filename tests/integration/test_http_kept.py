"""Connections to targets that are kept: who gets them, for how long, and what if they are dead."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from shared.plan import HttpPlan, TargetPlan, UpstreamTlsPlan
from shared.proxy_protocol import parse
from tests.data_plane_sockets import Target, reset
from tests.helpers.certificates import Authority
from tests.helpers.http_talk import OK, Served, Talker, answer, get, post, route, serving
from tests.helpers.tls_pairs import authority_plan
from tests.helpers.waiting import wait_until
from worker.http_pool import FRESH_S

CHUNKED_PUT = b"PUT / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n"


def served(client: Talker, server: Talker, body: bytes = b"ok") -> None:
    """One more request over these two."""
    client.send(get())
    server.message()
    server.send(answer(body))
    assert client.message().body == body


def grow_old(plane: Served) -> None:
    """Let what is kept look as if it had waited for longer than FRESH_S."""
    for up in plane.upstreams():
        assert up.exchange is None
        up.idle_at -= FRESH_S + 0.1


def test_clients_share_them_one_at_a_time() -> None:
    """The one used last is taken first; a second one is dialled only while none is free."""
    with serving() as plane:
        target = plane.target()
        listener = plane.http(target)
        one, server = plane.pair(listener, target)
        two = plane.client(listener)
        served(two, server)
        one.send(get("/slow"))
        server.message()
        two.send(get("/quick"))
        second = plane.accepted(target)
        second.message()
        second.send(OK)
        assert two.message().body == b"ok"
        server.send(OK)
        assert one.message().body == b"ok"
        for client in (one, two):
            served(client, server)
        assert target.has_none()
        assert plane.target_counts(target).total == 2


def test_they_outlive_their_clients() -> None:
    """Connections of clients come and go, that of the target stays."""
    with serving() as plane:
        target = plane.target()
        listener = plane.http(target)
        client, server = plane.pair(listener, target)
        for _ in range(5):
            client.close()
            client = plane.client(listener)
            served(client, server)
        assert target.has_none()


@pytest.mark.parametrize("how", ["upstream_idle", "Keep-Alive"])
def test_they_are_closed_when_idle_for_too_long(how: str) -> None:
    """By our own limit, or a second before the target's."""
    with serving() as plane:
        target = plane.target()
        idle = 0.4 if how == "upstream_idle" else 60.0
        client = plane.client(plane.http(target, plan=HttpPlan(upstream_idle=idle)))
        client.send(get())
        server = plane.accepted(target)
        server.message()
        server.send(answer(b"ok", *([] if idle < 1 else ["Keep-Alive: timeout=2, max=9"])))
        assert client.message().body == b"ok"
        (up,) = plane.upstreams()
        assert up.limit_s == (0.4 if idle < 1 else 1.0)
        assert server.is_ended()
        assert plane.target_counts(target).active == 0
        client.send(get())
        plane.accepted(target).send(OK)
        assert client.message().body == b"ok"


@pytest.mark.parametrize("lines", ["Keep-Alive: timeout=1", "Connection: close"])
def test_those_that_will_be_closed_are_not_kept(lines: str) -> None:
    """A target that says so is believed."""
    with serving() as plane:
        target = plane.target()
        client = plane.client(plane.http(target))
        client.send(get())
        server = plane.accepted(target)
        server.message()
        server.send(answer(b"ok", lines))
        assert client.message().body == b"ok"
        assert server.is_ended()


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE"])
def test_a_dead_one_is_found_by_the_request(method: str, how: str) -> None:
    """Idempotent and without a body: sent once more, on a new connection; nobody notices."""
    with serving() as plane:
        target = plane.target()
        client, server = plane.pair(plane.http(target), target)
        client.send(get(method=method))
        server.message()
        server.close() if how == "fin" else reset(server.sock)
        server = plane.accepted(target)
        assert server.message().first == f"{method} / HTTP/1.1"
        server.send(OK if method != "HEAD" else answer())
        assert client.message(method).status == 200
        plane.wait_codes({"2xx": 2})


def test_once_more_is_not_twice() -> None:
    """The second connection fails as well: 502."""
    with serving() as plane:
        target = plane.target()
        client, server = plane.pair(plane.http(target), target)
        client.send(get())
        server.message()
        server.close()
        server = plane.accepted(target)
        server.message()
        server.close()
        assert client.message().status == 502
        assert target.has_none()
        plane.wait_codes({"2xx": 1, "5xx": 1})


@pytest.mark.parametrize("asked", [post(b"body"), post(b""), CHUNKED_PUT + b"1\r\nx\r\n0\r\n\r\n"])
def test_what_may_not_be_sent_twice_is_not(asked: bytes) -> None:
    """It takes a fresh connection of the kept ones, and when that is dead, the answer is 502."""
    with serving() as plane:
        target = plane.target()
        client, server = plane.pair(plane.http(target), target)
        client.send(asked)
        server.message()
        server.close()
        assert client.message().status == 502
        assert target.has_none()


def test_an_answer_that_has_begun_is_not_asked_for_again() -> None:
    """One byte of it is enough."""
    with serving() as plane:
        target = plane.target()
        client, server = plane.pair(plane.http(target), target)
        before = plane.target_counts(target).received
        client.send(get())
        server.message()
        server.send(b"H")
        wait_until(lambda: plane.target_counts(target).received > before, "it was read")
        server.close()
        assert client.message().status == 502
        assert target.has_none()


@pytest.mark.parametrize("asked", [post(b"body"), CHUNKED_PUT + b"1\r\nx\r\n0\r\n\r\n"])
def test_an_old_one_is_not_for_what_may_not_be_sent_twice(asked: bytes) -> None:
    """Idle for over a second: it may be closing. A GET takes it still."""
    with serving() as plane:
        target = plane.target()
        client, server = plane.pair(plane.http(target), target)
        grow_old(plane)
        client.send(asked)
        second = plane.accepted(target)
        second.message()
        second.send(OK)
        assert client.message().body == b"ok"
        second.close()
        wait_until(lambda: plane.target_counts(target).active == 1, "the newer one is gone")
        served(client, server)


def test_routes_to_one_address_share_them() -> None:
    """What is kept counts for the target of the route whose request it carried last."""
    with serving() as plane:
        target = plane.target()
        listener = plane.listen()
        plane.commit(
            route("r", listener, target, domains=("a.example",), http=HttpPlan()),
            route("s", listener, target, domains=("b.example",), http=HttpPlan(), order=1),
        )
        client, server = plane.pair(listener, target)
        for host, name in (("b.example", "s"), ("a.example", "r"), ("b.example", "s")):
            client.send(get(host=host))
            server.message()
            server.send(OK)
            assert client.message().body == b"ok"
            active = {one: plane.target_counts(target, one).active for one in ("r", "s")}
            assert active == {"r": 0, "s": 0} | {name: 1}
        assert target.has_none()
        totals = [plane.target_counts(target, one).total for one in ("r", "s")]
        requests = [plane.target_counts(target, one).requests for one in ("r", "s")]
        assert (totals, requests) == ([1, 0], [{"2xx": 2}, {"2xx": 2}])
        server.close()
        wait_until(lambda: plane.target_counts(target, "s").active == 0, "its end was seen")


@pytest.mark.parametrize("tls", [False, True])
def test_reloads_leave_them(tls: bool, tmp_path: Path) -> None:
    """The next generation dials the same place in the same way, so what is kept is good."""
    with serving() as plane:
        target, listener, authority = plane.target(), plane.listen(), Authority(tmp_path, "ca")
        if tls:
            files = authority.leaf("127.0.0.1")
            plane.serve_tls(files)
        plans = [UpstreamTlsPlan(ca=0) if tls else None] * 2
        plans.append(UpstreamTlsPlan(ca=0, server_name="localhost") if tls else None)
        for number, plan in enumerate(plans):
            plane.commit(
                route("r", listener, target, http=HttpPlan(), upstream_tls=plan),
                authorities=[authority_plan(authority)],
            )
            if number == 0:
                client, server = plane.pair(listener, target)
            elif number == 1 or not tls:
                served(client, server)
        if tls:  # another name is to be verified: what is kept was not asked for it
            client.send(get())
            with pytest.raises(ssl.SSLError, match="certificate"):
                plane.accepted(target)
            assert client.message().status == 502


def test_a_target_that_keeps_the_port_is_one_for_each() -> None:
    """A request that came in on one port never goes where another one leads."""
    with serving() as plane:
        listeners = [plane.listen(), plane.listen()]
        targets = [plane.target("127.0.0.2", port=one.port) for one in listeners]
        same = TargetPlan(name="same", host="127.0.0.2")
        plane.commit(
            *(
                route(f"r{number}", one, same, http=HttpPlan(), order=number)
                for number, one in enumerate(listeners)
            )
        )
        pairs = [
            plane.pair(listener, target)
            for listener, target in zip(listeners, targets, strict=True)
        ]
        for client, server in pairs * 2:
            served(client, server)
        assert all(target.has_none() for target in targets)


# -- send_proxy --------------------------------------------------------------------------------


def accept_with_header(plane: Served, target: Target, client: Talker) -> Talker:
    """The target's side, behind a PROXY header that names this client."""
    server = plane.accepted(target)
    line = server.until(b"\r\n")
    found = parse(line, ("v1",))
    assert found is not None
    assert (found[0].source_text, found[0].source_port) == client.sock.getsockname()
    return server


def test_one_that_names_a_client_is_never_shared() -> None:
    """Each client has its own for as long as it stays, the header first on each."""
    with serving() as plane:
        target = plane.target()
        listener = plane.http(target, send_proxy="v1")
        pairs = []
        for _ in range(3):
            client = plane.client(listener)
            client.send(get())
            server = accept_with_header(plane, target, client)
            server.message()
            server.send(OK)
            assert client.message().body == b"ok"
            pairs.append((client, server))
        for client, server in pairs * 2:
            served(client, server)
        assert target.has_none()
        for client, server in pairs:
            client.close()
            assert server.is_ended()
        wait_until(lambda: plane.target_counts(target).active == 0, "all are closed")


@pytest.mark.parametrize("asked", [get(), post(b"body")])
def test_one_that_names_a_client_and_is_gone(asked: bytes) -> None:
    """The next request dials anew, with the header first."""
    with serving() as plane:
        target = plane.target()
        client = plane.client(plane.http(target, send_proxy="v1"))
        client.send(get())
        server = accept_with_header(plane, target, client)
        server.message()
        server.send(OK)
        assert client.message().body == b"ok"
        server.close()
        wait_until(lambda: plane.target_counts(target).active == 0, "its end was seen")
        client.send(asked)
        server = accept_with_header(plane, target, client)
        server.message()
        server.send(OK)
        assert client.message().body == b"ok"


def test_one_that_names_a_client_and_is_old() -> None:
    """A POST does not take it, and upstream_idle holds for it as well."""
    with serving() as plane:
        target = plane.target()
        listener = plane.http(target, send_proxy="v1", plan=HttpPlan(upstream_idle=0.4))
        client = plane.client(listener)
        client.send(get())
        server = accept_with_header(plane, target, client)
        server.message()
        server.send(OK)
        assert client.message().body == b"ok"
        assert server.is_ended()
        client.send(post(b"x"))
        server = accept_with_header(plane, target, client)
        server.message()
        server.send(OK)
        assert client.message().body == b"ok"


def test_one_that_names_a_client_and_a_new_route() -> None:
    """After a reload the request goes where the route now leads, and says so in a new header."""
    with serving() as plane:
        old, new = plane.target(), plane.target()
        listener = plane.http(old, send_proxy="v1")
        client = plane.client(listener)
        client.send(get())
        server = accept_with_header(plane, old, client)
        server.message()
        server.send(OK)
        assert client.message().body == b"ok"
        plane.commit(route("r", listener, new, send_proxy="v1", http=HttpPlan()))
        client.send(get())
        second = accept_with_header(plane, new, client)
        second.message()
        second.send(OK)
        assert client.message().body == b"ok"
        assert server.is_ended()


def test_a_worker_that_ends_lets_go_of_them() -> None:
    """Those that wait are closed properly, not left to the garbage collector."""
    with serving() as plane:
        target = plane.target()
        _, server = plane.pair(plane.http(target), target)
        plane.call(plane.plane.http.close)
        assert server.is_ended()
        assert plane.target_counts(target).active == 0
