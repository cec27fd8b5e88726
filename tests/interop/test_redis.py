"""Redis through two hops, plain: the first hop's PROXY header ends at the second."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator

import pytest

from tests.helpers.chain import Topology, connect, forward, hop_config
from tests.helpers.targets import dual_ports
from tests.programs import find_program

pytestmark = pytest.mark.program("redis-server", "redis-cli")


class RedisChain(Topology):
    """client -> first (sends v2) -> second (reads it, sends none) -> Redis."""

    port: int

    def start(self) -> None:
        """Start Redis and both hops."""
        redis, second, first = dual_ports(3)
        self.redis("redis", redis)
        routes = [
            forward("redis", second, f"127.0.0.1:{redis}"),
            forward("redis", first, f"127.0.0.1:{second}", send_proxy="v2"),
        ]
        self.start_hops(
            {"second": hop_config(routes[:1], ["127.0.0.1"]), "first": hop_config(routes[1:])}
        )
        self.port = first

    def cli(self, *arguments: str, given: bytes | None = None) -> str:
        """What redis-cli prints when it goes through the chain."""
        program = find_program("redis-cli")
        assert program is not None
        done = subprocess.run(
            [program, "-p", str(self.port), *arguments],
            input=given,
            stdin=subprocess.DEVNULL if given is None else None,
            capture_output=True,
            timeout=30,
            check=True,
        )
        return done.stdout.decode().strip()


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisChain]:
    """Redis behind two hops."""
    started = RedisChain(tmp_path_factory.mktemp("redis"))
    try:
        started.start()
        yield started
    finally:
        started.end()


def read_line(client: socket.socket) -> bytes:
    """One line of RESP, byte by byte, so that nothing behind it is taken."""
    line = b""
    while not line.endswith(b"\r\n"):
        part = client.recv(1)
        assert part, f"the connection ended after {line!r}"
        line += part
    return line


def test_commands(chain: RedisChain) -> None:
    """Values come back as they were set, large ones too."""
    large = b"0123456789abcdef" * (1 << 16)  # 1 MiB
    assert chain.cli("ping") == "PONG"
    assert chain.cli("set", "small", "one") == "OK"
    assert chain.cli("-x", "set", "large", given=large) == "OK"
    assert chain.cli("get", "small") == "one"
    assert chain.cli("get", "large").encode() == large
    chain.wait_empty()


def test_pipelined_commands(chain: RedisChain) -> None:
    """A thousand commands in one write get a thousand answers, in order."""
    count = 1000
    with connect(chain.port) as client:
        client.sendall(b"del n\r\n" + b"incr n\r\n" * count)
        assert read_line(client) in (b":0\r\n", b":1\r\n")
        assert [read_line(client) for _ in range(count)] == [
            b":%d\r\n" % number for number in range(1, count + 1)
        ]
    chain.wait_empty()


def test_pushed_messages(chain: RedisChain) -> None:
    """What the server sends unasked reaches a subscriber."""
    with connect(chain.port) as subscriber:
        subscriber.sendall(b"subscribe news\r\n")
        assert [read_line(subscriber) for _ in range(6)][-1] == b":1\r\n"
        assert chain.cli("publish", "news", "hello") == "1"
        assert [read_line(subscriber) for _ in range(7)][-1] == b"hello\r\n"
    chain.wait_empty()


def test_counters(chain: RedisChain) -> None:
    """Both hops have seen the same connections and bytes, and the second read a header of each."""
    assert chain.cli("ping") == "PONG"
    chain.settle()
    second, first = (hop.totals() for hop in chain.hops)
    assert first["accepted"] == second["accepted"] == second["dialled"]
    assert (first["received"], first["sent"]) == (second["received"], second["sent"])
    headers = [one["proxy_headers"].get("v2", 0) for one in second["listeners"].values()]
    assert sum(headers) == second["accepted"]
