"""The sockets of connections: what is compiled from C does as Python's own."""

from __future__ import annotations

import errno
import os
import resource
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

from tests.helpers.ports import free_port
from tests.helpers.sources import from_source
from worker import sockets as as_imported
from worker import syscalls

WAIT_S: Final = 5.0
DONTWAIT: Final = int(socket.MSG_DONTWAIT)
HOSTS: Final = ["127.0.0.1", "::1", "::ffff:127.0.0.1"]


@pytest.fixture(params=["as imported", "from source"])
def made(request: pytest.FixtureRequest) -> ModuleType:
    """Either form of the module."""
    return as_imported if request.param == "as imported" else from_source("worker.sockets")


@contextmanager
def listening(host: str = "127.0.0.1") -> Iterator[socket.socket]:
    """On a free port, or at a path."""
    family = socket.AF_UNIX if "/" in host or "\0" in host else socket.AF_INET
    family = socket.AF_INET6 if ":" in host else family
    with socket.socket(family) as listener:
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(host if family == socket.AF_UNIX else (host, 0))
        listener.listen()
        listener.setblocking(False)
        yield listener


def dialled(made: ModuleType, listener: socket.socket) -> AbstractContextManager[Any]:
    """A socket that is connected to it."""
    name = listener.getsockname()
    address = name[:2] if isinstance(name, tuple) else os.fsdecode(name)
    sock, fd, code = made.dial(int(listener.family), address)
    assert fd == sock.fileno()
    assert code in (0, errno.EINPROGRESS)
    poller = select.poll()
    poller.register(fd, select.POLLOUT)
    assert poller.poll(WAIT_S * 1000)
    return closing(sock)


def accepted(made: ModuleType, listener: socket.socket) -> tuple[Any, int, Any]:
    """What `accept` gives, once somebody waits."""
    assert select.select([listener], [], [], WAIT_S)[0]
    found: tuple[Any, int, Any] = made.accept(listener, listener.fileno())
    return found


@pytest.mark.parametrize("host", HOSTS)
def test_accept_tells_the_peer_as_python_does(made: ModuleType, host: str) -> None:
    """None while nobody waits, and the same tuple as socket.accept makes."""
    with listening(host) as listener, socket.socket(listener.family) as client:
        assert made.accept(listener, listener.fileno()) is None
        client.connect(listener.getsockname())
        sock, fd, peer = accepted(made, listener)
        with closing(sock):
            assert sock.fileno() == fd
            assert sock.family == listener.family
            assert peer == client.getsockname()
            assert sock.getsockname() == client.getpeername()
            assert not os.get_inheritable(fd)
        assert made.accept(listener, listener.fileno()) is None


def test_accept_of_a_unix_socket(made: ModuleType, tmp_path: Path) -> None:
    """A client has no address there."""
    with listening(str(tmp_path / "s")) as listener, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))
        sock, _, peer = accepted(made, listener)
        with closing(sock):
            assert peer == ""
            assert sock.family == socket.AF_UNIX


def test_what_accept_says_besides_is_an_error(made: ModuleType) -> None:
    """With its number: of one that listens no more, and of one that is no socket."""
    with listening() as listener, Path("/dev/null").open() as other:
        listener.shutdown(socket.SHUT_RDWR)
        with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
            made.accept(listener, listener.fileno())
        if not (made.__file__ or "").endswith(".py"):
            with pytest.raises(OSError, match=os.strerror(errno.ENOTSOCK)):
                made.accept(listener, other.fileno())


@pytest.mark.parametrize("host", HOSTS)
def test_dial_of_an_ip_address(made: ModuleType, host: str) -> None:
    """It does not block, is not inherited, and does not wait to fill a packet."""
    with listening(host) as listener, dialled(made, listener) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert not os.get_inheritable(sock.fileno())
        assert not os.get_blocking(sock.fileno())
        other, _, peer = accepted(made, listener)
        assert peer == sock.getsockname()
        other.close()


@pytest.mark.parametrize("name", ["{}/s", "\0{}", "{}/" + 60 * "s", "{}/ü"])
def test_dial_of_a_unix_socket(made: ModuleType, tmp_path: Path, name: str) -> None:
    """A path, and what is abstract, unix(7)."""
    directory = os.open(tmp_path, os.O_PATH)
    try:
        # Short, however long the test's directory is: a path has at most 107 bytes.
        path = name.format(f"/proc/self/fd/{directory}")
        with listening(path) as listener, dialled(made, listener) as sock:
            assert sock.family == socket.AF_UNIX
            assert not os.get_blocking(sock.fileno())
            other, _, _ = accepted(made, listener)
            assert other.send(b"x", DONTWAIT) == 1
            room = bytearray(9)
            assert sock.recv_into(room, 0, DONTWAIT) == 1
            other.close()
    finally:
        os.close(directory)


def test_dial_tells_why_it_could_not(made: ModuleType, tmp_path: Path) -> None:
    """By the number of connect(2), and the socket has to be closed all the same."""
    nobody = str(tmp_path / "nobody")
    sock, _, code = made.dial(int(socket.AF_UNIX), nobody)
    sock.close()
    assert code == errno.ENOENT
    sock, _, code = made.dial(int(socket.AF_INET), ("127.0.0.1", free_port()))
    assert code in (errno.EINPROGRESS, errno.ECONNREFUSED)
    sock.close()
    sock, _, code = made.dial(int(socket.AF_INET), ("255.255.255.255", 9))
    assert code not in (0, errno.EINPROGRESS)
    sock.close()


