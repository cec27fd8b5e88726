"""Whatever way an exchange ends, reference counts alone free all of it."""

from __future__ import annotations

import gc
from collections import Counter

from shared.plan import AnswerPlan, HttpMatch, HttpPlan
from tests.data_plane_sockets import Target, reset
from tests.helpers.http_talk import OK, Served, answer, get, post, route, serving
from tests.helpers.waiting import wait_until
from worker.coded_side import CodedSide
from worker.connection import Connection
from worker.http_client import HttpClient
from worker.http_dial import HttpDial
from worker.http_exchange import Exchange
from worker.http_pool import Upstream
from worker.http_wire import Wire
from worker.preface import PrefaceReader

KINDS = (
    CodedSide, Connection, Exchange, HttpClient, HttpDial, PrefaceReader, Upstream, Wire,
)  # fmt: skip
ASKED = get("/ws", "Connection: upgrade", "Upgrade: websocket")
SWITCHED = b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"


class Scenes:
    """One method per way to end."""

    def __init__(self, plane: Served) -> None:
        self.plane = plane
        self.target: Target = plane.target()
        self.other: Target = plane.target()
        self.listener = plane.listen()
        own = HttpPlan(answer=AnswerPlan(status=200, body=b"x"))
        plane.commit(
            route("r", self.listener, self.target, domains=("a.example",), http=HttpPlan()),
            route("own", self.listener, domains=("own.example",), http=own, order=1),
            route(
                "ws", self.listener, self.target, order=2,
                http=HttpPlan(match=HttpMatch(paths=("/ws",))),
            ),
            route(
                "dead", self.listener, plane.dead_target(), domains=("dead.example",),
                http=HttpPlan(), order=3,
            ),
            route("tcp", self.listener, self.other, order=4),
        )  # fmt: skip

    def requests(self) -> None:
        """A few, of all kinds of routes, and then the client's FIN."""
        client, server = self.plane.pair(self.listener, self.target)
        client.send(post(b"body"))
        server.message()
        server.send(answer(b"x", "Connection: close"))
        assert client.message().status == 200
        for host, status in (("own.example", 200), ("dead.example", 502)):
            assert client.ask(get(host=host)).status == status
        client.close()
        server.close()

    def bad_request(self) -> None:
        """It ends lingering."""
        client = self.plane.client(self.listener)
        client.send(get().replace(b"Host", b"Bad Host") + bytes(1000))
        assert client.message().status == 400
        assert client.is_ended()
        client.close()

    def reset_within(self) -> None:
        """The client resets within the answer."""
        client = self.plane.client(self.listener)
        client.send(get())
        server = self.plane.accepted(self.target)
        server.message()
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
        client.head()
        reset(client.sock)
        assert server.is_cut()
        server.close()

    def cut_within(self) -> None:
        """The target resets within the answer."""
        client = self.plane.client(self.listener)
        client.send(get())
        server = self.plane.accepted(self.target)
        server.message()
        server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n")
        client.head()
        reset(server.sock)
        assert client.is_cut()
        client.close()

    def once_more(self) -> None:
        """A dead kept connection, and the one that is dialled in its place."""
        client, server = self.plane.pair(self.listener, self.target)
        client.send(get())
        server.message()
        server.close()
        server = self.plane.accepted(self.target)
        server.message()
        server.send(OK)
        assert client.message().status == 200
        server.close()
        client.close()

    def upgrade(self) -> None:
        """A relay that has come of an exchange."""
        client = self.plane.client(self.listener)
        client.send(ASKED)
        server = self.plane.accepted(self.target)
        server.head()
        server.send(SWITCHED)
        assert client.head().status == 101
        client.close()
        assert server.is_ended()
        server.close()

    def fallback(self) -> None:
        """A relay that a request was found to be for."""
        client = self.plane.client(self.listener)
        client.send(get(host="nobody.example"))
        server = self.plane.accepted(self.other)
        server.head()
        server.close()
        assert client.is_ended()
        client.close()


def objects() -> Counter[str]:
    """How many objects of connections are alive."""
    return Counter(type(one).__name__ for one in gc.get_objects() if isinstance(one, KINDS))


def test_nothing_is_left_of_any_end() -> None:
    """No cycle is left for the garbage collector, and no connection to a target."""
    with serving() as plane:
        scenes = Scenes(plane)
        methods = [
            scenes.requests,
            scenes.bad_request,
            scenes.reset_within,
            scenes.cut_within,
            scenes.once_more,
            scenes.upgrade,
            scenes.fallback,
        ]
        gc.collect()
        gc.disable()
        try:
            for scene in methods * 3:
                before = plane.cells[2]
                scene()
                wait_until(lambda before=before: plane.cells[2] > before, scene.__name__)  # type: ignore[misc]
                wait_until(lambda: plane.call(lambda: not plane.plane.touched), "the account")
                wait_until(lambda: not objects(), f"{scene.__name__} leaves nothing", 5.0)
        finally:
            gc.enable()
