"""The access log of one worker: lines are made here, and written by a thread of their own.

Traffic never waits for the log. Nothing that the thread holds while it writes is needed here: lines
gather in a list, a chunk of them goes into a queue, and where the file does not take them as fast
as they come they are dropped and counted.

Lines are made on the loop's thread, some at a time: one by one costs 0.8 us a line more, since the
processor has other code in its cache between two connections, and made on the writing thread they
cost 0.5 us more, since that has to take the interpreter away for it. The chunks are as large as may
be: each one costs two changes of threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeAlias

from shared.access_format import Entry, RequestEntry, Usual, line_maker, usual_json_pattern
from shared.plan import AccessPlan
from worker.access_writer import TOO_SLOW, AccessWriter, Order

Note: TypeAlias = Callable[[str, str, dict[str, str]], None]  # (level, message, fields)

_USUAL: Final = 14  # values of a Usual
LINES_AT_ONCE: Final = 32  # made in 50 us
FLUSH_BYTES: Final = 49152  # with what one more round of lines adds, a write of 64 KiB at the most
FLUSH_S: Final = 0.2
BUFFER_MAX_BYTES: Final = 8 * 1024 * 1024  # a second's lines at 25,000 connections a second
_CHUNK_MAX_BYTES: Final = 8 * FLUSH_BYTES  # and some lines more; UTF-8 at its widest
NOTE_S: Final = 10.0  # from one line in the operational log to the next
REOPEN_MAX_S: Final = 0.5  # for what still goes to the old file; well within a silent worker's 1 s
_SLACK_S: Final = 0.05  # ticks come every 0.1 s, more or less


class AccessLog:
    """One file, one thread. All methods are for the loop's thread; times are time.monotonic's."""

    def __init__(self, plan: AccessPlan, id_prefix: str, note: Note) -> None:
        """``id_prefix`` with a connection's number is its id, ``0-17-``.

        OSError when the file cannot be opened; ValueError for a template that is none.
        """
        self.plan: Final = plan
        self._line: Final = line_maker(plan.format, id_prefix)
        self._usual: Final = usual_json_pattern(id_prefix)
        self.takes_usual = plan.format == "json"
        self._note = note
        #: Lines that are not made yet. On the hot path of each connection a Usual is added without
        #: `write`: where ``takes_usual``, unless ``is_full``, with the ``time`` of ``now``; then
        #: `make` at LINES_AT_ONCE.
        self.entries: list[Usual | tuple[str, Entry | RequestEntry]] = []
        self._made: list[str] = []
        self._made_lines = 0
        self._made_size = 0  # in characters
        self._handed_bytes = 0
        self._handed_lines = 0
        self._handed_at = time.monotonic()
        self._refused = 0  # lines for which the buffer had no room
        self.is_full = False
        self._is_closed = False
        self._is_given_up = False  # the thread hangs; what it was given counts as dropped
        self.now = -1.0  # of ``time``
        self._second = -1
        self._date = ""
        self.time = ""
        self._noted_dropped = 0
        self._noted_refused = 0
        self._noted_lines = 0
        self._note_at = 0.0
        self._is_in_trouble = False
        self._set_offset()
        self._writer = AccessWriter(plan.file)

    @property
    def lines(self) -> int:
        """Lines written so far."""
        return self._writer.written

    @property
    def dropped(self) -> int:
        """Lines lost so far, for want of room or because the file took them not."""
        if self._is_given_up:
            return self._refused + self._handed_lines - self._writer.written
        return self._refused + self._writer.lost

    def write(self, now: float, entry: Entry | RequestEntry) -> None:
        """Add a line; ``now`` is the time of the loop's turn. Never waits, never raises."""
        if self.is_full and not self._has_room():
            self._refused += 1
            return
        if now != self.now:
            self.look_at_clock(now)
        self.entries.append((self.time, entry))
        if len(self.entries) >= LINES_AT_ONCE:
            self.make(now)

    def tick(self, now: float) -> None:
        """To be called every 0.1 s: hands over what has waited FLUSH_S, tells of trouble."""
        self._set_offset()
        if not self.entries and not self._made:
            self._handed_at = now
        elif now - self._handed_at >= FLUSH_S - _SLACK_S:
            self._hand_over(now)
        if now >= self._note_at:
            self._tell(now)

    def reopen(self) -> str:
        """Open the file again by its path, after a rotation; says what went wrong, or "".

        What was written before goes to the old file, what comes later to the new one, also where
        the old one takes so long that this does not wait for it.
        """
        if self._is_closed:
            return ""
        now = time.monotonic()
        self._hand_over(now)
        order = Order(now, is_last=False)
        self._writer.order(order)
        if order.done.wait(REOPEN_MAX_S):
            return order.error
        return f"{self.plan.file}: opened again only when the old file has taken what waits"

    def close(self, timeout_s: float) -> None:
        """Write what waits and end the thread; what it has not written in time is dropped."""
        if self._is_closed:
            return
        now = time.monotonic()
        self._hand_over(now)
        self._is_closed = self.is_full = True
        # The thread gives up a little earlier than we do, so that it can still count.
        self._writer.order(Order(now + 0.8 * timeout_s, is_last=True))
        self._is_given_up = not self._writer.join(timeout_s)
        self._tell(now)

    def make(self, now: float) -> None:
        """Make the lines of all entries."""
        usual, line = self._usual, self._line
        text = "".join(
            [usual % entry if len(entry) == _USUAL else line(*entry) for entry in self.entries]
        )
        self._made.append(text)
        self._made_size += len(text)
        self._made_lines += len(self.entries)
        self.entries.clear()
        if self._made_size >= FLUSH_BYTES:
            self._put(now)

    def _hand_over(self, now: float) -> None:
        """Give the thread all that there is."""
        if self.entries:
            self.make(now)
        if self._made:
            self._put(now)

    def _put(self, now: float) -> None:
        chunk = "".join(self._made).encode()
        self._handed_at = now
        self._handed_lines += self._made_lines
        self._handed_bytes += len(chunk)
        self._made.clear()
        self._made_lines = self._made_size = 0
        self._writer.put(chunk)
        self.is_full = not self._has_room()

    def _has_room(self) -> bool:
        if self._is_closed:
            return False
        waiting = self._handed_bytes - self._writer.taken_bytes
        if waiting + _CHUNK_MAX_BYTES > BUFFER_MAX_BYTES:
            return False
        self.is_full = False
        return True

    def _set_offset(self) -> None:
        """The wall clock may be set; at most a tick later the lines say so."""
        self._offset = time.time() - time.monotonic()

    def look_at_clock(self, now: float) -> None:
        """Have ``time`` as the text of ``now``."""
        self.now = now
        wall = now + self._offset
        second = int(wall)
        if second != self._second:
            self._second = second
            self._date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        self.time = f"{self._date}.{int((wall - second) * 1000):03d}Z"

    def _tell(self, now: float) -> None:
        """A note where lines were dropped since the last one, or where they no longer are."""
        dropped, lines = self.dropped, self._writer.written
        if dropped != self._noted_dropped:
            more = dropped - self._noted_dropped
            is_slow = more == self._refused - self._noted_refused
            fields = {
                "file": self.plan.file,
                "lines": str(more),
                "dropped": str(dropped),
                "reason": TOO_SLOW if is_slow else self._writer.trouble or TOO_SLOW,
            }
            self._note("warning", "access log lines dropped", fields)
            self._is_in_trouble = True
        elif self._is_in_trouble and lines != self._noted_lines:
            self._note("info", "the access log is written again", {"file": self.plan.file})
            self._is_in_trouble = False
        else:
            return
        self._noted_dropped, self._noted_refused = dropped, self._refused
        self._noted_lines = lines
        self._note_at = now + NOTE_S
