"""Reloads of routes that end TLS: new certificates, bad ones, and clients who notice nothing."""

from __future__ import annotations

import json
import ssl
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Self

import pytest
from cryptography import x509

from tests.helpers.certificates import Authority, Files, write
from tests.helpers.targets import Target, dual_ports
from tests.helpers.tls_clients import VERSIONS, TlsClient, trusting
from tests.helpers.tls_site import Site, certificate, client_auth, route, terminate
from tests.helpers.tls_targets import TlsTarget, echo
from tests.helpers.waiting import wait_until

PASSWORD: Final = "correct horse battery staple"
HELD: Final = 24  # connections that echo over all reloads
PAUSE_S: Final = 0.02  # between two dials, for a machine with few CPUs
RELOADS: Final = 6
DRAIN: Final = "3s"  # the answer of a reload, and one more echo, take a part of it
LATE_S: Final = 10.0  # far more than that


class Reloading(Site):
    """A route that ends TLS, with the files of its certificate."""

    port: int
    other: int
    root: Authority
    files: Files
    target: Target

    def routes(self, tls: dict[str, Any] | None = None, **action: Any) -> list[dict[str, Any]]:
        """The route, by another ``tls`` if one is given."""
        return [
            route("web", self.port, self.target.address, tls=tls or terminate(self.files), **action)
        ]

    def shown(self) -> x509.Certificate:
        """The certificate that a new client is shown; it is also served."""
        with TlsClient(self.port, trusting(self.root)) as client:
            assert client.echoes()
            return client.peer()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Reloading]:
    """Started for each test, since these change it."""
    with ExitStack() as stack:
        site = Reloading(tmp_path / "site", [])
        site.root = Authority(tmp_path)
        site.files = site.root.leaf("a.example", stem="site")
        site.target = Target(echo)
        stack.callback(site.target.close)
        site.port, site.other = dual_ports(2)
        site.write(site.config(site.routes()))
        stack.callback(site.end)
        site.start()
        yield site


def test_a_renewed_certificate(site: Reloading) -> None:
    """New connections get it in every worker; those that are open go on."""
    old = site.files.certificate
    with ExitStack() as stack:
        clients = [
            stack.enter_context(TlsClient(site.port, trusting(site.root))) for _ in range(HELD)
        ]
        assert all(client.echoes() for client in clients)
        new = site.root.leaf("a.example", stem="site", days=300)
        assert site.shown() == old  # nothing is read before a reload
        site.reload()
        assert {site.shown() for _ in range(20)} == {new.certificate}
        assert all(client.echoes() for client in clients)
        assert {client.peer() for client in clients} == {old}
    expiry = site.metric(
        "tls_certificate_expiry_timestamp_seconds", route="web", certificate=str(new.cert)
    )
    assert expiry == new.certificate.not_valid_after_utc.timestamp()


@pytest.mark.parametrize("kind", ["other-key", "expired", "torn", "gone"])
def test_a_bad_certificate(site: Reloading, kind: str) -> None:
    """The reload is refused, by file and reason; old and new connections are served on."""
    old = site.files.certificate
    with TlsClient(site.port, trusting(site.root)) as client:
        assert client.echoes()
        match kind:
            case "other-key":
                write(site.files.key, site.root.leaf("x.example").key.read_bytes())
            case "expired":
                site.root.leaf("a.example", stem="site", days=-1)
            case "torn":
                write(site.files.cert, site.files.cert.read_bytes()[:100])
            case "gone":
                site.files.cert.unlink()
        named = site.files.key if kind == "other-key" else site.files.cert
        code, reply = site.run("reload")
        assert code == 1
        (error,) = reply["errors"]
        assert str(named) in error["message"]
        assert error["path"].startswith("routes[0].action.tls.certificates[0]")
        assert {site.shown() for _ in range(10)} == {old}
        assert client.echoes()
    assert str(named) in site.logged("reload", str(named))
    assert site.run("status")[0] == 4


def test_an_encrypted_key(site: Reloading, tmp_path: Path) -> None:
    """It serves with the password from a file; neither key nor password is told anywhere."""
    files = site.root.leaf("a.example", stem="locked", password=PASSWORD)
    write(tmp_path / "password", f"{PASSWORD}\n".encode())
    entry = {**certificate(files), "password_file": str(tmp_path / "password")}
    site.reload(site.routes({"mode": "terminate", "certificates": [entry]}))
    assert site.shown() == files.certificate
    said = json.dumps(site.status()) + site.output() + site.log()
    said += "".join(
        path.read_bytes().decode("latin-1")
        for path in site.runtime_dir.rglob("*")
        if path.is_file()
    )
    lines = [line for line in files.key.read_text().splitlines() if "-----" not in line]
    assert not [line for line in lines if line in said]
    assert PASSWORD not in said
    assert "PRIVATE KEY" not in said


