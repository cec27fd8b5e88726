"""Two network namespaces with a slow path between them, for kernels without netem. As root.

    with Path(0.05) as path:            # round trip in seconds
        with namespace(path.near): ...  # what is started here is at NEAR addresses
        with namespace(path.far): ...

A TUN device in each namespace, and a process that carries packets from one to the other half a
round trip late. It drops nothing by itself: its queue takes QUEUE_PACKETS, a device's a fifth of
that, and what is dropped all the same is counted. Everything is gone with the last process that
holds it; the process itself ends with its standard input.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path as FilePath
from time import monotonic
from typing import Final

import msgspec
from msgspec import Struct

from loadtests.processes import ROOT, LoadTestError, find_program

NEAR: Final = "10.77"  # first two bytes of every address of the near side
FAR: Final = "10.78"
QUEUE_PACKETS: Final = 100_000
_QUEUE_OF_DEVICE: Final = 20_000
_PACKET_BYTES: Final = 65_536
_BATCH: Final = 64  # packets from one side before the other is looked at

_CLONE_NEWNET: Final = 0x40000000  # sched.h; os.unshare and os.setns come with Python 3.12
_TUNSETIFF: Final = 0x400454CA  # linux/if_tun.h
_IFF_TUN_NO_PI: Final = 0x1001
_libc: Final = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def namespace(path: str | None) -> Iterator[None]:
    """Be in the network namespace that this file names; None: stay where we are.

    Concerns the calling thread, and processes that it starts meanwhile.
    """
    if path is None:
        yield
        return
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _call(_libc.setns, fd, _CLONE_NEWNET)
        finally:
            os.close(fd)
        try:
            yield
        finally:
            _call(_libc.setns, home, _CLONE_NEWNET)
    finally:
        os.close(home)


class LineCounts(Struct):
    """What the line says at its end. ``late_s``: by how much the latest packet was late."""

    carried: int = 0
    dropped: int = 0  # the queue was full
    refused: int = 0  # the other device would not take it
    most_waiting: int = 0
    late_s: float = 0.0


class Path:
    """A pair of namespaces and the line between them. ``near`` and ``far`` name their files."""

    def __init__(self, round_trip_s: float) -> None:
        self._one_way_s = round_trip_s / 2
        self._fds: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None
        self.near = self.far = ""
        self.counts = LineCounts()
        self.device_drops = 0

    def __enter__(self) -> Path:
        if os.geteuid() != 0:
            raise LoadTestError("a path needs network namespaces: run it as root")
        try:
            self.near = self._new_namespace()
            self.far = self._new_namespace()
            near = self._device(self.near, NEAR, FAR)
            far = self._device(self.far, FAR, NEAR)
            command = [sys.executable, "-m", "loadtests.delay_line"]
            self._process = subprocess.Popen(
                [*command, str(near), str(far), str(self._one_way_s)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=ROOT,
                pass_fds=[near, far],
                start_new_session=True,
            )
            for fd in (near, far):
                os.close(fd)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()
        self._close()

    def finish(self) -> None:
        """End the line; ``counts`` and ``device_drops`` are final then. Harmless when it ended."""
        process, self._process = self._process, None
        if process is None:
            return
        self.device_drops = self._drops(self.near) + self._drops(self.far)
        try:
            output, _ = process.communicate(timeout=5.0)  # closes its standard input
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise LoadTestError("the delay line did not end") from None
        if process.returncode != 0:
            raise LoadTestError(f"the delay line ended with {process.returncode}")
        self.counts = msgspec.json.decode(output, type=LineCounts)

    def _close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

    def _new_namespace(self) -> str:
        """Make one; it lives as long as the descriptor that is kept of it."""
        with namespace("/proc/thread-self/ns/net"):
            _call(_libc.unshare, _CLONE_NEWNET)
            fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._fds.append(fd)
        return f"/proc/{os.getpid()}/fd/{fd}"

    def _device(self, where: str, ours: str, theirs: str) -> int:
        """A TUN device with every address of one side; returns its descriptor."""
        ip = find_program("ip")
        with namespace(where):
            fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", b"line", _IFF_TUN_NO_PI))
            for arguments in (
                "link set lo up",
                f"link set line up mtu 1500 txqueuelen {_QUEUE_OF_DEVICE}",
                f"address add {ours}.0.1/32 dev line",
                f"route add local {ours}.0.0/16 dev lo",  # all of them are ours
                f"route add {theirs}.0.0/16 dev line src {ours}.0.1",
            ):
                subprocess.run([ip, *arguments.split()], check=True, timeout=10)
        return fd

    def _drops(self, where: str) -> int:
        """Packets that a device has dropped, both ways. Source: /proc/net/dev."""
        with namespace(where):
            text = FilePath("/proc/thread-self/net/dev").read_text()
        for line in text.splitlines():
            name, _, numbers = line.partition(":")
            if name.strip() == "line":
                fields = [int(number) for number in numbers.split()]
                return fields[3] + fields[11]
        return 0


def carry(near: int, far: int, one_way_s: float, until: int) -> LineCounts:
    """Carry packets both ways until there is something to read from ``until``."""
    counts = LineCounts()
    epoll = select.epoll()
    other = {near: far, far: near}
    for fd in (near, far, until):
        epoll.register(fd, select.EPOLLIN)
    queue: deque[tuple[float, int, bytes]] = deque()
    while True:
        # A millisecond is epoll's grain; what is due within less is worth spinning for.
        wait_s = -1.0 if not queue else max(0.0, queue[0][0] - monotonic())
        ready = epoll.poll(wait_s)
        now = monotonic()
        for fd, _ in ready:
            if fd == until:
                return counts
            _read(fd, other[fd], now + one_way_s, queue, counts)
        counts.most_waiting = max(counts.most_waiting, len(queue))
        now = monotonic()
        while queue and queue[0][0] <= now:
            due, fd, packet = queue.popleft()
            counts.late_s = max(counts.late_s, now - due)
            try:
                os.write(fd, packet)
                counts.carried += 1
            except OSError:
                counts.refused += 1


def _read(
    fd: int, to: int, due: float, queue: deque[tuple[float, int, bytes]], counts: LineCounts
) -> None:
    for _ in range(_BATCH):
        try:
            packet = os.read(fd, _PACKET_BYTES)
        except BlockingIOError:
            return
        if len(queue) < QUEUE_PACKETS:
            queue.append((due, to, packet))
        else:
            counts.dropped += 1


def _call(function: ctypes._NamedFuncPointer, *arguments: int) -> None:
    if function(*arguments) != 0:
        code = ctypes.get_errno()
        raise LoadTestError(f"{function.__name__}: {os.strerror(code)}")


def main(arguments: list[str]) -> int:
    """The line's own process: two descriptors and the delay; ends with its standard input."""
    near, far, one_way_s = arguments
    counts = carry(int(near), int(far), float(one_way_s), sys.stdin.fileno())
    sys.stdout.buffer.write(msgspec.json.encode(counts))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
