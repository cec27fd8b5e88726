"""Chains of proxies for tests: their processes, a client, and the account of every hop."""

from __future__ import annotations

import contextlib
import re
import socket
import tempfile
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from supervisor.cli import client as control
from tests.helpers.daemons import Daemon, Haproxy, Nginx, Redis
from tests.helpers.processes import Config, Proxyctl
from tests.helpers.sockets import TIMEOUT_S
from tests.helpers.targets import HOSTS, Target
from tests.helpers.waiting import DEADLINE_S, wait_until

T = TypeVar("T", bound=Target)
D = TypeVar("D", bound=Daemon)

# A source that no proxy of a chain has by itself, so that seeing it proves the header. IPv6 has
# one loopback address only; there the port proves it.
SOURCES: Final = {"v4": "127.9.8.7", "v6": "::1"}
REQUEST: Final = b"GET / HTTP/1.0\r\n\r\n"
RETRY_PAUSE_S: Final = 0.05
BYTE_PAUSE_S: Final = 0.001  # enough for a worker to wake up between two bytes
_SEEN: Final = re.compile(rb"(\S+) (\d+) (\S+) (\d+)\n")
_OUTPUT_CHARS: Final = 6000

Place = tuple[str, int]
Tlvs = list[str | dict[str, object]]


class Seen(NamedTuple):
    """What the last server said about the client, beside what the client knows of itself."""

    own: Place
    peer: Place
    source: Place
    destination: Place


def forward(
    name: str,
    port: int,
    target: str,
    *,
    send_proxy: str | None = None,
    tlvs: Tlvs | None = None,
    **action: object,
) -> dict[str, object]:
    """One route of a config."""
    action |= {"type": "forward", "targets": [target], "send_proxy": send_proxy}
    if tlvs:
        action["send_proxy_tlvs"] = tlvs
    return {"name": name, "match": {"ports": [port]}, "action": action}


def hop_config(
    routes: Iterable[dict[str, object]], trusted: Iterable[str] = (), **more: object
) -> Config:
    """A config on both loopback addresses that believes headers of ``trusted``."""
    return {
        "listen": list(HOSTS.values()),
        "admin": None,
        "proxy_protocol": {"trusted": list(trusted)},
        "routes": list(routes),
        **more,
    }


class Hop(Proxyctl):
    """A proxyctl of a chain. Its status is asked in this process: it is asked very often."""

    def __init__(self, name: str, directory: Path, config: Config) -> None:
        self.name = name
        # The path of a socket has 107 bytes at the most: that of a test may be longer.
        self._short = tempfile.TemporaryDirectory(prefix="hop-")
        super().__init__(directory, config, runtime_dir=Path(self._short.name))

    def end(self) -> None:
        """End it, and remove what it left."""
        super().end()
        self._short.cleanup()

    def status(self) -> dict[str, Any]:
        """``data`` of `status`, also when it says degraded."""
        reply = control.ask(self.runtime_dir, "status", {}, DEADLINE_S)
        assert reply.exit_code in (control.OK, control.DEGRADED), reply.errors
        return dict(reply.data)

    def totals(self) -> dict[str, Any]:
        """``data.totals`` of `status`."""
        return dict(self.status()["totals"])

    def is_empty(self) -> bool:
        """Whether as many connections have ended as were accepted, at this very moment."""
        totals = self.totals()
        return bool(totals["accepted"] == totals["ended"])

    def settle(self) -> dict[str, Any]:
        """Wait until no connection is left and every one is accounted for; the totals then."""
        last: dict[str, Any] = {}

        def look() -> bool:
            last.update(self.status())
            return last["connections"] == 0 and is_balanced(last)

        try:
            wait_until(look, f"{self.name} holds no connection")
        except AssertionError as error:
            raise AssertionError(f"{error}; its status: {last}") from None
        assert "internal_error" not in last["totals"]["ends"], self.log()
        return dict(last["totals"])


def is_balanced(status: dict[str, Any]) -> bool:
    """Whether every accepted connection is either open or has ended for exactly one reason."""
    totals = status["totals"]
    active = sum(route["active"] for route in totals["routes"].values())
    ended = sum(totals["ends"].values())
    return bool(
        totals["accepted"] == ended + active
        and totals["accepted"] == totals["ended"] + active
        and active == status["connections"]
    )


