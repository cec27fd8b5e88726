"""Sessions of TLS clients: resumed by every worker, also a new one, and under no other policy."""

from __future__ import annotations

import os
import signal
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from tests.helpers.certificates import Authority, Files
from tests.helpers.named_echo import are_ready, incarnations
from tests.helpers.named_echo import serve as tell_id
from tests.helpers.targets import Target, dual_ports
from tests.helpers.tls_clients import TlsClient, trusting
from tests.helpers.tls_site import UNIQUE_ID, Site, client_auth, route, terminate

TRIES: Final = 200  # far more than two or three workers need to have all been met
WORKERS: Final = 3
VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class Sessions(Site):
    """One port whose target says which worker has a connection."""

    port: int
    other: int
    root: Authority
    files: Files
    alice: Files
    target: Target

    def routes(self, tls: dict[str, Any] | None = None, **action: Any) -> list[dict[str, Any]]:
        """The route, by another ``tls`` if one is given."""
        tls = tls or terminate(self.files)
        address = self.target.address
        return [route("web", self.port, address, tls=tls, **UNIQUE_ID, **action)]

    def context(self, version: str, client: Files | None = None) -> ssl.SSLContext:
        """A client."""
        return trusting(self.root, version=VERSIONS[version], client=client)

    def workers_now(self) -> set[int]:
        """Incarnations of all workers, which are ready."""
        return incarnations(self.wait_for_workers(are_ready(WORKERS), "all workers"))


@pytest.fixture
def sessions(tmp_path: Path) -> Iterator[Sessions]:
    """Started for each test, since these change it."""
    with ExitStack() as stack:
        site = Sessions(tmp_path / "site", [], workers=WORKERS)
        site.root = Authority(tmp_path)
        site.files = site.root.leaf("a.example", stem="site")
        site.alice = site.root.client("alice")
        site.target = Target(tell_id)
        stack.callback(site.target.close)
        site.port, site.other = dual_ports(2)
        site.write(site.config(site.routes()))
        stack.callback(site.end)
        site.start()
        yield site


