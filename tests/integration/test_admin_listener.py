"""The admin listener over real sockets: answers, refusals, and clients that misbehave."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from shared.errors import StartError
from shared.stats import ListenerCounts, Totals
from supervisor import admin
from supervisor.admin import AdminServer
from supervisor.expiry import Use
from supervisor.facts import Facts, WorkerLoad

Answer = tuple[int, dict[str, str], bytes]


class View:
    """A supervisor's numbers, held still."""

    def __init__(self) -> None:
        self.ready = True
        self.stopping = False
        self.states = {"ready": 2}

    def totals(self) -> Totals:
        """Three connections on one listener."""
        return Totals(listeners={"127.0.0.1:80": ListenerCounts(accepted=3)})

    def worker_states(self) -> dict[str, int]:
        """As set by the test."""
        return self.states

    def worker_lags(self) -> dict[int, float]:
        """One worker that is on time."""
        return {0: 0.0}

    def worker_loads(self) -> dict[int, WorkerLoad]:
        """That worker holds one of three connections still."""
        return {0: WorkerLoad(accepted=3, connections=1)}

    def restarts(self) -> dict[str, int]:
        """None so far."""
        return {}

    def is_ready(self) -> bool:
        """As set by the test."""
        return self.ready

    def is_stopping(self) -> bool:
        """As set by the test."""
        return self.stopping

    def facts(self) -> Facts:
        """The first generation."""
        return Facts(version="1", generation=1)

    def certificates(self) -> list[Use]:
        """None."""
        return []


def ask(address: str, path: str, method: str = "GET") -> Answer:
    """One request on a connection of its own."""
    if address.startswith("unix:"):
        connection = http.client.HTTPConnection("localhost", timeout=10)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(10)
        connection.sock.connect(address.removeprefix("unix:"))
    else:
        host, _, port = address.rpartition(":")
        connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=10)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def dial(address: str) -> socket.socket:
    """A client that says nothing yet."""
    host, _, port = address.rpartition(":")
    client = socket.create_connection((host, int(port)), timeout=10)
    return client


def is_cut(client: socket.socket) -> bool:
    """Whether the server ends this connection, by FIN or RST, without a byte."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def serve(
    scenario: Callable[[AdminServer, View], Awaitable[None]], listen: str = "127.0.0.1:0"
) -> None:
    """Run a scenario against a started server; the server is stopped whatever happens."""

    async def run() -> None:
        view = View()
        server = AdminServer(view)
        await server.start(listen)
        try:
            await scenario(server, view)
        finally:
            await server.stop()

    asyncio.run(run())


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:0", "unix"])
def test_it_answers_on_every_kind_of_address(listen: str, tmp_path: Path) -> None:
    """IPv4, IPv6 and a Unix socket serve the same numbers as text and as JSON."""

    async def scenario(server: AdminServer, _: View) -> None:
        status, headers, body = await asyncio.to_thread(ask, server.address, "/metrics")
        assert status == 200
        assert headers["Content-Type"].startswith("text/plain")
        assert b'proxyctl_listener_accepted_total{listener="127.0.0.1:80"} 3.0' in body
        status, headers, body = await asyncio.to_thread(ask, server.address, "/stats")
        assert status == 200
        assert headers["Content-Type"].startswith("application/json")
        name = "proxyctl_listener_accepted_total"
        wanted = {"name": name, "labels": {"listener": "127.0.0.1:80"}, "value": 3}
        assert wanted in json.loads(body)["metrics"]

    path = f"unix:{tmp_path / 'admin.sock'}" if listen == "unix" else listen
    serve(scenario, path)
    assert not (tmp_path / "admin.sock").exists()


def test_health() -> None:
    """`/livez` only needs the loop; `/readyz` follows the workers and a stop, and says why."""

    async def scenario(server: AdminServer, view: View) -> None:
        def get(path: str) -> Answer:
            return ask(server.address, path)

        assert (await asyncio.to_thread(get, "/readyz"))[0] == 200
        view.ready, view.states = False, {"ready": 0, "starting": 2}
        status, _, body = await asyncio.to_thread(get, "/readyz")
        assert (status, body) == (503, b"not ready: no worker is ready\n")
        view.stopping = True
        for view.states in ({"ready": 2}, {"ready": 0, "draining": 2}):
            status, _, body = await asyncio.to_thread(get, "/readyz")
            assert (status, body) == (503, b"not ready: a stop has begun\n")
        assert (await asyncio.to_thread(get, "/livez"))[0] == 200

    serve(scenario)


def test_only_reading_and_only_what_there_is() -> None:
    """Another method is 405 with Allow, another path 404, and HEAD has no body."""

    async def scenario(server: AdminServer, _: View) -> None:
        status, headers, _body = await asyncio.to_thread(ask, server.address, "/metrics", "POST")
        assert (status, headers["Allow"]) == (405, "GET, HEAD")
        for path in ("/", "/metrics/", "/Metrics", "/livez2"):
            assert (await asyncio.to_thread(ask, server.address, path))[0] == 404
        status, headers, body = await asyncio.to_thread(ask, server.address, "/stats", "HEAD")
        assert (status, body) == (200, b"")
        assert int(headers["Content-Length"]) > 0

    serve(scenario)


def test_clients_that_say_nothing_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent client, and one with half a request, are gone after the limit; others are served."""
    monkeypatch.setattr(admin, "CONNECTION_S", 0.2)

    async def scenario(server: AdminServer, _: View) -> None:
        with dial(server.address) as silent, dial(server.address) as half:
            half.sendall(b"GET /metrics HTTP/1.1\r\nHost:")
            assert (await asyncio.to_thread(ask, server.address, "/livez"))[0] == 200
            for client in (silent, half):
                assert await asyncio.to_thread(is_cut, client)

    serve(scenario)


