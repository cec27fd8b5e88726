"""Slices of long work: freeing and resolving the routes of a generation, and reporting them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from weakref import ref

import pytest

from shared.messages import Prepare
from shared.plan import Endpoints, ListenerPlan, TargetPlan
from tests.helpers.routes import LISTENER, route
from worker.chores import MOST_A_TICK, Chores
from worker.generation import RESOLVED_A_SLICE, Generation, Lasting
from worker.limits import private_limits
from worker.route_report import ROUTES_A_PART, RouteParts, told_routes
from worker.tally import RouteTally
from worker.tls_contexts import Contexts

CONTEXTS = Contexts()  # ctypes leaves the collector something of each


def generation(routes: int, host: str = "app.internal") -> Generation:
    """A generation whose routes all dial the same name."""
    listener = ListenerPlan(id=LISTENER, name="l", host="127.0.0.1", port=1)
    made = Generation(
        Prepare(
            generation=1,
            listeners=[listener],
            routes=routes,
            endpoints=Endpoints(addresses={"app.internal": ("127.0.0.1",)}),
        ),
        Lasting(),
        private_limits(),
        CONTEXTS,
    )
    target = TargetPlan(name="t", host=host, port=1)
    made.add_routes([route(f"r{n}", n, f"d{n}.example", targets=(target,)) for n in range(routes)])
    return made


def run(chores: Chores) -> int:
    """Ticks until all is done."""
    ticks = 0
    while chores:
        chores.tick()
        ticks += 1
        assert ticks < 1000
    return ticks


def test_chores_take_turns() -> None:
    """The first slice is done at once, the others one a tick, in turn."""
    done: list[str] = []

    def chore(name: str, slices: int) -> Iterator[None]:
        for number in range(slices):
            done.append(f"{name}{number}")
            yield

    chores = Chores()
    chores.tick()
    chores.add(chore("a", 3))
    chores.add(chore("b", 2))
    assert done == ["a0", "b0"]
    assert len(chores) == 2
    run(chores)
    assert done == ["a0", "b0", "a1", "b1", "a2"]


def test_many_chores_do_not_gather() -> None:
    """A burst of them is done by more than one slice a tick, and by no more than four."""
    chores = Chores()
    for _ in range(300):
        chores.add(iter([None, None, None]))
    chores.tick()
    assert len(chores) == 300
    assert 300 * 3 // MOST_A_TICK <= run(chores) < 300


def test_a_chore_of_one_slice_is_done_at_once() -> None:
    """Nothing is left for a tick where there was little to do."""
    chores = Chores()
    made = generation(3)
    chores.add(made.resolve(Endpoints(addresses={"app.internal": ("127.0.0.2",)})))
    assert len(chores) == 0
    assert [hosts(made, n) for n in range(3)] == [["127.0.0.2"]] * 3


def hosts(made: Generation, number: int) -> list[str]:
    """Addresses of the one target of a route."""
    (target,) = made.routes[f"r{number}"].balancer.targets
    return [endpoint.host for endpoint in target.endpoints]


def test_thousands_of_routes_are_resolved_in_slices() -> None:
    """Some at once, the others later; a newer answer meanwhile is the one that holds."""
    most = 2 * RESOLVED_A_SLICE + 10
    made, chores = generation(most), Chores()
    chores.add(made.resolve(Endpoints(addresses={"app.internal": ("127.0.0.2",)})))
    assert hosts(made, 0) == ["127.0.0.2"]
    assert hosts(made, most - 1) == ["127.0.0.1"]
    chores.add(made.resolve(Endpoints(addresses={"app.internal": ("127.0.0.3",)})))
    run(chores)
    assert {tuple(hosts(made, n)) for n in range(most)} == {("127.0.0.3",)}


@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("app.internal", {"app.internal": ("127.0.0.1",), "other": ("127.0.0.9",)}),
        ("127.0.0.7", {"app.internal": ("127.0.0.2",)}),
    ],
)
def test_routes_without_a_changed_name_are_left_alone(
    host: str, addresses: dict[str, tuple[str, ...]]
) -> None:
    """The very endpoints stay, and so does what is remembered of the names."""
    made, chores = generation(2, host), Chores()
    before = made.routes["r1"].balancer.targets[0].endpoints
    chores.add(made.resolve(Endpoints(addresses=addresses)))
    assert made.routes["r1"].balancer.targets[0].endpoints is before
    assert made.endpoints.addresses["app.internal"] == addresses["app.internal"]


def test_an_old_generation_is_freed_in_slices() -> None:
    """Not one route goes before its turn, and in the end all have gone, without the collector."""
    made, chores = generation(3000), Chores()
    gone = [ref(matcher) for matcher in made.matchers.values()]
    reader = made.matchers[LISTENER]  # as a connection holds it whose first bytes are awaited
    left = made.routes["r0"]
    gc.disable()
    try:
        chores.add(made.dismantle())
        for _ in range(10):
            chores.tick()
        found = reader.at_accept((4, 1))
        assert found.wait
        assert len(chores) == 1
        del reader, found
        run(chores)
        assert [one() for one in gone] == [None]
        assert made.routes == {}
    finally:
        gc.enable()
    assert left.name == "r0"  # a connection's own route outlives its generation


def test_nothing_of_an_old_generation_is_left_for_the_collector() -> None:
    """Routes, targets and endpoints go as soon as nobody holds them: reloads come in bursts."""
    generation(2)
    gc.collect()
    gc.disable()
    try:
        made, chores = generation(2), Chores()
        chores.add(made.dismantle())
        run(chores)
        del made, chores
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_counters_of_many_routes_come_in_parts() -> None:
    """Every used route is in one of them, and stays there when others come."""
    lasting = Lasting()
    parts = RouteParts(lasting)
    assert (parts.count(), parts.told(0, {}, now=0.0)) == (1, {})

    def told() -> list[list[str]]:
        return [list(parts.told(part, {}, now=0.0)) for part in range(parts.count())]

    for routes in (ROUTES_A_PART, 2 * ROUTES_A_PART + 1):
        for number in range(routes):
            lasting.of(f"r{number}")[0].total = 1
        names = list(lasting.tallies)
        starts = range(0, routes, ROUTES_A_PART)
        assert told() == [names[start : start + ROUTES_A_PART] for start in starts]


def test_what_drains_is_asked_of_routes_that_left() -> None:
    """As long as they have connections, and until they return."""
    lasting, both = Lasting(), generation(2).routes
    lasting.tallies = {name: route.tally for name, route in both.items()}
    one = {"r0": both["r0"]}
    lasting.tallies["r1"].active = 3
    assert lasting.serve(one, both) == {"r1"}
    assert (lasting.draining(), lasting.removed) == (3, {"r1"})
    assert lasting.serve(both, one) == set()
    assert (lasting.draining(), lasting.removed) == (0, set())
    lasting.serve(one, both)
    lasting.tallies["r1"].active = 0
    assert (lasting.draining(), lasting.leaving, lasting.removed) == (0, set(), {"r1"})


def test_report_holds_routes_that_have_something_to_say() -> None:
    """Used ones, and those with a target that is down; of a removed one all drains."""
    made = generation(2)
    lasting = {name: one.tally for name, one in made.routes.items()}
    lasting["gone"], lasting["down"] = gone, down = RouteTally(), RouteTally()
    gone.active, gone.total = 2, 3
    down.target("t").counts.is_up = False
    lasting["r1"].active = lasting["r1"].total = 1
    told = told_routes(lasting.items(), made.routes, set(), now=0.0)
    assert list(told) == ["r1", "gone", "down"]
    assert (told["r1"].draining, told["gone"].draining) == (0, 2)


def test_report_says_which_targets_are_down() -> None:
    """As long as a failed dial marks all endpoints; a removed route is not looked at again."""
    made = generation(2)
    lasting = {name: one.tally for name, one in made.routes.items()}
    lasting["gone"] = RouteTally()
    for one in lasting.values():
        one.total = 1
    for name in ("r0", "r1"):
        made.routes[name].balancer.targets[0].endpoints[0].mark.failed_until = 5.0
    failing = {"r1", "gone"}

    def up(now: float) -> list[bool]:
        told = told_routes(lasting.items(), made.routes, failing, now)
        return [told[name].targets["t"].is_up for name in ("r0", "r1")]

    assert (up(4.0), failing) == ([True, False], {"r1"})
    assert (up(6.0), failing) == ([True, True], set())


def test_many_small_matchers_are_freed_in_slices_too() -> None:
    """A range of ports is as many listeners: their matchers share what a slice may take."""
    listeners = [
        ListenerPlan(id=LISTENER + n, name=f"l{n}", host="127.0.0.1", port=n + 1)
        for n in range(300)
    ]
    ids = tuple(one.id for one in listeners)
    made = Generation(
        Prepare(generation=1, listeners=listeners, routes=60, endpoints=Endpoints(addresses={})),
        Lasting(),
        private_limits(),
        CONTEXTS,
    )
    made.add_routes([route(f"r{n}", n, f"d{n}.example", listeners=ids) for n in range(60)])
    chores = Chores()
    chores.add(made.dismantle())
    assert run(chores) > 2
