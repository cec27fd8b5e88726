"""Connections and rates per key, counted over all workers in shared memory (design section 5).

`shared/limit_layout.py` has the layout. Each worker writes its own row and reads everyone's, so a
burst may overshoot by one for each other worker, which may have looked at the same moment.

A key is a 64-bit hash. The processes of one run share the seed of Python's own str hash, which is
keyed (SipHash) and random: nobody outside can choose addresses that fall together.

A rate is counted in parts of its period: the one under way and RING - 1 whole ones make at least
the period, so no more than the limit falls within any period, and all is forgotten after at most
RING / (RING - 1) of it. An entry is free again when nothing is open under it and its rate is over:
no sweep, and no memory for addresses that are gone.

The hot path is `Table.enter`: a comparison of the bucket's tags with those that were seen last
time, one number for each row that has the key, one number written. `worker/door.py` has a shorter
one for a client that it has just seen.
"""

from __future__ import annotations

import mmap
from struct import Struct as Packer
from typing import Final

from shared.limit_layout import (
    BUCKET_BYTES,
    CELL_BYTES,
    COUNT_BITS,
    EPOCH,
    EPOCH_SHIFT,
    HEADER_CELLS,
    ONE_MORE,
    OPEN,
    OPEN_STRIDE,
    RING,
    RING_CELLS,
    WAY_BYTES,
    WAYS,
    Layout,
    TableLayout,
    layout,
)

# What `Table.enter` says in place of a cell.
NOT_COUNTED: Final = -1  # the bucket is full: the connection is served and not counted
FULL: Final = -2  # as many are open as may be
TOO_FAST: Final = -3  # as many came within the period as may

_LAST: Final = RING - 1
_EXPIRES: Final = RING  # place among an entry's RING_CELLS
_U32: Final = 0xFFFFFFFF
_pack: Final = Packer("q").pack


class Rate:
    """A limit of ``most`` within any ``period_s`` seconds, in the parts that the ring counts."""

    __slots__ = ("most", "part_s", "period_s")

    def __init__(self, most: int, period_s: float) -> None:
        self.most = most
        self.period_s = period_s
        self.part_s = period_s / (RING - 1)


class Place:
    """Where a key was last found. Free to be forgotten at any time: all that counts is shared."""

    __slots__ = ("bucket", "key", "others", "own", "rows", "start", "tags")

    def __init__(self, key: int, start: int) -> None:
        self.key = key or 1  # 0 is what an empty entry has
        self.start = start
        self.bucket = slice(start, start)  # of the memory: its tags of all rows used so far
        self.rows = 0
        self.tags = b""
        self.own = -1  # our cell; -1: none yet
        self.others: tuple[int, ...] = ()  # cells of other rows


