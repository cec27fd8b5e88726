"""The timer wheel: never early, at most a tick late, and nothing kept that is done."""

from __future__ import annotations

import gc
import weakref
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from worker.timer_wheel import MOST_AT_ONCE, NO_SLOT, TimerWheel

TICK_S: Final = 0.1
START: Final = 5000.0


class Item:
    """What connections look like to the wheel."""

    __slots__ = ("__weakref__", "slot")

    def __init__(self) -> None:
        self.slot = NO_SLOT


def wheel_at(now: float) -> TimerWheel[Item]:
    """An empty wheel."""
    return TimerWheel(TICK_S, now)


@given(st.lists(st.floats(0, 30, allow_nan=False), min_size=1, max_size=40))
def test_items_come_never_early_and_at_most_a_tick_late(waits: list[float]) -> None:
    """Whatever the deadlines, an item comes out within one tick after its own."""
    wheel, due = wheel_at(START), {}
    for wait in waits:
        item = Item()
        wheel.arm(item, START + wait)
        due[item] = START + wait
    now, came = START, {}
    while now < START + 31:
        now += TICK_S
        came.update(dict.fromkeys(wheel.expire(now), now))
    assert came.keys() == due.keys()
    for item, at in came.items():
        # Two ticks: one of the slot, one because `now` need not lie on a slot's border.
        assert due[item] <= at <= due[item] + 2 * TICK_S
        assert item.slot == NO_SLOT
    assert len(wheel) == 0


def test_exactly_on_the_border_of_a_slot() -> None:
    """A deadline that is a multiple of the tick is not handed out before it."""
    wheel, item = wheel_at(0.0), Item()
    wheel.arm(item, 0.5)
    assert wheel.expire(0.4999) == []
    assert wheel.expire(0.6001) == [item]


def test_the_earlier_deadline_stands() -> None:
    """Arming again moves a deadline forward and never back."""
    wheel, item = wheel_at(START), Item()
    wheel.arm(item, START + 5)
    wheel.arm(item, START + 1)
    wheel.arm(item, START + 3)
    assert len(wheel) == 1
    assert wheel.expire(START + 1.2) == [item]
    assert wheel.expire(START + 10) == []


def test_a_deadline_in_the_past_comes_with_the_next_tick() -> None:
    """Nothing gets lost behind the hand of the wheel."""
    wheel, item = wheel_at(START), Item()
    wheel.arm(item, START - 100)
    assert wheel.expire(START) == []
    assert wheel.expire(START + 2 * TICK_S) == [item]


def test_discarded_items_never_come() -> None:
    """An item that was taken out is not handed out, and taking it out twice is no error."""
    wheel, item = wheel_at(START), Item()
    wheel.arm(item, START + 1)
    wheel.discard(item)
    wheel.discard(item)
    assert (len(wheel), item.slot) == (0, NO_SLOT)
    assert wheel.expire(START + 5) == []


def test_a_discarded_item_is_not_kept_alive() -> None:
    """A deadline hours away holds nothing that is done."""
    wheel, item = wheel_at(START), Item()
    wheel.arm(item, START + 14400)
    seen = weakref.ref(item)
    gc.disable()
    try:
        wheel.discard(item)
        del item
        assert seen() is None
    finally:
        gc.enable()


def test_all_that_are_in_the_wheel() -> None:
    """Each once, however often it was armed; neither what was discarded nor what was handed out."""
    wheel = wheel_at(START)
    assert wheel.items() == []
    soon, late, moved, gone = items = [Item() for _ in range(4)]
    for item, wait in zip(items, (1.0, 14400.0, 9.0, 1.0), strict=True):
        wheel.arm(item, START + wait)
    wheel.arm(moved, START + 3)
    wheel.discard(gone)
    found = wheel.items()
    assert len(found) == 3
    assert set(found) == {soon, late, moved}
    assert wheel.expire(START + 2) == [soon]
    assert set(wheel.items()) == {late, moved}
    for item in wheel.items():  # a copy: taking them out on the way is no error
        wheel.discard(item)
    assert (wheel.items(), len(wheel)) == ([], 0)


