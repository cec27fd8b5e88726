"""Identities: the facts of a client certificate, and the rules that name them."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from hypothesis import given
from hypothesis import strategies as st

from shared.address_set import Addresses, build, parse_range
from shared.plan import IdentityPlan, TlsPlan
from tests.helpers.certificates import Authority, Files
from tests.helpers.tls_pairs import (
    Pair,
    authority_plan,
    certificate_plan,
    client_context,
    hello_of,
)
from worker.identity import (
    Identity,
    IdentityRules,
    distinguished_name,
    glob,
    identity_of,
    read_identity,
)
from worker.tls_contexts import Contexts, wrap_server
from worker.tls_material import TlsObject, wrap

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
NAME = "a.example"
HOME = ["10.0.0.0/8", "2001:db8::/32"]

ALICE = Identity(
    subject="CN=alice,O=Example,C=DE",
    cn="alice",
    san=(
        "DNS:alice.example",
        "email:alice@example.org",
        "URI:spiffe://example/alice",
        "IP:2001:db8::1",
    ),
    issuer="CN=Test CA",
    fingerprint="ab" * 32,
)


def addresses(*entries: str) -> Addresses:
    """A set as a worker has it."""
    return Addresses(build([parse_range(entry) for entry in entries]))


def rules(*entries: IdentityPlan, sets: list[Addresses] | None = None) -> IdentityRules:
    """The rules of one route."""
    return IdentityRules(entries, sets or [])


def lets_in(field: str, pattern: str, identity: Identity | None = ALICE, sni: str = NAME) -> bool:
    """Whether one entry without lists matches."""
    return rules(IdentityPlan(match=((field, pattern),))).judge(sni, identity, "10.0.0.1")


def shake(version: ssl.TLSVersion, client: Files | None, authority: Authority) -> TlsObject:
    """The server's end of a handshake in which a client certificate is optional."""
    plan = TlsPlan(certificates=(0,), client_auth="optional", client_ca=0)
    files = authority.leaf(NAME)
    terminator = Contexts().server(
        plan, [certificate_plan(files, [NAME])], [authority_plan(authority)], "group"
    )
    context = client_context(authority, version, client)
    server = terminator.choose(hello_of(context, NAME))
    pair = Pair(
        lambda incoming, outgoing: wrap_server(server.ctx, incoming, outgoing),
        lambda incoming, outgoing: wrap(context, incoming, outgoing, False, NAME),
    )
    pair.shake()
    return pair.server


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_facts_of_a_real_certificate(tmp_path: Path, version: ssl.TLSVersion) -> None:
    """Every fact, from a handshake; `cryptography` says the same of subject and fingerprint."""
    authority = Authority(tmp_path)
    san = [
        "Alice.Example",
        "alice@example.org",
        "spiffe://example/alice",
        "10.0.0.1",
        "2001:db8::1",
    ]
    client = authority.client("alice", san=san, organization="Ex, ample")
    identity = identity_of(shake(version, client, authority))
    assert identity == Identity(
        subject=client.certificate.subject.rfc4514_string(),
        cn="alice",
        san=(
            "DNS:alice.example",
            "email:alice@example.org",
            "URI:spiffe://example/alice",
            "IP:10.0.0.1",
            "IP:2001:db8::1",
        ),
        issuer="CN=Test CA",
        fingerprint=client.certificate.fingerprint(hashes.SHA256()).hex(),
    )
    assert identity.subject == "CN=alice,O=Ex\\, ample"


def test_who_shows_no_certificate_has_no_identity(tmp_path: Path) -> None:
    """Optional means that there may be none."""
    assert identity_of(shake(VERSIONS[1], None, Authority(tmp_path))) is None


def test_a_certificate_that_nobody_verified_is_none() -> None:
    """`ssl` shows such a certificate as an empty dict."""

    class Unverified:
        def getpeercert(self, der: bool = False, /) -> object:
            return b"der" if der else {}

    class Unreadable:
        def getpeercert(self, der: bool = False, /) -> object:
            return b"\xff".decode()

    assert identity_of(Unverified()) is None
    with pytest.raises(OSError, match="cannot be read"):
        identity_of(Unreadable())


def test_other_kinds_of_names() -> None:
    """Directory names and registered ids have a kind; what `ssl` cannot show is left out."""
    named = ((("countryName", "DE"),), (("commonName", "x"),))
    identity = read_identity(
        {
            "subject": (),
            "subjectAltName": (
                ("DirName", named),
                ("Registered ID", "1.2.3"),
                ("othername", "<unsupported>"),
                ("IP Address", "<invalid>"),
            ),
        },
        b"",
    )
    assert identity.san == ("dirName:CN=x,C=DE", "RID:1.2.3", "IP:<invalid>")
    assert (identity.subject, identity.cn, identity.issuer) == ("", "", "")


