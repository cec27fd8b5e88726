"""Client, proxyctl, proxyctl, server: the last one sees the client's true address and port."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest

from tests.helpers.chain import (
    REQUEST,
    Seen,
    Topology,
    assert_true_addresses,
    connect,
    forward,
    hop_config,
    read_seen,
)
from tests.helpers.matrix import FAMILIES, ORDERS, VERSIONS, Cell, Matrix, cells, matrix
from tests.helpers.sockets import exchange
from tests.helpers.targets import HOSTS, HeaderTarget, dual_ports, literal

CELLS: Final = cells("proxyctl", "own")


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    """Two hops of proxyctl before a server of our own."""
    with matrix(tmp_path_factory.mktemp("chain"), CELLS) as started:
        yield started


@pytest.mark.parametrize("way", CELLS, ids=str)
def test_two_hops_keep_the_client(ways: Matrix, way: Cell) -> None:
    """Through two hops the server sees who the client is, and every hop is empty afterwards."""
    ways.check(way)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreeHops]:
    """Three hops of proxyctl."""
    started = ThreeHops(tmp_path_factory.mktemp("three"))
    try:
        started.start()
        yield started
    finally:
        started.end()


class ThreeHops(Topology):
    """first -> second -> third -> server; the second hop changes family and version."""

    ports: dict[tuple[str, str, str], int]  # version and family of the first hop, order

    def start(self) -> None:
        """Start the servers, then the hops from the last to the first."""
        keys = [(v, f, o) for v in VERSIONS for f in FAMILIES for o in ORDERS]
        own = {
            (family, order): self.target(HeaderTarget(HOSTS[family], greets="server" in order))
            for family in FAMILIES
            for order in ORDERS
        }
        other = {"v1": "v2", "v2": "v1", "v4": "v6", "v6": "v4"}
        targets = {key: own[key[1], key[2]].address for key in keys}
        configs = {}
        for name in ("third", "second", "first"):
            ports = dict(zip(keys, dual_ports(len(keys)), strict=True))
            routes = [
                forward(
                    "-".join(key),
                    ports[key],
                    targets[key],
                    send_proxy=other[key[0]] if name == "second" else key[0],
                )
                for key in keys
            ]
            trusted = [] if name == "first" else list(HOSTS.values())
            configs[name] = hop_config(routes, trusted)
            targets = {
                key: literal(
                    HOSTS[other[key[1]] if name == "third" else key[1]],
                    port,
                )
                for key, port in ports.items()
            }
        self.ports = ports
        self.start_hops(configs)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("version", VERSIONS)
def test_three_hops_keep_the_client(
    three: ThreeHops, version: str, family: str, order: str
) -> None:
    """Three hops, the versions mixed and one leg over the other family, lose nothing either."""
    with connect(three.ports[version, family, order], family) as client:
        if order == "client-first":
            client.sendall(REQUEST)
        assert_true_addresses(read_seen(client))
        assert exchange(client, b"both ways") == b"both ways"
    three.wait_empty()


def test_many_clients_are_not_mixed_up(three: ThreeHops) -> None:
    """Clients that come at the same time are each seen as themselves."""

    def come(number: int) -> Seen:
        version, family = VERSIONS[number % 2], FAMILIES[number // 2 % 2]
        with connect(three.ports[version, family, "server-first"], family) as client:
            seen = read_seen(client)
            text = f"client {number}".encode()
            assert exchange(client, text) == text
        return seen

    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(come, range(100)))
    for seen in found:
        assert_true_addresses(seen)
    three.settle()


def test_counters_of_the_hops_agree(three: ThreeHops) -> None:
    """Accepted is what has ended for a reason, and each hop took what the one before it sent."""
    with connect(three.ports["v2", "v4", "server-first"]) as client:
        read_seen(client)
        assert exchange(client, b"x" * 100_000) == b"x" * 100_000
    three.settle()
    third, second, first = (hop.settle() for hop in three.hops)
    assert first["accepted"] > 0
    for before, after in ((first, second), (second, third)):
        assert before["accepted"] == after["accepted"]
        for key in ("received", "sent"):  # without headers: they are no client's bytes
            assert before[key] == after[key]
    for totals in (first, second, third):
        assert totals["dialled"] == totals["accepted"] == totals["ended"]
        assert sum(totals["ends"].values()) == totals["accepted"]
        assert set(totals["ends"]) == {"client_closed"}
        targets = totals["targets"].values()
        assert sum(target["sent"] for target in targets) == totals["received"]
        assert sum(target["received"] for target in targets) == totals["sent"]
