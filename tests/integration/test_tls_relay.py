"""Bytes through TLS that ends here: all of them, both ways, at any speed, to any kind of end."""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Final

import psutil
import pytest

from tests.helpers.certificates import Authority, Files
from tests.helpers.chain import send_slowly
from tests.helpers.targets import Target, bulk_digest, dual_ports, give, reset
from tests.helpers.tls_clients import VERSIONS, TlsClient, trusting
from tests.helpers.tls_site import Site, route, terminate
from tests.helpers.tls_targets import (
    GREETING,
    TlsTarget,
    digest_at_end,
    echo,
    greet,
    sends_and_ends,
)
from tests.helpers.waiting import wait_until

BULK: Final = 8 << 20
STUCK: Final = 48 << 20  # far more than sockets and our own buffers hold
MEMORY: Final = 24 << 20  # of both workers, above what they had
CONNECTIONS: Final = 200
BROKEN: Final = 60  # connections that are cut in full flow
VERSION = pytest.mark.parametrize("version", VERSIONS)
WAYS: Final = ("echo", "greet", "digest", "gives", "ends", "resets", "stuck", "deaf", "secure")
WAY = pytest.mark.parametrize("way", ["echo", "secure"])


class Deaf(Target):
    """Reads nothing until it is told to; then everything, and says the digest of it."""

    def __init__(self) -> None:
        self.hears = threading.Event()
        super().__init__(self._serve)

    def _serve(self, sock: socket.socket) -> None:
        self.hears.wait()
        digest_at_end(sock)

    def close(self) -> None:
        """Let go of every connection."""
        self.hears.set()
        super().close()


def ends_then_digests(sock: socket.socket) -> None:
    """Say goodbye and send FIN, then read on; the digest is noted by its length alone."""
    sock.sendall(b"bye")
    sock.shutdown(socket.SHUT_WR)
    count = 0
    while data := sock.recv(65536):
        count += len(data)
    LATE.append(count)


LATE: Final[list[int]] = []  # bytes that came after the target's end, by connection


def resets(sock: socket.socket) -> None:
    """RST in the middle of an answer."""
    sock.recv(1)
    sock.sendall(b"begun")
    sock.recv(1)
    reset(sock)


class Relays(Site):
    """`port` has the number of the port of each kind of target."""

    port: dict[str, int]
    root: Authority
    site_files: Files
    targets: dict[str, Target]

    def connect(self, way: str, version: str = "1.3", **more: object) -> TlsClient:
        """A client of one of the targets, its handshake done."""
        context = trusting(self.root, version=VERSIONS[version])
        return TlsClient(self.port[way], context, **more)  # type: ignore[arg-type]

    def memory(self) -> int:
        """Bytes that the workers hold in memory."""
        return sum(psutil.Process(pid).memory_info().rss for pid in self.ready_pids())


@pytest.fixture(scope="module")
def relays(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relays]:
    """Started once: these tests change nothing of it."""
    directory = tmp_path_factory.mktemp("relays")
    with ExitStack() as stack:
        root = Authority(directory)
        files = root.leaf("a.example")
        targets: dict[str, Target] = {
            "echo": Target(echo),
            "greet": Target(greet),
            "digest": Target(digest_at_end),
            "gives": Target(lambda sock: give(sock, BULK)),
            "ends": Target(ends_then_digests),
            "resets": Target(resets),
            "stuck": Target(sends_and_ends(STUCK)),
            "deaf": Deaf(),
            "secure": TlsTarget(files),
        }
        for target in targets.values():
            stack.callback(target.close)
        port = dict(zip(WAYS, dual_ports(len(WAYS)), strict=True))
        upstream = {"upstream_tls": {"ca": str(root.cert), "server_name": "a.example"}}
        routes = [
            route(
                way,
                port[way],
                targets[way].address,
                tls=terminate(files),
                timeouts={"half_closed": "5s"},
                **(upstream if way == "secure" else {}),
            )
            for way in WAYS
        ]
        site = Relays(directory / "site", routes, timeouts={"tls_handshake": "20s"})
        stack.callback(site.end)
        site.start()
        site.port, site.root, site.targets, site.site_files = port, root, targets, files
        yield site


def exchange_bulk(client: TlsClient, data: bytes) -> str:
    """Send and read at the same time; the digest of what came back."""
    sender = threading.Thread(target=client.sock.sendall, args=(client.seal(data),))
    sender.start()
    digest = hashlib.sha256(client.read_exactly(len(data))).hexdigest()
    sender.join()
    return digest


@VERSION
@WAY
def test_bulk_both_ways(relays: Relays, version: str, way: str) -> None:
    """8 MiB there and back come out as they went in, and the counts say so."""
    data = hashlib.shake_256(version.encode()).digest(BULK)
    with relays.connect(way, version) as client:
        assert exchange_bulk(client, data) == hashlib.sha256(data).hexdigest()
        client.finish()
        assert (client.read_to_end(), client.ended) == (b"", "close_notify")
    line = relays.line_of(client.way)
    assert (line["received"], line["sent"], line["end"]) == (BULK, BULK, "client_closed")


