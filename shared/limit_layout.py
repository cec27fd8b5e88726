"""Where things lie in the shared memory of limits that hold over all workers (design section 5).

One row per worker incarnation. A row is written by its worker alone and read by all of them, so
nothing needs a lock; when its worker is gone the supervisor sets the row's connections to 0, and
its rates stay. Each place is a whole number of pages.

    header   unsigned 64-bit: rows there is room for, rows used so far (the lowest are used first),
             then for each row how often its worker took an entry for a key
    open     unsigned 32-bit, one cache line per row: connections open now
    tags     unsigned 64-bit, [bucket][row][way]: the key's hash, 0 where nothing is kept
    cells    unsigned 64-bit, [row][bucket][way]: epoch, total and open, in one number so
             that they are read at one moment; those of routes follow those of addresses
    rings    unsigned 32-bit, [row][bucket][way][RING_CELLS], for addresses only: how many came in
             each whole part of the rate's period, and the second at which all of it is over

A key is looked for in one bucket, for all rows with one search, since their tags lie side by side.
The memory is sparse: a page costs something once it is used.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

PAGE_BYTES: Final = 4096
WAYS: Final = 8  # entries of one row in one bucket
WAY_BYTES: Final = 8
BUCKET_BYTES: Final = WAYS * WAY_BYTES  # of one row
CELL_BYTES: Final = 8
ADDRESS_BUCKETS: Final = 16384  # 131,072 addresses a worker
ROUTE_BUCKETS: Final = 512  # 4,096 routes with a limit
RING: Final = 16  # parts of a rate's period that are counted apart; one of them is under way
RING_CELLS: Final = RING + 1
OPEN_STRIDE: Final = 16  # unsigned 32-bit numbers in a cache line
MIN_ROWS: Final = 64

HEADER_CELLS: Final = 2  # before those of the rows

COUNT_BITS: Final = 20
OPEN: Final = (1 << COUNT_BITS) - 1  # connections open now: the lowest bits of a cell
ONE_MORE: Final = 1 << COUNT_BITS  # added to a cell: one more came
EPOCH_SHIFT: Final = 2 * COUNT_BITS
EPOCH: Final = (1 << 64 - EPOCH_SHIFT) - 1


class TableLayout(Struct, frozen=True):
    """One table: ``tags`` in bytes from the start of the memory, ``first_cell`` in cells."""

    buckets: int
    tags: int
    first_cell: int

    @property
    def entries(self) -> int:
        """Of one row."""
        return self.buckets * WAYS


class Layout(Struct, frozen=True):
    """The whole memory for ``rows`` rows; offsets in bytes."""

    rows: int
    open: int
    cells: int
    rings: int
    size: int
    addresses: TableLayout
    routes: TableLayout


def rows_for(slots: int) -> int:
    """How many incarnations may live at one time: those that drain beside those that serve."""
    return max(MIN_ROWS, 4 * slots)


def layout(rows: int) -> Layout:
    """Where everything lies."""
    addresses = rows * ADDRESS_BUCKETS * WAYS
    routes = rows * ROUTE_BUCKETS * WAYS
    open_ = _after(0, CELL_BYTES * (HEADER_CELLS + rows))
    address_tags = _after(open_, 4 * OPEN_STRIDE * rows)
    route_tags = _after(address_tags, addresses * WAY_BYTES)
    cells = _after(route_tags, routes * WAY_BYTES)
    rings = _after(cells, (addresses + routes) * CELL_BYTES)
    return Layout(
        rows=rows,
        open=open_,
        cells=cells,
        rings=rings,
        size=_after(rings, addresses * RING_CELLS * 4),
        addresses=TableLayout(ADDRESS_BUCKETS, address_tags, 0),
        routes=TableLayout(ROUTE_BUCKETS, route_tags, addresses),
    )


def _after(at: int, size: int) -> int:
    end = at + size
    return end + -end % PAGE_BYTES