def test_no_socket_is_an_error(made: ModuleType) -> None:
    """With its number, so that a lack of descriptors can be told apart."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with listening() as listener:
        resource.setrlimit(resource.RLIMIT_NOFILE, (listener.fileno(), hard))
        try:
            with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
                made.dial(int(socket.AF_INET), listener.getsockname())
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (socket.AF_INET,),
        (int(socket.AF_INET), "127.0.0.1"),
        (int(socket.AF_INET), ("127.0.0.1", "80")),
        (int(socket.AF_INET), ("127.0.0.1", 65536)),
        (int(socket.AF_INET), ("127.0.0.1", -1)),
        (int(socket.AF_UNIX), "\ud800"),
        (int(socket.AF_UNIX), ("127.0.0.1", 80)),
        ("x", ("127.0.0.1", 80)),
    ],
)
def test_what_is_no_address_is_refused(made: ModuleType, arguments: tuple[object, ...]) -> None:
    """By an error of Python, and no descriptor is left open."""
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises((TypeError, OverflowError, UnicodeError)):
        made.dial(*arguments)
    assert len(os.listdir("/proc/self/fd")) == before


def test_bytes_and_ends(made: ModuleType) -> None:
    """Both ways, nothing yet, an end, and one that is gone, each as Python has it."""
    with listening() as listener, dialled(made, listener) as sock:
        other, _, _ = accepted(made, listener)
        room = bytearray(8)
        with pytest.raises(BlockingIOError):
            sock.recv_into(room, 0, DONTWAIT)
        assert other.send(memoryview(b"hello"), DONTWAIT) == 5
        assert sock.recv_into(memoryview(room)[2:], 0, DONTWAIT) == 5
        assert room[2:7] == b"hello"
        other.shutdown(socket.SHUT_WR)
        assert sock.recv_into(room, 0, DONTWAIT) == 0
        with pytest.raises(BrokenPipeError):
            other.send(b"x", DONTWAIT)
        with pytest.raises(BlockingIOError):
            fill(sock)
        other.close()


def fill(sock: Any) -> None:
    """Send until it raises."""
    full = bytes(1 << 20)
    while sock.send(full, DONTWAIT):
        pass


def test_one_that_was_reset(made: ModuleType) -> None:
    """The error comes once, as an exception or by SO_ERROR."""
    for asks in (False, True):
        with listening() as listener, dialled(made, listener) as sock:
            other, fd, _ = accepted(made, listener)
            syscalls.reset_on_close(other, fd)
            other.close()
            assert select.select([sock.fileno()], [], [], WAIT_S)[0]
            if asks:
                found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                assert found == errno.ECONNRESET
            else:
                with pytest.raises(ConnectionResetError):
                    sock.recv_into(bytearray(1), 0, DONTWAIT)
            assert sock.recv_into(bytearray(1), 0, DONTWAIT) == 0


def test_options(made: ModuleType) -> None:
    """Set, read, and refused; blocking is one of them."""
    with listening() as listener, dialled(made, listener) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 77)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 77
        with pytest.raises(OSError, match=os.strerror(errno.ENOPROTOOPT)):
            sock.setsockopt(socket.SOL_SOCKET, 9999, 1)
        for wanted in (True, False):
            sock.setblocking(wanted)
            assert os.get_blocking(sock.fileno()) is wanted


CALLS: Final[list[Callable[[Any], object]]] = [
    lambda sock: sock.send(b"x", DONTWAIT),
    lambda sock: sock.recv_into(bytearray(1), 0, DONTWAIT),
    lambda sock: sock.shutdown(socket.SHUT_WR),
    lambda sock: sock.setblocking(False),
    lambda sock: sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    lambda sock: sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR),
    lambda sock: sock.getsockname(),
]


def test_one_that_is_closed(made: ModuleType) -> None:
    """It stays closed, and never touches whoever has its number now."""
    with listening() as listener, dialled(made, listener) as sock:
        fd = sock.fileno()
        sock.close()
        sock.close()
        assert sock.fileno() == -1
        with Path("/dev/null").open() as newer:
            assert newer.fileno() == fd
            sock.close()
            for call in CALLS:
                with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
                    call(sock)
            assert newer.read() == ""


def test_one_that_is_forgotten_is_closed_and_told_of(made: ModuleType) -> None:
    """As Python does, so that the tests find it."""
    with listening() as listener:
        sock, fd, _ = made.dial(int(socket.AF_INET), listener.getsockname())
        with pytest.warns(ResourceWarning, match="unclosed"):
            del sock
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            os.fstat(fd)


def test_wrong_arguments_are_refused(made: ModuleType) -> None:
    """By an error of Python."""
    with listening() as listener, dialled(made, listener) as sock:
        for name in ("send", "recv_into", "shutdown", "setsockopt", "getsockopt"):
            for arguments in ((), (None,), ("x", "x"), (b"x", None), (None, 0, 0), (1, 2, "x")):
                with pytest.raises((TypeError, ValueError, OSError)):
                    getattr(sock, name)(*arguments)
    with pytest.raises(TypeError):
        made.accept()
