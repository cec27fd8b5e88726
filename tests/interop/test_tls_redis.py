"""Redis over TLS: passed through by name, and ended here, with redis-cli as the client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.certificates import Authority, Files
from tests.helpers.chain import Topology, hop_config
from tests.helpers.daemons import Daemon
from tests.helpers.targets import dual_ports
from tests.helpers.tls_programs import run
from tests.helpers.tls_site import client_auth, route, terminate
from tests.programs import find_program

pytestmark = pytest.mark.program("redis-server", "redis-cli")

NAME = "redis.example"
OTHER = "other.example"
LARGE = b"0123456789abcdef" * (1 << 16)  # 1 MiB


class SecureRedis(Daemon):
    """redis-server with TLS on ``secure`` and without on ``clear``, without files."""

    def __init__(
        self, directory: Path, clear: int, secure: int, files: Files, root: Authority
    ) -> None:
        program = find_program("redis-server")
        assert program is not None
        ready = directory / "ready"
        super().__init__(
            "redis",
            directory,
            [
                *(program, "--bind", "127.0.0.1", "--port", str(clear), "--save", ""),
                *("--appendonly", "no", "--unixsocket", str(ready)),
                *("--tls-port", str(secure), "--tls-cert-file", str(files.cert)),
                *("--tls-key-file", str(files.key), "--tls-ca-cert-file", str(root.cert)),
                *("--tls-auth-clients", "no"),
            ],
            ready,
        )


class RedisPlace(Topology):
    """redis-cli -> proxyctl -> Redis; ``ports`` by what is done with the TLS."""

    ports: dict[str, int]
    root: Authority
    alice: Files

    def start(self, directory: Path) -> None:
        """Start Redis and the hop."""
        certs, home = directory / "certs", directory / "redis"
        certs.mkdir()
        home.mkdir()
        self.root = Authority(certs)
        files = self.root.leaf(NAME)
        self.alice = self.root.client("alice")
        clear, secure, *ports = dual_ports(6)
        redis = SecureRedis(home, clear, secure, files, self.root)
        self._stack.callback(redis.end)
        self.daemons.append(redis)
        kinds = ("passed", "ended", "again", "asks")
        self.ports = dict(zip(kinds, ports, strict=True))
        tls = terminate(files)
        asks = terminate(files, client_auth=client_auth("required", self.root))
        upstream = {"ca": str(self.root.cert), "server_name": NAME}
        to_clear, to_secure = f"127.0.0.1:{clear}", f"127.0.0.1:{secure}"
        routes = [
            route("passed", self.ports["passed"], to_secure, match={"domains": [NAME]}),
            route("ended", self.ports["ended"], to_clear, tls=tls),
            route("again", self.ports["again"], to_secure, tls=tls, upstream_tls=upstream),
            route("asks", self.ports["asks"], to_clear, tls=asks),
        ]
        self.hop("hop", hop_config(routes))

    def cli(self, kind: str, *arguments: str, name: str = NAME, given: bytes | None = None) -> str:
        """What redis-cli prints; "" where it gets nothing."""
        said = run(
            "redis-cli",
            *("-p", str(self.ports[kind]), "--tls", "--sni", name),
            *("--cacert", str(self.root.cert), *arguments),
            given=given,
        )
        return said.out.strip()


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisPlace]:
    """Started once."""
    directory = tmp_path_factory.mktemp("redis")
    started = RedisPlace(directory)
    try:
        started.start(directory)
        yield started
    finally:
        started.end()


@pytest.mark.parametrize("kind", ["passed", "ended", "again"])
def test_commands(redis: RedisPlace, kind: str) -> None:
    """Values come back as they were set, large ones too."""
    assert redis.cli(kind, "ping") == "PONG"
    assert redis.cli(kind, "set", "small", kind) == "OK"
    assert redis.cli(kind, "get", "small") == kind
    assert redis.cli(kind, "-x", "set", "large", given=LARGE) == "OK"
    assert redis.cli(kind, "get", "large").encode() == LARGE
    redis.wait_empty()


def test_another_name_reaches_nobody(redis: RedisPlace) -> None:
    """Passthrough goes by SNI."""
    assert redis.cli("passed", "ping", name=OTHER) == ""


def test_a_certificate_is_asked_for(redis: RedisPlace) -> None:
    """Redis without TLS of its own, and only for clients with a certificate."""
    shown = ("--cert", str(redis.alice.cert), "--key", str(redis.alice.key))
    assert redis.cli("asks", *shown, "ping") == "PONG"
    assert redis.cli("asks", "ping") == ""


def test_every_connection_is_accounted_for(redis: RedisPlace) -> None:
    """Nothing is left."""
    assert redis.cli("ended", "ping") == "PONG"
    redis.settle()
