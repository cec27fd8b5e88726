"""Both ends of HTTP by hand: a data plane between a raw client and a target that a test scripts."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple

from shared.plan import HttpPlan, ListenerPlan, RoutePlan, TargetPlan, Timeouts
from tests.data_plane_harness import Plane, route, running
from tests.data_plane_sockets import TIMEOUT_S, Target, descriptors
from tests.helpers.certificates import Files
from tests.helpers.waiting import wait_until
from worker.http_pool import Upstream

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HOST = "a.example"


class Message(NamedTuple):
    """A request or an answer. ``fields``: names in lower case, values of one name joined by |."""

    first: str
    fields: dict[str, str]
    body: bytes = b""
    trailers: Mapping[str, str] = {}

    @property
    def status(self) -> int:
        """Of an answer."""
        return int(self.first.split(" ", 2)[1])

    @property
    def target(self) -> str:
        """Of a request: its path and query."""
        return self.first.split(" ", 2)[1]


def get(path: str = "/", *lines: str, method: str = "GET", host: str = HOST) -> bytes:
    """A request without a body; ``lines`` are whole field lines."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {host}", *lines, "", ""]).encode()


def post(body: bytes, path: str = "/", *lines: str) -> bytes:
    """A POST with a length."""
    return get(path, *lines, f"Content-Length: {len(body)}", method="POST") + body


