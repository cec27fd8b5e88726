"""The relay: bytes from one socket of a connection to the other.

A direction starts in copy mode: recv(2) into one buffer that the whole worker shares, then send(2)
(`worker/syscalls.py`). Two full buffers in a row prove it to be bulk; then it moves to splice(2)
through a pooled pipe, and comes back when the moves get small. An idle connection holds neither
buffer nor pipe.

What the other side cannot take at once waits in its ``outbox`` (or in the pipe), and until that
is gone nothing more is read: backpressure costs no more memory than one buffer.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Final

from worker.endings import CLOSING, flushed, reset_waits, side_ended, side_lost
from worker.reactor import ENDED, FIN, OUT, RESET, WRITING
from worker.socket_options import has_error
from worker.syscalls import EMPTY, LEFT_BITS, LOST, REFUSED, pass_on, receive, use

if TYPE_CHECKING:
    from worker.connection import Connection
    from worker.pipes import Pipe
    from worker.sockets import Socket
    from worker.tls_engine import Tls

SIZE: Final = 128 * 1024  # of the shared buffer: small enough to stay in a core's L2 cache
BUFFER: Final = bytearray(SIZE)
VIEW: Final = memoryview(BUFFER)
DONTWAIT: Final = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)  # a plain number, not an enum

LAST: Final = DONTWAIT | int(socket.MSG_MORE)  # FIN follows at once, tcp(7) TCP_CORK
COUNT: Final = (1 << LEFT_BITS) - 1  # mask of the bytes that `pass_on` read
use(BUFFER)

BULK_READS: Final = 2  # full buffers in a row
READS_A_TURN: Final = 4  # then the other connections of the batch come first
MOVES_A_TURN: Final = 16
SPLICE_SIZE: Final = 1 << 20  # what a pipe of the default size can hold goes in at once anyway
SPLICE: Final = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE
SMALL_MOVE: Final = 16 * 1024  # below this a copy is no dearer than two splices
SMALL_MOVES: Final = 4  # in a row: the direction is bulk no more


class Side:
    """One socket of a connection, and the direction that begins at it.

    ``received`` counts payload bytes read from this socket. ``is_fast`` is true while the
    direction may take the short way: relaying, nothing pending either way, no pipe, no end seen.
    """

    __deletable__ = ("conn",)  # for mypyc
    __slots__ = (
        "conn", "counted", "fd", "full_reads", "has_ended", "has_said_goodbye", "is_fast",
        "is_quiet", "is_reset", "is_shut", "outbox", "passed", "peer", "pipe", "received", "sock",
        "tls", "wants_out",
    )  # fmt: skip

    def __init__(self, conn: Connection, sock: Socket, fd: int, wants_out: bool) -> None:
        self.conn = conn
        self.sock = sock
        self.fd = fd
        self.wants_out = wants_out  # the epoll reports when it can be written
        self.peer: Side | None = None
        self.outbox = b""  # still to be written to this socket
        self.pipe: Pipe | None = None  # from this socket to the peer's
        self.received = 0
        self.counted = 0  # of received: already in the counters
        self.passed = 0  # of received: counted as sent to the peer
        self.full_reads = 0  # in a row; with a pipe: small moves in a row
        self.is_fast = False
        self.is_quiet = True  # nothing was read since the last account
        self.has_ended = False  # FIN was read
        self.is_shut = False  # FIN was sent
        self.is_reset = False  # RST came; what was read before it is still delivered
        # Of a CodedSide, which a client's side may become: they have the same slots for that.
        self.tls: Tls | None = None
        self.has_said_goodbye = False

    def settle(self) -> None:
        """Work out ``is_fast`` anew, after anything it depends on has changed."""
        peer = self.peer
        self.is_fast = peer is not None and not (
            self.outbox
            or peer.outbox
            or self.pipe is not None
            or peer.pipe is not None
            or self.has_ended
            or self.is_reset
            or peer.is_reset
        )

    def ready(self, events: int) -> None:
        """The hot path: read once, write once."""
        if not self.is_fast:
            self._ready_slowly(events)
            return
        peer = self.peer
        assert peer is not None
        # All before a FIN is read with a short read; it leaves in one packet with ours.
        is_last = events & ENDED == FIN
        passed = pass_on(self.sock, self.fd, peer.sock, peer.fd, is_last)
        if passed <= 0:
            self._passed_none(peer, passed)
            return
        count = passed & COUNT
        self.received += count
        if self.is_quiet:
            self.touch()
        if passed > COUNT:
            self._keep(peer, count - (passed >> LEFT_BITS), count)
        elif count == SIZE:
            self.full_reads += 1
            self.pump()
        elif events & ENDED:
            if is_last:
                self.end()
            else:
                self.pump()
        # Else a short read has emptied the socket: no EAGAIN is needed to know.

    def _passed_none(self, peer: Side, passed: int) -> None:
        """What `pass_on` says besides bytes that were passed on."""
        if passed == 0:
            self.end()
        elif passed == LOST:
            side_lost(self.conn, self)
        elif passed != EMPTY:
            self.count(REFUSED - passed)
            self.cannot_write(peer)

    def _ready_slowly(self, events: int) -> None:
        peer = self.peer
        if peer is None:
            self.conn.early(events)
            return
        conn = self.conn
        if self.outbox or peer.pipe is not None:
            self.flush()
        if conn.state is CLOSING or self.peer is None:
            return
        # What waits for this socket does not stop what comes from it: an echo would hang.
        if events != OUT and not self.has_ended:
            self.pump()
            if conn.is_over:
                return
        if events & RESET and not self.is_reset and has_error(self.sock):
            reset_waits(conn, self)

    def pump(self, events: int = ENDED) -> None:
        """Read until the socket is empty, the peer is full, or it is the others' turn.

        ``events``: what the last edge said. Without an end in it a short read is the last one;
        by default the socket is asked until it says EAGAIN.
        """
        peer = self.peer
        if peer is None or self.has_ended or peer.outbox:
            return  # without a peer there is no connection any more: `again` may come late
        conn = self.conn
        if conn.state is CLOSING:
            return
        guard = conn.guard
        if guard is not None and self is conn.down:
            conn.guard_read(guard)
            return
        if self.pipe is not None:
            self._pump_pipe(self.pipe, peer)
            return
        if peer.is_reset:
            return
        for _ in range(READS_A_TURN):
            if self.full_reads >= BULK_READS and self._take_pipe():
                return
            count = self.take()
            if not count:
                return
            self.full_reads = self.full_reads + 1 if count == SIZE else 0
            self.count(count)
            if not self._give(peer, count, DONTWAIT):
                return
            if count < SIZE and not events & ENDED:
                return
        conn.come_back(self)

    def take(self) -> int:
        """Read into BUFFER; 0: it was empty, or this was its end, which has been seen to."""
        count = receive(self.sock, self.fd)
        if count > 0:
            return count
        if count == 0:
            self.end()
        elif count == LOST or self.is_reset:
            side_lost(self.conn, self)
        return 0

    def wire(self, payload: bytes) -> bytes:
        """Payload as it goes to this socket."""
        return payload

    def count(self, count: int) -> None:
        """Note payload bytes that were read."""
        self.received += count
        if self.is_quiet:
            self.touch()

    def touch(self) -> None:
        """The first bytes since the last account; perhaps the first of all."""
        self.is_quiet = False
        conn = self.conn
        if not conn.first_byte_at and self is conn.up:
            conn.first_byte_at = conn.plane.reactor.now
        if conn.is_quiet:
            conn.touch()

    def _give(self, peer: Side, count: int, flags: int) -> bool:
        """Write what was read to the peer; False when it is gone, or took only part."""
        try:
            sent = peer.sock.send(VIEW[:count], flags)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.cannot_write(peer)
            return False
        if sent < count:
            self._keep(peer, sent, count)
        return sent == count

    def _keep(self, peer: Side, sent: int, count: int) -> None:
        """The peer took only part: keep the rest, read no more until it is gone."""
        peer.outbox = bytes(VIEW[sent:count])
        self.is_fast = peer.is_fast = False
        peer.ask_writable()

    def ask_writable(self) -> None:
        """Have the epoll report when this socket can be written again."""
        if not self.wants_out:
            self.wants_out = True
            self.conn.plane.reactor.modify(self.fd, WRITING)

    # -- writing what waited ---------------------------------------------------------------

    def flush(self) -> None:
        """Write what waits for this socket.

        Once all is out, the direction that was stopped for it goes on, and an end that waited
        behind the bytes is passed on.
        """
        peer = self.peer
        assert peer is not None
        pipe = peer.pipe
        if self.outbox:
            try:
                sent = self.sock.send(self.outbox, DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                peer.cannot_write(self)
                return
            self.conn.touch()
            self.outbox = self.outbox[sent:]
            if self.outbox:
                return
        elif pipe is None or not pipe.held or not peer._drain_pipe(pipe, self):
            return
        self.settle()
        peer.settle()
        conn = self.conn
        flushed(conn, self)
        if not conn.is_over:
            peer.pump()

    def pending(self) -> int:
        """Bytes for this socket that wait here, in the outbox or in the peer's pipe."""
        peer = self.peer
        pipe = None if peer is None else peer.pipe
        return len(self.outbox) + (0 if pipe is None else pipe.held)

    # -- splice ----------------------------------------------------------------------------

    def _take_pipe(self) -> bool:
        """Move this direction to splice; False when there is no pipe to be had."""
        pipe = self.conn.plane.pipes.take()
        if pipe is None:
            self.full_reads = 0
            return False
        # splice(2) looks at the sockets' own flag; MSG_DONTWAIT has no counterpart there.
        self.sock.setblocking(False)
        peer = self.peer
        assert peer is not None
        peer.sock.setblocking(False)
        self.pipe = pipe
        self.full_reads = 0
        self.is_fast = peer.is_fast = False
        self._pump_pipe(pipe, peer)
        return True

    def release_pipe(self) -> None:
        """Back to copy mode."""
        pipe = self.pipe
        if pipe is not None:
            self.pipe = None
            self.full_reads = 0
            self.conn.plane.pipes.give_back(pipe)
            self.settle()
            if self.peer is not None:
                self.peer.settle()

    def _pump_pipe(self, pipe: Pipe, peer: Side) -> None:
        for _ in range(MOVES_A_TURN):
            if pipe.held and not self._drain_pipe(pipe, peer):
                return
            try:
                count = os.splice(self.fd, pipe.write_fd, SPLICE_SIZE, flags=SPLICE)
            except BlockingIOError:
                return
            except OSError:
                side_lost(self.conn, self)
                return
            if count == 0:
                self.end()
                return
            pipe.held = count
            self.count(count)
            self.full_reads = self.full_reads + 1 if count < SMALL_MOVE else 0
            if not self._drain_pipe(pipe, peer):
                return
            if self.full_reads >= SMALL_MOVES:
                self.release_pipe()
                self.pump()
                return
        self.conn.come_back(self)

    def _drain_pipe(self, pipe: Pipe, peer: Side) -> bool:
        """Pipe to peer; True when the pipe is empty."""
        while pipe.held:
            try:
                pipe.held -= os.splice(pipe.read_fd, peer.fd, pipe.held, flags=SPLICE)
            except BlockingIOError:
                peer.ask_writable()
                return False
            except OSError:
                self.cannot_write(peer)
                return False
            self.conn.touch()
        return True

    # -- ends ------------------------------------------------------------------------------

    def end(self) -> None:
        """FIN was read; after an RST that a write already met, it is the RST's trace."""
        if self.is_reset:
            side_lost(self.conn, self)
            return
        self.has_ended = True
        self.is_fast = False
        side_ended(self.conn, self)

    def shut(self) -> None:
        """Send FIN, once."""
        if self.is_shut:
            return
        self.is_shut = True
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # ENOTCONN: its RST has come and will be read next

    def cannot_write(self, peer: Side) -> None:
        """The peer is gone for writing: what it said before is still read and delivered."""
        peer.is_reset = True
        peer.outbox = b""
        self.release_pipe()
        self.is_fast = peer.is_fast = False
        if peer.has_ended:
            side_lost(self.conn, peer)
            return
        peer.pump()
        if self.peer is not None and self.conn.state is not CLOSING:
            reset_waits(self.conn, peer)
