"""Access rules and limits in a real data plane: who is refused, when, and what is counted."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from shared.plan import (
    AccessPlan,
    ListenerPlan,
    ProxyPolicy,
    RatePlan,
    RoutePlan,
    SecurityPlan,
    Timeouts,
)
from shared.proxy_protocol import encode_v1, encode_v2
from tests.data_plane_harness import Plane, route, running
from tests.data_plane_sockets import read_to_end
from tests.helpers.waiting import wait_until

BALANCER: Final = ProxyPolicy(trusted=("127.0.0.0/8", "::1/128"))
BRIEF: Final = Timeouts(half_closed=0.0)  # the targets here never say anything
BALANCER_OR_NOT: Final = ProxyPolicy(trusted=("127.0.0.0/8",), required=False)


def v1(client: str) -> bytes:
    """A header of this client, IPv4 or IPv6."""
    if ":" in client:
        packed = socket.inet_pton(socket.AF_INET6, client)
        return encode_v1(packed, 5555, socket.inet_pton(socket.AF_INET6, "2001:db8::9"), 443)
    return encode_v1(socket.inet_aton(client), 5555, bytes([198, 51, 100, 9]), 443)


@contextmanager
def brief() -> Iterator[Plane]:
    """As `running`; the clients that a test has left open are closed at its end."""
    with running() as plane:
        clients: list[socket.socket] = []
        connect = plane.connect

        def remembered(listener: ListenerPlan, source: str = "") -> socket.socket:
            clients.append(connect(listener, source))
            return clients[-1]

        plane.connect = remembered  # type: ignore[method-assign, assignment]
        yield plane
        for client in clients:
            client.close()


class Door:
    """Connections one after the other; each is judged before the next."""

    def __init__(self, plane: Plane, listener: ListenerPlan) -> None:
        self._plane = plane
        self.listener = listener

    def knock(self, first: bytes = b"", source: str = "") -> tuple[str, socket.socket]:
        """(``served`` or the end reason, the client's socket) of one more connection."""
        before = self._judged()
        client = self._plane.connect(self.listener, source)
        if first:
            client.sendall(first)
        after = wait_until(lambda: found if (found := self._judged()) != before else {}, "judged")
        grown = [key for key in after if after[key] != before.get(key, 0)]
        refused = [key for key in grown if key != "served"]
        return (refused or grown)[0], client

    def ask(self, first: bytes = b"", source: str = "") -> str:
        """As `knock`; the connection stays open until the end of the test."""
        return self.knock(first, source)[0]

    def _judged(self) -> dict[str, int]:
        snapshot = self._plane.snapshot()
        counts: dict[str, int] = {}
        for listener in snapshot.listeners.values():
            for end, count in listener.refused.items():
                counts[end] = counts.get(end, 0) + count
        for one in snapshot.routes.values():
            for end in ("blocked", "limit", "rate"):
                counts[end] = counts.get(end, 0) + one.ends.get(end, 0)
            counts["served"] = counts.get("served", 0) + sum(
                target.total for target in one.targets.values()
            )
        return {key: count for key, count in counts.items() if count}


def door(
    plane: Plane,
    *sets: list[str],
    security: SecurityPlan | None = None,
    own: SecurityPlan | None = None,
    policy: ProxyPolicy | None = None,
    host: str = "127.0.0.1",
) -> Door:
    """One listener and one route; ``security`` for everyone, ``own`` of the route."""
    listener = plane.listen(policy, host)
    plane.commit(
        route("r", listener, plane.target(), security=own, timeouts=BRIEF),
        sets=sets,
        security=security,
    )
    return Door(plane, listener)


def test_block_beats_allow_before_there_is_a_connection() -> None:
    """Phase 1: a refusal costs an accept and a close, is counted and logged with its rule."""
    with brief() as plane:
        rules = SecurityPlan(allow=0, block=1)
        front = door(plane, ["127.0.0.0/24"], ["127.0.0.7", "10.0.0.0/8"], security=rules)
        assert front.ask(source="127.0.0.1") == "served"
        assert front.ask(source="127.0.0.7") == "blocked"
        assert front.ask(source="127.0.1.1") == "blocked"
        assert front.ask(source="127.0.0.8") == "served"
        snapshot = plane.snapshot()
        counts = next(iter(snapshot.listeners.values()))
        assert counts.accepted == 4
        assert counts.refused == {"blocked": 2}
        assert snapshot.connections == 2
        assert list(plane.cells) == [4, 2, 2]
        details = [line[2] for line in plane.lines]
        assert [one["detail"] for one in details] == [
            "security: block has 127.0.0.7",
            "security: allow does not have it",
        ]
        assert all(one["id"].startswith("3-7-") for one in details)
        assert all(one["component"] == "connection" for one in details)


def test_the_refused_client_sees_the_end_at_once() -> None:
    """Accepted and closed: neither a timeout nor a refused dial."""
    with brief() as plane:
        front = door(plane, ["127.0.0.1"], security=SecurityPlan(block=0))
        outcome, client = front.knock()
        assert outcome == "blocked"
        assert read_to_end(client) == b""


@pytest.mark.parametrize(
    ("client", "outcome"),
    [
        ("10.1.2.3", "blocked"),
        ("11.1.2.3", "served"),
        ("2001:db8:1::5", "blocked"),
        ("2001:db8:2::5", "served"),
    ],
)
def test_the_address_of_the_header_is_judged(client: str, outcome: str) -> None:
    """The balancer's own address meets no rule; the client behind it does, in both families."""
    with brief() as plane:
        listed = ["10.0.0.0/8", "2001:db8:1::/48", "127.0.0.1"]
        front = door(plane, listed, security=SecurityPlan(block=0), policy=BALANCER)
        assert front.ask(v1(client)) == outcome


def test_a_mapped_address_is_unfolded_on_both_sides() -> None:
    """::ffff:10.0.0.5 in a header is the 10.0.0.5 of a list, and the other way round."""
    with brief() as plane:
        mapped = bytes(10) + b"\xff\xff" + bytes([10, 0, 0, 5])
        front = door(
            plane, ["::ffff:10.0.0.5", "10.0.0.6"], security=SecurityPlan(block=0), policy=BALANCER
        )
        assert front.ask(encode_v2(mapped, 1, mapped, 2)) == "blocked"
        assert front.ask(v1("10.0.0.5")) == "blocked"
        other = bytes(10) + b"\xff\xff" + bytes([10, 0, 0, 6])
        assert front.ask(encode_v2(other, 1, other, 2)) == "blocked"


def test_a_peer_that_comes_in_over_ipv6_is_judged() -> None:
    """Lists hold for IPv6 clients as for others."""
    with brief() as plane:
        front = door(plane, ["::1"], security=SecurityPlan(block=0), host="::1")
        assert front.ask() == "blocked"


def test_a_unix_peer_is_in_no_list() -> None:
    """It has no address: a block list cannot name it, an allow list cannot either."""
    with brief() as plane:
        path = str(plane.directory() / "s")
        listener = plane.listen(path=path)
        one = route("r", listener, plane.target(), timeouts=BRIEF)
        plane.commit(one, sets=[["0.0.0.0/0", "::/0"]], security=SecurityPlan(block=0))
        assert Door(plane, listener).ask() == "served"
        plane.commit(one, sets=[["0.0.0.0/0", "::/0"]], security=SecurityPlan(allow=0))
        assert Door(plane, listener).ask() == "blocked"


def test_security_does_not_decide_which_route_wins() -> None:
    """The more specific route refuses; the other one is not asked."""
    with brief() as plane:
        listener = plane.listen()
        plane.commit(
            route("own", listener, plane.target(), client_ips=("127.0.0.1/32",),
                  security=SecurityPlan(block=0), timeouts=BRIEF),
            route("all", listener, plane.target(), order=1, timeouts=BRIEF),
            sets=[["127.0.0.1"]],
        )  # fmt: skip
        front = Door(plane, listener)
        assert front.ask(source="127.0.0.1") == "blocked"
        assert plane.counts("own").ends == {"blocked": 1}
        assert plane.counts("own").active == 0
        assert front.ask(source="127.0.0.2") == "served"
        assert plane.lines[0][2]["detail"] == "security of route own: block has 127.0.0.1"


def test_max_connections_counts_what_is_open() -> None:
    """Over the limit: refused; one that ends makes room."""
    with brief() as plane:
        front = door(plane, security=SecurityPlan(max_connections=2))
        first = front.knock()[1]
        assert [front.ask(), front.ask(), front.ask()] == ["served", "limit", "limit"]
        first.close()
        wait_until(lambda: plane.plane.connections == 1, "one has ended")
        assert [front.ask(), front.ask()] == ["served", "limit"]


def test_a_connection_that_awaits_its_header_counts_only_in_all() -> None:
    """Before the header is there, the balancer meets max_connections and no limit per address."""
    with brief() as plane:
        rules = SecurityPlan(max_connections=3, max_connections_per_ip=1)
        front = door(plane, security=rules, policy=BALANCER)
        clients = [plane.connect(front.listener) for _ in range(3)]
        wait_until(lambda: plane.plane.connections == 3, "all wait")
        assert front.ask() == "limit"
        for number, client in enumerate(clients):
            client.sendall(v1(f"203.0.113.{number}"))
        wait_until(lambda: plane.counts().active == 3, "all served")


def test_limit_per_address_by_the_header() -> None:
    """Each client behind the balancer has its own count; LOCAL and UNKNOWN are not counted."""
    with brief() as plane:
        front = door(plane, security=SecurityPlan(max_connections_per_ip=2), policy=BALANCER)
        asked = [front.ask(v1("203.0.113.7")) for _ in range(3)]
        assert asked == ["served", "served", "limit"]
        assert front.ask(v1("203.0.113.8")) == "served"
        assert [front.ask(b"PROXY UNKNOWN\r\n") for _ in range(4)] == ["served"] * 4


def test_behind_a_header_both_limits_hold_until_the_end() -> None:
    """The client of the header counts for everyone's limit and for the route's, and leaves both."""
    with brief() as plane:
        rules, own = SecurityPlan(max_connections_per_ip=3), SecurityPlan(max_connections=4)
        front = door(plane, security=rules, own=own, policy=BALANCER)
        known = [front.knock(v1("203.0.113.7")) for _ in range(3)]
        assert [outcome for outcome, _ in known] == ["served"] * 3
        assert front.ask(v1("203.0.113.7")) == "limit"  # of the address
        assert [front.ask(v1("203.0.113.8")) for _ in range(2)] == [
            "served",
            "limit",
        ]  # the route's
        for _, client in known:
            client.close()
        wait_until(lambda: plane.plane.connections == 1, "the ends")
        asked = [front.ask(v1("203.0.113.7")) for _ in range(4)]
        assert asked == ["served", "served", "served", "limit"]


def test_without_a_header_the_peer_is_counted() -> None:
    """Where a header may be missing, who sends none is a client like any other."""
    with brief() as plane:
        rules = SecurityPlan(max_connections_per_ip=1)
        front = door(plane, security=rules, policy=BALANCER_OR_NOT)
        assert [front.ask(b"hello"), front.ask(b"hello")] == ["served", "limit"]


def test_ipv6_counts_by_its_network() -> None:
    """One /64 is one client; the next one is another."""
    with brief() as plane:
        front = door(plane, security=SecurityPlan(max_connections_per_ip=2), policy=BALANCER)
        asked = [front.ask(v1(f"2001:db8:0:1::{number}")) for number in (1, 2, 3)]
        assert asked == ["served", "served", "limit"]
        assert front.ask(v1("2001:db8:0:2::1")) == "served"


def test_rate_per_address() -> None:
    """What came within the period counts, also when it has ended."""
    with brief() as plane:
        rules = SecurityPlan(connection_rate_per_ip=RatePlan(connections=3, period_s=3600.0))
        front = door(plane, security=rules)
        for _ in range(3):
            outcome, client = front.knock(source="127.0.0.1")
            assert outcome == "served"
            client.close()
        wait_until(lambda: plane.plane.connections == 0, "the ends")
        assert front.ask(source="127.0.0.1") == "rate"
        assert front.ask(source="127.0.0.2") == "served"


def test_a_rate_is_over_after_its_period() -> None:
    """Who waits is served again."""
    with brief() as plane:
        rules = SecurityPlan(connection_rate_per_ip=RatePlan(connections=2, period_s=0.3))
        front = door(plane, security=rules)
        front.ask()
        front.ask()
        wait_until(lambda: front.ask() == "served", "a period later")


def test_limits_of_a_route_hold_in_addition() -> None:
    """A route's own limits refuse under the route's name; the others go on."""
    with brief() as plane:
        listener = plane.listen()
        mine: list[RoutePlan] = [
            route(
                "small", listener, plane.target(), client_ips=("127.0.0.0/29",),
                security=SecurityPlan(max_connections=3, max_connections_per_ip=2),
                timeouts=BRIEF,
            ),
            route("rest", listener, plane.target(), order=1, timeouts=BRIEF),
        ]  # fmt: skip
        plane.commit(*mine, security=SecurityPlan(max_connections_per_ip=4))
        front = Door(plane, listener)
        asked = [front.ask(source="127.0.0.1") for _ in range(3)]
        assert asked == ["served", "served", "limit"]
        assert [front.ask(source="127.0.0.2") for _ in range(2)] == ["served", "limit"]
        assert plane.counts("small").ends == {"limit": 2}
        asked = [front.ask(source="127.0.0.99") for _ in range(5)]
        assert asked == ["served"] * 4 + ["limit"]
        assert plane.counts("rest").ends == {}


def test_what_a_refusal_had_entered_is_left_again() -> None:
    """A connection that one limit refuses counts towards no other."""
    with brief() as plane:
        own = SecurityPlan(max_connections=5, max_connections_per_ip=1)
        front = door(plane, own=own, security=SecurityPlan(max_connections_per_ip=3))
        assert front.ask() == "served"
        assert [front.ask() for _ in range(10)] == ["limit"] * 10
        assert front.ask(source="127.0.0.2") == "served"


def test_a_limit_that_a_reload_adds_counts_what_is_open() -> None:
    """Connections from before count towards it, and leave it when they end."""
    with brief() as plane:
        listener = plane.listen()
        target = plane.target()
        plane.commit(route("r", listener, target, timeouts=BRIEF))
        front = Door(plane, listener)
        clients = [front.knock()[1] for _ in range(3)]
        limited = SecurityPlan(max_connections_per_ip=3)
        plane.commit(route("r", listener, target, timeouts=BRIEF), security=limited)
        wait_until(lambda: front.ask() == "limit", "they are counted")
        ends = plane.snapshot()
        assert ends.connections >= 3
        for client in clients:
            client.close()
        wait_until(lambda: front.ask() == "served", "there is room again")


def test_every_refusal_has_a_line_in_the_access_log(tmp_path: Path) -> None:
    """One record per connection, those without a record of ours included."""
    file = tmp_path / "access.log"
    with brief() as plane:
        listener = plane.listen()
        plane.commit(
            route("r", listener, plane.target(), timeouts=BRIEF),
            security=SecurityPlan(max_connections=1),
            access=AccessPlan(file=str(file)),
        )
        front = Door(plane, listener)
        kept = front.knock()[1]
        assert front.ask() == "limit"
        kept.close()
        wait_until(lambda: plane.plane.connections == 0, "the end")
        wait_until(lambda: file.read_text().count("\n") == 2, "two lines")
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        assert [line["end"] for line in lines] == ["limit", "half_closed_timeout"]
        assert [line["route"] for line in lines] == [None, "r"]
        assert lines[0]["t_connect"] is None
        assert lines[1]["t_connect"] >= 0