TEXT = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0x2FF, exclude_characters="\x7f"),
    min_size=1,
    max_size=32,  # 64 bytes: the longest that X.520 allows
)


@given(TEXT, TEXT)
def test_names_are_written_as_rfc_4514_says(cn: str, organization: str) -> None:
    """What another implementation reads from our text is what was in the name."""
    name = ((("organizationName", organization),), (("commonName", cn), ("localityName", "L")))
    written = distinguished_name(name)
    read = x509.Name.from_rfc4514_string(written)
    values = {attribute.rfc4514_attribute_name: attribute.value for attribute in read}
    assert values == {"CN": cn, "O": organization, "L": "L"}


def test_names_beyond_the_table_keep_what_openssl_calls_them() -> None:
    """And a NUL cannot end a name early."""
    name = ((("emailAddress", "a@b"),), (("commonName", "ali\0ce"),))
    assert distinguished_name(name) == "CN=ali\\00ce,emailAddress=a@b"


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("*", "", True),
        ("a*", "a", True),
        ("a*", "ba", False),
        ("*a", "bab", False),
        ("a?c", "abc", True),
        ("a?c", "ac", False),
        ("a*b*c", "a-b-b-c", True),
        ("a*b*c", "acb", False),
        ("*ab*ab", "abab", True),
        ("*ab*ab", "ab", False),
        ("**", "x", True),
        ("a.c", "abc", False),
        ("[a]", "a", False),
        ("a*", "a\nb", True),
        ("a", "a\n", False),
    ],
)
def test_globs(pattern: str, text: str, matches: bool) -> None:
    """`*` is any characters, `?` is one, and nothing else is special."""
    assert (glob(pattern).fullmatch(text) is not None) == matches


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=10))
def test_globs_are_what_a_simple_matcher_says(pattern: str, text: str) -> None:
    """The atomic groups lose no match."""

    def simple(rest: str, left: str) -> bool:
        if not rest:
            return not left
        if rest[0] == "*":
            return any(simple(rest[1:], left[at:]) for at in range(len(left) + 1))
        return bool(left) and rest[0] in ("?", left[0]) and simple(rest[1:], left[1:])

    assert (glob(pattern).fullmatch(text) is not None) == simple(pattern, text)


@pytest.mark.parametrize(
    ("field", "pattern", "matches"),
    [
        ("sni", "a.example", True),
        ("sni", "A.EXAMPLE.", True),
        ("sni", "*.example", True),
        ("sni", "b.*", False),
        ("cn", "al*", True),
        ("cn", "Alice", False),
        ("subject", "*,O=Example,*", True),
        ("subject", "CN=alice", False),
        ("issuer", "CN=Test CA", True),
        ("issuer", "CN=Test", False),
        ("fingerprint", "ab" * 32, True),
        ("fingerprint", ":".join(["AB"] * 32), True),
        ("fingerprint", "abab*", True),
        ("fingerprint", "cd*", False),
        ("san", "alice.example", True),
        ("san", "ALICE.*", True),
        ("san", "DNS:*.Example", True),
        ("san", "email:*.example", False),
        ("san", "*@example.org", True),
        ("san", "*@EXAMPLE.org", False),
        ("san", "spiffe://example/*", True),
        ("san", "uri:spiffe://example/*", True),
        ("san", "2001:DB8::*", True),
        ("san", "IP:2001:db8::1", True),
        ("san", "IP Address:2001:db8::1", True),
        ("san", "DNS:2001*", False),
        ("san", "mallory*", False),
    ],
)
def test_fields(field: str, pattern: str, matches: bool) -> None:
    """Names without case as DNS has them; a kind before the colon narrows a SAN to it."""
    assert lets_in(field, pattern) == matches


def test_a_fact_that_is_missing_matches_nothing() -> None:
    """Not even `*`: no SNI, no certificate, a certificate without that field."""
    bare = Identity(subject="", cn="", san=(), issuer="CN=x", fingerprint="00")
    for field in ("cn", "san", "subject", "issuer", "fingerprint"):
        assert not lets_in(field, "*", None)
        assert lets_in(field, "*")
        assert lets_in(field, "*", bare) == (field in ("issuer", "fingerprint"))
    assert not lets_in("sni", "*", sni="")
    assert lets_in("sni", "*", None)


