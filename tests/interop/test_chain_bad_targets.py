"""Targets that fail, behind two hops: the client gets an end, and no hop keeps a connection.

In front is proxyctl, HAProxy or nginx; in the middle proxyctl, which meets the bad target.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from tests.helpers.chain import (
    Hop,
    Topology,
    answer_to_end,
    connect,
    forward,
    hop_config,
    read_to_end,
    try_often,
)
from tests.helpers.targets import (
    HOSTS,
    SilentTarget,
    Target,
    blackhole,
    closed_port,
    closes_at_once,
    dual_ports,
    literal,
    reset,
    resets_at_once,
)
from tests.helpers.waiting import wait_until

FRONTS: Final = (
    pytest.param("proxyctl"),
    pytest.param("haproxy", marks=pytest.mark.program("haproxy")),
    pytest.param("nginx", marks=pytest.mark.program("nginx", "ngx_stream_module.so")),
)
# What may be counted at the hop that meets the target; an RST may come before the dial is over.
ENDS: Final = {
    "refused": {"connect_failed"},
    "blackhole": {"connect_timeout"},
    "closes": {"target_closed"},
    "resets": {"target_reset", "connect_failed"},
    "silent": {"half_closed_timeout", "client_reset", "client_closed"},
}
ENDING: Final = [kind for kind in ENDS if kind != "silent"]
TRIES: Final = 20
SHORT: Final = {"connect": "700ms", "half_closed": "500ms"}  # else a test would wait for them


class BadTargets(Topology):
    """One front before one middle hop, which has a port for each bad target."""

    middle: Hop
    ports: dict[str, int]

    def start(self, front: str) -> None:
        """Start targets, middle and front."""
        bad = {
            "refused": literal(HOSTS["v4"], closed_port()),
            "blackhole": literal(HOSTS["v4"], self.hold(blackhole())),
            "closes": self.target(Target(closes_at_once)).address,
            "resets": self.target(Target(resets_at_once)).address,
            "silent": self.target(SilentTarget()).address,
        }
        middle = dict(zip(bad, dual_ports(len(bad)), strict=True))
        self.ports = dict(zip(bad, dual_ports(len(bad)), strict=True))
        routes = [forward(kind, middle[kind], bad[kind], send_proxy="v1") for kind in bad]
        self.middle = self.hop("middle", hop_config(routes, ["127.0.0.1"], timeouts=SHORT))
        if front == "haproxy":
            text = "".join(
                f"listen {kind}\n  bind 127.0.0.1:{self.ports[kind]}\n"
                f"  server next 127.0.0.1:{middle[kind]} send-proxy-v2\n"
                for kind in bad
            )
            self.haproxy("front", text)
        elif front == "nginx":
            text = "".join(
                f"server {{ listen 127.0.0.1:{self.ports[kind]};"
                f" proxy_pass 127.0.0.1:{middle[kind]}; proxy_protocol on; }}\n"
                for kind in bad
            )
            self.nginx("front", stream=text)
        else:
            routes = [
                forward(kind, port, f"127.0.0.1:{middle[kind]}", send_proxy="v2")
                for kind, port in self.ports.items()
            ]
            self.hop("front", hop_config(routes, timeouts=SHORT))

    def ends(self, kind: str) -> Counter[str]:
        """Ends by reason of one route of the middle hop."""
        route = self.middle.totals()["routes"].get(kind, {"ends": {}})
        return Counter(route["ends"])

    def wait_for_end(self, kind: str, before: Counter[str]) -> str:
        """Wait until one connection more of this kind has ended; the reason."""
        wait_until(lambda: self.ends(kind).total() == before.total() + 1, f"one more end of {kind}")
        (reason,) = self.ends(kind) - before
        return reason


@pytest.fixture(scope="module", params=FRONTS)
def chain(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BadTargets]:
    """The scenario with each front in turn."""
    directory: Path = tmp_path_factory.mktemp(request.param)
    started = BadTargets(directory)
    try:
        started.start(request.param)
        yield started
    finally:
        started.end()


@pytest.mark.parametrize("kind", ENDING)
def test_the_client_gets_an_end(chain: BadTargets, kind: str) -> None:
    """A target that cannot be reached or goes away ends the client's connection, with no byte."""
    before = chain.ends(kind)
    assert answer_to_end(chain.ports[kind]) == b""
    assert chain.wait_for_end(kind, before) in ENDS[kind]
    chain.wait_empty()


@pytest.mark.parametrize("leaves_by", ["FIN", "RST"])
def test_the_client_leaves_a_silent_target(chain: BadTargets, leaves_by: str) -> None:
    """A target that never answers holds the client as long as it stays, and nothing after that."""
    before = chain.ends("silent")
    client = connect(chain.ports["silent"])
    client.sendall(b"is anybody there?")
    dialled = wait_until(
        lambda: chain.middle.totals()["routes"].get("silent", {}).get("active"), "it is connected"
    )
    assert dialled == 1
    if leaves_by == "RST":
        reset(client)
    client.close()
    assert chain.wait_for_end("silent", before) in ENDS["silent"]
    chain.wait_empty()


def test_the_client_leaves_while_a_target_is_dialled(chain: BadTargets) -> None:
    """An RST of the client while the target's SYN gets no answer leaves nothing behind."""
    before = chain.ends("blackhole")
    client = connect(chain.ports["blackhole"])
    wait_until(
        lambda: chain.middle.totals()["routes"].get("blackhole", {}).get("active"), "it is dialled"
    )
    reset(client)
    assert chain.wait_for_end("blackhole", before) in ENDS["blackhole"] | {"client_gone"}
    chain.wait_empty()


def test_quick_retries_leave_nothing(chain: BadTargets) -> None:
    """20 tries, 50 ms apart, at each bad target at once: every hop is back at no connection."""
    before = chain.middle.totals()["accepted"]
    with ThreadPoolExecutor(len(ENDS)) as pool:
        list(pool.map(lambda kind: try_often(chain.ports[kind], TRIES), ENDS))
    wait_until(
        lambda: chain.middle.totals()["accepted"] == before + TRIES * len(ENDS),
        "every try has come to the second hop",
    )
    chain.settle()


def test_the_reasons_are_counted(chain: BadTargets) -> None:
    """A failed dial is counted at its target by reason, and every end is one of the list."""
    with connect(chain.ports["refused"]) as client:
        read_to_end(client)
    with connect(chain.ports["blackhole"]) as client:
        read_to_end(client)
    totals = chain.middle.settle()
    routes = totals["routes"]
    (refused,) = routes["refused"]["targets"].values()
    assert refused["connect_failures"]["refused"] == routes["refused"]["ends"]["connect_failed"]
    (unanswered,) = routes["blackhole"]["targets"].values()
    timeouts = routes["blackhole"]["ends"]["connect_timeout"]
    assert unanswered["connect_failures"]["timeout"] == timeouts
    assert sum(totals["ends"].values()) == totals["accepted"] == totals["ended"]