@pytest.mark.parametrize("version", VERSIONS)
def test_a_policy_changes_under_open_connections(site: Reloading, version: str) -> None:
    """Who is in stays in; who comes now must show a certificate."""
    context = trusting(site.root, version=VERSIONS[version])
    with TlsClient(site.port, context) as client:
        assert client.echoes()
        auth = client_auth("required", site.root)
        site.reload(site.routes(terminate(site.files, client_auth=auth)))
        assert client.echoes()
        with TlsClient(site.port, context, shakes=False) as late:
            assert not late.talks()
    shown = trusting(site.root, version=VERSIONS[version], client=site.root.client("alice"))
    with TlsClient(site.port, shown) as client:
        assert client.echoes()


def test_a_route_that_goes(site: Reloading) -> None:
    """Its connections may go on for `drain`, then they end as route_removed, with close_notify."""
    keeps = route("keeps", site.other, site.target.address)
    site.reload([*site.routes(timeouts={"drain": DRAIN}), keeps])
    with TlsClient(site.port, trusting(site.root)) as client:
        assert client.echoes()
        site.reload([keeps])
        assert client.echoes()
        began = time.monotonic()
        assert (client.read_to_end(), client.ended) == (b"", "close_notify")
        assert time.monotonic() - began < LATE_S
    assert site.end_of(client.way) == "route_removed"


class Traffic(ABC):
    """Goes on in a thread of its own until ``over`` is set."""

    def __init__(self, over: threading.Event) -> None:
        self._over = over
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while not self._over.wait(PAUSE_S):
            self.turn()

    @abstractmethod
    def turn(self) -> None:
        """What is done again and again."""


class Visitor(Traffic):
    """Comes, echoes and leaves, again and again; ``failures`` should stay empty."""

    def __init__(self, site: Reloading, over: threading.Event) -> None:
        super().__init__(over)
        self.visits = 0
        self.failures: list[str] = []
        self._port, self._context = site.port, trusting(site.root)
        self._session: ssl.SSLSession | None = None

    def turn(self) -> None:
        """One visit; every other one leaves its session to the next."""
        try:
            with TlsClient(self._port, self._context, session=self._session) as client:
                assert client.echoes(), f"ended: {client.ended}"
                if self.visits % 2:
                    self._session = client.session()
                client.finish()
        except (OSError, AssertionError) as error:
            self.failures.append(repr(error))
        self.visits += 1


class Talkers(Traffic):
    """Connections that echo all the time; ``silent`` are those that ceased to."""

    def __init__(self, clients: list[TlsClient], over: threading.Event) -> None:
        super().__init__(over)
        self.words = 0
        self.silent: list[str] = []
        self._clients = clients

    def turn(self) -> None:
        """A word of each."""
        for client in list(self._clients):
            if client.echoes(b"word %d" % self.words):
                self.words += 1
            else:
                self.silent.append(client.ended)
                self._clients.remove(client)


def changes(site: Reloading, secure: TlsTarget, round_: int) -> list[dict[str, Any]]:
    """The route in another shape each round; its clients are served by all of them."""
    site.files = site.root.leaf("a.example", stem="site")
    tls = terminate(site.files, alpn=["http/1.1"] if round_ % 2 else [])
    if round_ % 3 == 2:
        upstream = {"ca": str(site.root.cert), "server_name": "up.example"}
        return [route("web", site.port, secure.address, tls=tls, upstream_tls=upstream)]
    extra = route(f"extra-{round_}", site.other, site.target.address, tls=terminate(site.files))
    return [*site.routes(tls), extra]


def test_reloads_under_load(site: Reloading) -> None:
    """Connections that echo all the time go on, new ones never fail, whatever changes."""
    over = threading.Event()
    secure = TlsTarget(site.root.leaf("up.example"))
    with ExitStack() as stack:
        stack.callback(secure.close)
        clients = [
            stack.enter_context(TlsClient(site.port, trusting(site.root))) for _ in range(HELD)
        ]
        talkers = stack.enter_context(Talkers(list(clients), over))
        visitors = [stack.enter_context(Visitor(site, over)) for _ in range(2)]
        for round_ in range(RELOADS):
            visits, words = [one.visits for one in visitors], talkers.words
            site.reload(changes(site, secure, round_))
            wait_until(
                lambda visits=visits, words=words: (  # type: ignore[misc]
                    talkers.words >= words + HELD
                    and all(one.visits > was + 3 for one, was in zip(visitors, visits, strict=True))
                ),
                f"traffic after reload {round_}",
            )
        over.set()
    assert talkers.silent == []
    assert [one.failures for one in visitors] == [[], []]
    assert "Traceback" not in site.log()
