"""Which route wins."""

from __future__ import annotations

import itertools
import random

import pytest

from shared.networks import parse_network, split_ip
from shared.plan import RoutePlan
from shared.route_order import best, build_candidates, choose, matching, needs_bytes, rank


def route(name: str, order: int = 0, **keys: object) -> RoutePlan:
    """A route on listener 1, by its own port unless said otherwise."""
    settings: dict[str, object] = {"listeners": (1,), "single_port": frozenset({1}), **keys}
    return RoutePlan(name=name, order=order, **settings)  # type: ignore[arg-type]


def winner(routes: list[RoutePlan], client: str, tls: bool | None = None) -> str:
    """Name of the winner, "" for none; the same whatever order the routes are given in."""
    names = set()
    for shuffled in itertools.permutations(routes):
        found = best(shuffled, 1, client, tls)
        names.add(found.name if found else "")
    assert len(names) == 1
    return names.pop()


def test_priority_beats_everything() -> None:
    """A higher priority wins over a more specific route."""
    routes = [
        route("narrow", 0, client_ips=("10.0.0.1/32",)),
        route("wide", 1, priority=1, listeners=(1, 2), single_port=frozenset()),
    ]
    assert winner(routes, "10.0.0.1") == "wide"


def test_longer_prefix_then_none() -> None:
    """The longest prefix that holds the client wins, and no client_ips comes last."""
    routes = [
        route("all", 0),
        route("eight", 1, client_ips=("10.0.0.0/8",)),
        route("sixteen", 2, client_ips=("10.1.0.0/16",)),
    ]
    assert winner(routes, "10.1.0.1") == "sixteen"
    assert winner(routes, "10.2.0.1") == "eight"
    assert winner(routes, "11.0.0.1") == "all"
    assert winner(routes, "::ffff:10.1.0.1") == "sixteen"


def test_each_network_of_a_route_counts_by_itself() -> None:
    """With several networks, the one that holds this client gives the rank, not the longest."""
    routes = [
        route("mixed", 0, client_ips=("10.0.0.0/8", "192.168.1.1/32")),
        route("middle", 1, client_ips=("10.1.0.0/16", "192.168.1.0/24")),
    ]
    assert winner(routes, "10.1.0.1") == "middle"
    assert winner(routes, "10.2.0.1") == "mixed"
    assert winner(routes, "192.168.1.1") == "mixed"
    assert winner(routes, "192.168.1.2") == "middle"


def test_other_criteria_beat_a_single_port() -> None:
    """A route with a tls criterion goes before one without, even from a range."""
    routes = [route("any", 0), route("tls", 1, tls=True, single_port=frozenset())]
    assert winner(routes, "10.0.0.1", tls=True) == "tls"
    assert winner(routes, "10.0.0.1", tls=False) == "any"
    assert winner(routes, "10.0.0.1", tls=None) == "any"


def test_single_port_beats_range_then_file_order() -> None:
    """A port of its own wins over a range; equal ranks go by the file."""
    routes = [route("range", 0, single_port=frozenset()), route("one", 1), route("two", 2)]
    assert winner(routes, "10.0.0.1") == "one"
    assert winner([routes[0]], "10.0.0.1") == "range"


def test_clients_only_networks_leave_others_without_route() -> None:
    """No route for this client is None, and a route of another listener is no candidate."""
    routes = [route("a", client_ips=("10.0.0.0/8",)), route("b", 1, listeners=(2,))]
    assert winner(routes, "11.0.0.1") == ""
    assert [candidate.route.name for candidate in build_candidates(routes, 2)] == ["b"]
    assert build_candidates(routes, 3) == []


def test_matching_ends_with_the_first_that_needs_no_bytes() -> None:
    """What follows a route that is decided at accept is left out, and each route stands once."""
    routes = [
        route("tls", 0, tls=True, client_ips=("10.0.0.0/8", "10.0.0.0/16")),
        route("plain", 1, tls=False),
        route("any", 2),
        route("never", 3),
    ]
    left = matching(build_candidates(routes, 1), "10.0.0.1")
    assert [found.name for found in left] == ["tls", "plain", "any"]
    assert [needs_bytes(found) for found in left] == [True, True, False]
    assert [getattr(choose(left, tls), "name", None) for tls in (True, False, None)] == [
        "tls",
        "plain",
        "any",
    ]


def test_choose_without_candidate_that_fits() -> None:
    """Only TLS routes and a plain client: no route."""
    assert choose([route("tls", tls=True)], False) is None
    assert choose([route("tls", tls=True)], None) is None
    assert choose([], True) is None


@pytest.mark.parametrize("seed", range(20))
def test_first_candidate_is_the_least_rank(seed: int) -> None:
    """Against a plain search over all routes and networks, for random routes and clients."""
    dice = random.Random(seed)
    networks = ["10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24", "10.1.1.1/32", "0.0.0.0/0", "::/0"]
    routes = [
        route(
            str(order),
            order,
            priority=dice.randint(0, 2),
            tls=dice.choice([None, None, True, False]),
            client_ips=tuple(dice.sample(networks, dice.randint(0, 2))),
            single_port=frozenset({1} if dice.random() < 0.5 else ()),
        )
        for order in range(12)
    ]
    for client in ("10.1.1.1", "10.1.1.2", "10.9.9.9", "8.8.8.8", "2001:db8::1"):
        for tls in (None, True, False):
            ranks = []
            for one in routes:
                nets = [parse_network(text) for text in one.client_ips]
                held = [net.prefix for net in nets if net.contains(*split_ip(client))]
                if (nets and not held) or one.tls not in (None, tls):
                    continue
                ranks.append((rank(one, 1, max(held, default=None)), one.name))
            found = best(routes, 1, client, tls)
            assert (found.name if found else None) == min(ranks, default=(None, None))[1]
