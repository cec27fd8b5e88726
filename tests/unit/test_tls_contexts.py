"""Server contexts: which certificate a ClientHello gets, who resumes, what lives how long."""

from __future__ import annotations

import gc
import os
import resource
import ssl
from collections.abc import Iterator
from time import monotonic
from typing import Literal

import msgspec
import pytest
from msgspec.structs import replace

from shared.plan import AuthorityPlan, CertificatePlan, TlsPlan
from tests.helpers.certificates import Authority, Files
from tests.helpers.tls_pairs import (
    Offer,
    Pair,
    authority_plan,
    certificate_plan,
    client_context,
    hello_of,
)
from worker.ticket_keys import TicketKeys
from worker.tls_contexts import Contexts, ServerContext, Terminator, wrap_server
from worker.tls_material import Ahead, TlsObject, wrap

V1_2, V1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
NAME = "a.example"
SECRET = b"s" * 32
GROUP = "127.0.0.1:443"
Mode = Literal["none", "optional", "required"]


class Site(msgspec.Struct, frozen=True):
    """Authorities and certificates that these tests share."""

    root: Authority
    other: Authority
    ec: CertificatePlan
    renewed: CertificatePlan
    rsa: CertificatePlan
    alice: Files


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Made once: RSA keys take a while."""
    root = Authority(tmp_path_factory.mktemp("root"))
    other = Authority(tmp_path_factory.mktemp("other"), "Other CA")
    names = (NAME, "*.a.example")
    return Site(
        root=root,
        other=other,
        ec=certificate_plan(root.leaf(*names, stem="ec"), names),
        renewed=certificate_plan(root.leaf(*names, stem="renewed"), names),
        rsa=certificate_plan(root.leaf(*names, key="rsa", stem="rsa"), names, "RSA2048"),
        alice=root.client("alice", san=["alice@a.example"]),
    )


@pytest.fixture
def contexts() -> Contexts:
    """As in a worker that has its secret."""
    made = Contexts()
    assert not made.warning
    made.set_secret(SECRET)
    return made


def terminator(
    contexts: Contexts,
    *certificates: CertificatePlan,
    mode: Mode = "none",
    authority: AuthorityPlan | None = None,
    group: str = GROUP,
    **settings: object,
) -> Terminator:
    """A route's, under a policy as the supervisor names it."""
    authorities = [] if authority is None else [authority]
    plan = TlsPlan(
        certificates=tuple(range(len(certificates))),
        client_auth=mode,
        client_ca=None if authority is None else 0,
        policy=f"{mode} {'' if authority is None else authority.digest}",
    )
    plan = msgspec.convert({**msgspec.to_builtins(plan), **settings}, TlsPlan)
    return contexts.server(plan, certificates, authorities, group)


