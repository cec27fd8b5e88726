"""Nothing is left: 10,000 connections over every kind of end, and no work for the collector."""

from __future__ import annotations

import gc
import os
import socket
from collections import Counter
from collections.abc import Callable
from typing import Final

from shared.plan import ListenerPlan, ProxyPolicy, TargetPlan, Timeouts
from shared.proxy_protocol import encode_v1, encode_v2
from tests.data_plane_harness import Plane, route, running
from tests.data_plane_sockets import Target, reset
from tests.helpers.waiting import wait_until
from worker.connection import Connection
from worker.dial import Dial
from worker.header_guard import HeaderGuard
from worker.preface import HeaderReader, PrefaceReader
from worker.relay import Side

TOTAL: Final = 10_000
BATCH: Final = 100  # connections of a kind at once
BULK: Final = bytes(600_000)  # several full reads, so that a pipe is taken
KINDS: Final = (Connection, Side, Dial, HeaderReader, PrefaceReader, HeaderGuard)
ADDRESS: Final = bytes([203, 0, 113, 7])
FORGED: Final = encode_v1(ADDRESS, 1, ADDRESS, 2)
SHORT: Final = Timeouts(connect=0.2, idle=0.2, half_closed=0.1, initial_data=0.2)


class Scenes:
    """Listeners for all kinds of connections, and one method per way to end."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        self.opened = 0  # connections made
        self.target: Target = plane.target()
        dead, hole = plane.dead_target(), plane.black_hole()
        missing = TargetPlan(name="missing", path=str(plane.directory() / "none"))
        trusting = ProxyPolicy(trusted=("127.0.0.0/8",), header_timeout=0.2)
        strict = ProxyPolicy(trusted=("127.0.0.0/8",), header_timeout=0.2, local="close")
        suspicious = ProxyPolicy(trusted=("192.0.2.1/32",))
        closed = ProxyPolicy(trusted=("192.0.2.1/32",), untrusted="close")
        self.plain, self.short, self.lost, self.mute, self.nowhere, self.tls = (
            plane.listen() for _ in range(6)
        )
        self.proxied, self.local = plane.listen(trusting), plane.listen(strict)
        self.guarded, self.shut = plane.listen(suspicious), plane.listen(closed)
        self.retried, self.lifetime = plane.listen(), plane.listen()
        plain = (self.plain, self.proxied, self.local, self.guarded, self.shut)
        short_life = Timeouts(lifetime=0.2)
        plane.commit(
            route("plain", plain, self.target, send_proxy="v2"),
            route("short", self.short, self.target, timeouts=SHORT),
            route("lifetime", self.lifetime, self.target, timeouts=short_life),
            route("dead", self.lost, dead, missing),
            route("retried", self.retried, dead, self.target),
            route("mute", self.mute, hole, timeouts=SHORT),
            route("elsewhere", self.nowhere, self.target, client_ips=("10.0.0.0/8",)),
            route("tls", self.tls, self.target, tls=True, timeouts=SHORT),
        )

    def open(
        self, listener: ListenerPlan, words: bytes = b""
    ) -> list[tuple[socket.socket, socket.socket]]:
        """A batch of connections that reach the target."""
        found = []
        for _ in range(BATCH):
            client = self.lone(listener, words)
            server, _ = self.target.sock.accept()
            server.settimeout(20)
            found.append((client, server))
        return found

    def lone(self, listener: ListenerPlan, words: bytes = b"") -> socket.socket:
        """A client that need not reach a target."""
        client = socket.create_connection((listener.host, listener.port), 20)
        self.opened += 1
        if words:
            client.sendall(words)
        return client

    def batch(self, listener: ListenerPlan, words: bytes = b"") -> list[socket.socket]:
        """A batch of such clients."""
        return [self.lone(listener, words) for _ in range(BATCH)]

    def drained(self, *socks: socket.socket) -> None:
        """Read each to its end, be it FIN or RST, and close it."""
        for sock in socks:
            try:
                while sock.recv(1 << 16):
                    pass
            except ConnectionResetError:
                pass
            sock.close()

    # -- ends of the relay -----------------------------------------------------------------

    def client_closed(self) -> None:
        pairs = self.open(self.plain, b"hello")
        for client, _ in pairs:
            client.close()
        self.drained(*(server for _, server in pairs))

    def target_closed(self) -> None:
        pairs = self.open(self.retried)
        for _, server in pairs:
            server.sendall(b"bye")
            server.close()
        self.drained(*(client for client, _ in pairs))

    def client_reset(self) -> None:
        pairs = self.open(self.plain, b"hello")
        for client, server in pairs:
            server.sendall(b"unread")
            reset(client)
        self.drained(*(server for _, server in pairs))

    def target_reset(self) -> None:
        pairs = self.open(self.retried)
        for client, server in pairs:
            client.sendall(b"x")
            assert server.recv(1) == b"x"  # else the RST might still fail the dial
            reset(server)
        self.drained(*(client for client, _ in pairs))

    def bulk_and_reset(self) -> None:
        pairs = self.open(self.plain)
        for client, _ in pairs:
            client.setblocking(False)
            client.send(BULK)
            reset(client)
        self.drained(*(server for _, server in pairs))

    def bulk_to_a_reader_that_resets(self) -> None:
        pairs = self.open(self.retried)
        for client, server in pairs:
            server.setblocking(False)
            server.send(BULK)
            reset(client)
            server.settimeout(20)
        self.drained(*(server for _, server in pairs))

    def half_closed_timeout(self) -> None:
        pairs = self.open(self.short)
        for client, _ in pairs:
            client.shutdown(socket.SHUT_WR)
        for client, server in pairs:
            self.drained(client, server)

    def idle_timeout(self) -> None:
        for client, server in self.open(self.short, b"x"):
            self.drained(client, server)

    def life_is_over(self) -> None:
        for client, server in self.open(self.lifetime, b"x"):
            self.drained(client, server)

    # -- ends before the relay -------------------------------------------------------------

    def connect_failed(self) -> None:
        self.drained(*self.batch(self.lost))

    def connect_timeout(self) -> None:
        self.drained(*self.batch(self.mute, b"x"))

    def client_gone_while_dialling(self) -> None:
        for client in self.batch(self.mute, b"x"):
            reset(client)

    def no_route(self) -> None:
        self.drained(*self.batch(self.nowhere), *self.batch(self.tls, b"plain"))

    def no_first_byte(self) -> None:
        self.drained(*self.batch(self.tls))

    def header_invalid(self) -> None:
        self.drained(*self.batch(self.proxied, b"PROXY TCP4 nonsense\r\n"))

    def header_missing(self) -> None:
        self.drained(*self.batch(self.proxied, b"GET /\r\n"))

    def header_late(self) -> None:
        self.drained(*self.batch(self.proxied, b"PROX"))

    def header_unfinished(self) -> None:
        for client in self.batch(self.proxied, b"PROXY TCP4 "):
            client.close()

    def header_and_reset(self) -> None:
        for client in self.batch(self.proxied):
            reset(client)

    def header_good(self) -> None:
        header = encode_v2(ADDRESS, 1, ADDRESS, 2)
        pairs = self.open(self.proxied, header + b"hello")
        for client, _ in pairs:
            client.close()
        self.drained(*(server for _, server in pairs))

    def header_local(self) -> None:
        self.drained(*self.batch(self.local, encode_v2(None, 0, None, 0, local=True)))

    def header_forged(self) -> None:
        for client, server in self.open(self.guarded, FORGED):
            self.drained(client, server)

    def header_half_forged(self) -> None:
        pairs = self.open(self.guarded, FORGED[:3])
        for client, _ in pairs:
            client.close()
        self.drained(*(server for _, server in pairs))

    def stranger(self) -> None:
        self.drained(*self.batch(self.shut))


def methods(scenes: Scenes) -> list[Callable[[], None]]:
    """All ways to end."""
    names = list(vars(Scenes))
    return [
        getattr(scenes, name)
        for name in names[names.index("client_closed") :]
        if not name.startswith("_")
    ]


EXPECTED: Final = {
    "client_closed",
    "target_closed",
    "client_reset",
    "target_reset",
    "client_gone",
    "proxy_header_invalid",
    "proxy_header_missing",
    "proxy_header_timeout",
    "proxy_header_untrusted",
    "proxy_local",
    "no_route",
    "plain_on_tls",
    "connect_failed",
    "connect_timeout",
    "idle_timeout",
    "half_closed_timeout",
    "lifetime",
}


def objects() -> Counter[str]:
    """How many objects of the data plane's own kinds are alive."""
    return Counter(type(one).__name__ for one in gc.get_objects() if isinstance(one, KINDS))


