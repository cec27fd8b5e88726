"""Who resumes a session: any worker under one policy, nobody under another."""

from __future__ import annotations

import ssl
from typing import Literal

import pytest
from msgspec import Struct

from shared.plan import AuthorityPlan, CertificatePlan, TlsPlan
from tests.helpers.certificates import Authority, Files
from tests.helpers.tls_pairs import (
    Pair,
    authority_plan,
    certificate_plan,
    client_context,
    hello_of,
)
from worker.ticket_keys import TicketKeys
from worker.tls_contexts import Contexts, ServerContext, Terminator, wrap_server
from worker.tls_material import TlsObject, wrap

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
NAME = "a.example"
SECRET = b"s" * 32
GROUP = "127.0.0.1:443"
Mode = Literal["none", "optional", "required"]

pytestmark = pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)


class Site(Struct, frozen=True):
    """Authorities and certificates that these tests share. Alice is known to both authorities."""

    root: Authority
    first: AuthorityPlan
    second: AuthorityPlan
    ec: CertificatePlan
    renewed: CertificatePlan
    alice: Files


class Policy(Struct, frozen=True):
    """How a route asks for client certificates."""

    mode: Mode = "none"
    authority: AuthorityPlan | None = None
    ciphers: str | None = None
    group: str = GROUP


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The second authority's file holds both, so it too takes Alice's certificate."""
    root = Authority(tmp_path_factory.mktemp("root"))
    first = authority_plan(root)
    added = authority_plan(Authority(tmp_path_factory.mktemp("other"), "Other CA"))
    return Site(
        root=root,
        first=first,
        second=AuthorityPlan(name="both", pem=first.pem + added.pem, digest="both"),
        ec=certificate_plan(root.leaf(NAME, stem="ec"), [NAME]),
        renewed=certificate_plan(root.leaf(NAME, stem="renewed"), [NAME]),
        alice=root.client("alice"),
    )


def worker(secret: bytes = SECRET) -> Contexts:
    """What another worker of the same supervisor has."""
    contexts = Contexts()
    assert not contexts.warning
    contexts.set_secret(secret)
    return contexts


def route(contexts: Contexts, certificate: CertificatePlan, policy: Policy) -> Terminator:
    """A route whose policy has no name, so that the parts of it must do."""
    authorities = [] if policy.authority is None else [policy.authority]
    plan = TlsPlan(
        certificates=(0,),
        client_auth=policy.mode,
        client_ca=None if policy.authority is None else 0,
        ciphers=policy.ciphers,
    )
    return contexts.server(plan, [certificate], authorities, policy.group)


def context_of(one: Terminator) -> ServerContext:
    """The one for the ClientHello of any client here."""
    found = one.choose(hello_of(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), NAME))
    assert found.resumes
    return found


def connect(
    server: ServerContext, client: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> Pair:
    """A connection on which both ends have said something, so that tickets have come."""

    def dial(incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> TlsObject:
        return wrap(client, incoming, outgoing, False, NAME, session)

    pair = Pair(lambda incoming, outgoing: wrap_server(server.ctx, incoming, outgoing), dial)
    pair.shake()
    pair.talk()
    assert pair.server.session_reused == pair.client.session_reused
    return pair


def begun(server: ServerContext, client: ssl.SSLContext) -> ssl.SSLSession:
    """A session with a ticket, from a full handshake."""
    pair = connect(server, client)
    assert not pair.server.session_reused
    session = pair.client.session
    assert session is not None
    assert session.has_ticket
    return session


def test_one_policy_resumes_everywhere(site: Site, version: ssl.TLSVersion) -> None:
    """In another worker, after a renewed certificate, with another minimum version and ALPN."""
    client = client_context(site.root, version, site.alice)
    for policy in (Policy(), Policy("optional", site.first), Policy("required", site.first)):
        here, there = route(worker(), site.ec, policy), route(worker(), site.ec, policy)
        session = begun(context_of(here), client)
        for _ in range(3):  # each connection brings the ticket for the next
            pair = connect(context_of(there), client, session)
            assert pair.server.session_reused
            shown = pair.server.getpeercert(True)
            assert (shown is not None) == (policy.mode != "none")
            next_session = pair.client.session
            assert next_session is not None
            session = next_session
        renewed = route(worker(), site.renewed, policy)
        assert connect(context_of(renewed), client, session).server.session_reused
    plan = TlsPlan(certificates=(0,), alpn=("http/1.1",))
    session = begun(context_of(route(worker(), site.ec, Policy())), client)
    shaped = context_of(worker().server(plan, [site.ec], [], GROUP))
    assert connect(shaped, client, session).server.session_reused


def test_nothing_resumes_under_another_policy(site: Site, version: ssl.TLSVersion) -> None:
    """Between any two of these policies, in both directions, within a worker and over two."""
    policies = [
        Policy(),
        Policy(group="127.0.0.1:8443"),
        Policy(ciphers="ECDHE+AESGCM"),
        Policy("optional", site.first),
        Policy("required", site.first),
        Policy("optional", site.second),
        Policy("required", site.second),
    ]
    client = client_context(site.root, version, site.alice)
    here, there = worker(), worker()
    routes = [[route(one, site.ec, policy) for policy in policies] for one in (here, there)]
    for began, policy in enumerate(policies):
        session = begun(context_of(routes[0][began]), client)
        for each in routes:
            for other, one in enumerate(each):
                resumed = connect(context_of(one), client, session).server.session_reused
                assert resumed == (other == began), (policy, policies[other])


def test_no_ticket_stands_in_for_a_certificate(site: Site, version: ssl.TLSVersion) -> None:
    """A client without a certificate is refused where one is required, whatever it resumes."""
    client = client_context(site.root, version)
    contexts = worker()
    required = context_of(route(contexts, site.ec, Policy("required", site.first)))
    for policy in (Policy(), Policy("optional", site.first), Policy("optional", site.second)):
        session = begun(context_of(route(contexts, site.ec, policy)), client)
        with pytest.raises(ssl.SSLError):
            connect(required, client, session)


def test_the_scope_alone_keeps_policies_apart(site: Site, version: ssl.TLSVersion) -> None:
    """Even where two policies had equal keys, a ticket of one would not resume under the other."""
    contexts, keys = worker(), TicketKeys()
    client = client_context(site.root, version, site.alice)
    routes = [route(contexts, site.ec, Policy()), route(contexts, site.ec, Policy(group="other"))]
    one, other = (context_of(each) for each in routes)
    keys.set(other.ctx, keys.get(one.ctx))
    session = begun(one, client)
    assert connect(one, client, session).server.session_reused
    assert not connect(other, client, session).server.session_reused


def test_a_new_secret_ends_older_sessions_at_once(site: Site, version: ssl.TLSVersion) -> None:
    """In contexts that are in use: a full handshake follows, and its ticket is good again."""
    contexts = worker()
    client = client_context(site.root, version)
    one = route(contexts, site.ec, Policy())
    server = context_of(one)
    session = begun(server, client)
    contexts.set_secret(SECRET)  # the same again changes nothing
    assert connect(server, client, session).server.session_reused
    contexts.set_secret(b"t" * 32)
    assert context_of(one) is server
    pair = connect(server, client, session)
    assert not pair.server.session_reused
    following = pair.client.session
    assert connect(server, client, following).server.session_reused
    successor = context_of(route(worker(b"t" * 32), site.ec, Policy()))
    assert connect(successor, client, following).server.session_reused


def test_other_hosts_do_not_resume(site: Site, version: ssl.TLSVersion) -> None:
    """Another supervisor has another secret."""
    client = client_context(site.root, version)
    session = begun(context_of(route(worker(), site.ec, Policy())), client)
    foreign = context_of(route(worker(b"u" * 32), site.ec, Policy()))
    assert not connect(foreign, client, session).server.session_reused


def test_a_worker_keeps_no_sessions_of_its_own(site: Site, version: ssl.TLSVersion) -> None:
    """A client that asks for no ticket is not remembered, so nothing outlives the secret."""
    client = client_context(site.root, version)
    client.options |= ssl.OP_NO_TICKET  # OpenSSL takes those of TLS 1.3 all the same
    contexts = worker()
    one = route(contexts, site.ec, Policy())
    server = context_of(one)
    pair = connect(server, client)
    with pytest.raises(ssl.SSLWantReadError):  # an orderly end: OpenSSL would keep the session
        pair.server.shutdown()
    assert server.ctx.session_stats()["number"] == 0
    session = pair.client.session
    is_ticket = version == ssl.TLSVersion.TLSv1_3
    assert connect(server, client, session).server.session_reused == is_ticket
    contexts.set_secret(b"t" * 32)
    assert not connect(server, client, session).server.session_reused
