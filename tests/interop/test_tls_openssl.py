"""openssl s_client and curl before TLS that ends here."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.helpers.certificates import Authority, Files
from tests.helpers.targets import Target, dual_ports
from tests.helpers.tls_programs import Talk, curl, s_client, shown
from tests.helpers.tls_site import Site, client_auth, route, terminate
from tests.helpers.tls_targets import GREETING, TlsTarget
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.program("openssl")

PORTS: Final = ("open", "asks", "http", "again", "passed")
BODY: Final = b"what curl is to be told\n" * 40_000
VERSION = pytest.mark.parametrize("version", ["tls1_2", "tls1_3"])
NAMES: Final = {"tls1_2": "TLSv1.2", "tls1_3": "TLSv1.3"}
RSA_ONLY: Final = ("-sigalgs", "rsa_pss_rsae_sha256:RSA+SHA256")
EC_ONLY: Final = ("-sigalgs", "ECDSA+SHA256")


def http(sock: socket.socket) -> None:
    """One answer to one request, and the end."""
    received = b""
    while b"\r\n\r\n" not in received:
        part = sock.recv(65536)
        if not part:
            return
        received += part
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(BODY)}\r\nConnection: close\r\n\r\n"
    sock.sendall(head.encode() + BODY)


def until_bye(sock: socket.socket) -> None:
    """Speak first, then send back what comes, and end behind a "bye"."""
    sock.sendall(GREETING)
    last = b""
    while b"bye" not in last and (data := sock.recv(65536)):
        last = data
        sock.sendall(data)


class Front(Site):
    """`port` has the number of each kind of port."""

    port: dict[str, int]
    root: Authority
    alice: Files
    mallory: Files
    expired: Files


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """Started once: these tests change nothing of it."""
    directory = tmp_path_factory.mktemp("front")
    with ExitStack() as stack:
        root = Authority(directory)
        (directory / "stranger").mkdir()
        both = terminate(
            root.leaf("a.example", stem="ec"), root.leaf("a.example", key="rsa", stem="rsa")
        )
        both["alpn"] = ["h2", "http/1.1"]
        targets = {"greet": Target(until_bye), "http": Target(http)}
        secure = TlsTarget(root.leaf("up.example"), talk=http)
        for target in (*targets.values(), secure):
            stack.callback(target.close)
        port = dict(zip(PORTS, dual_ports(len(PORTS)), strict=True))
        asks = {**both, "client_auth": client_auth("required", root)}
        upstream = {"ca": str(root.cert), "server_name": "up.example"}
        greeter, web = targets["greet"].address, targets["http"].address
        site = Front(
            directory / "site",
            [
                route("open", port["open"], greeter, tls=both),
                route("asks", port["asks"], web, tls=asks),
                route("http", port["http"], web, tls=both),
                route("again", port["again"], secure.address, tls=both, upstream_tls=upstream),
                route("passed", port["passed"], secure.address, match={"domains": ["up.example"]}),
            ],
        )
        stack.callback(site.end)
        site.start()
        site.port, site.root = port, root
        site.alice = root.client("alice")
        site.expired = root.client("expired", days=-1)
        site.mallory = Authority(directory / "stranger", "Another CA").client("mallory")
        yield site


@VERSION
def test_each_version(front: Front, version: str, tmp_path: Path) -> None:
    """The chain is verified; the server speaks first, answers, and its end is close_notify."""
    with Talk(front.port["open"], front.root, tmp_path, f"-{version}") as talk:
        talk.wait_for(GREETING.decode().strip())
        talk.say("bye")
        assert talk.end() == 0
        said = talk.wait_for("closed")
    assert "Verify return code: 0 (ok)" in said
    assert NAMES[version] in said
    assert "\nbye" in said
    assert "error" not in said.replace("verify error", "")


@pytest.mark.parametrize("version", ["tls1", "tls1_1"])
def test_old_versions_are_refused(front: Front, version: str) -> None:
    """With an alert that says so."""
    said = s_client(front.port["open"], front.root, f"-{version}", "-cipher", "DEFAULT@SECLEVEL=0")
    assert said.code != 0
    assert "protocol version" in said.text


@VERSION
@pytest.mark.parametrize(("algorithms", "kind"), [(RSA_ONLY, "RSA"), (EC_ONLY, "EC")])
def test_the_key_that_the_client_knows(
    front: Front, algorithms: tuple[str, str], kind: str, version: str
) -> None:
    """RSA and ECDSA side by side for one name, in both versions."""
    said = s_client(front.port["open"], front.root, f"-{version}", *algorithms)
    assert "Verify return code: 0 (ok)" in said.text
    assert re.search(rf"a:PKEY: \S*{'rsa' if kind == 'RSA' else 'id-ec'}", said.text), said.text


@VERSION
def test_alpn(front: Front, version: str) -> None:
    """Our order of protocols."""
    said = s_client(front.port["open"], front.root, f"-{version}", "-alpn", "http/1.1,h2")
    assert "ALPN protocol: h2" in said.text


def test_renegotiation_is_refused(front: Front, tmp_path: Path) -> None:
    """A client of TLS 1.2 that asks for it gets no_renegotiation (RFC 5246 section 7.2.2)."""
    name = f"127.0.0.1:{front.port['open']}"
    front.settle()
    counted = front.metric("tls_handshakes_total", listener=name)
    with Talk(front.port["open"], front.root, tmp_path, "-tls1_2") as talk:
        talk.wait_for(GREETING.decode().strip())
        talk.say("R")
        talk.wait_for("RENEGOTIATING")
        assert "no renegotiation" in talk.wait_for("error:", "Verify return code: 0 (ok)\n---\nR")
    front.wait_metric(counted + 1, "tls_handshakes_total", listener=name)


def test_keys_may_change(front: Front, tmp_path: Path) -> None:
    """A KeyUpdate of TLS 1.3, with and without ours asked for, and bytes both ways behind it."""
    with Talk(front.port["open"], front.root, tmp_path, "-tls1_3") as talk:
        talk.wait_for(GREETING.decode().strip())
        for number, command in enumerate(("k", "K", "K"), start=1):
            talk.say(command)
            wait_until(lambda n=number: talk.said().count("KEYUPDATE") == n, "new keys")  # type: ignore[misc]
            talk.say(f"words behind {number}")
            talk.wait_for(f"\nwords behind {number}")
        talk.say("bye")
        assert talk.end() == 0
        assert "error:" not in talk.said()


@VERSION
def test_sessions_are_resumed(front: Front, version: str, tmp_path: Path) -> None:
    """Saved by one process and taken up by the next, whatever worker answers."""
    saved = tmp_path / "session"
    arguments = (f"-{version}", "-sess_out", str(saved))
    with Talk(front.port["open"], front.root, tmp_path, *arguments) as talk:
        talk.wait_for(GREETING.decode().strip())  # a ticket of TLS 1.3 comes before it
        talk.say("bye")
        talk.end()
        assert "New, TLSv1" in talk.said()
    assert saved.exists()
    for _ in range(6):
        said = s_client(front.port["open"], front.root, f"-{version}", "-sess_in", saved)
        assert "Reused, TLSv1" in said.text


def test_reconnect(front: Front) -> None:
    """`-reconnect`: five more connections with the session of the first."""
    said = s_client(front.port["open"], front.root, "-tls1_2", "-reconnect")
    assert said.text.count("Reused, TLSv1.2") == 5


@VERSION
@pytest.mark.program("curl")
def test_client_certificates(front: Front, version: str) -> None:
    """The right one is served; none, a stranger's and an old one are not."""
    limit = "1.2" if version == "tls1_2" else "1.3"
    of_version = ("--tlsv" + limit, "--tls-max", limit)
    port, root = front.port["asks"], front.root
    assert curl(port, root, "a.example", *of_version, *shown(front.alice)).out == BODY.decode()
    for arguments in ((), shown(front.mallory), shown(front.expired)):
        said = curl(port, root, "a.example", *of_version, *arguments)
        assert said.code != 0, said
        assert said.out == ""


@pytest.mark.program("curl")
@pytest.mark.parametrize("kind", ["http", "again"])
def test_curl(front: Front, kind: str) -> None:
    """A whole answer and its end, to a plain target and to one of TLS."""
    said = curl(front.port[kind], front.root, "a.example")
    assert (said.code, said.out) == (0, BODY.decode()), said.err


@pytest.mark.program("curl")
def test_curl_through_closed_tls(front: Front) -> None:
    """The target's own certificate comes through; another name gets nobody."""
    said = curl(front.port["passed"], front.root, "up.example")
    assert (said.code, said.out) == (0, BODY.decode()), said.err
    assert curl(front.port["passed"], front.root, "a.example").code != 0


def test_early_ends(front: Front) -> None:
    """A client that leaves within the handshake, or right behind it, leaves nothing here."""
    for _ in range(5):
        s_client(front.port["open"], front.root)
    totals = front.settle()
    assert totals["accepted"] == totals["ended"]
    assert "Traceback" not in front.log()
