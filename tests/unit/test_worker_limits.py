"""Limits over all workers: several rows of one shared memory, with a clock of the test's own."""

from __future__ import annotations

import itertools
import mmap
import random
from collections.abc import Iterator
from typing import Final

import pytest

from shared.limit_layout import (
    ADDRESS_BUCKETS,
    OPEN_STRIDE,
    PAGE_BYTES,
    RING,
    RING_CELLS,
    WAYS,
    layout,
    rows_for,
)
from supervisor.limit_tables import LimitTables
from worker.limits import FULL, NOT_COUNTED, TOO_FAST, Limits, Rate, Table

ROWS: Final = 8
START_S: Final = 1000.0


class Shared:
    """The supervisor's tables, and a worker's view for each row that is asked for."""

    def __init__(self) -> None:
        self.tables = LimitTables(ROWS)

    def worker(self, row: int) -> Limits:
        """A worker that writes this row."""
        self.tables.open_row(row)
        return Limits(mmap.mmap(self.tables.fd, 0), row)


@pytest.fixture
def shared() -> Iterator[Shared]:
    """Memory of its own."""
    one = Shared()
    yield one
    one.tables.close()


def enter(table: Table, key: int, most: int = 0, rate: Rate | None = None, at: float = 0.0) -> int:
    """Enter at ``at`` seconds after the start of the test's clock."""
    return table.enter(table.place(key), most, rate, START_S + at)


def leave(table: Table, cell: int) -> None:
    """The connection that this cell counts has ended."""
    table.cells[cell] -= 1


def colliding(count: int) -> list[int]:
    """Keys that fall into one bucket."""
    return [7 + ADDRESS_BUCKETS * (1 + number) for number in range(count)]


def test_a_limit_holds_over_all_workers(shared: Shared) -> None:
    """What one worker has open counts for the others, and leaves with the connection."""
    workers = [shared.worker(row).addresses for row in range(3)]
    first = enter(workers[0], 42, most=3)
    assert first >= 0
    assert enter(workers[1], 42, most=3) >= 0
    assert enter(workers[2], 42, most=3) >= 0
    assert [enter(worker, 42, most=3) for worker in workers] == [FULL] * 3
    assert enter(workers[1], 43, most=3) >= 0
    leave(workers[0], first)
    assert enter(workers[2], 42, most=3) >= 0
    assert enter(workers[0], 42, most=3) == FULL


def test_key_zero_is_a_key(shared: Shared) -> None:
    """A hash may be 0, which stands for an empty entry in the memory."""
    table = shared.worker(0).addresses
    entry = enter(table, 0, most=1)
    assert entry >= 0
    assert enter(table, 0, most=1) == FULL
    leave(table, entry)
    assert enter(table, 0, most=1) == entry


def test_negative_keys_are_keys(shared: Shared) -> None:
    """Python's hashes are signed."""
    one, two = shared.worker(0).addresses, shared.worker(1).addresses
    assert enter(one, -123456789, most=1) >= 0
    assert enter(two, -123456789, most=1) == FULL


def test_connections_of_a_dead_worker_count_no_more_but_its_rates_do(shared: Shared) -> None:
    """The supervisor sets what is open to zero; who came too often stays so, even in a new row."""
    one, two = shared.worker(0).addresses, shared.worker(1).addresses
    rate = Rate(4, 60.0)
    for _ in range(3):
        assert enter(one, 9, most=3, rate=rate) >= 0
    assert enter(two, 9, most=3, rate=rate) == FULL
    shared.tables.forget(0)
    assert enter(two, 9, most=3, rate=rate, at=1.0) >= 0
    assert enter(two, 9, most=3, rate=rate, at=1.0) == TOO_FAST
    successor = shared.worker(0).addresses
    assert enter(successor, 9, most=3, rate=rate, at=2.0) == TOO_FAST
    assert enter(successor, 9, most=3, rate=rate, at=70.0) >= 0


def test_forgetting_one_row_leaves_the_others(shared: Shared) -> None:
    """Only the dead worker's connections are gone."""
    tables = [shared.worker(row) for row in range(3)]
    for limits in tables:
        assert enter(limits.addresses, 5, most=9) >= 0
        assert enter(limits.routes, 6, most=9) >= 0
        limits.open[limits.row] = 10
    shared.tables.forget(1)
    assert tables[0].open_everywhere() == 20
    assert [enter(tables[0].addresses, 5, most=3), enter(tables[0].addresses, 5, most=3)][1] == FULL
    assert enter(tables[2].routes, 6, most=3) >= 0
    assert enter(tables[2].routes, 6, most=3) == FULL


