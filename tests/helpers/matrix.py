"""Every way through front, proxyctl and behind at once: one process of each program, many ports.

client -> front (sends PROXY) -> proxyctl (trusts the front, sends PROXY) -> behind (reads it)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from tests.helpers.chain import (
    REQUEST,
    Topology,
    assert_true_addresses,
    connect,
    forward,
    hop_config,
    read_seen,
    read_to_end,
)
from tests.helpers.sockets import exchange
from tests.helpers.targets import HOSTS, HeaderTarget, dual_ports, literal

VERSIONS: Final = ("v1", "v2")
FAMILIES: Final = ("v4", "v6")
ORDERS: Final = ("client-first", "server-first")


class Cell(NamedTuple):
    """One way: who is in front, what is sent over which family, who speaks first, who reads."""

    front: str
    version: str  # of the front's header; see `Matrix` for the second one
    family: str
    order: str
    behind: str

    def __str__(self) -> str:
        return "-".join(self)

    @property
    def tail(self) -> str:
        """The part of it that the proxyctl in the middle needs a port for."""
        return "-".join(self[1:])


def cells(front: str, behind: str, versions: Iterable[str] = VERSIONS) -> list[Cell]:
    """All ways between these two programs."""
    return [
        Cell(front, version, family, order, behind)
        for version in versions
        for family in FAMILIES
        for order in ORDERS
    ]


class Matrix(Topology):
    """Starts what ``ways`` need. The proxyctl in the middle sends on the version that it reads."""

    def __init__(self, directory: Path, ways: list[Cell]) -> None:
        super().__init__(directory)
        self.ports: dict[Cell, int] = {}
        self._behind: dict[tuple[str, str, str], str] = {}  # program, family, order: address
        try:
            self._start(ways)
        except BaseException:
            self.end()
            raise

    def _start(self, ways: list[Cell]) -> None:
        behind = {way.behind for way in ways}
        for family in FAMILIES:
            for order in ORDERS:
                greets = order == "server-first"
                own = self.target(HeaderTarget(HOSTS[family], greets=greets))
                self._behind["own", family, order] = own.address
        if "haproxy" in behind:
            self._start_haproxy_behind()
        if "nginx" in behind:
            self._start_nginx_behind()
        tails = {way.tail: way for way in ways}
        middle = dict(zip(tails, dual_ports(len(tails)), strict=True))
        routes = [
            forward(
                tail,
                middle[tail],
                self._behind[way.behind, way.family, way.order],
                send_proxy=way.version,
            )
            for tail, way in tails.items()
        ]
        self.middle = self.hop("middle", hop_config(routes, HOSTS.values()))
        for front in ("proxyctl", "haproxy", "nginx"):
            chosen = [way for way in ways if way.front == front]
            if chosen:
                ports = dict(zip(chosen, dual_ports(len(chosen)), strict=True))
                self.ports |= ports
                self._start_front(front, ports, middle)

    def _start_front(self, front: str, ports: dict[Cell, int], middle: dict[str, int]) -> None:
        def target(way: Cell) -> str:
            return literal(HOSTS[way.family], middle[way.tail])

        def listen(way: Cell) -> str:
            return literal(HOSTS[way.family], ports[way])

        if front == "haproxy":
            send = {"v1": "send-proxy", "v2": "send-proxy-v2"}
            text = "".join(
                f"listen {way}\n  bind {listen(way)}\n"
                f"  server next {target(way)} {send[way.version]}\n"
                for way in ports
            )
            self.haproxy("front-haproxy", text)
        elif front == "nginx":
            text = "".join(
                f"server {{ listen {listen(way)}; proxy_pass {target(way)}; proxy_protocol on; }}\n"
                for way in ports
            )
            self.nginx("front-nginx", stream=text)
        else:
            routes = [
                forward(str(way), port, target(way), send_proxy=way.version)
                for way, port in ports.items()
            ]
            self.hop("front-proxyctl", hop_config(routes))

    def _start_haproxy_behind(self) -> None:
        text = ""
        for family in FAMILIES:
            http, tcp = (literal(HOSTS[family], port) for port in dual_ports(2))
            own = self._behind["own", family, "server-first"]
            text += (
                f"frontend http-{family}\n  mode http\n  bind {http} accept-proxy\n"
                "  http-request return status 200 content-type text/plain"
                ' lf-string "%[src] %[src_port] %[dst] %[dst_port]\\n"\n'
                f"listen tcp-{family}\n  bind {tcp} accept-proxy\n"
                f"  server own {own} send-proxy-v2\n"
            )
            self._behind["haproxy", family, "client-first"] = http
            self._behind["haproxy", family, "server-first"] = tcp
        self.haproxy("behind-haproxy", text)

    def _start_nginx_behind(self) -> None:
        text = {"client-first": "", "server-first": ""}
        for family in FAMILIES:
            for order, port in zip(ORDERS, dual_ports(2), strict=True):
                address = literal(HOSTS[family], port)
                code = "200 " if order == "client-first" else ""
                text[order] += (
                    f"server {{ listen {address} proxy_protocol; return {code}"
                    '"$proxy_protocol_addr $proxy_protocol_port'
                    ' $proxy_protocol_server_addr $proxy_protocol_server_port\\n"; }\n'
                )
                self._behind["nginx", family, order] = address
        self.nginx("behind-nginx", http=text["client-first"], stream=text["server-first"])

    def check(self, way: Cell) -> None:
        """The last server sees the client itself, and afterwards no hop holds a connection."""
        with connect(self.ports[way], way.family) as client:
            if way.order == "client-first":
                client.sendall(REQUEST)
            assert_true_addresses(read_seen(client))
            if way.behind == "own" or (way.behind, way.order) == ("haproxy", "server-first"):
                assert exchange(client, b"both ways") == b"both ways"
            else:
                read_to_end(client)
        self.wait_empty()

    def check_books(self, ways: list[Cell]) -> None:
        """After two more connections the counters of two hops are whole, and agree."""
        self.check(ways[0])
        self.check(ways[-1])
        self.settle()
        middle, front = (hop.settle() for hop in self.hops)
        assert middle["accepted"] >= 2
        assert front["dialled"] == front["accepted"] == sum(front["ends"].values())
        assert middle["dialled"] == middle["accepted"] == sum(middle["ends"].values())
        assert set(middle["ends"]) <= {"client_closed", "target_closed", "client_reset"}


@contextmanager
def matrix(directory: Path, ways: list[Cell]) -> Iterator[Matrix]:
    """A matrix that is ended, whatever happens."""
    started = Matrix(directory, ways)
    try:
        yield started
    finally:
        started.end()
