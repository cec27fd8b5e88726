"""Which worker polls which listener."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from supervisor.assignment import spread, steered, union

OWNERS = st.integers(1, 40).flatmap(
    lambda slots: st.tuples(
        st.just(slots),
        st.dictionaries(st.integers(0, slots - 1), st.integers(1, 10_000), min_size=1).map(
            lambda by_slot: {key: slot for slot, key in by_slot.items()}
        ),
    )
)


@given(OWNERS)
def test_every_index_has_exactly_one_poller(case: tuple[int, dict[int, int]]) -> None:
    """Whoever is there, each socket index goes to exactly one worker."""
    slots, owners = case
    share = spread(slots, owners)
    assert set(share) == set(owners)
    assert sorted(index for indexes in share.values() for index in indexes) == list(range(slots))


@given(OWNERS)
def test_own_slot_first_and_the_rest_evenly(case: tuple[int, dict[int, int]]) -> None:
    """A worker polls its own slot's index; no two differ by more than one index."""
    slots, owners = case
    share = spread(slots, owners)
    assert all(slot in share[key] for key, slot in owners.items())
    sizes = [len(indexes) for indexes in share.values()]
    assert max(sizes) - min(sizes) <= 1


def test_without_workers_nothing_is_assigned() -> None:
    """With nobody to poll the share is empty."""
    assert spread(4, {}) == {}


def test_a_change_first_gives() -> None:
    """While a change is under way each worker polls what it had and what it will have."""
    target = spread(2, {1: 0, 2: 1})
    held = {1: frozenset({0, 1}), 2: frozenset({1})}
    assert union(2, {1: {0, 1}}, target) == held


def test_what_nobody_polls_is_polled_by_all_at_once() -> None:
    """A socket whose worker is gone does not wait for one that may hang as well."""
    target = spread(3, {1: 0, 2: 1})
    assert target == {1: frozenset({0, 2}), 2: frozenset({1})}
    during = union(3, {1: {0}, 2: {1}}, target)
    assert during == {1: frozenset({0, 2}), 2: frozenset({1, 2})}


@given(OWNERS)
def test_a_change_never_leaves_a_socket_alone(case: tuple[int, dict[int, int]]) -> None:
    """Whoever polled what before: while a change is under way every socket has a poller."""
    slots, owners = case
    during = union(slots, {}, spread(slots, owners))
    assert set().union(*during.values()) == set(range(slots))


@given(OWNERS)
def test_new_connections_go_to_one_socket_of_each_worker(case: tuple[int, dict[int, int]]) -> None:
    """They are steered to the workers' own sockets, or to all where each worker has one."""
    slots, owners = case
    share = spread(slots, owners)
    indexes = steered(slots, owners)
    if len(owners) == slots:
        assert indexes == frozenset()
    else:
        assert [len(indexes & polled) for polled in share.values()] == [1] * len(owners)