def test_more_clients_than_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections over the limit are cut at once; when one of the others goes, there is room."""
    monkeypatch.setattr(admin, "MAX_CONNECTIONS", 2)

    async def scenario(server: AdminServer, _: View) -> None:
        with dial(server.address) as first, dial(server.address):
            with dial(server.address) as third:
                assert await asyncio.to_thread(is_cut, third)
            first.close()
            async with asyncio.timeout(10):
                # The server sees a moment later that the first one has gone.
                while not await asyncio.to_thread(is_served, server.address):
                    pass

    serve(scenario)


def is_served(address: str) -> bool:
    """Whether a new client gets an answer."""
    try:
        return ask(address, "/livez")[0] == 200
    except OSError:
        return False


def test_a_client_that_reads_nothing_holds_nobody_up() -> None:
    """Pipelined requests whose answers are never read neither block nor pile up."""

    async def scenario(server: AdminServer, _: View) -> None:
        with dial(server.address) as stuck:
            stuck.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 50)
            assert (await asyncio.to_thread(ask, server.address, "/stats"))[0] == 200

    serve(scenario)


def test_a_taken_port_is_named() -> None:
    """The error says which address, why, and which key to change."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        async def run() -> None:
            await AdminServer(View()).start(address)

        with pytest.raises(StartError, match="already in use") as caught:
            asyncio.run(run())
    assert address in caught.value.message
    assert "admin" in caught.value.hint


def test_a_stale_unix_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    """What a killed run left behind is taken over; a socket that answers is left alone."""
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))

    async def scenario(server: AdminServer, view: View) -> None:
        with pytest.raises(StartError, match="already in use"):
            await AdminServer(view).start(f"unix:{path}")
        assert (await asyncio.to_thread(ask, server.address, "/livez"))[0] == 200
        assert path.stat().st_mode & 0o777 == 0o600

    serve(scenario, f"unix:{path}")


@pytest.mark.parametrize("listen", ["127.0.0.1", "nonsense:http", "256.0.0.1:0", "unix:/proc/x"])
def test_an_impossible_address_is_a_start_error(listen: str) -> None:
    """Whatever is wrong with the address, the start ends with a message, not a traceback."""

    async def run() -> None:
        await AdminServer(View()).start(listen)

    with pytest.raises(StartError, match="cannot listen"):
        asyncio.run(run())