def answer(body: bytes = b"", *lines: str, status: str = "200 OK") -> bytes:
    """An answer with a length."""
    head = [f"HTTP/1.1 {status}", *lines, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(head).encode() + body


def chunked(body: bytes, size: int, trailers: str = "") -> bytes:
    """A body in chunks of this size."""
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    made = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return made + b"0\r\n" + trailers.encode() + b"\r\n"


class Talker:
    """One connection, read message by message."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.seen = b""

    def send(self, *parts: bytes) -> None:
        """Send all of it."""
        self.sock.sendall(b"".join(parts))

    def _more(self) -> bool:
        data = self.sock.recv(1 << 18)
        self.seen += data
        return bool(data)

    def until(self, end: bytes) -> bytes:
        """What comes up to these bytes, and with them; AssertionError where the stream ends."""
        while (at := self.seen.find(end)) < 0:
            assert self._more(), f"the end behind {self.seen!r}"
        found, self.seen = self.seen[: at + len(end)], self.seen[at + len(end) :]
        return found

    def exactly(self, size: int) -> bytes:
        """So many bytes."""
        parts, left = [self.seen[:size]], size - len(self.seen)
        self.seen = self.seen[size:]
        while left > 0:
            part = self.sock.recv(min(left, 1 << 18))
            assert part, f"the end, {left} bytes early"
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def head(self) -> Message:
        """The next head."""
        lines = self.until(b"\r\n\r\n")[:-4].decode("latin-1").split("\r\n")
        return Message(lines[0], _fields(lines[1:]))

    def chunks(self) -> tuple[bytes, dict[str, str]]:
        """A body in chunks, and its trailers."""
        parts = []
        while size := int(self.until(b"\r\n")[:-2], 16):
            parts.append(self.exactly(size))
            assert self.exactly(2) == b"\r\n"
        trailers = []
        while (line := self.until(b"\r\n")) != b"\r\n":
            trailers.append(line[:-2].decode())
        return b"".join(parts), _fields(trailers)

    def message(self, method: str = "GET") -> Message:
        """The next request, or the answer to a request of this method."""
        head = self.head()
        fields = head.fields
        if head.first.startswith("HTTP/"):
            is_empty = method == "HEAD" or head.status in (204, 304) or head.status < 200
            if is_empty:
                return head
            if "content-length" not in fields and "transfer-encoding" not in fields:
                return head._replace(body=self.rest())
        if fields.get("transfer-encoding") == "chunked":
            assert "content-length" not in fields
            body, trailers = self.chunks()
            return head._replace(body=body, trailers=trailers)
        return head._replace(body=self.exactly(int(fields.get("content-length", "0"))))

    def ask(self, data: bytes) -> Message:
        """Send a request, read its answer."""
        self.send(data)
        return self.message(data.split(b" ", 1)[0].decode())

    def rest(self) -> bytes:
        """All that comes up to the FIN; an RST raises ConnectionResetError."""
        while self._more():
            pass
        found, self.seen = self.seen, b""
        return found

    def is_ended(self) -> bool:
        """Wait for the FIN, before which nothing may come."""
        return self.rest() == b""

    def is_cut(self) -> bool:
        """Wait for the end, whichever it is, before which nothing may come."""
        try:
            return self.rest() == b""
        except ConnectionError:
            return True

    def close(self) -> None:
        """Let go of it."""
        self.sock.close()


def say_goodbye(talker: Talker) -> None:
    """Send close_notify, without a FIN behind it, and do not wait for the other's."""
    sock = talker.sock
    assert isinstance(sock, ssl.SSLSocket)
    sock.setblocking(False)
    with suppress(ssl.SSLWantReadError):
        sock.unwrap()
    sock.settimeout(TIMEOUT_S)


def _fields(lines: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in lines:
        name, mark, value = line.partition(": ")
        assert mark, line
        name = name.lower()
        found[name] = f"{found[name]}|{value}" if name in found else value
    return found


class Served(Plane):
    """A data plane whose routes speak HTTP."""

    def __init__(self, stack: ExitStack) -> None:
        super().__init__(stack)
        self._talkers: list[Talker] = []
        self._tls_server: ssl.SSLContext | None = None  # of targets

    def http(
        self,
        *targets: Target | TargetPlan,
        plan: HttpPlan | None = None,
        timeouts: Timeouts | None = None,
        **settings: Any,
    ) -> ListenerPlan:
        """One listener with one route, "r", that speaks HTTP."""
        settings |= {"http": plan or HttpPlan(), "timeouts": timeouts or Timeouts()}
        return self.serve(*targets, **settings)

    def client(self, listener: ListenerPlan, buffer: int = 0) -> Talker:
        """A client."""
        return self._known(self.connect(listener, buffer=buffer))

    def tls_client(
        self, listener: ListenerPlan, context: ssl.SSLContext, name: str = HOST
    ) -> Talker:
        """A client that speaks TLS, its handshake done."""
        sock = self.connect(listener)
        return self._known(self.keep(context.wrap_socket(sock, server_hostname=name)))

    def serve_tls(self, files: Files) -> ssl.SSLContext:
        """Have all targets speak TLS from now on; the context by which they do."""
        self._tls_server = context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.cert, files.key)
        return context

    def accepted(self, target: Target) -> Talker:
        """The data plane's next connection to this target."""
        sock = target.accept()
        if self._tls_server is not None:
            sock = self.keep(self._tls_server.wrap_socket(sock, server_side=True))
        return self._known(sock)

    def _known(self, sock: socket.socket) -> Talker:
        talker = Talker(sock)
        self._talkers.append(talker)
        return talker

    def pair(self, listener: ListenerPlan, target: Target) -> tuple[Talker, Talker]:
        """A client and the target's side, behind one request of theirs that was answered."""
        client = self.client(listener)
        client.send(get())
        server = self.accepted(target)
        server.message()
        server.send(OK)
        assert client.message().body == b"ok"
        return client, server

    def upstreams(self) -> list[Upstream]:
        """Connections to targets that are open now, in use or kept."""
        table = self.plane.reactor.table
        return self.call(lambda: [one for one in table.values() if isinstance(one, Upstream)])

    def codes(self, name: str = "r") -> dict[str, int]:
        """Requests of a route by class of the answer, its targets' included."""
        counts = self.counts(name)
        found = dict(counts.requests)
        for target in counts.targets.values():
            for code, count in target.requests.items():
                found[code] = found.get(code, 0) + count
        return found

    def wait_codes(self, expected: dict[str, int], name: str = "r") -> None:
        """Wait until exactly these have been counted."""
        total = sum(expected.values())
        wait_until(lambda: sum(self.codes(name).values()) >= total, f"{expected} in {name}")
        assert self.codes(name) == expected

    def assert_nothing_left(self, expects_bugs: bool = False) -> None:
        """As `Plane.assert_nothing_left`, once all clients have gone and nothing is kept."""
        for talker in self._talkers:
            with suppress(OSError):
                talker.close()
        wait_until(lambda: self.plane.connections == 0, "all clients have gone")
        for up in self.upstreams():
            assert up.exchange is None
            self.call(up.close)
        wait_until(lambda: not self.plane.reactor.closing, "all sockets are closed")
        assert self.call(lambda: len(self.plane.http.kept)) == 0
        super().assert_nothing_left(expects_bugs=True)  # one client may have had many dials


@contextmanager
def serving() -> Iterator[Served]:
    """A data plane for HTTP; as `tests.data_plane_harness.running`, nothing may be left behind."""
    with running():
        pass  # what the first loop of a process opens for good is there now
    before = descriptors()
    with ExitStack() as stack:
        plane = Served(stack)
        stack.callback(plane.close)
        yield plane
        plane.assert_nothing_left()
        assert plane.logged("internal error") == []
    assert descriptors() == before


__all__ = [
    "HOST", "OK", "Message", "RoutePlan", "Served", "Talker", "answer", "chunked", "get", "post",
    "route", "serving",
]  # fmt: skip