def test_a_full_bucket_refuses_no_one(shared: Shared) -> None:
    """What finds no entry is not counted, and served; a free entry is used again."""
    table = shared.worker(0).addresses
    keys = colliding(WAYS + 1)
    entries = [enter(table, key, most=1) for key in keys]
    assert all(entry >= 0 for entry in entries[:WAYS])
    assert entries[WAYS] == NOT_COUNTED
    leave(table, entries[3])
    assert enter(table, keys[WAYS], most=1) == entries[3]
    assert enter(table, keys[WAYS], most=1) == FULL
    assert enter(table, keys[3], most=1) == NOT_COUNTED


def test_an_entry_is_free_only_once_its_rate_is_over(shared: Shared) -> None:
    """A client's rate is kept for its period, and its memory for little longer."""
    table = shared.worker(0).addresses
    rate = Rate(1, 10.0)
    keys = colliding(WAYS + 1)
    for key in keys[:WAYS]:
        leave(table, enter(table, key, rate=rate))
    assert enter(table, keys[WAYS], rate=rate, at=9.0) == NOT_COUNTED
    assert enter(table, keys[WAYS], rate=rate, at=14.0) >= 0
    assert enter(table, keys[WAYS], rate=rate, at=14.5) == TOO_FAST


def test_a_reused_entry_begins_at_zero(shared: Shared) -> None:
    """Nothing of the address that had an entry before counts for the one that gets it."""
    table = shared.worker(0).addresses
    rate = Rate(3, 5.0)
    keys = colliding(WAYS + 1)
    for key in keys[:WAYS]:
        for _ in range(3):
            leave(table, enter(table, key, rate=rate))
    late = [enter(table, keys[WAYS], rate=rate, at=20.0) for _ in range(4)]
    assert late[:3] == [late[0]] * 3
    assert late[3] == TOO_FAST


def test_a_rate_holds_over_all_workers_and_refusals_do_not_count(shared: Shared) -> None:
    """Of a burst just the limit is served, however often it is tried; a period later again."""
    workers = [shared.worker(row).addresses for row in range(4)]
    rate = Rate(10, 3.0)
    for start in (0.0, 3.3, 6.7):
        served = 0
        for number in range(200):
            entry = enter(workers[number % 4], 77, rate=rate, at=start + number / 1000)
            served += entry >= 0
            assert entry >= 0 or entry == TOO_FAST
        assert served == 10


def test_no_period_ever_holds_more_than_the_rate(shared: Shared) -> None:
    """At random instants on random workers: within any period of time at most the limit."""
    choose = random.Random(5)
    workers = [shared.worker(row).addresses for row in range(3)]
    rate = Rate(20, 2.0)
    at, served = 0.0, []
    for _ in range(4000):
        at += choose.expovariate(25.0)
        if enter(workers[choose.randrange(3)], 5, rate=rate, at=at) >= 0:
            served.append(at)
    for index, start in enumerate(served):
        within = [one for one in served[index : index + 40] if one < start + rate.period_s]
        assert len(within) <= rate.most
    # The ring forgets late by one part at the most, so hardly anything is withheld.
    assert len(served) > at / (rate.period_s * (RING + 1) / (RING - 1)) * rate.most


def test_a_million_addresses_stay_within_the_table(shared: Shared) -> None:
    """Addresses that never come back: the memory is the table's, and nearly all are counted."""
    table = shared.worker(0).addresses
    rate = Rate(300, 60.0)
    choose = random.Random(1)
    not_counted = 0
    for number in range(1_000_000 // 20):  # the same density in a twentieth of the time
        key = choose.getrandbits(63)
        entry = enter(table, key, most=5, rate=rate, at=number * 3600 / 1_000_000)
        if entry < 0:
            not_counted += 1
        else:
            leave(table, entry)
    assert not_counted <= 2  # of 50,000; 18,000 of them within one period


def test_rows_fit_their_places() -> None:
    """Every place begins on a page and none overlaps the next."""
    for slots in (1, 8, 1024):
        rows = rows_for(slots)
        where = layout(rows)
        addresses, routes = rows * where.addresses.entries, rows * where.routes.entries
        places = [
            (0, 16),
            (where.open, 4 * OPEN_STRIDE * rows),
            (where.addresses.tags, 8 * addresses),
            (where.routes.tags, 8 * routes),
            (where.cells, 8 * (addresses + routes)),
            (where.rings, 4 * RING_CELLS * addresses),
            (where.size, 0),
        ]
        assert where.routes.first_cell == addresses
        for (start, size), (following, _) in itertools.pairwise(places):
            assert start % PAGE_BYTES == 0
            assert start + size <= following
        assert 8 * where.addresses.entries % PAGE_BYTES == 0
        assert 8 * where.routes.entries % PAGE_BYTES == 0
