"""A GiB each way through a worker whose memory stays as it is, whoever is slow."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from loadtests.body_wire import WAIT_S, Asked, BodyClient, BodyTarget, MemoryWatch, made
from tests.helpers.http_site import http_route
from tests.helpers.ports import free_ports
from tests.helpers.processes import Proxyctl, config_of
from tests.helpers.waiting import wait_until

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30
MOST_RISE_KIB: Final = 16 * KIB
SLOW_S: Final = 0.05  # after each read
MOST_IN_SOCKETS: Final = 64 * MIB  # the kernel's buffers of both connections of one client


class Site:
    """One worker, and a target that hashes."""

    def __init__(self, directory: Path, target: BodyTarget) -> None:
        self.target = target
        self.port = free_ports(1)[0]
        route = http_route("bodies", self.port, f"127.0.0.1:{target.port}")
        self.proxy = Proxyctl(directory, {**config_of({}), "routes": [route]}, workers=1)

    def client(self, stack: contextlib.ExitStack) -> BodyClient:
        """A client, connected."""
        sock = socket.create_connection(("127.0.0.1", self.port), WAIT_S)
        return BodyClient(stack.enter_context(sock), "bodies.test")

    def counts(self) -> dict[str, int]:
        """Of the target, as `status` tells them."""
        found = self.proxy.status()["totals"]["targets"]
        counts: dict[str, int] = found[f"127.0.0.1:{self.target.port}"]
        return counts

    def watch(self) -> MemoryWatch:
        """The only worker's memory."""
        (pid,) = self.proxy.ready_pids()
        return MemoryWatch(pid)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A running proxyctl that has passed on a few bodies."""
    with BodyTarget() as target:
        found = Site(tmp_path, target)
        try:
            found.proxy.start()
            with contextlib.ExitStack() as stack:
                client = found.client(stack)
                for framing in ("length", "chunks"):
                    client.ask(Asked(up=MIB, up_framing=framing, down=MIB, down_framing=framing))
                    target.received.get(timeout=WAIT_S)
                    target.sent.get(timeout=WAIT_S)
            yield found
        finally:
            found.proxy.end()


@pytest.mark.parametrize(
    "asked",
    [
        Asked(up=GIB, up_framing="length", down=GIB, down_framing="chunks"),
        Asked(up=GIB, up_framing="chunks", down=GIB, down_framing="length"),
    ],
    ids=["length_up", "chunks_up"],
)
def test_a_gibibyte_up_and_one_down(site: Site, asked: Asked) -> None:
    """What arrives is what was sent, and the worker holds next to nothing of it."""
    with contextlib.ExitStack() as stack:
        watch = stack.enter_context(site.watch())
        up, down = site.client(stack).ask(asked)
        assert up.size == down.size == GIB
        assert site.target.received.get(timeout=WAIT_S) == up
        print("RISE", watch.rise, watch.first, watch.samples)
        assert site.target.sent.get(timeout=WAIT_S) == down
    assert watch.samples > 10
    assert watch.rise < MOST_RISE_KIB


def test_slow_readers_of_a_gibibyte(site: Site) -> None:
    """A client that reads slowly holds its target up, a target its client, and the worker's memory
    stays as it is; what has come so far is how the body begins.
    """
    with contextlib.ExitStack() as stack:
        watch = stack.enter_context(site.watch())
        reading, sending = site.client(stack), site.client(stack)
        reading.reader.pause_s = SLOW_S

        def upload() -> None:
            with contextlib.suppress(OSError):
                sending.send(Asked(up=GIB, up_framing="chunks", target_pause_s=SLOW_S))

        def download() -> None:
            with contextlib.suppress(OSError):
                reading.ask(Asked(down=GIB))

        threads = [threading.Thread(target=upload), threading.Thread(target=download)]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: reading.reader.received > 8 * MIB, "some MiB came")
        finally:
            for client in (reading, sending):
                client.sock.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join(WAIT_S)
        assert reading.reader.so_far == made(reading.reader.received)
    came = reading.reader.received
    wait_until(lambda: site.counts()["received"] >= came, "it is counted")
    assert site.counts()["received"] < came + MOST_IN_SOCKETS
    assert site.counts()["sent"] < GIB // 2
    assert watch.samples > 10
    assert watch.rise < MOST_RISE_KIB