class Table:
    """One table of the shared memory, as the worker of ``row`` sees it."""

    def __init__(
        self, memory: mmap.mmap, where: Layout, table: TableLayout, row: int, has_rates: bool
    ) -> None:
        self.not_counted = 0  # connections that found no free entry
        self._memory = memory
        self._row = row
        self._entries = table.entries
        self._mask = table.buckets - 1
        self._tags_at = table.tags
        self._row_bytes = BUCKET_BYTES * where.rows
        self._first_cell = table.first_cell
        view = memoryview(memory)
        self._header = view[: where.open].cast("Q")
        self._tags = view[table.tags :][: table.buckets * self._row_bytes].cast("q")
        self.cells = view[where.cells : where.rings].cast("Q")
        self._rings = view[where.rings : where.size].cast("I") if has_rates else None

    def place(self, key: int) -> Place:
        """For `enter`; good for as long as it is kept."""
        return Place(key, self._tags_at + (key & self._mask) * self._row_bytes)

    def own(self, place: Place) -> int:
        """Our cell for the key as it is now, -1 where there is none."""
        if self._header[1] != place.rows or self._memory[place.bucket] != place.tags:
            self._look(place)
        return place.own

    def known(self, place: Place) -> tuple[int, ...]:
        """The cells that all rows have for the key, our own first; () where we have none."""
        own = self.own(place)
        return () if own < 0 else (own, *place.others)

    def enter(self, place: Place, most: int, rate: Rate | None, now: float) -> int:
        """Count a connection under a key if less than ``most`` (0: any number) are open.

        Returns the number of the cell that counts it, which is to be lowered by one at its end, or
        NOT_COUNTED, FULL or TOO_FAST. ``now`` is of the monotonic clock, which all processes share.
        """
        if self._header[1] != place.rows or self._memory[place.bucket] != place.tags:
            self._look(place)
        cells = self.cells
        own = place.own
        epoch = 0
        mine = cells[own] if own >= 0 else 0
        open_ = mine & OPEN
        if rate is None:
            if most:
                for other in place.others:
                    open_ += cells[other] & OPEN
        else:
            epoch = int(now / rate.part_s) & EPOCH
            if own >= 0 and mine >> EPOCH_SHIFT != epoch:
                mine = self._advance(own, mine, epoch, rate, now)
            came = mine >> COUNT_BITS & OPEN
            for other in place.others:
                cell = cells[other]
                open_ += cell & OPEN
                if cell >> EPOCH_SHIFT == epoch:
                    came += cell >> COUNT_BITS & OPEN
                else:
                    came += self._kept(other, cell, epoch)
            # A ring that its owner writes at this moment may look like more: look again.
            if came >= rate.most and self._came(place, epoch) >= rate.most:
                return TOO_FAST if not most or open_ < most else FULL
        if most and open_ >= most:
            return FULL
        if own < 0:
            own = self._claim(place, now)
            if own < 0:
                self.not_counted += 1
                return NOT_COUNTED
            mine = 0 if rate is None else self._advance(own, 0, epoch, rate, now)
        cells[own] = mine + 1 if rate is None else mine + 1 + ONE_MORE
        return own

    def _look(self, place: Place) -> None:
        """Find the key in all rows that were ever used."""
        tag = _pack(place.key)
        place.rows = self._header[1]
        place.bucket = slice(place.start, place.start + place.rows * BUCKET_BYTES)
        place.tags = tags = self._memory[place.bucket]
        place.own = -1
        others = []
        first = self._first_cell + (place.key & self._mask) * WAYS
        at = tags.find(tag)
        while at >= 0:
            if at % WAY_BYTES:
                at = tags.find(tag, at + 1)
                continue
            row, way = divmod(at // WAY_BYTES, WAYS)
            cell = first + row * self._entries + way
            if row == self._row:
                place.own = cell
            else:
                others.append(cell)
            at = tags.find(tag, at + WAY_BYTES)
        place.others = tuple(others)

    def _claim(self, place: Place, now: float) -> int:
        """A free cell of ours for the key, or NOT_COUNTED."""
        own_tags = (place.start - self._tags_at) // WAY_BYTES + self._row * WAYS
        first = self._first_cell + self._row * self._entries + (place.key & self._mask) * WAYS
        for way in range(WAYS):
            cell = first + way
            if self._tags[own_tags + way] and not self._is_over(cell, now):
                continue
            # Cleared first: whoever finds the new tag must not read the old numbers.
            self._tags[own_tags + way] = 0
            self.cells[cell] = 0
            if self._rings is not None and self._rings[cell * RING_CELLS + _EXPIRES]:
                for place_ in range(cell * RING_CELLS, (cell + 1) * RING_CELLS):
                    self._rings[place_] = 0
            self._tags[own_tags + way] = place.key
            self._header[HEADER_CELLS + self._row] += 1
            return cell
        return NOT_COUNTED

    def _is_over(self, cell: int, now: float) -> bool:
        if self.cells[cell] & OPEN:
            return False
        return self._rings is None or self._rings[cell * RING_CELLS + _EXPIRES] <= now

    # -- rates -----------------------------------------------------------------------------
    #
    # At epoch E a cell's total is of the parts E - 15 to E. The ring has those before E; of E
    # itself it is what is left of the total. So the ring is written once a part.

    def _came(self, place: Place, epoch: int) -> int:
        cells = place.others if place.own < 0 else (place.own, *place.others)
        return sum(self._kept(cell, self.cells[cell], epoch) for cell in cells)

    def _kept(self, cell: int, value: int, epoch: int) -> int:
        """What of a cell's total still lies within the period that ends with ``epoch``."""
        total = value >> COUNT_BITS & OPEN
        last = value >> EPOCH_SHIFT
        behind = (epoch - last) & EPOCH
        if not behind:
            return total
        if not total or behind > _LAST or self._rings is None:
            return 0
        ring = cell * RING_CELLS
        gone = sum(self._rings[ring + (last + 1 + part) % RING] for part in range(behind))
        return max(0, total - gone)

    def _advance(self, cell: int, value: int, epoch: int, rate: Rate, now: float) -> int:
        """Our cell as it is at ``epoch``, written."""
        rings = self._rings
        assert rings is not None
        ring = cell * RING_CELLS
        last = value >> EPOCH_SHIFT
        behind = (epoch - last) & EPOCH
        kept = self._kept(cell, value, epoch)
        before = sum(rings[ring + (last + 1 + part) % RING] for part in range(_LAST))
        rings[ring + last % RING] = max(0, (value >> COUNT_BITS & OPEN) - before)
        for part in range(1, min(behind, RING)):
            rings[ring + (last + part) % RING] = 0
        if behind >= RING:
            for part in range(RING):
                rings[ring + part] = 0
        rings[ring + _EXPIRES] = min(_U32, int(now + rate.period_s + rate.part_s) + 2)
        value = epoch << EPOCH_SHIFT | kept << COUNT_BITS | value & OPEN
        self.cells[cell] = value
        return value


class Limits:
    """The shared memory of one worker."""

    def __init__(self, memory: mmap.mmap, row: int) -> None:
        view = memoryview(memory)
        where = layout(view[:8].cast("Q")[0])
        self._header = view[: where.open].cast("Q")
        self.addresses = Table(memory, where, where.addresses, row, has_rates=True)
        self.routes = Table(memory, where, where.routes, row, has_rates=False)
        self.cells = self.addresses.cells
        opens = view[where.open :][: 4 * OPEN_STRIDE * where.rows].cast("I")
        self.open = opens[::OPEN_STRIDE]  # connections, by row
        self.row = row
        self.open_here = self.open[row : row + 1]
        self.memory = memory
        self.news_at = slice(0, 0)  # of the memory
        self.news = b"nothing yet"  # other bytes there say that some row has taken an entry
        self.open_used = self.open[:0]  # of the rows in use, as of the last look

    def leave(self, counted_in: tuple[int, ...]) -> None:
        """A connection that counted in these cells is over."""
        cells = self.cells
        for cell in counted_in:
            cells[cell] -= 1

    def look(self) -> bytes:
        """The ``news`` of now: while they are equal, every key is where it was."""
        if self.memory[self.news_at] == self.news:
            return self.news
        rows = 0
        while rows != self._header[1]:  # a row that is opened meanwhile must be looked at too
            rows = self._header[1]
            self.news_at = slice(CELL_BYTES, CELL_BYTES * (HEADER_CELLS + rows))
            self.news = self.memory[self.news_at]
        self.open_used = self.open[:rows]
        return self.news

    def open_everywhere(self) -> int:
        """Connections open in all workers."""
        self.look()
        return sum(self.open_used)

    @property
    def not_counted(self) -> int:
        """Connections that found no free entry in a table."""
        return self.addresses.not_counted + self.routes.not_counted


def private_limits() -> Limits:
    """Limits of a worker that is alone."""
    memory = mmap.mmap(-1, layout(1).size)
    memory[:16] = Packer("QQ").pack(1, 1)
    return Limits(memory, 0)