def visit(
    sessions: Sessions, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[int, bool, ssl.SSLSession]:
    """One connection: (the worker that had it, whether it was resumed, its session)."""
    with TlsClient(sessions.port, context, session=session) as client:
        worker = int(client.read_line().split(b"-")[1])
        assert client.echoes(b"hello")
        return worker, bool(client.tls.session_reused), client.session()


def resumes_everywhere(
    sessions: Sessions, context: ssl.SSLContext, session: ssl.SSLSession, wanted: set[int]
) -> None:
    """Each of these workers takes up this session, every time."""
    met: set[int] = set()
    for _ in range(TRIES):
        worker, is_resumed, _ = visit(sessions, context, session)
        assert is_resumed, f"not by worker {worker}; {met} did"
        met.add(worker)
        if wanted <= met:
            return
    raise AssertionError(f"no connection came to {wanted - met}")


def begin(
    sessions: Sessions, client: Files | None = None
) -> list[tuple[ssl.SSLContext, ssl.SSLSession]]:
    """A client of each version with the session of its first connection."""
    begun = []
    for version in VERSIONS:
        context = sessions.context(version, client)
        context.check_hostname = False  # some ask for another name later
        _, is_resumed, session = visit(sessions, context)
        assert not is_resumed
        begun.append((context, session))
    return begun


def is_let_in(
    sessions: Sessions, context: ssl.SSLContext, session: ssl.SSLSession, name: str = "a.example"
) -> bool:
    """Whether a client with this session is served, by any worker; else each ends as tls_failed."""
    for _ in range(20):
        client = TlsClient(sessions.port, context, name, session=session, shakes=False)
        with client:
            if client.talks() or client.tls.session_reused:
                return True
    assert sessions.end_of(client.way) == "tls_failed"
    return False


def test_by_every_worker_and_its_successor(sessions: Sessions) -> None:
    """Whoever answers resumes it; so do workers that were started after the old ones died."""
    before = sessions.workers_now()
    begun = begin(sessions)
    for context, session in begun:
        resumes_everywhere(sessions, context, session, before)
    for pid in sessions.ready_pids():
        os.kill(pid, signal.SIGKILL)
    after = incarnations(
        sessions.wait_for_workers(
            lambda workers: are_ready(WORKERS)(workers) and not incarnations(workers) & before,
            "successors of all",
        )
    )
    for context, session in begun:
        resumes_everywhere(sessions, context, session, after)


def test_over_reloads_that_keep_the_policy(sessions: Sessions) -> None:
    """A renewed certificate, another ALPN, other timeouts, a route beside it: by every worker."""
    begun = begin(sessions)
    before = sessions.files.certificate
    sessions.files = sessions.root.leaf("a.example", stem="site")
    assert sessions.files.certificate != before
    with_alpn = terminate(sessions.files, alpn=["http/1.1"])
    beside = route("beside", sessions.other, sessions.target.address)
    changes: list[tuple[list[dict[str, Any]], list[str]]] = [
        (sessions.routes(), ["web"]),
        (sessions.routes(with_alpn), ["web"]),
        (sessions.routes(with_alpn, timeouts={"idle": "1h"}), ["web"]),
        ([*sessions.routes(with_alpn, timeouts={"idle": "1h"}), beside], []),
    ]
    for routes, changed in changes:
        reply = sessions.reload(routes)
        assert reply["data"]["routes"]["changed"] == changed
        for context, session in begun:
            resumes_everywhere(sessions, context, session, sessions.workers_now())


def test_not_under_a_policy_that_asks_for_more(sessions: Sessions) -> None:
    """From no client certificates to required ones: an old session does not get in without."""
    begun = begin(sessions)
    auth = client_auth("required", sessions.root)
    sessions.reload(sessions.routes(terminate(sessions.files, client_auth=auth)))
    accepted = sessions.target.accepted
    for context, session in begun:
        assert not is_let_in(sessions, context, session)
    assert sessions.target.accepted == accepted
    for context, session in begun:
        context.load_cert_chain(sessions.alice.cert, sessions.alice.key)
        _, is_resumed, own = visit(sessions, context, session)
        assert not is_resumed
        resumes_everywhere(sessions, context, own, sessions.workers_now())


def test_not_from_optional_to_required(sessions: Sessions) -> None:
    """A client that was let in without a certificate is not one that has shown it."""
    optional, required = (
        terminate(sessions.files, client_auth=client_auth(mode, sessions.root))
        for mode in ("optional", "required")
    )
    sessions.reload(sessions.routes(optional))
    begun = begin(sessions)
    sessions.reload(sessions.routes(required))
    for context, session in begun:
        assert not is_let_in(sessions, context, session)


def test_not_under_another_authority(sessions: Sessions, tmp_path: Path) -> None:
    """A certificate that one authority has vouched for says nothing to another."""
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other", "Other CA")
    first, second = (
        terminate(sessions.files, client_auth=client_auth("required", root))
        for root in (sessions.root, other)
    )
    sessions.reload(sessions.routes(first))
    begun = begin(sessions, sessions.alice)
    for context, session in begun:
        resumes_everywhere(sessions, context, session, sessions.workers_now())
    sessions.reload(sessions.routes(second))
    for context, session in begun:
        assert not is_let_in(sessions, context, session)


def test_not_between_routes_of_different_policies(sessions: Sessions) -> None:
    """On one port by name: a session of the open route gets nobody into the closed one."""
    files = sessions.root.leaf("b.example", stem="closed")
    closed = terminate(files, client_auth=client_auth("required", sessions.root))
    address = sessions.target.address
    by_name = [
        route(name, sessions.port, address, match={"domains": [domain]}, tls=tls, **UNIQUE_ID)
        for name, domain, tls in (
            ("open", "a.example", terminate(sessions.files)),
            ("closed", "b.example", closed),
        )
    ]
    sessions.reload(by_name)
    begun = begin(sessions)
    for context, session in begun:
        resumes_everywhere(sessions, context, session, sessions.workers_now())
        assert not is_let_in(sessions, context, session, "b.example")


def test_not_by_another_supervisor(sessions: Sessions) -> None:
    """Its ticket secret is its own, and after a full stop there is a new one."""
    begun = begin(sessions)
    for context, session in begun:
        assert visit(sessions, context, session)[1]
    assert sessions.run("stop", "--now")[0] == 0
    sessions.wait()
    sessions.start()
    for context, session in begun:
        assert not visit(sessions, context, session)[1]
