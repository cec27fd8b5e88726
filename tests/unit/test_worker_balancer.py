"""Balancing: smooth weights, marks, names with several addresses, each endpoint once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from socket import AF_INET, AF_INET6, AF_UNIX

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.plan import TargetPlan
from shared.stats import TargetCounts
from worker.balancer import LONGEST_SCHEDULE, MARK_S, Balancer, BalanceState, Target, schedule
from worker.tally import TargetTally

Addresses = Mapping[str, Sequence[str]]


def balancer(
    *plans: TargetPlan, addresses: Addresses | None = None, state: BalanceState | None = None
) -> Balancer:
    """A balancer over these targets."""
    state = state or BalanceState()
    made = Balancer([Target(plan, TargetTally(TargetCounts()), state) for plan in plans], state)
    made.resolve(addresses or {})
    return made


def plan(host: str, weight: int = 1, port: int = 80) -> TargetPlan:
    """A target, named after its host."""
    return TargetPlan(name=host, host=host, port=port, weight=weight)


def picks(of: Balancer, count: int, now: float = 0.0) -> list[str]:
    """Hosts of the next ``count`` picks."""
    endpoints = [of.pick(now) for _ in range(count)]
    return [endpoint.host if endpoint is not None else "" for endpoint in endpoints]


def test_the_order_is_smooth() -> None:
    """Weights 5, 1, 1 do not give five in a row."""
    assert schedule([5, 1, 1]) == [0, 0, 1, 0, 2, 0, 0]
    assert schedule([4, 2, 2]) == schedule([2, 1, 1])
    assert schedule([1]) == [0]


def test_weight_0_takes_no_turn() -> None:
    """Neither in the order of turns nor as what is tried after a failure."""
    assert schedule([0, 0]) == []
    assert 0 not in schedule([0, 3, 1])
    three = balancer(plan("10.0.0.1"), plan("10.0.0.2", weight=0), plan("10.0.0.3"))
    assert three.size == 2
    assert set(picks(three, 10)) == {"10.0.0.1", "10.0.0.3"}
    first = three.pick(0.0)
    assert first is not None
    assert "10.0.0.2" not in [endpoint.host for endpoint in three.others(first, 0.0)]


@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=20))
def test_shares_are_as_the_weights(weights: list[int]) -> None:
    """Each weight gets its share, within what the longest list can express, and none gets lost."""
    order = Counter(schedule(weights))
    total = sum(order.values())
    assert total <= LONGEST_SCHEDULE + len(weights)
    assert set(order) == {index for index, weight in enumerate(weights) if weight}
    for index, weight in enumerate(weights):
        if weight:
            share = weight / sum(weights)
            assert order[index] / total == pytest.approx(share, abs=0.002 * len(weights) + 0.001)


def test_the_position_outlives_the_balancer() -> None:
    """After a reload the turns go on where they were."""
    state = BalanceState()
    plans = [plan("10.0.0.1"), plan("10.0.0.2"), plan("10.0.0.3")]
    assert picks(balancer(*plans, state=state), 2) == ["10.0.0.1", "10.0.0.2"]
    assert picks(balancer(*plans, state=state), 2) == ["10.0.0.3", "10.0.0.1"]


def test_a_failed_endpoint_is_tried_last_while_its_mark_stands() -> None:
    """Not at all while another is there, and again once the time is over."""
    two = balancer(plan("10.0.0.1"), plan("10.0.0.2"))
    failed = two.pick(0.0)
    assert failed is not None
    failed.mark.failed_until = MARK_S
    assert picks(two, 6, now=1.0) == ["10.0.0.2"] * 6
    assert sorted(picks(two, 2, now=MARK_S)) == ["10.0.0.1", "10.0.0.2"]


def test_marks_outlive_a_resolution_and_the_balancer() -> None:
    """What is known of an address is kept by the address."""
    state = BalanceState()
    first = balancer(plan("10.0.0.1"), plan("10.0.0.2"), state=state)
    first.targets[0].endpoints[0].mark.failed_until = MARK_S
    first.resolve({})
    assert picks(first, 3, now=1.0) == ["10.0.0.2"] * 3
    again = balancer(plan("10.0.0.1"), plan("10.0.0.2"), state=state)
    assert picks(again, 3, now=1.0) == ["10.0.0.2"] * 3


def test_whose_mark_is_still_one_of_ours() -> None:
    """By what is configured and resolved now, not by what once was; failing changes nothing."""
    state = BalanceState()
    old = balancer(plan("app"), plan("10.0.0.9"), addresses={"app": ["10.0.0.1"]}, state=state)
    by_name, by_ip = (target.endpoints[0].mark for target in old.targets)
    by_name.failed_until = MARK_S
    assert old.has(by_name)
    assert old.has(by_ip)
    old.resolve({"app": ["10.0.0.2", "10.0.0.1"]})
    assert old.has(by_name)
    old.resolve({"app": ["10.0.0.2"]})
    assert not old.has(by_name)
    assert old.has(by_ip)
    same = balancer(plan("10.0.0.9"), state=state)
    assert same.has(by_ip)
    assert not same.has(by_name)
    assert not balancer(plan("10.0.0.9", port=81), state=state).has(by_ip)
    assert not balancer(plan("10.0.0.9"), state=BalanceState()).has(by_ip)


def test_what_takes_no_turns_has_no_marks() -> None:
    """A target that was given weight 0 gets no more requests over its kept connections either."""
    state = BalanceState()
    mark = balancer(plan("10.0.0.1"), plan("10.0.0.2"), state=state).targets[0].endpoints[0].mark
    less = balancer(plan("10.0.0.1", weight=0), plan("10.0.0.2"), state=state)
    assert less.targets[0].endpoints[0].mark is mark
    assert not less.has(mark)
    assert less.has(less.targets[1].endpoints[0].mark)


def test_with_all_marked_one_is_tried_all_the_same() -> None:
    """Down everywhere is no reason to refuse without a try."""
    two = balancer(plan("10.0.0.1"), plan("10.0.0.2"))
    for target in two.targets:
        target.endpoints[0].mark.failed_until = MARK_S
    assert "" not in picks(two, 4, now=1.0)


def test_a_name_takes_turns_over_its_addresses() -> None:
    """Each address of a name gets its part."""
    name = balancer(plan("app"), addresses={"app": ["10.0.0.1", "10.0.0.2", "10.0.0.3"]})
    assert Counter(picks(name, 9)) == {"10.0.0.1": 3, "10.0.0.2": 3, "10.0.0.3": 3}


def test_a_marked_address_of_a_name_is_tried_last() -> None:
    """The other addresses of the same name come before it."""
    name = balancer(plan("app"), addresses={"app": ["10.0.0.1", "10.0.0.2"]})
    name.targets[0].endpoints[0].mark.failed_until = MARK_S
    assert picks(name, 5, now=1.0) == ["10.0.0.2"] * 5
    assert set(picks(name, 4, now=MARK_S)) == {"10.0.0.1", "10.0.0.2"}


def test_names_without_addresses() -> None:
    """A name that does not resolve is left out; where none does there is no endpoint."""
    mixed = balancer(plan("gone"), plan("10.0.0.2"), addresses={"gone": []})
    assert mixed.size == 1
    assert picks(mixed, 3) == ["10.0.0.2"] * 3
    alone = balancer(plan("gone"), addresses={"gone": []})
    assert alone.pick(0.0) is None
    alone.resolve({"gone": ["10.0.0.9"]})
    assert picks(alone, 2) == ["10.0.0.9"] * 2


def test_others_has_each_endpoint_once_the_failed_ones_last() -> None:
    """Whatever the weights: all but the first, each once, the marked ones at the end."""
    addresses = {"app": ["10.0.0.1", "10.0.0.2"]}
    many = balancer(plan("app", 5), plan("10.0.0.3"), plan("10.0.0.4", 2), addresses=addresses)
    many.targets[1].endpoints[0].mark.failed_until = MARK_S
    first = many.pick(1.0)
    assert first is not None
    others = [endpoint.host for endpoint in many.others(first, 1.0)]
    assert len(others) == many.size - 1 == 3
    assert others[-1] == "10.0.0.3"
    assert {first.host, *others} == {"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"}


def test_addresses_as_connect_wants_them() -> None:
    """Host and port, a path for a Unix socket, None where the port is the client's."""
    state = BalanceState()
    made = [
        Target(TargetPlan(name="a", host="10.0.0.1", port=80), TargetTally(TargetCounts()), state),
        Target(TargetPlan(name="b", path="/run/b.sock"), TargetTally(TargetCounts()), state),
        Target(TargetPlan(name="c", host="::1"), TargetTally(TargetCounts()), state),
    ]
    for target in made:
        target.resolve({})
    found = [target.endpoints[0] for target in made]
    assert [endpoint.address for endpoint in found] == [("10.0.0.1", 80), "/run/b.sock", None]
    assert [endpoint.family for endpoint in found] == [AF_INET, AF_UNIX, AF_INET6]