@pytest.mark.parametrize(
    ("ip", "is_home"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("2001:db8::5", True),
        ("2001:db8::5%eth0", True),
        ("192.0.2.1", False),
        ("::ffff:192.0.2.1", False),
        ("2001:db9::5", False),
        ("", False),
    ],
)
def test_the_right_client_from_the_wrong_network(ip: str, is_home: bool) -> None:
    """IPv4, IPv6 and mapped addresses alike; a Unix socket is in no list."""
    sets = [addresses(*HOME)]
    allow = rules(IdentityPlan(match=(("cn", "alice"),), allow=0), sets=sets)
    block = rules(IdentityPlan(match=(("cn", "alice"),), block=0), sets=sets)
    both = rules(IdentityPlan(match=(("cn", "alice"),), allow=0, block=0), sets=sets)
    by_sni = rules(IdentityPlan(match=(("sni", NAME),), allow=0), sets=sets)
    assert allow.judge("", ALICE, ip) == is_home
    assert block.judge("", ALICE, ip) != is_home
    assert not both.judge("", ALICE, ip)
    assert by_sni.judge(NAME, None, ip) == is_home
    assert not by_sni.judge("b.example", None, ip)
    assert ("not in its allow list" in allow.why("", ALICE, ip)) != is_home


def test_the_first_entry_that_matches_rules() -> None:
    """A later one is not asked, and all of an entry's globs must hold."""
    sets = [addresses("10.0.0.1"), addresses()]
    asked = rules(
        IdentityPlan(match=(("cn", "alice"), ("sni", "b.*")), block=0),
        IdentityPlan(match=(("cn", "alice"),), allow=0),
        IdentityPlan(match=(("cn", "*"),)),
        IdentityPlan(match=(("sni", "*"),), allow=1),
        sets=sets,
    )
    bob = Identity(subject="CN=bob", cn="bob", san=(), issuer="", fingerprint="")
    cases = [
        ("b.example", ALICE, "10.0.0.1", False, "identities[0] (cn 'alice', sni 'b.*')"),
        ("b.example", ALICE, "10.0.0.2", True, "identities[0]"),
        ("a.example", ALICE, "10.0.0.1", True, "identities[1]"),
        ("a.example", ALICE, "10.0.0.2", False, "10.0.0.2 is not in its allow list"),
        ("", bob, "10.0.0.2", True, "identities[2]"),
        ("a.example", None, "10.0.0.1", False, "identities[3]"),
        ("", None, "10.0.0.1", False, "no client certificate"),
    ]
    for sni, identity, ip, expected, why in cases:
        assert asked.judge(sni, identity, ip) == expected, why
        assert why in asked.why(sni, identity, ip)
    assert asked.asks_certificate
    assert not rules(IdentityPlan(match=(("sni", "*"),))).asks_certificate


def test_rules_by_user() -> None:
    """Upper and lower case are two users; who has shown no password is none, not even for `*`."""
    sets = [addresses("10.0.0.1")]
    asked = rules(
        IdentityPlan(match=(("user", "ali*"), ("cn", "alice"))),
        IdentityPlan(match=(("user", "admin"),), allow=0),
        IdentityPlan(match=(("user", "b?b"), ("sni", NAME))),
        sets=sets,
    )
    cases = [
        (NAME, ALICE, "10.0.0.2", "alice", True),
        (NAME, None, "10.0.0.2", "alice", False),
        (NAME, ALICE, "10.0.0.2", "Alice", False),
        ("", None, "10.0.0.1", "admin", True),
        ("", None, "10.0.0.2", "admin", False),
        (NAME, None, "10.0.0.2", "bob", True),
        ("", None, "10.0.0.2", "bob", False),
        (NAME, ALICE, "10.0.0.1", "", False),
    ]
    for sni, identity, ip, user, expected in cases:
        assert asked.judge(sni, identity, ip, user) == expected, (user, ip)
        assert user not in asked.why(sni, identity, ip, user).split() or not user
    assert asked.why("", None, "10.0.0.2", "admin").startswith("identities[1] (user 'admin')")
    assert not rules(IdentityPlan(match=(("user", "*"),))).judge(NAME, ALICE, "10.0.0.1")
    assert asked.asks_user
    by_user = rules(IdentityPlan(match=(("user", "*"), ("sni", "*"))))
    assert by_user.asks_user
    assert not by_user.asks_certificate
    assert not rules(IdentityPlan(match=(("cn", "*"),))).asks_user


def test_why_shows_nothing_of_the_certificate() -> None:
    """Only what stands in the config, and the address."""
    asked = rules(IdentityPlan(match=(("issuer", "*CA"),), block=0), sets=[addresses("10.0.0.1")])
    why = asked.why("", ALICE, "10.0.0.1")
    assert why == "identities[0] (issuer '*CA'): 10.0.0.1 is in its block list"
    assert "alice" not in why + asked.why("", None, "10.0.0.1")


def test_no_entries_ask_nothing() -> None:
    """And a plan with a field or a set that is not there is refused."""
    assert rules().judge("", None, "10.0.0.1")
    with pytest.raises(ValueError, match="email"):
        rules(IdentityPlan(match=(("email", "*"),)))
    with pytest.raises(IndexError):
        rules(IdentityPlan(match=(("cn", "*"),), allow=0))
