"""Certificates with several kinds of keys, where a wildcard covers a name that another one has."""

from __future__ import annotations

import ssl
from itertools import permutations
from typing import Final

import pytest
from msgspec.structs import replace

from shared.plan import CertificatePlan, TlsPlan
from tests.helpers.certificates import Authority, KeyKind
from tests.helpers.tls_pairs import Offer, Pair, certificate_plan, client_context, hello_of
from worker.tls_contexts import Contexts, Terminator, wrap_server
from worker.tls_material import TlsObject, wrap

NAME: Final = "www.w.example"
WILDCARD: Final = "*.w.example"
# Kind of key: how it is called in a plan, and its scheme.
KINDS: Final[dict[KeyKind, tuple[str, int]]] = {
    "ec": ("EC256", 0x0403),
    "ec384": ("EC384", 0x0503),
    "rsa": ("RSA2048", 0x0804),
}
Made = dict[tuple[KeyKind, str], CertificatePlan]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """That signs them all."""
    return Authority(tmp_path_factory.mktemp("kinds"))


@pytest.fixture(scope="module")
def made(root: Authority) -> Made:
    """A certificate of each kind, for the name and for the wildcard; RSA keys take a while."""
    return {
        (key, name): certificate_plan(
            root.leaf(name, key=key, stem=f"{key}{name[0]}"), [name], kind
        )
        for key, (kind, _) in KINDS.items()
        for name in (NAME, WILDCARD)
    }


def terminator(root: Authority, *certificates: CertificatePlan) -> Terminator:
    """A route's, with a certificate before these that has another name."""
    first = certificate_plan(root.leaf("first.example", stem="first"), ["first.example"])
    plans = [first, *certificates]
    return Contexts().server(TlsPlan(certificates=tuple(range(len(plans)))), plans, [], "group")


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize(("exact", "other"), list(permutations(KINDS, 2)))
def test_a_wildcard_stands_in_for_a_kind_of_key(
    root: Authority, made: Made, exact: KeyKind, other: KeyKind, version: str
) -> None:
    """Only where the client cannot use the exact one; who can use neither gets the exact one."""
    plan, wild = made[exact, NAME], made[other, WILDCARD]
    chooser = terminator(root, wild, plan)
    own, others = KINDS[exact][1], KINDS[other][1]
    offer = Offer(server_name=NAME, versions=(version,), groups=(23, 24))
    cases = [((others, own), plan), ((own,), plan), ((others,), wild), ((0x0807,), plan)]
    for schemes, expected in cases:
        knows = replace(offer, signature_algorithms=schemes)
        assert chooser.choose(knows).certificate == expected, schemes


def test_an_exact_one_comes_before_every_wildcard(root: Authority, made: Made) -> None:
    """RSA with the name itself, though the client could use the wildcard's elliptic curve."""
    both = made["ec", WILDCARD], made["ec384", WILDCARD]
    chooser = terminator(root, *both, made["rsa", NAME])
    offer = Offer(server_name=NAME)
    assert chooser.choose(offer).certificate == made["rsa", NAME]
    assert chooser.choose(replace(offer, server_name="x.w.example")).certificate == both[0]
    p384 = replace(offer, signature_algorithms=(0x0503,))
    assert chooser.choose(p384).certificate == both[1]


def shake(chooser: Terminator, client: ssl.SSLContext) -> CertificatePlan:
    """The certificate of a connection on which both ends have said something."""
    server = chooser.choose(hello_of(client, NAME))

    def serve(incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> TlsObject:
        return wrap_server(server.ctx, incoming, outgoing)

    def dial(incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> TlsObject:
        return wrap(client, incoming, outgoing, False, NAME, None)

    pair = Pair(serve, dial)
    pair.shake()
    pair.talk()
    return server.certificate


@pytest.mark.parametrize(("exact", "other"), [("ec", "rsa"), ("rsa", "ec"), ("rsa", "ec384")])
def test_clients_of_one_kind_shake_hands(
    root: Authority, made: Made, exact: KeyKind, other: KeyKind
) -> None:
    """Python's own, whose ciphers are of one kind, see the certificate that they can use."""
    chooser = terminator(root, made[other, WILDCARD], made[exact, NAME])
    client = client_context(root, ssl.TLSVersion.TLSv1_2)
    for plan, key in ((made[exact, NAME], exact), (made[other, WILDCARD], other)):
        kind = "RSA" if key == "rsa" else "ECDSA"
        client.set_ciphers(f"ECDHE-{kind}-AES128-GCM-SHA256")
        assert shake(chooser, client) == plan
