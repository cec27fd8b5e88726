"""The system calls of a message: what is compiled from C does as the source says."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from types import ModuleType
from typing import Final

import pytest

from tests.helpers.sources import from_source
from worker import syscalls as as_imported
from worker.relay import BUFFER

SIZE: Final = 4096
SOURCE: Final = "worker.syscalls"


@pytest.fixture(params=["as imported", "from source"])
def calls(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """Either form, reading into a buffer of SIZE bytes."""
    module = as_imported if request.param == "as imported" else from_source(SOURCE)
    module.use(bytearray(SIZE))
    yield module
    as_imported.use(BUFFER)


class Ends:
    """A client and a target, and the two sockets between them."""

    def __init__(self, room: int = 0) -> None:
        """``room``: bytes of the target's and our buffers, where they are to be small."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.client, self.down = self._pair(0)
        self.target, self.up = self._pair(room)

    def _pair(self, room: int) -> tuple[socket.socket, socket.socket]:
        outer = socket.socket()
        if room:
            outer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        outer.settimeout(5.0)
        outer.connect(self._listener.getsockname())
        inner, _ = self._listener.accept()
        if room:
            inner.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
        return outer, inner

    def pass_on(self, calls: ModuleType, *, is_last: bool = False) -> int:
        """From the client to the target."""
        up, down = self.up, self.down
        passed: int = calls.pass_on(down, down.fileno(), up, up.fileno(), is_last)
        return passed

    def close(self) -> None:
        """All of them."""
        for sock in (self.client, self.down, self.target, self.up, self._listener):
            sock.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Two connections, and the sockets between them."""
    made = Ends()
    yield made
    made.close()


@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("size", [1, SIZE - 1, SIZE])
def test_what_is_there_is_passed_on(
    calls: ModuleType, ends: Ends, size: int, is_last: bool
) -> None:
    """Of one read, which says how much it was."""
    data = os.urandom(size)
    ends.client.sendall(data)
    assert ends.pass_on(calls, is_last=is_last) == size
    ends.up.shutdown(socket.SHUT_WR)
    received = b""
    while part := ends.target.recv(SIZE):
        received += part
    assert received == data


def test_one_read_takes_no_more_than_the_buffer(calls: ModuleType, ends: Ends) -> None:
    """The rest is for the next."""
    ends.client.sendall(bytes(SIZE + 5))
    assert ends.pass_on(calls) == SIZE
    assert ends.pass_on(calls) == 5
    assert ends.pass_on(calls) == calls.EMPTY


def test_nothing_an_end_and_a_reset(calls: ModuleType, ends: Ends) -> None:
    """Three answers that are not bytes, and no exception."""
    assert ends.pass_on(calls) == calls.EMPTY
    other = Ends()
    other.client.shutdown(socket.SHUT_WR)
    assert other.pass_on(calls) == 0
    other.close()
    ends.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    ends.client.close()
    assert ends.pass_on(calls) == calls.LOST


def test_a_target_that_is_gone(calls: ModuleType, ends: Ends) -> None:
    """What was read is told, so that it can be counted; no SIGPIPE comes."""
    ends.target.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    ends.target.close()
    ends.client.sendall(b"x" * 7)
    assert ends.pass_on(calls) == calls.REFUSED - 7
    ends.client.sendall(b"x")
    assert ends.pass_on(calls) == calls.REFUSED - 1  # EPIPE, where it was ECONNRESET before


def test_a_target_that_takes_a_part(calls: ModuleType) -> None:
    """What is left lies at the end of the buffer, and how much is told."""
    calls.use(buffer := bytearray(1 << 17))
    ends = Ends(room=4096)
    data = os.urandom(1 << 17)
    sent = 0
    while True:
        ends.client.sendall(data[sent : sent + (1 << 16)])
        passed = ends.pass_on(calls)
        size, left = passed & ((1 << calls.LEFT_BITS) - 1), passed >> calls.LEFT_BITS
        sent += size
        if left:
            break
        assert sent < len(data), "it has room for everything"
    assert 0 < left <= size
    rest = bytes(buffer[size - left : size])
    ends.up.setblocking(True)
    received = b""
    while len(received) < sent - left:
        received += ends.target.recv(1 << 16)
    assert received + rest == data[:sent]
    ends.close()


def test_the_last_bytes_leave_with_the_fin(calls: ModuleType, ends: Ends) -> None:
    """They are held back for it, up to 200 ms (tcp(7), TCP_CORK); others are not."""
    assert is_held(calls, ends, is_last=True, tries=5)
    assert not is_held(calls, ends, is_last=False, tries=1)


def is_held(calls: ModuleType, ends: Ends, *, is_last: bool, tries: int) -> bool:
    """Whether a byte was not sent at once in one of so many tries."""
    found = False
    for _ in range(tries):
        ends.client.sendall(b"x")
        assert ends.pass_on(calls, is_last=is_last) == 1
        ends.target.setblocking(False)
        try:
            ends.target.recv(1)
        except BlockingIOError:
            found = True
        ends.target.settimeout(5.0)
        if found:
            assert ends.target.recv(1) == b"x"
            break
    return found


def test_both_forms_mean_the_same_by_their_numbers() -> None:
    """Compiled callers have those of the source within them."""
    source = from_source(SOURCE)
    for name in ("EMPTY", "LOST", "REFUSED", "LEFT_BITS"):
        assert getattr(as_imported, name) == getattr(source, name)


def test_receive_reads_into_the_buffer(calls: ModuleType, ends: Ends) -> None:
    """Bytes, nothing, the end, and a reset, none of them by an exception."""
    calls.use(buffer := bytearray(SIZE))
    fd = ends.down.fileno()
    assert calls.receive(ends.down, fd) == calls.EMPTY
    ends.client.sendall(b"hello")
    assert calls.receive(ends.down, fd) == 5
    assert buffer[:5] == b"hello"
    ends.client.shutdown(socket.SHUT_WR)
    assert calls.receive(ends.down, fd) == 0
    ends.target.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    ends.target.close()
    assert calls.receive(ends.up, ends.up.fileno()) == calls.LOST


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_give_takes_what_finds_room(
    calls: ModuleType, ends: Ends, kind: type[bytes | bytearray | memoryview]
) -> None:
    """Of bytes and of views."""
    data = b"y" * 700
    assert calls.give(ends.up, ends.up.fileno(), kind(data), False) == 700
    assert ends.target.recv(SIZE) == data
    full = bytes(1 << 20)
    while sent := calls.give(ends.up, ends.up.fileno(), full, False):
        assert sent != calls.LOST
    ends.target.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    ends.target.close()
    assert calls.give(ends.up, ends.up.fileno(), b"x", True) == calls.LOST


def test_what_is_not_acknowledged(calls: ModuleType, ends: Ends) -> None:
    """Nothing, what a peer does not read, and nothing of a socket that is gone."""
    fd = ends.up.fileno()
    assert calls.unacknowledged(ends.up, fd) == 0
    while calls.give(ends.up, fd, bytes(1 << 20), False):
        pass
    assert calls.unacknowledged(ends.up, fd) > 0
    ends.up.close()
    assert calls.unacknowledged(ends.up, -1) == 0


def test_close_may_reset(calls: ModuleType, ends: Ends) -> None:
    """Instead of a FIN; a socket that is gone is no error."""
    calls.reset_on_close(ends.up, ends.up.fileno())
    ends.up.close()
    with pytest.raises(ConnectionResetError):
        ends.target.recv(1)
    calls.reset_on_close(ends.up, -1)


@pytest.mark.parametrize(
    "name", ["watch", "receive", "give", "pass_on", "unacknowledged", "reset_on_close"]
)
def test_wrong_arguments_are_refused(name: str) -> None:
    """By an error of Python."""
    for arguments in ((), (None,), (None, "x", None, "x", "x")):
        with pytest.raises((TypeError, AttributeError)):
            getattr(as_imported, name)(*arguments)


class Handler:
    """Notes what it is told of; ``act`` is called then."""

    def __init__(self, act: Callable[[], object] = bool) -> None:
        self.masks: list[int] = []
        self._act = act

    def ready(self, events: int) -> None:
        """As a connection's."""
        self.masks.append(events)
        self._act()


