"""The short way through both gates counts and refuses exactly as the gates do."""

from __future__ import annotations

import mmap
import random

import pytest

from shared.address_set import Addresses, build, parse_range
from shared.plan import RatePlan, SecurityPlan
from supervisor.limit_tables import LimitTables
from worker.door import Door
from worker.gate import Gate
from worker.limits import Limits, private_limits

IP = "192.0.2.7"
OTHER = "198.51.100.9"
NOW = 1000.0
PERIOD_S = 15.0  # an epoch is one second


def plan(**limits: object) -> SecurityPlan:
    """Rules with these limits; ``rate``: connections within PERIOD_S."""
    rate = limits.pop("rate", None)
    if isinstance(rate, int):
        limits["connection_rate_per_ip"] = RatePlan(connections=rate, period_s=PERIOD_S)
    return SecurityPlan(**limits)  # type: ignore[arg-type]


class Worker:
    """Both gates of one worker, their door, and what it has open."""

    def __init__(self, limits: Limits, first: SecurityPlan, route: SecurityPlan | None) -> None:
        self.limits = limits
        self.first = Gate("", first, [], limits)
        self.route = Gate("r", route, [], limits) if route is not None else None
        self.door = Door(self.first, self.route, limits)
        self.open: list[tuple[int, ...]] = []

    def by_door(self, ip: str = IP, now: float = NOW) -> bool:
        """Whether the door lets a client in."""
        cells = self.door.enter(ip, now)
        if cells is not None:
            self.note(cells)
        return cells is not None

    def by_gates(self, ip: str = IP, now: float = NOW) -> bool:
        """Whether the gates do, one after the other."""
        cells = []
        for gate in (self.first, self.route):
            if gate is None:
                continue
            if gate is self.route and gate.most:
                cell = self.limits.routes.enter(
                    self.limits.routes.place(hash("r")), gate.most, None, now
                )
                cells.append(cell)
            cell = gate.enter(ip, now) if gate is self.first else self._address(gate, ip, now)
            cells.append(cell)
        kept = tuple(cell for cell in cells if cell >= 0)
        if any(cell < -1 for cell in cells):
            self._lower(kept)
            return False
        self.note(kept)
        return True

    def _address(self, gate: Gate, ip: str, now: float) -> int:
        most, gate.most = gate.most, 0  # its own count was asked above
        try:
            return gate.enter(ip, now)
        finally:
            gate.most = most

    def enter(self, ip: str = IP, now: float = NOW) -> bool:
        """As a listener does it: the door, and where it does not know, the gates."""
        return self.by_door(ip, now) or self.by_gates(ip, now)

    def note(self, cells: tuple[int, ...]) -> None:
        """A connection is open."""
        self.open.append(cells)
        self.limits.open_here[0] = len(self.open)

    def leave(self) -> None:
        """The connection that came first ends."""
        self._lower(self.open.pop(0))
        self.limits.open_here[0] = len(self.open)

    def _lower(self, cells: tuple[int, ...]) -> None:
        for cell in cells:
            self.limits.cells[cell] -= 1


def alone(first: SecurityPlan, route: SecurityPlan | None = None) -> Worker:
    """The only worker."""
    return Worker(private_limits(), first, route)


def test_a_client_is_met_by_the_gates_and_then_known() -> None:
    """The first connection finds no entry; the gates make it, and the door takes the next."""
    worker = alone(plan(max_connections_per_ip=5), plan(max_connections_per_ip=5))
    assert not worker.by_door()
    assert worker.by_gates()
    assert worker.by_door()


@pytest.mark.parametrize(
    ("first", "route"),
    [
        (plan(max_connections_per_ip=3), None),
        (plan(max_connections=3), plan(max_connections_per_ip=10)),
        (plan(), plan(max_connections=3)),
        (plan(), plan(max_connections_per_ip=3)),
        (plan(max_connections_per_ip=9), plan(max_connections=3, max_connections_per_ip=8)),
    ],
)
def test_the_door_never_lets_in_one_too_many(
    first: SecurityPlan, route: SecurityPlan | None
) -> None:
    """Three may be open by any of the limits; when one leaves, one more may come."""
    worker = alone(first, route)
    assert [worker.enter() for _ in range(5)] == [True, True, True, False, False]
    worker.leave()
    assert [worker.enter(), worker.enter()] == [True, False]


def test_a_rate_holds_at_the_door_and_is_over_after_its_period() -> None:
    """Four within the period; what is over counts no more, in whatever parts it passes."""
    worker = alone(plan(rate=4), plan(rate=40))
    assert [worker.enter(now=NOW) for _ in range(5)] == [True] * 4 + [False]
    assert not worker.enter(now=NOW + PERIOD_S - 1)
    assert worker.enter(now=NOW + PERIOD_S + 1.1)


def test_two_workers_hold_one_limit() -> None:
    """Each sees what the other let in by its door, also where the other came later."""
    tables = LimitTables(64)
    workers = []
    for row in range(2):
        tables.open_row(row)
        limits = Limits(mmap.mmap(tables.fd, 0), row)
        workers.append(Worker(limits, plan(max_connections_per_ip=6), plan(rate=100)))
    one, two = workers
    assert [one.enter() for _ in range(3)] == [True] * 3
    assert [two.enter() for _ in range(3)] == [True] * 3
    assert [one.enter(), two.enter()] == [False, False]
    tables.forget(1)  # two was killed
    assert [one.enter() for _ in range(4)] == [True, True, True, False]
    tables.close()


def test_who_is_blocked_never_gets_a_pass() -> None:
    """The rules are the gates' business: the door knows nobody whom they refuse."""
    limits = private_limits()
    sets = [Addresses(build([parse_range("192.0.2.0/24")]))]
    first = Gate("", SecurityPlan(block=0, max_connections_per_ip=5), sets, limits)
    route = Gate("r", SecurityPlan(allow=0), sets, limits)
    assert Door(first, None, limits).enter(IP, NOW) is None
    assert Door(None, route, limits).enter(OTHER, NOW) is None
    assert Door(None, route, limits).enter(IP, NOW) == ()


@pytest.mark.parametrize("seed", range(20))
def test_any_mixture_counts_as_the_gates_alone_would(seed: int) -> None:
    """Clients, times and ends at random: the same answers, and the same open at the end."""
    chance = random.Random(seed)
    limits = plan(max_connections=9, max_connections_per_ip=4, rate=6)
    both, gates = alone(limits, limits), alone(limits, limits)
    now = NOW
    for _ in range(400):
        now += chance.choice([0.0, 0.0, 0.3, 2.0])
        if chance.random() < 0.4 and both.open:
            both.leave()
            gates.leave()
            continue
        ip = chance.choice([IP, OTHER, "203.0.113.5"])
        assert both.enter(ip, now) == gates.by_gates(ip, now)
    assert len(both.open) == len(gates.open)
    while both.open:
        both.leave()
    assert not any(cell & 0xFFFFF for cell in both.limits.cells[:65536])
