"""A bug in one connection harms no other, and very many ends come at once."""

from __future__ import annotations

import asyncio
import threading
from typing import Final

import pytest

from shared.plan import ProxyPolicy, Timeouts, TlvPlan
from tests.data_plane_harness import route, running
from tests.data_plane_sockets import read_exactly, read_to_end, reset
from tests.helpers.waiting import wait_until

MANY: Final = 1000


class Broken:
    """A socket of a connection, and a bug of ours that shows when one attribute of it is used."""

    def __init__(self, sock: object, missing: str) -> None:
        self._sock, self._missing = sock, missing

    def __getattr__(self, name: str) -> object:
        if name == self._missing:
            raise RuntimeError(f"{name} is missing")
        return getattr(self._sock, name)


@pytest.mark.parametrize(
    ("missing", "connect"), [("send", 30.0), ("family", 0.3)], ids=["relay", "deadline"]
)
def test_a_bug_ends_only_its_own_connection(missing: str, connect: float) -> None:
    """One end as internal_error, a trace in the log, and the neighbour goes on."""
    with running(expects_bugs=True) as plane:
        target = plane.target()
        listener = plane.serve(target, timeouts=Timeouts(connect=connect))
        _client, server = plane.connect(listener), target.accept()
        wait_until(lambda: plane.cells[1] == 1, "the dial")
        conn = next(iter(plane.plane.open))
        broken = Broken(conn.down.sock, missing)

        def find() -> None:
            conn.down.sock = broken  # type: ignore[assignment]
            assert conn.up is not None
            conn.up.is_fast = False  # the short way asks the descriptor

        plane.call(find)
        neighbour = plane.connect(listener), target.accept()
        if connect > 1:
            server.sendall(b"x")
        assert read_to_end(server) == b""
        neighbour[0].sendall(b"ping")
        assert read_exactly(neighbour[1], 4) == b"ping"
        neighbour[0].close()
        assert read_to_end(neighbour[1]) == b""
        neighbour[1].close()
        plane.wait_ends({"internal_error": 1, "client_closed": 1})
        (line,) = plane.logged("internal error")
        assert line[0] == "error"
        assert missing in line[2]["traceback"]


def test_many_bugs_are_told_of_a_few_times_a_second() -> None:
    """A client that has found one must not fill the log; what was left out is said in one line."""
    with running(expects_bugs=True) as plane:
        plane.serve(plane.target())
        bug = RuntimeError("found by a client")

        def find() -> None:
            for _ in range(MANY):
                plane.plane.on_bug(None, bug)

        plane.call(find)
        assert len(plane.logged("internal error")) < 40
        (line,) = wait_until(lambda: plane.logged("more lines like it"), "the summary", 5.0)
        assert line[2]["end"] == "internal_error"


def test_a_header_that_cannot_be_built_ends_only_its_own_connection() -> None:
    """More TLVs than the length field can say: the connections end, other routes serve."""
    with running(expects_bugs=True) as plane:
        target = plane.target()
        impossible, good = plane.listen(), plane.listen()
        tlvs = tuple(TlvPlan(type=kind, value=bytes(40_000)) for kind in (0xE1, 0xE2))
        plane.commit(
            route("bad", impossible, target, send_proxy="v2", send_proxy_tlvs=tlvs),
            route("good", good, target, order=1),
        )
        client = plane.connect(impossible)
        assert read_to_end(client) == b""
        assert read_to_end(target.accept()) == b""
        client = plane.connect(good)
        client.sendall(b"ping")
        server = target.accept()
        assert read_exactly(server, 4) == b"ping"
        client.close()
        assert read_to_end(server) == b""
        server.close()
        wait_until(lambda: plane.plane.connections == 0, "the end")
        assert plane.ends() == {"internal_error": 1, "client_closed": 1}


@pytest.mark.parametrize("is_reset", [True, False], ids=["rst", "fin"])
def test_a_thousand_ends_in_one_tick(is_reset: bool) -> None:
    """All are counted under their reason, and each target's end is told."""
    with running() as plane:
        target = plane.target()
        listener = plane.serve(target)
        clients = [plane.connect(listener) for _ in range(MANY)]
        servers = [target.accept() for _ in clients]
        assert plane.plane.connections == MANY

        def end_all() -> None:
            for client in clients:
                if is_reset:
                    reset(client)
                else:
                    client.close()

        plane.call(end_all)
        if not is_reset:
            for server in servers:
                assert read_to_end(server) == b""
                server.close()
        plane.wait_ends({"client_reset" if is_reset else "client_closed": MANY})
        assert plane.counts().total == MANY


def test_a_thousand_deadlines_in_one_tick() -> None:
    """They come in slices; the loop serves others in between, and all end."""
    with running() as plane:
        target = plane.target()
        listener = plane.serve(
            target, policy=ProxyPolicy(trusted=("127.0.0.0/8",), header_timeout=1.0)
        )
        clients = [plane.connect(listener) for _ in range(MANY)]
        for client in clients:
            assert client.recv(1) == b""
        plane.wait_ends({"proxy_header_timeout": MANY})
        # A few lines a second say so, and one says how many more there were.
        assert len(plane.logged("proxy_header_timeout")) < 40
        wait_until(lambda: plane.logged("more lines like it"), "the summary", 5.0)


def test_the_loop_of_uvloop_stays_usable() -> None:
    """Timers and callbacks of the loop run while connections are relayed."""
    with running() as plane:
        target = plane.target()
        client = plane.connect(plane.serve(target))
        server = target.accept()
        fired = threading.Event()
        plane.call(lambda: asyncio.get_running_loop().call_later(0.05, fired.set))
        for _ in range(50):
            client.sendall(b"x")
            assert read_exactly(server, 1) == b"x"
        assert fired.wait(10)
        client.close()
        assert read_to_end(server) == b""
        server.close()
        plane.wait_ends({"client_closed": 1})
