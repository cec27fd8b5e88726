"""Large bodies both ways at once through two hops, checked by their hash and by the counters."""

from __future__ import annotations

import hashlib
import threading
from typing import Final

from tests.helpers.chain import Topology, connect, forward, hop_config
from tests.helpers.targets import BulkTarget, bulk_digest, dual_ports, give

MIB: Final = 1 << 20
UP_BYTES: Final = 64 * MIB + 12_345  # no multiple of any buffer
DOWN_BYTES: Final = 64 * MIB + 54_321


def test_large_bodies_both_ways(topology: Topology) -> None:
    """64 MiB each way arrive whole and in order, and every hop has counted each byte."""
    server = topology.target(BulkTarget(DOWN_BYTES))
    second, first = dual_ports(2)
    routes = [
        forward("bulk", second, server.address, send_proxy="v1"),
        forward("bulk", first, f"127.0.0.1:{second}", send_proxy="v2"),
    ]
    topology.start_hops(
        {"second": hop_config(routes[:1], ["127.0.0.1"]), "first": hop_config(routes[1:])}
    )
    digest = hashlib.sha256()
    count = 0
    with connect(first) as client:
        giver = threading.Thread(target=give, args=(client, UP_BYTES), daemon=True)
        giver.start()
        while data := client.recv(1 << 18):
            digest.update(data)
            count += len(data)
        giver.join()
    topology.settle()
    assert count == DOWN_BYTES
    assert digest.hexdigest() == bulk_digest(DOWN_BYTES)
    assert server.failures == []
    assert server.digest == bulk_digest(UP_BYTES)
    for hop in topology.hops:
        totals = hop.totals()
        (target,) = totals["targets"].values()
        assert totals["received"] == target["sent"] == UP_BYTES
        assert totals["sent"] == target["received"] == DOWN_BYTES
