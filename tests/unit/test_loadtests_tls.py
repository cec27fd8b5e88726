"""TLS in the load tests: configs of the peers, the ClientHello of wrk, idle clients, the soak's."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from loadtests import soak_certificates
from loadtests.idle import IdleConnections
from loadtests.load_certificates import Certificates, shown
from loadtests.processes import LoadTestError, Workspace, find_program
from loadtests.soak_tls import Tls
from loadtests.tls_measure import check_resumed, client_hello, hello_script
from loadtests.tls_peers import (
    NAMES,
    REENCRYPT,
    SNI,
    Origins,
    client_context,
    domain,
    domains,
    haproxy_config,
    nginx_config,
    proxyctl_config,
    running_tls,
    start_origins,
)
from shared.client_hello import read_client_hello

TLS_WORKS = ["tls_messages", REENCRYPT, SNI]


@pytest.fixture
def space() -> Iterator[Workspace]:
    """A workspace that leaves the handler of SIGTERM as it was."""
    before = signal.getsignal(signal.SIGTERM)
    with Workspace("proxyctl-test-") as found:
        yield found
    signal.signal(signal.SIGTERM, before)


def origins_at(directory: Path) -> Origins:
    """Origins that nobody has started."""
    return Origins(
        both=directory / "tls.both.pem",
        authority=directory / "ca.pem",
        plain=91,
        encrypted=92,
        hello=93,
    )


def needs(*programs: str) -> None:
    """Skip where one is not installed."""
    for name in programs:
        try:
            find_program(name)
        except LoadTestError as error:
            pytest.skip(str(error))


@pytest.mark.parametrize("work", TLS_WORKS)
def test_every_proxy_has_the_same_target_and_names(work: str) -> None:
    """Certificate, origin and authority are the same in all three configs."""
    origins = origins_at(Path("/nowhere"))
    texts = [
        haproxy_config(work, 81, origins),
        nginx_config(Path("/nowhere"), "nginx", work, 81, origins),
        proxyctl_config("proxyctl", work, 81, origins),
    ]
    for text in texts:
        assert f"127.0.0.1:{origins.target(work)}" in text
        assert (str(origins.both) in text) is (work != SNI)
        assert (str(origins.authority) in text) is (work == REENCRYPT)
        assert all(one in text for one in domains("proxyctl")) is (work == SNI)


def test_each_domain_has_a_route_of_its_own() -> None:
    """10,000 on the one side and 10 on the other, all on one port."""
    origins = origins_at(Path("/nowhere"))
    for name, count in (("proxyctl-10000", 10_000), ("proxyctl-10", 10)):
        routes = json.loads(proxyctl_config(name, NAMES, 81, origins))["routes"]
        assert len({route["match"]["domains"][0] for route in routes}) == count == len(routes)


def test_wrk_sends_hellos_that_are_whole(tmp_path: Path) -> None:
    """What its script returns is a ClientHello for each of the domains, and first a request."""
    needs("wrk")
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(10)
    script = tmp_path / "hello.lua"
    script.write_text(hello_script(client_hello(domain(0)), 10))
    port = listener.getsockname()[1]
    command = [find_program("wrk"), "-t1", "-c3", "-d1s", "-s", str(script)]
    wrk = subprocess.Popen([*command, f"http://127.0.0.1:{port}/"], stdout=subprocess.DEVNULL)
    names = set()
    try:
        for _ in range(5):
            connection = listener.accept()[0]
            with connection:
                connection.settimeout(10)
                hello = read_client_hello(connection.recv(4096))
                if hello is not None:
                    names.add(hello.sent_name)
    finally:
        wrk.kill()
        wrk.wait()
        listener.close()
    assert len(names) >= 3
    assert names <= set(domains("proxyctl"))


@pytest.mark.parametrize("name", ["haproxy", "nginx"])
def test_peers_end_resume_and_route(name: str, space: Workspace) -> None:
    """With their real configs: a session resumes, the body comes over verified TLS, SNI routes."""
    needs(name, "nginx")
    origins = start_origins(space)
    for work in TLS_WORKS:
        port = space.port()
        with running_tls(space, name, work, port, origins):
            if work == SNI:
                with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
                    client.sendall(client_hello(domain(7)))
                    assert client.recv(4096).endswith(b"ok\n")
            else:
                check_resumed(port, origins)


def test_sessions_that_do_not_resume_are_not_timed(space: Workspace) -> None:
    """A server that gives no tickets is found out before the load."""
    needs("nginx")
    origins = start_origins(space)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(origins.both)
    context.num_tickets = 0
    with Server(context) as server, pytest.raises(LoadTestError, match="not resumed"):
        check_resumed(server.port, origins)


class Server:
    """Ends TLS in a thread, one connection after the other."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._listener.close()

    def _run(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            try:
                with self._context.wrap_socket(plain, server_side=True) as connection:
                    connection.recv(4096)
                    connection.sendall(b"ok\n")
            except OSError:
                continue


def test_idle_tls_clients_count_when_they_are_encrypted(space: Workspace) -> None:
    """Through a real proxy: all are open, tickets are read, and an end counts as lost."""
    needs("haproxy", "nginx")
    origins = start_origins(space)
    with IdleConnections(client_context(origins), "tls.test") as idle:
        its = Origins(
            both=origins.both,
            authority=origins.authority,
            plain=idle.target_port,
            encrypted=1,
            hello=1,
        )
        port = space.port()
        with running_tls(space, "haproxy", "tls_memory", port, its):
            idle.turn(0.2)
            idle.drop()
            idle.ended = 0
            idle.open(port, 30)
            assert (idle.established, idle.ended) == (30, 0)
        deadline = monotonic() + 10
        while idle.ended < 30 and monotonic() < deadline:
            idle.turn(0.1)
        assert idle.ended >= 30


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> soak_certificates.Contexts:
    """Of a soak's traffic process."""
    directory = tmp_path_factory.mktemp("soak")
    soak_certificates.make(directory)
    return soak_certificates.Contexts(directory)


def carry(one: Tls, other: Tls) -> tuple[bytes, bytes]:
    """Give each what the other has to send until there is no more; the plaintext of both."""
    found = [b"", b""]
    while one.out or other.out:
        for place, (sender, receiver) in enumerate(((other, one), (one, other))):
            data, sender.out = bytes(sender.out), bytearray()
            found[place] += receiver.feed(data)
    return found[0], found[1]


@pytest.mark.parametrize("version", [0, 1])
def test_two_ends_talk_and_end_in_halves(
    version: int, contexts: soak_certificates.Contexts
) -> None:
    """After a client's close_notify the other side still has its say, and says its own."""
    client = Tls(contexts.clients[version], soak_certificates.PASSED)
    server = Tls(contexts.target)
    carry(client, server)
    assert client.is_shaken
    assert server.is_shaken
    client.say(b"a" * 100_000)
    client.end()
    assert carry(client, server) == (b"", b"a" * 100_000)
    assert (server.is_ended, client.is_ended) == (True, False)
    server.say(b"b" * 100_000)
    server.end()
    assert carry(client, server) == (b"b" * 100_000, b"")
    assert client.is_ended


@pytest.mark.parametrize("version", [0, 1])
def test_a_session_is_kept_and_resumed(version: int, contexts: soak_certificates.Contexts) -> None:
    """By place and version; the first connection has none to offer."""
    context = contexts.clients[version]
    for number in range(2):
        session = contexts.session(f"place {version}", context)
        assert (session is not None) is bool(number)
        client = Tls(context, soak_certificates.PASSED, session)
        server = Tls(contexts.target)
        carry(client, server)
        server.say(b"hello")
        assert carry(client, server)[0] == b"hello"
        assert client.object.session_reused is bool(number)
        contexts.keep(f"place {version}", client.object, 10.0 * number)


def test_versions_of_the_certificate_are_told_apart(tmp_path: Path) -> None:
    """Each of them is known, another one is not, and the broken file has the wrong key."""
    soak_certificates.make(tmp_path)
    contexts = soak_certificates.Contexts(tmp_path)
    for version in range(soak_certificates.VERSIONS):
        pem = (tmp_path / f"site{version}.pem").read_text()
        assert contexts.version(ssl.PEM_cert_to_DER_cert(pem)) == version
    target = (tmp_path / "target.pem").read_text()
    assert contexts.version(ssl.PEM_cert_to_DER_cert(target)) == -1
    assert contexts.version(None) == -1
    scratch = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with pytest.raises(ssl.SSLError, match="KEY_VALUES_MISMATCH"):
        scratch.load_cert_chain(tmp_path / soak_certificates.BROKEN_FILE)


def test_a_load_run_sees_which_certificate_is_served(tmp_path: Path) -> None:
    """Its serial number; a certificate of somebody else, and no server, are 0."""
    certificates = Certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(Certificates.names(tmp_path)["site"])
    with Server(context) as server:
        port = server.port
        assert set(shown(port, "term.test", certificates)) == {certificates.served}
        certificates.renew()
        assert set(shown(port, "term.test", certificates)) == {certificates.served}
        assert certificates.written != certificates.served
        assert set(shown(port, "other.test", certificates)) == {0}
    assert set(shown(port, "term.test", certificates)) == {0}