@VERSION
def test_bulk_from_the_target(relays: Relays, version: str) -> None:
    """All of it, and then close_notify, since the target has ended."""
    with relays.connect("gives", version) as client:
        data = client.read_to_end()
        assert client.ended == "close_notify"
    assert len(data) == BULK
    assert hashlib.sha256(data).hexdigest() == bulk_digest(BULK)
    assert relays.end_of(client.way) == "target_closed"


@VERSION
@pytest.mark.parametrize("how", ["close_notify", "close_notify-and-fin"])
def test_a_client_ends_and_reads_on(relays: Relays, version: str, how: str) -> None:
    """Its close_notify becomes the target's FIN; what the target says then still comes."""
    data = hashlib.shake_256(b"up").digest(BULK)
    with relays.connect("digest", version) as client:
        client.send(data)
        client.finish()
        if how == "close_notify-and-fin":
            client.sock.shutdown(socket.SHUT_WR)
        assert client.read_to_end() == hashlib.sha256(data).hexdigest().encode()
        assert client.ended == "close_notify"
    assert relays.end_of(client.way) == "client_closed"


@VERSION
def test_a_target_ends_and_reads_on(relays: Relays, version: str) -> None:
    """Its FIN becomes close_notify; what the client says then still arrives."""
    LATE.clear()
    with relays.connect("ends", version) as client:
        assert (client.read_to_end(), client.ended) == (b"bye", "close_notify")
        client.send(b"x" * 100_000)
        client.finish()
        client.sock.shutdown(socket.SHUT_WR)
        wait_until(lambda: LATE, "the target has it")
    assert LATE == [100_000]
    assert relays.end_of(client.way) == "target_closed"


@VERSION
def test_a_server_speaks_first(relays: Relays, version: str) -> None:
    """The target is dialled once the handshake is done, without a byte of the client."""
    with relays.connect("greet", version) as client:
        assert client.read_exactly(len(GREETING)) == GREETING
        assert client.echoes()


@WAY
def test_all_in_one_segment(relays: Relays, way: str) -> None:
    """The end of the handshake, the question and the client's end may be read at once."""
    with relays.connect(way, shakes=False) as client:
        last = client.flight()
        while not client.is_shaken:  # the server's flight may come in pieces
            client.sock.sendall(last)
            client.feed()
            last = client.flight()
        client.sock.sendall(last + client.seal(b"question", ends=True))
        client.sock.shutdown(socket.SHUT_WR)
        assert client.read_to_end() == b"question"
        assert client.ended == "close_notify"
    assert relays.end_of(client.way) == "client_closed"


@VERSION
def test_byte_by_byte(relays: Relays, version: str) -> None:
    """Each byte of the client in a segment of its own, handshake and records alike."""
    with relays.connect("echo", version, shakes=False) as client:
        send_slowly(client.sock, client.flight())
        while not client.is_shaken:
            client.feed()
            send_slowly(client.sock, client.flight())
        send_slowly(client.sock, client.seal(b"slow words"))
        assert client.read_exactly(10) == b"slow words"


@WAY
def test_sizes_around_a_record(relays: Relays, way: str) -> None:
    """Messages of every awkward size come back whole, one after the other."""
    with relays.connect(way) as client:
        for size in (1, 2, 1000, 16383, 16384, 16385, 32768, 65535, 65536, 65537, 200_001):
            data = hashlib.shake_256(str(size).encode()).digest(size)
            assert exchange_bulk(client, data) == hashlib.sha256(data).hexdigest()
        for number in range(500):
            assert client.echoes(b"%d" % number)


def test_a_slow_reader_holds_the_target_up(relays: Relays) -> None:
    """What a client does not take stays where it is: memory does not grow, nothing is lost."""
    before = relays.memory()
    with ExitStack() as stack:
        clients = [stack.enter_context(relays.connect("stuck")) for _ in range(4)]
        name = relays.targets["stuck"].address
        last = [-1]

        def is_stuck() -> bool:
            now = int(relays.totals()["targets"][name]["received"])
            same = now == last[0] and now > 0
            last[0] = now
            threading.Event().wait(0.6)  # longer than between two reports of a worker
            return same

        wait_until(is_stuck, "the target is held up")
        assert last[0] < 4 * STUCK
        assert relays.memory() - before < MEMORY
        for client in clients:
            count = 0
            while data := client.receive():
                assert not data.strip(b"\0")
                count += len(data)
            assert (count, client.ended) == (STUCK, "close_notify")