class Topology:
    """Every process and server of a scenario, ended in the reverse order of their start."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stack = contextlib.ExitStack()
        self.hops: list[Hop] = []
        self.daemons: list[Daemon] = []
        self.targets: list[Target] = []

    def hop(self, name: str, config: Config) -> Hop:
        """Start a proxyctl."""
        return self.start_hops({name: config})[0]

    def start_hops(self, configs: dict[str, Config]) -> list[Hop]:
        """Start several proxyctl at the same time; ``hops`` has them in this order."""
        hops = [Hop(name, self._new_directory(name), one) for name, one in configs.items()]
        for hop in hops:
            self._stack.callback(hop.end)
        self.hops += hops
        with ThreadPoolExecutor(len(hops)) as pool:
            list(pool.map(Hop.start, hops))
        return hops

    def haproxy(self, name: str, text: str) -> Haproxy:
        """Start a HAProxy."""
        return self.add(Haproxy(name, self._new_directory(name), text))

    def nginx(self, name: str, *, http: str = "", stream: str = "") -> Nginx:
        """Start an nginx."""
        return self.add(Nginx(name, self._new_directory(name), http=http, stream=stream))

    def redis(self, name: str, port: int) -> Redis:
        """Start a Redis."""
        return self.add(Redis(name, self._new_directory(name), port))

    def target(self, target: T) -> T:
        """Close ``target`` with the rest."""
        self._stack.callback(target.close)
        self.targets.append(target)
        return target

    def hold(self, context: contextlib.AbstractContextManager[int]) -> int:
        """Enter ``context`` and leave it with the rest."""
        return self._stack.enter_context(context)

    def wait_empty(self) -> None:
        """Wait until no hop holds a connection, whatever program it is.

        For a proxyctl by its exact counts, which need no report of its workers (see `settle`).
        """
        for daemon in self.daemons:
            wait_until(
                lambda daemon=daemon: daemon.open_connections() == 0,  # type: ignore[misc]
                f"{daemon.name} holds no connection",
            )
        for hop in self.hops:
            if hop.exit_code() is None:
                wait_until(hop.is_empty, f"{hop.name} holds no connection")

    def settle(self) -> None:
        """`wait_empty`, and every proxyctl also accounts for each connection by its reports."""
        self.wait_empty()
        for hop in self.hops:
            if hop.exit_code() is None:
                hop.settle()

    def outputs(self) -> list[tuple[str, str]]:
        """Name and last output of everything, for a test's failure."""
        found = [(hop.name, (hop.output() + hop.log())[-_OUTPUT_CHARS:]) for hop in self.hops]
        found += [(daemon.name, daemon.log()) for daemon in self.daemons]
        for target in self.targets:
            if target.failures:
                found.append((f"target {target.address}", "\n".join(target.failures)))
        return found

    def end(self) -> None:
        """End everything."""
        self._stack.close()

    def add(self, daemon: D) -> D:
        """End ``daemon`` with the rest."""
        self._stack.callback(daemon.end)
        self.daemons.append(daemon)
        return daemon

    def _new_directory(self, name: str) -> Path:
        directory = self._directory / name
        directory.mkdir()
        return directory


def connect(port: int, family: str = "v4") -> socket.socket:
    """A client of ``port``, from the source of its family."""
    return socket.create_connection(
        (HOSTS[family], port), TIMEOUT_S, source_address=(SOURCES[family], 0)
    )


def read_seen(client: socket.socket) -> Seen:
    """Read until the last server has said whom it sees; what is behind an HTTP head counts too."""
    received = b""
    while (found := _SEEN.search(received)) is None:
        part = client.recv(65536)
        assert part, f"the connection ended after {received!r}"
        received += part
    source, source_port, destination, destination_port = found.groups()
    own, peer = client.getsockname(), client.getpeername()
    return Seen(
        own=(own[0], own[1]),
        peer=(peer[0], peer[1]),
        source=(source.decode(), int(source_port)),
        destination=(destination.decode(), int(destination_port)),
    )


def assert_true_addresses(seen: Seen) -> None:
    """The last server knows the client's own address, and the one that the client dialled."""
    assert seen.source == seen.own
    assert seen.destination == seen.peer


def read_to_end(client: socket.socket) -> bytes:
    """Everything until the other side ends, by FIN or by RST."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := client.recv(65536):
            received += data
    return received


def send_slowly(client: socket.socket, data: bytes) -> None:
    """Send byte by byte, each in a segment of its own."""
    if client.family != socket.AF_UNIX:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    pause = threading.Event()
    for byte in data:
        client.sendall(bytes([byte]))
        pause.wait(BYTE_PAUSE_S)


def try_often(port: int, count: int = 20) -> None:
    """Connect, say a word and leave at once, again and again as a client without patience does."""
    pause = threading.Event()
    for _ in range(count):
        # A bad target may end it at any of these steps.
        with contextlib.suppress(ConnectionError), connect(port) as client:
            client.sendall(b"hello")
        pause.wait(RETRY_PAUSE_S)


def answer_to_end(port: int, data: bytes = b"", family: str = "v4") -> bytes:
    """What a client of ``port`` gets that sends this, until the other side ends.

    Where that is by RST it may be there before connect(2) returns, or before anything is sent.
    """
    with (
        contextlib.suppress(ConnectionResetError, BrokenPipeError),
        connect(port, family) as client,
    ):
        client.sendall(data)
        return read_to_end(client)
    return b""