def test_mass_expiry_comes_in_slices() -> None:
    """Items of one instant come in slices, each once, and those that left meanwhile not at all."""
    wheel = wheel_at(START)
    items = [Item() for _ in range(2 * MOST_AT_ONCE + 200)]
    for item in items:
        wheel.arm(item, START + 1)
    first = wheel.expire(START + 2)
    waiting = [item for item in items if item.slot != NO_SLOT]
    gone, again = waiting[0], waiting[1]
    wheel.discard(gone)
    wheel.arm(again, START + 1.5)  # still waits for its turn: comes once all the same
    slices = [first]
    while len(wheel):
        slices.append(wheel.expire(START + 2))
    came = [item for slice_ in slices for item in slice_]
    assert len(slices[0]) == MOST_AT_ONCE
    assert all(len(slice_) <= MOST_AT_ONCE for slice_ in slices)
    assert len(came) == len(set(came)) == len(items) - 1
    assert set(items) - set(came) == {gone}


def test_an_item_discarded_and_armed_while_it_waits_comes_at_its_new_deadline() -> None:
    """What waits in a slice and gets a later deadline neither comes early nor stays for ever."""
    wheel = wheel_at(START)
    items = [Item() for _ in range(MOST_AT_ONCE + 10)]
    for item in items:
        wheel.arm(item, START + 1)
    came = wheel.expire(START + 2)
    moved = next(item for item in items if item.slot != NO_SLOT)
    wheel.discard(moved)
    wheel.arm(moved, START + 9)
    came += wheel.expire(START + 3)
    assert moved not in came
    assert wheel.expire(START + 9.2) == [moved]
    assert len(wheel) == 0


def test_what_waits_for_its_turn_is_in_the_wheel() -> None:
    """Between two slices those of the next are among its items, but for discarded ones."""
    wheel = wheel_at(START)
    items = [Item() for _ in range(MOST_AT_ONCE + 10)]
    for item in items:
        wheel.arm(item, START + 1)
    came = wheel.expire(START + 2)
    waiting = set(items) - set(came)
    assert len(waiting) == len(wheel) == len(wheel.items())
    assert set(wheel.items()) == waiting
    wheel.discard(gone := waiting.pop())
    assert len(waiting) == len(wheel)
    assert gone not in wheel.items()


def test_what_lies_twice_in_a_slice_comes_once() -> None:
    """An item that was discarded and armed anew while it waited, and is due again by then."""
    wheel = wheel_at(START)
    items = [Item() for _ in range(MOST_AT_ONCE + 10)]
    for item in items:
        wheel.arm(item, START + 1)
    came = wheel.expire(START + 2)
    moved = next(item for item in items if item.slot != NO_SLOT)
    wheel.discard(moved)
    wheel.arm(moved, START + 2.5)
    came += wheel.expire(START + 4)
    assert len(came) == len(set(came)) == len(items)
    assert (wheel.items(), len(wheel)) == ([], 0)


@given(
    st.lists(
        st.tuples(st.sampled_from(["arm", "discard", "tick"]), st.integers(0, 7), st.floats(0, 4)),
        max_size=120,
    )
)
def test_any_sequence_of_calls_leaves_the_wheel_and_the_items_agreed(
    calls: list[tuple[str, int, float]],
) -> None:
    """After any calls the wheel holds exactly the items that believe to be in it."""
    wheel, items, now = wheel_at(START), [Item() for _ in range(8)], START
    for call, index, amount in calls:
        if call == "arm":
            wheel.arm(items[index], now + amount)
        elif call == "discard":
            wheel.discard(items[index])
        else:
            now += amount
            for item in wheel.expire(now):
                assert item.slot == NO_SLOT
    inside = [item for item in items if item.slot != NO_SLOT]
    assert len(wheel) == len(wheel.items()) == len(inside)
    assert set(wheel.items()) == set(inside)