def test_a_slow_target_holds_the_client_up(relays: Relays) -> None:
    """The other way round: all arrives once the target reads."""
    deaf = relays.targets["deaf"]
    assert isinstance(deaf, Deaf)
    before = relays.memory()
    data = bytes(STUCK)
    with relays.connect("deaf") as client:
        records = client.seal(data)
        client.sock.settimeout(1.0)
        with pytest.raises(TimeoutError):
            client.sock.sendall(records)
        assert relays.memory() - before < MEMORY
        client.reset()
    assert relays.end_of(client.way) == "client_reset"
    deaf.hears.set()
    with relays.connect("deaf") as client:
        client.send(data)
        client.finish()
        assert client.read_to_end() == hashlib.sha256(data).hexdigest().encode()


def test_many_at_once(relays: Relays) -> None:
    """200 handshakes and exchanges together, all of them open at the same time."""
    with ExitStack() as stack, ThreadPoolExecutor(16) as pool:
        clients = list(pool.map(lambda _: relays.connect("echo"), range(CONNECTIONS)))
        for client in clients:
            stack.enter_context(client)
        words = [b"%d: " % place * 100 for place in range(CONNECTIONS)]
        assert all(pool.map(TlsClient.echoes, clients, words))
        wait_until(lambda: relays.status()["connections"] == CONNECTIONS, "all are open")
    assert relays.settle()["ended"] >= CONNECTIONS


@WAY
def test_a_client_resets(relays: Relays, way: str) -> None:
    """In the middle of its bytes: counted as such, and the target's side is gone too."""
    with relays.connect(way) as client:
        assert client.echoes()
        client.send(b"x" * 100_000)
        client.reset()
    assert relays.end_of(client.way) == "client_reset"
    wait_until(relays.is_empty, "nothing is left")


def breaks_off(relays: Relays, way: str) -> str:
    """Send and read at full speed, then RST in the middle: the end."""
    with relays.connect(way) as client:
        records = client.seal(bytes(BULK // 4))
        sender = threading.Thread(target=send_what_goes, args=(client.sock, records))
        sender.start()
        assert client.receive()
        client.reset()
        sender.join()
    return relays.end_of(client.way)


def send_what_goes(sock: socket.socket, data: bytes) -> None:
    """Send until it is cut."""
    with suppress(OSError):
        sock.sendall(data)


@WAY
def test_resets_at_full_speed(relays: Relays, way: str) -> None:
    """Many at a time, with bytes on the way in both directions: no worker minds."""
    with ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(lambda _: breaks_off(relays, way), range(BROKEN)))
    assert set(ends) <= {"client_reset", "client_closed", "tls_failed"}
    assert "Traceback" not in relays.log()


def test_a_target_resets(relays: Relays) -> None:
    """What it said before comes, then an RST, and never a close_notify that would seem an end."""
    with relays.connect("resets") as client:
        client.send(b"1")
        assert client.read_exactly(5) == b"begun"
        client.send(b"2")
        assert client.read_to_end() == b""
        assert client.ended == "reset"
    assert relays.end_of(client.way) == "target_reset"


def test_a_client_leaves_at_once(relays: Relays) -> None:
    """After the handshake, without a word: by an end, without one, by an RST."""
    for way in ("echo", "secure", "greet"):
        for leave in (TlsClient.finish, TlsClient.close, TlsClient.reset):
            with relays.connect(way) as client:
                leave(client)
            end = relays.end_of(client.way)
            assert end in ("client_closed", "client_gone", "client_reset"), (way, leave)


def test_an_end_without_close_notify(relays: Relays) -> None:
    """A FIN alone ends it too: what was sent before arrives, the connection is over."""
    with relays.connect("digest") as client:
        client.send(b"cut")
        client.sock.shutdown(socket.SHUT_WR)
        answer = client.read_to_end()
    assert answer in (b"", hashlib.sha256(b"cut").hexdigest().encode())
    assert relays.end_of(client.way) in ("client_closed", "tls_failed")


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(b"\x17\x03\x03\x00\x20" + b"\xaa" * 32, id="forged"),
        pytest.param(b"\x17\x03\x03\x7f\xff" + b"\xaa" * 100, id="too-long"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="plain"),
    ],
)
@VERSION
def test_records_that_are_not_good(relays: Relays, bad: bytes, version: str) -> None:
    """They end the connection as tls_failed, with an alert; the echo gets none of it."""
    with relays.connect("echo", version) as client:
        assert client.echoes()
        client.sock.sendall(bad)
        with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
            client.read_to_end()
    assert relays.end_of(client.way) == "tls_failed"


def test_nothing_is_left(relays: Relays) -> None:
    """After all of these each connection has one end, no worker has died, no target failed."""
    totals = relays.settle()
    assert totals["accepted"] == totals["ended"]
    assert relays.status()["restarts"] == []
    assert "Traceback" not in relays.log()