def connect(
    server: ServerContext,
    client: ssl.SSLContext,
    session: ssl.SSLSession | None = None,
    name: str = NAME,
) -> Pair:
    """A connection on which both ends have said something."""

    def dial(incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> TlsObject:
        return wrap(client, incoming, outgoing, False, name, session)

    pair = Pair(lambda incoming, outgoing: wrap_server(server.ctx, incoming, outgoing), dial)
    pair.shake()
    pair.talk()
    assert pair.server.session_reused == pair.client.session_reused
    return pair


def only(one: Terminator) -> ServerContext:
    """The context of a route with one certificate."""
    return one.choose(Offer())


# Which certificate


def test_exact_name_then_wildcard_then_the_first(contexts: Contexts, site: Site) -> None:
    """A wildcard covers exactly one label; who names nobody gets the first certificate."""
    root = site.root
    names = [("x.example",), ("b.example", "*.b.example"), ("www.b.example",)]
    plans = [certificate_plan(root.leaf(*one, stem=one[0]), one) for one in names]
    chooser = terminator(contexts, *plans)
    client = client_context(root, V1_3)
    expected = {
        "b.example": 1, "any.b.example": 1, "www.b.example": 2, "x.example": 0,
        "two.any.b.example": 0, "www.x.example": 0, "other.example": 0, None: 0,
    }  # fmt: skip
    for name, place in expected.items():
        assert chooser.choose(hello_of(client, name)).certificate == plans[place], name
    assert chooser.choose(Offer(server_name=".b.example")).certificate == plans[0]


@pytest.mark.parametrize("version", [V1_2, V1_3])
def test_the_chosen_certificate_is_shown(
    contexts: Contexts, site: Site, version: ssl.TLSVersion
) -> None:
    """The handshake shows the certificate of that name, and its chain verifies."""
    below = site.root.intermediate("Between").leaf("c.example", stem="below")
    plans = [site.ec, certificate_plan(below, ["c.example"])]
    client = client_context(site.root, version)
    server = terminator(contexts, *plans).choose(hello_of(client, "c.example"))
    shown = connect(server, client, name="c.example").client.getpeercert()
    assert shown["subjectAltName"] == (("DNS", "c.example"),)


@pytest.mark.parametrize("is_rsa_first", [False, True])
def test_elliptic_curve_where_the_client_can_use_it(
    contexts: Contexts, site: Site, is_rsa_first: bool
) -> None:
    """Whatever their order: by TLS 1.3 and scheme, or by an ECDHE-ECDSA cipher and the curve."""
    plans = [site.rsa, site.ec] if is_rsa_first else [site.ec, site.rsa]
    chooser = terminator(contexts, *plans)
    only_1_2 = Offer(versions=("1.2",))
    cases = [
        (Offer(), site.ec),
        (Offer(signature_algorithms=(0x0503, 0x0804)), site.rsa),
        (Offer(signature_algorithms=()), site.rsa),
        (Offer(ciphers=(0x1301,)), site.ec),
        (only_1_2, site.ec),
        (replace(only_1_2, ciphers=(0xC02F, 0x009C)), site.rsa),
        (replace(only_1_2, groups=(29, 24)), site.rsa),
        (replace(only_1_2, signature_algorithms=(0x0401,)), site.rsa),
    ]
    for offer, expected in cases:
        for name in ("", NAME, "x.a.example"):
            named = replace(offer, server_name=name)
            assert chooser.choose(named).certificate == expected, named


def test_the_kind_of_key_follows_the_clients_of_python(contexts: Contexts, site: Site) -> None:
    """Both certificates are really served: an old client that only knows RSA gets that."""
    chooser = terminator(contexts, site.ec, site.rsa)
    client = client_context(site.root, V1_2)
    for ciphers, expected in (
        ("ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256", site.ec),
        ("ECDHE-RSA-AES128-GCM-SHA256", site.rsa),
    ):
        client.set_ciphers(ciphers)
        server = chooser.choose(hello_of(client, NAME))
        assert server.certificate == expected
        connect(server, client)


def test_ciphers_without_ecdsa_leave_rsa_to_tls_1_2(contexts: Contexts, site: Site) -> None:
    """What the config does not allow cannot be what the client certainly can use."""
    chooser = terminator(contexts, site.ec, site.rsa, ciphers="ECDHE-RSA-AES128-GCM-SHA256")
    assert chooser.choose(Offer(versions=("1.2",))).certificate == site.rsa
    assert chooser.choose(Offer()).certificate == site.ec


def test_other_curves_count_by_their_own_scheme(contexts: Contexts, site: Site) -> None:
    """P-384 and Ed25519 stand beside RSA, and one kind alone is taken as it is."""
    for key, kind, scheme in (("ec384", "EC384", 0x0503), ("ed25519", "ED25519", 0x0807)):
        files = site.root.leaf(NAME, "*.a.example", key=key, stem=kind)  # type: ignore[arg-type]
        plan = certificate_plan(files, (NAME, "*.a.example"), kind)
        chooser = terminator(contexts, site.rsa, plan)
        assert chooser.choose(Offer()).certificate == site.rsa
        knows = Offer(signature_algorithms=(0x0804, scheme))
        assert chooser.choose(knows).certificate == plan
        assert only(terminator(contexts, plan)).certificate == plan
        connect(chooser.choose(knows), client_context(site.root, V1_3))


# What a context allows


def test_minimum_version_ciphers_and_alpn(contexts: Contexts, site: Site) -> None:
    """TLS 1.2 is refused below a minimum of 1.3; ciphers and ALPN are those of the plan."""
    old, new = client_context(site.root, V1_2), client_context(site.root, V1_3)
    strict = only(terminator(contexts, site.ec, min_version="1.3"))
    with pytest.raises(ssl.SSLError):
        connect(strict, old)
    assert connect(strict, new).server.version() == "TLSv1.3"
    cipher = "ECDHE-ECDSA-AES256-GCM-SHA384"
    shaped = only(terminator(contexts, site.ec, ciphers=cipher, alpn=("h2", "http/1.1")))
    old.set_alpn_protocols(["http/1.1"])
    server = connect(shaped, old).server
    assert server.cipher() == (cipher, "TLSv1.2", 256)
    assert server.selected_alpn_protocol() == "http/1.1"
    assert shaped.ctx.options & ssl.OP_NO_RENEGOTIATION
    assert shaped.ctx.options & ssl.OP_NO_COMPRESSION


@pytest.mark.parametrize("version", [V1_2, V1_3])
def test_client_certificates(contexts: Contexts, site: Site, version: ssl.TLSVersion) -> None:
    """Required: none and another authority's are refused; optional: none is let in."""
    authority = authority_plan(site.root)
    required = only(terminator(contexts, site.ec, mode="required", authority=authority))
    optional = only(terminator(contexts, site.ec, mode="optional", authority=authority))
    nobody = client_context(site.root, version)
    alice = client_context(site.root, version, site.alice)
    mallory = client_context(site.root, version, site.other.client("alice"))
    for server in (required, optional):
        assert connect(server, alice).server.getpeercert()["subject"]
        with pytest.raises(ssl.SSLError):
            connect(server, mallory)
    assert connect(optional, nobody).server.getpeercert() is None
    with pytest.raises(ssl.SSLError):
        connect(required, nobody)


def test_plans_that_make_no_sense_are_refused(contexts: Contexts, site: Site) -> None:
    """Client certificates without an authority, no certificate, ciphers that OpenSSL lacks."""
    with pytest.raises(ValueError, match="authority"):
        terminator(contexts, site.ec, mode="required")
    with pytest.raises(ValueError, match="without a certificate"):
        terminator(contexts)
    with pytest.raises(IndexError):
        contexts.server(TlsPlan(certificates=(1,)), [site.ec], [], GROUP)
    with pytest.raises(ssl.SSLError):
        only(terminator(contexts, site.ec, ciphers="NO-SUCH-CIPHER"))


# How long contexts live


def test_equal_content_is_one_context_and_goes_with_its_users(
    contexts: Contexts, site: Site
) -> None:
    """A next generation carries it over; when nobody has it any more it is gone."""
    before = terminator(contexts, site.ec)
    context = only(before)
    renamed = replace(site.ec, name="moved.pem")
    after = terminator(contexts, renamed)
    assert not [*after.first(), *after.rest()]
    assert only(after) is context
    others = [
        terminator(contexts, site.renewed),
        terminator(contexts, site.ec, alpn=("h2",)),
        terminator(contexts, site.ec, min_version="1.3"),
        terminator(contexts, site.ec, group="[::1]:443"),
        terminator(contexts, site.ec, mode="optional", authority=authority_plan(site.root)),
        terminator(contexts, site.ec, mode="optional", authority=authority_plan(site.other)),
    ]
    assert len({id(only(one)) for one in others} | {id(context)}) == len(others) + 1
    del before, after, context, others
    gc.collect()
    assert list(terminator(contexts, site.ec).first()) == [0]


def test_contexts_are_built_ahead_in_slices(contexts: Contexts, site: Site) -> None:
    """The defaults first, one for each slice that is over at once, and no more than allowed."""
    names = [f"n{number}.example" for number in range(4)]
    plans = [certificate_plan(site.root.leaf(name, stem=name), [name]) for name in names]
    one, two = terminator(contexts, *plans[:3]), terminator(contexts, plans[3])
    same = terminator(contexts, plans[3])
    ahead = Ahead([one, two, same], most=3)
    assert not ahead.build_some(monotonic())
    assert [*one.first(), *two.first()] == [0]
    assert not ahead.build_some(monotonic())
    assert not [*one.first(), *two.first()]
    assert ahead.build_some(monotonic() + 60.0)
    assert not list(same.first())  # an equal context costs nothing
    assert list(one.rest()) == [2]
    assert one.choose(Offer(server_name=names[2])).certificate == plans[2]
    assert ahead.build_some(monotonic())


@pytest.fixture
def few_descriptors(request: pytest.FixtureRequest) -> Iterator[None]:
    """This process can open no more than the parameter says."""
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.open("/dev/null", os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(highest, held[0]) + 1, hard))
    try:
        while True:
            try:
                held.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                break
        for _ in range(request.param):
            os.close(held.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in held:
            os.close(descriptor)


@pytest.mark.parametrize("few_descriptors", [0, 1], indirect=True)
def test_without_descriptors_a_handshake_fails_and_nothing_breaks(
    contexts: Contexts, site: Site, few_descriptors: None
) -> None:
    """Building is an OSError and no ssl.SSLError; a reload leaves the rest for later."""
    missing = terminator(contexts, site.rsa)
    with pytest.raises(OSError, match="Too many open files") as caught:
        only(missing)
    assert not isinstance(caught.value, ssl.SSLError)
    assert Ahead([missing]).build_some(monotonic())
    assert list(missing.first()) == [0]


def test_a_certificate_that_openssl_refuses_is_an_error(contexts: Contexts, site: Site) -> None:
    """A key of another certificate: the reload hears of it, and no context is kept."""
    wrong = replace(site.ec, key=site.rsa.key, digest="wrong")
    one = terminator(contexts, wrong)
    for attempt in (lambda: Ahead([one]).build_some(monotonic()), lambda: only(one)):
        with pytest.raises(ssl.SSLError):
            attempt()
    assert list(one.first()) == [0]


def test_nothing_stays_open(contexts: Contexts, site: Site) -> None:
    """Building takes descriptors and gives them all back, also when it fails."""
    before = sorted(os.listdir("/proc/self/fd"))
    only(terminator(contexts, site.ec, mode="optional", authority=authority_plan(site.root)))
    with pytest.raises(ssl.SSLError):
        only(terminator(contexts, replace(site.ec, key=b"", digest="none")))
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_without_access_to_keys_a_renewed_secret_means_new_contexts(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resumption stays within the worker, with a warning, and still ends with the secret."""
    monkeypatch.delattr("_ssl.__file__")
    contexts = Contexts(TicketKeys())
    assert "built in" in contexts.warning
    contexts.set_secret(SECRET)
    one = terminator(contexts, site.ec)
    client = client_context(site.root, V1_3)
    server = only(one)
    assert not server.resumes
    session = connect(server, client).client.session
    assert connect(only(one), client, session).server.session_reused
    contexts.set_secret(b"t" * 32)
    assert only(one) is not server
    assert not connect(only(one), client, session).server.session_reused
