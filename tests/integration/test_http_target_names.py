"""Which of a route's targets a request is for: by its name in Host, and by its name in TLS."""

from __future__ import annotations

from pathlib import Path

from shared.plan import HttpPlan, TargetPlan, UpstreamTlsPlan
from tests.helpers.certificates import Authority
from tests.helpers.http_talk import OK, Talker, get, post, route, serving
from tests.helpers.tls_pairs import authority_plan

NAMES = ("a.example", "b.example")
LOCAL = ("127.0.0.1",)


def test_the_host_of_a_target_after_failover() -> None:
    """`host: target` names the target that has the request, not the one that was tried first."""
    with serving() as plane:
        dead, target = plane.dead_target(), plane.target()
        listener = plane.http(dead, target, plan=HttpPlan(host="target"))
        for asked in (get(), post(b"body"), get()):
            client = plane.client(listener)
            client.send(asked)
            server = plane.accepted(target)
            assert server.message().fields["host"] == target.name
            server.send(OK)
            assert client.message().body == b"ok"
            server.close()
        assert plane.target_counts(dead).connect_failures == {"refused": 1}
        assert plane.target_counts(target).requests == {"2xx": 3}


def test_two_names_of_one_address_over_tls(tmp_path: Path) -> None:
    """A connection that was verified for one name carries no request for the other."""
    with serving() as plane:
        authority, listener, target = Authority(tmp_path, "ca"), plane.listen(), plane.target()
        files = authority.leaf(*NAMES)
        targets = [TargetPlan(name=name, host=name, port=target.port) for name in NAMES]
        plane.commit(
            route(
                "r", listener, *targets, http=HttpPlan(host="target"),
                upstream_tls=UpstreamTlsPlan(ca=0),
            ),
            authorities=[authority_plan(authority)],
            addresses=dict.fromkeys(NAMES, LOCAL),
        )  # fmt: skip
        asked_for: list[str | None] = []
        context = plane.serve_tls(files)
        context.sni_callback = lambda _, name, __: asked_for.append(name)
        client = plane.client(listener)
        servers: list[Talker] = []
        for number in range(6):
            client.send(get(f"/{number}"))
            if number < len(NAMES):
                servers.append(plane.accepted(target))
            server = servers[number % len(NAMES)]
            request = server.message()
            name = NAMES[number % len(NAMES)]
            assert (request.target, request.fields["host"]) == (f"/{number}", name)
            server.send(OK)
            assert client.message().body == b"ok"
        assert asked_for == list(NAMES)
        assert target.has_none()
        for one in targets:
            counts = plane.target_counts(one)
            assert (counts.total, counts.requests) == (1, {"2xx": 3})
