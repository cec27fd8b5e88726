"""Counts in shared memory."""

from __future__ import annotations

import mmap
from collections.abc import Iterator

import pytest

from shared.stats import COUNT_CELLS, COUNT_ROW_CELLS
from supervisor.counts import ROW_BYTES, Counts, CountsTable

ROWS = 8


@pytest.fixture
def table() -> Iterator[CountsTable]:
    """A table of its own."""
    one = CountsTable(ROWS)
    yield one
    one.close()


def write(table: CountsTable, row: int, *cells: int) -> None:
    """What a worker does: by its own mapping of the descriptor."""
    with mmap.mmap(table.fd, ROWS * ROW_BYTES) as mapped:
        view = memoryview(mapped).cast("Q")
        view[row * COUNT_ROW_CELLS : row * COUNT_ROW_CELLS + COUNT_CELLS] = memoryview(
            b"".join(cell.to_bytes(8, "little") for cell in cells)
        ).cast("Q")
        view.release()


def test_rows_of_living_workers_are_read_at_any_moment(table: CountsTable) -> None:
    """The total is what the workers wrote until now."""
    first, second = table.take(), table.take()
    write(table, first, 5, 4, 3)
    write(table, second, 10, 10, 10)
    assert table.total() == Counts(15, 14, 13)


def test_fold_keeps_the_numbers_and_ends_what_was_open(table: CountsTable) -> None:
    """A dead worker's accepted connections have ended, and its row is used anew from zero."""
    row = table.take()
    write(table, row, 5, 4, 3)
    table.fold(row)
    assert table.total() == Counts(5, 4, 5)
    again = table.take()
    assert again == row
    assert table.read(again) == Counts(0, 0, 0)
    table.fold(row)
    table.fold(row)
    assert table.total() == Counts(5, 4, 5)


def test_slots_keep_what_their_dead_workers_counted(table: CountsTable) -> None:
    """The numbers of a slot go on where its last worker ended."""
    first, other = table.take(1), table.take(0)
    write(table, first, 5, 4, 3)
    write(table, other, 2, 2, 2)
    table.fold(first)
    again = table.take(1)
    write(table, again, 1, 1, 0)
    assert table.by_slot() == {1: Counts(6, 5, 5), 0: Counts(2, 2, 2)}