class Polled:
    """Sockets that have something to read, each in an epoll, and their handlers."""

    def __init__(self, count: int) -> None:
        self.epoll = select.epoll()
        self.pairs = [socket.socketpair() for _ in range(count)]
        self.table: dict[int, Handler] = {}
        self.bugs: list[tuple[object, Exception]] = []
        for ours, theirs in self.pairs:
            self.epoll.register(ours.fileno(), select.EPOLLIN | select.EPOLLET)
            self.table[ours.fileno()] = Handler()
            theirs.send(b"x")

    def dispatch(self, calls: ModuleType) -> None:
        """One batch."""
        calls.dispatch(
            self.epoll, self.epoll.fileno(), self.table, lambda *bug: self.bugs.append(bug)
        )

    def told(self) -> int:
        """How many handlers were told of their events, once."""
        return sum(one.masks == [select.EPOLLIN] for one in self.table.values())

    def close(self) -> None:
        """All of them."""
        self.epoll.close()
        for sock in (one for pair in self.pairs for one in pair):
            sock.close()


def test_events_reach_their_handlers(calls: ModuleType) -> None:
    """Each once, BATCH at a time; a descriptor without a handler is nobody's."""
    with closing(Polled(calls.BATCH + 5)) as polled:
        first = polled.pairs[0][0].fileno()
        del polled.table[first]
        polled.dispatch(calls)
        assert polled.told() == calls.BATCH - 1
        polled.dispatch(calls)
        assert polled.told() == calls.BATCH + 4
        polled.dispatch(calls)
        assert polled.told() == calls.BATCH + 4
        assert polled.bugs == []


