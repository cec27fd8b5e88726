"""TLS towards targets: what is verified, and what is sent."""

from __future__ import annotations

import ssl
from time import monotonic

import pytest
from msgspec import Struct

from shared.client_hello import read_client_hello
from shared.plan import AuthorityPlan, CertificatePlan, UpstreamTlsPlan
from tests.helpers.certificates import Authority, Files
from tests.helpers.tls_pairs import Pair, authority_plan, certificate_plan
from worker.tls_contexts import Contexts, wrap_server
from worker.tls_material import Ahead, finish
from worker.upstream_contexts import UpstreamContext

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
NAME = "app.example"


class Site(Struct, frozen=True):
    """A target's certificate and those around it."""

    root: Authority
    authority: AuthorityPlan
    other: AuthorityPlan
    target: Files
    ours: CertificatePlan


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The target has a name and addresses of both families."""
    root = Authority(tmp_path_factory.mktemp("root"))
    other = Authority(tmp_path_factory.mktemp("other"), "Other CA")
    return Site(
        root=root,
        authority=authority_plan(root),
        other=authority_plan(other),
        target=root.leaf(NAME, "127.0.0.1", "::1"),
        ours=certificate_plan(root.client("proxy"), ()),
    )


def upstream(
    site: Site,
    plan: UpstreamTlsPlan,
    contexts: Contexts | None = None,
    authority: AuthorityPlan | None = None,
) -> UpstreamContext:
    """A route's, with our certificate and one authority at place 0."""
    contexts = contexts or Contexts()
    return contexts.upstream(plan, [site.ours], [authority or site.authority])


def target(site: Site, version: ssl.TLSVersion = VERSIONS[1]) -> ssl.SSLContext:
    """Python's own server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(site.target.cert, site.target.key)
    return context


def connect(server: ssl.SSLContext, one: UpstreamContext, host: str = NAME) -> Pair:
    """A connection on which both ends have said something."""
    pair = Pair(
        lambda incoming, outgoing: wrap_server(server, incoming, outgoing),
        lambda incoming, outgoing: one.wrap(incoming, outgoing, host),
    )
    pair.shake()
    pair.talk()
    return pair


def sent_name(one: UpstreamContext, host: str) -> str:
    """The SNI that goes out for this host."""
    outgoing = ssl.MemoryBIO()
    connection = one.wrap(ssl.MemoryBIO(), outgoing, host)
    with pytest.raises(ssl.SSLWantReadError):
        connection.do_handshake()
    hello = read_client_hello(outgoing.read())
    assert hello is not None
    return hello.sent_name


def test_names_and_addresses_are_verified(site: Site) -> None:
    """By name, by IPv4 and IPv6 address, and by `server_name` instead of the host."""
    by_host = upstream(site, UpstreamTlsPlan(ca=0))
    by_name = upstream(site, UpstreamTlsPlan(ca=0, server_name=NAME))
    server = target(site)
    for host in (NAME, f"{NAME}.", NAME.upper(), "127.0.0.1", "::1"):
        connect(server, by_host, host)
    connect(server, by_name, "10.0.0.1")
    connect(server, by_name, "")
    for host in ("other.example", "127.0.0.2", "::2"):
        with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
            connect(server, by_host, host)
    wrong = upstream(site, UpstreamTlsPlan(ca=0, server_name="other.example"))
    with pytest.raises(ssl.SSLCertVerificationError, match=r"other\.example"):
        connect(server, wrong)


def test_another_authority_is_refused(site: Site) -> None:
    """Unless nothing is to be verified, and then no authority is needed either."""
    server = target(site)
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(server, upstream(site, UpstreamTlsPlan(ca=0), authority=site.other))
    connect(server, upstream(site, UpstreamTlsPlan(verify=False)), "no.such.example")
    connect(server, upstream(site, UpstreamTlsPlan(verify=False)), "")
    with pytest.raises(ValueError, match="authority"):
        upstream(site, UpstreamTlsPlan())


def test_who_cannot_be_named_is_not_dialled(site: Site) -> None:
    """A target without a host, or with one that no TLS server can have: a failed handshake."""
    one = upstream(site, UpstreamTlsPlan(ca=0))
    for host in ("", ".", "b\u00fccher.example", "a\0b.example"):
        with pytest.raises(ssl.SSLError):
            one.wrap(ssl.MemoryBIO(), ssl.MemoryBIO(), host)


def test_addresses_are_not_sent_as_names(site: Site) -> None:
    """RFC 6066 section 3; a name goes out also where nothing is verified."""
    one = upstream(site, UpstreamTlsPlan(verify=False))
    assert sent_name(one, NAME) == NAME
    assert sent_name(one, f"{NAME}.") == NAME
    assert [sent_name(one, host) for host in ("127.0.0.1", "::1", "fe80::1%eth0", "")] == [""] * 4
    named = upstream(site, UpstreamTlsPlan(verify=False, server_name=NAME))
    assert sent_name(named, "127.0.0.1") == NAME


def test_our_certificate_and_alpn(site: Site) -> None:
    """The target sees who we are and what we speak."""
    server = target(site)
    server.load_verify_locations(site.root.cert)
    server.verify_mode = ssl.CERT_REQUIRED
    server.set_alpn_protocols(["http/1.1"])
    plan = UpstreamTlsPlan(ca=0, certificate=0, alpn=("h2", "http/1.1"))
    shown = connect(server, upstream(site, plan)).server
    assert shown.getpeercert()["subject"] == ((("commonName", "proxy"),),)
    assert shown.selected_alpn_protocol() == "http/1.1"
    with pytest.raises(ssl.SSLError):
        connect(server, upstream(site, UpstreamTlsPlan(ca=0)))


def test_equal_content_is_one_context(site: Site) -> None:
    """Names are no part of it; authority, our certificate, ALPN and `verify` are."""
    contexts = Contexts()
    one = upstream(site, UpstreamTlsPlan(ca=0), contexts)
    assert finish(one.build(0))
    assert not finish(upstream(site, UpstreamTlsPlan(ca=0), contexts).build(0))
    assert list(one.first()) == []
    named = upstream(site, UpstreamTlsPlan(ca=0, server_name="b.example"), contexts)
    assert named.ctx is one.ctx
    others = [
        upstream(site, UpstreamTlsPlan(verify=False), contexts),
        upstream(site, UpstreamTlsPlan(ca=0, certificate=0), contexts),
        upstream(site, UpstreamTlsPlan(ca=0, alpn=("h2",)), contexts),
        upstream(site, UpstreamTlsPlan(ca=0), contexts, site.other),
    ]
    assert len({id(other.ctx) for other in others} | {id(one.ctx)}) == len(others) + 1


def test_authorities_are_read_in_steps(site: Site) -> None:
    """None of them is left out, however many slices it takes."""
    many = b"# k\xc3\xbcnftig\n" + site.other.pem * 60 + site.authority.pem
    bundle = AuthorityPlan(name="bundle", pem=many, digest="bundle")
    one = upstream(site, UpstreamTlsPlan(ca=0), authority=bundle)
    ahead = Ahead([one])
    slices = 1
    while not ahead.build_some(monotonic()):
        slices += 1
    assert slices > 3
    assert not list(one.first())
    connect(target(site), one)