def open_descriptors() -> int:
    """Open descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


def settle(plane: Plane, scenes: Scenes) -> None:
    """Wait until every connection has ended and the last account is done."""
    wait_until(lambda: plane.cells[2] == scenes.opened, "all ends")
    wait_until(lambda: plane.call(lambda: not plane.plane.touched), "the account")


def test_ten_thousand_connections_leave_nothing() -> None:
    """Over every kind of end: descriptors, objects, memory and tables are back at the start."""
    with running() as plane:
        scenes = Scenes(plane)
        for scene in methods(scenes):  # once, so that pools and caches are filled
            scene()
        settle(plane, scenes)
        assert set(plane.ends()) == EXPECTED
        # What may wait in the pool stays in it: it is counted apart.
        plane.call(plane.plane.pipes.close)
        plane.lines.clear()
        assert objects() == {}
        gc.collect()
        descriptors, everything = open_descriptors(), len(gc.get_objects())
        while plane.cells[0] < TOTAL:
            for scene in methods(scenes):
                scene()
        settle(plane, scenes)
        assert sum(plane.ends().values()) == plane.cells[2] == plane.cells[0] >= TOTAL
        plane.call(plane.plane.pipes.close)
        assert open_descriptors() == descriptors
        assert objects() == {}
        plane.lines.clear()
        gc.collect()
        assert len(gc.get_objects()) - everything < TOTAL / 50


def test_ended_connections_are_freed_without_the_collector() -> None:
    """Whatever the end, reference counts alone free a connection: no cycle is left."""
    with running() as plane:
        scenes = Scenes(plane)
        gc.collect()
        gc.disable()
        try:
            for scene in methods(scenes):
                scene()
                settle(plane, scenes)
                assert objects() == {}, scene.__name__
        finally:
            gc.enable()