def test_a_handler_that_raises_is_told_of_and_the_others_go_on(calls: ModuleType) -> None:
    """With its exception and where that came from."""
    with closing(Polled(5)) as polled:
        bad = Handler(lambda: [][1])
        polled.table[polled.pairs[2][0].fileno()] = bad
        polled.dispatch(calls)
        ((handler, error),) = polled.bugs
        assert handler is bad
        assert isinstance(error, IndexError)
        assert error.__traceback__ is not None
        assert polled.told() == 5


def test_what_is_no_error_ends_the_batch(calls: ModuleType) -> None:
    """An exit that a handler asks for is none of its bugs."""
    with closing(Polled(1)) as polled:
        polled.table[polled.pairs[0][0].fileno()] = Handler(lambda: sys.exit(3))
        with pytest.raises(SystemExit):
            polled.dispatch(calls)
        assert polled.bugs == []


def test_a_handler_may_take_others_out(calls: ModuleType) -> None:
    """Of a batch in which a connection ends both of its sockets, the second is nobody's."""
    with closing(Polled(3)) as polled:
        rest = Handler(polled.table.clear)
        for fd in polled.table:
            polled.table[fd] = rest
        polled.dispatch(calls)
        assert rest.masks == [select.EPOLLIN]
        assert polled.bugs == []


def test_an_epoll_that_is_closed_is_an_error(calls: ModuleType) -> None:
    """And no silence."""
    with closing(Polled(1)) as polled:
        fd = polled.epoll.fileno()
        polled.epoll.close()
        with pytest.raises((OSError, ValueError)):
            calls.dispatch(polled.epoll, fd, polled.table, print)


def test_what_is_watched_is_told_of(calls: ModuleType) -> None:
    """Once; the same descriptor again is an error, and so is one that is closed."""
    ours, theirs = socket.socketpair()
    with ours, theirs, select.epoll() as epoll:
        calls.watch(epoll, epoll.fileno(), ours.fileno(), select.EPOLLIN | select.EPOLLET)
        theirs.send(b"x")
        assert epoll.poll(5.0) == [(ours.fileno(), select.EPOLLIN)]
        with pytest.raises(FileExistsError):
            calls.watch(epoll, epoll.fileno(), ours.fileno(), select.EPOLLIN)
        fd = ours.fileno()
        ours.close()
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            calls.watch(epoll, epoll.fileno(), fd, select.EPOLLIN)
