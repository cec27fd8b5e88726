"""Certificates that are accepted: what becomes of them, and what is said about them."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from shared.plan import CertificatePlan
from supervisor.certificates import CertificateStore
from tests.helpers.certificates import (
    Authority,
    Files,
    KeyFormat,
    KeyKind,
    cert_pem,
    key_pem,
    write,
)

WHERE = "routes[0].action.tls.certificates[0]"


@pytest.fixture
def root(tmp_path: Path) -> Authority:
    """An authority whose files are in the test's directory."""
    return Authority(tmp_path)


def load(files: Files) -> CertificatePlan:
    """What a fresh store makes of it, which must have nothing to say."""
    store = CertificateStore()
    plan = store.certificate(files.cert, files.key, None, WHERE)
    assert store.warnings == []
    return plan


def warnings_of(store: CertificateStore) -> list[str]:
    """Their texts; the place of each is that of the certificate."""
    assert {problem.path for problem in store.warnings} <= {WHERE}
    return [problem.message for problem in store.warnings]


@pytest.mark.parametrize(
    ("kind", "algorithm"),
    [
        ("ec", "EC256"),
        ("ec384", "EC384"),
        ("ec521", "EC521"),
        ("rsa", "RSA2048"),
        ("rsa3072", "RSA3072"),
        ("ed25519", "ED25519"),
    ],
)
def test_what_a_plan_says(root: Authority, kind: KeyKind, algorithm: str) -> None:
    """Names, algorithms and the end are the certificate's; the key opens without a password."""
    files = root.leaf("A.example", "*.B.example", "192.0.2.1", key=kind)
    plan = load(files)
    assert plan.name == str(files.cert)
    assert plan.names == ("a.example", "*.b.example")
    assert plan.chain == cert_pem(files.certificate)
    assert load_pem_private_key(plan.key, None).public_key() == files.private_key.public_key()
    assert plan.key_algorithm == algorithm
    assert plan.signature_algorithm == "SHA256"
    assert plan.expires == files.certificate.not_valid_after_utc.timestamp()


def test_the_signature_algorithm_is_the_issuers(tmp_path: Path) -> None:
    """What signed the leaf has no separate digest where it is Ed25519."""
    files = Authority(tmp_path, key="ed25519").leaf("a.example")
    plan = load(files)
    assert (plan.key_algorithm, plan.signature_algorithm) == ("EC256", "ED25519")


def test_a_chain_goes_out_whole(root: Authority) -> None:
    """Leaf and intermediates stay as they are, and a root behind them does no harm."""
    below = root.intermediate("One").intermediate("Two")
    files = below.leaf("a.example")
    plan = load(files)
    assert plan.chain.count(b"BEGIN CERTIFICATE") == 3
    write(files.cert, files.cert.read_bytes() + root.cert.read_bytes())
    assert load(files).chain == plan.chain + cert_pem(root.certificate)


@pytest.mark.parametrize("is_key_first", [False, True])
def test_one_file_may_have_both(root: Authority, is_key_first: bool) -> None:
    """The key may stand before or behind the certificates, with text around."""
    files = root.intermediate().leaf("a.example")
    parts = [b"# ours\n", files.key.read_bytes(), b"between\n", files.cert.read_bytes(), b"end"]
    write(files.both, b"".join(parts if is_key_first else reversed(parts)))
    plan = CertificateStore().certificate(files.both, None, None, WHERE)
    assert plan.digest == load(files).digest


@pytest.mark.parametrize("form", ["pkcs8", "traditional"])
@pytest.mark.parametrize("kind", ["ec", "rsa"])
@pytest.mark.parametrize("ending", ["", "\n", "\r\n", "\nnot this\n"])
def test_an_encrypted_key_opens(
    root: Authority, kind: KeyKind, form: KeyFormat, ending: str
) -> None:
    """The password is the first line of its file; the plan's key is not encrypted."""
    files = root.leaf("a.example", key=kind, password="top secret", form=form)
    password = write(root.directory / "password", f"top secret{ending}".encode())
    plan = CertificateStore().certificate(files.cert, files.key, password, WHERE)
    assert load_pem_private_key(plan.key, None).public_key() == files.private_key.public_key()
    assert plan.key.startswith(b"-----BEGIN PRIVATE KEY-----")


def test_a_password_that_is_not_needed_does_no_harm(root: Authority) -> None:
    """A key that is not encrypted opens without looking at it."""
    files = root.leaf("a.example")
    password = write(root.directory / "password", b"whatever\n")
    plan = CertificateStore().certificate(files.cert, files.key, password, WHERE)
    assert plan.digest == load(files).digest


def test_a_traditional_key_is_the_same(root: Authority) -> None:
    """The digest is of what is in the files, not of how it is written."""
    files = root.leaf("a.example", key="rsa")
    plan = load(files)
    write(files.key, b"text\n" + key_pem(files.private_key, form="traditional"))
    write(files.cert, b"text\n" + files.cert.read_bytes())
    assert load(files) == plan


def test_the_digest_tells_keys_and_chains_apart(root: Authority) -> None:
    """A new certificate for the same key has another digest, and so has one with a chain."""
    files = root.leaf("a.example")
    again = root.leaf("a.example", key=files.private_key, stem="again")
    write(root.directory / "long.pem", files.cert.read_bytes() + root.cert.read_bytes())
    store = CertificateStore()
    plans = [
        store.certificate(cert, files.key, None, WHERE)
        for cert in (files.cert, again.cert, root.directory / "long.pem")
    ]
    assert len({plan.digest for plan in plans}) == 3


def test_a_store_reads_each_file_once(root: Authority) -> None:
    """Within a load all see the same; the next load sees what has changed."""
    files = root.leaf("a.example", stem="site")
    store = CertificateStore()
    first = store.certificate(files.cert, files.key, None, WHERE)
    changed = root.leaf("b.example", stem="site")
    assert changed.cert == files.cert
    assert store.certificate(files.cert, files.key, None, "elsewhere") is first
    assert load(files).names == ("b.example",)


def test_a_key_that_others_can_read_is_told_of(root: Authority) -> None:
    """Its mode and what to do; once, however many routes use it."""
    files = root.leaf("a.example")
    files.key.chmod(0o640)
    store = CertificateStore()
    for _ in range(2):
        store.certificate(files.cert, files.key, None, WHERE)
    assert warnings_of(store) == [
        f"{files.key}: its mode 0640 is open to others, and it holds a key"
    ]
    assert store.warnings[0].hint == f"chmod 600 {files.key}"


def test_an_encrypted_key_may_be_read_but_not_its_password(root: Authority) -> None:
    """What protects the key is the password, so the mode of that file counts."""
    files = root.leaf("a.example", password="top secret")
    files.key.chmod(0o644)
    password = write(root.directory / "password", b"top secret\n", 0o604)
    store = CertificateStore()
    store.certificate(files.cert, files.key, password, WHERE)
    assert warnings_of(store) == [
        f"{password}: its mode 0604 is open to others, and it holds a password"
    ]


def test_a_certificate_without_san_goes_by_its_cn(root: Authority) -> None:
    """With a warning, since hardly a client takes it."""
    files = root.leaf(common_name="Old.Example")
    store = CertificateStore()
    assert store.certificate(files.cert, files.key, None, WHERE).names == ("old.example",)
    assert warnings_of(store) == [
        f"{files.cert}: has no subject alternative name; old.example is its CN"
    ]


@pytest.mark.parametrize("name", ["Our Server", "localhost", "192.0.2.1", "a" * 60 + "!"])
def test_a_cn_that_is_no_domain_is_no_name(root: Authority, name: str) -> None:
    """Such a certificate may be the default one, and is for no name."""
    files = root.leaf(common_name=name, stem="plain")
    store = CertificateStore()
    assert store.certificate(files.cert, files.key, None, WHERE).names == ()
    assert warnings_of(store) == [f"{files.cert}: is for no DNS name"]


def test_a_clients_certificate_needs_no_names(root: Authority) -> None:
    """Shown to a target it is right; shown to clients it is worth two warnings."""
    files = root.client("alice")
    store = CertificateStore()
    plan = store.certificate(files.cert, files.key, None, WHERE, is_client=True)
    assert store.warnings == []
    assert store.certificate(files.cert, files.key, None, WHERE) is plan
    assert warnings_of(store) == [
        f"{files.cert}: is not made for a server (extended key usage)",
        f"{files.cert}: is for no DNS name",
    ]


@pytest.mark.parametrize(("days", "text"), [(20.5, "20 days"), (1.5, "1 day"), (0.5, "0 days")])
def test_one_that_expires_soon_is_told_of(root: Authority, days: float, text: str) -> None:
    """From 21 days before its end, with that end."""
    files = root.leaf("a.example", days=days)
    store = CertificateStore()
    store.certificate(files.cert, files.key, None, WHERE)
    end = files.certificate.not_valid_after_utc.strftime("%Y-%m-%d %H:%M:%S UTC")
    assert warnings_of(store) == [f"{files.cert}: expires in {text}, on {end}"]


def test_dates_are_those_of_the_given_time(root: Authority) -> None:
    """At 21 days before the end nothing is said, a second later it is."""
    files = root.leaf("a.example")
    soon = files.certificate.not_valid_after_utc - timedelta(days=21)
    for late, said in ((timedelta(0), 0), (timedelta(seconds=1), 1)):
        store = CertificateStore(soon + late)
        store.certificate(files.cert, files.key, None, WHERE)
        assert len(store.warnings) == said


def test_an_expired_issuer_is_told_of(root: Authority) -> None:
    """It is for clients to judge: some chains have such a one on purpose."""
    files = root.intermediate("Short").leaf("a.example", days=5000)
    store = CertificateStore(datetime.now(UTC) + timedelta(days=4000))
    store.certificate(files.cert, files.key, None, WHERE)
    assert len(store.warnings) == 1
    assert "certificate 2 (CN=Short) has expired on" in store.warnings[0].message


def test_an_authority_without_a_root_is_told_of(root: Authority) -> None:
    """A leaf, or an intermediate alone, as OpenSSL judges: whoever it signed is refused."""
    middle = root.intermediate("Middle")
    for file in (root.leaf("a.example").cert, middle.cert):
        store = CertificateStore()
        store.authority(file, WHERE)
        (warning,) = store.warnings
        assert warning.message == f"{file}: has no root certificate, so it vouches for nobody"
    store = CertificateStore()
    store.authority(root.cert, WHERE)
    assert not store.warnings


def test_an_authority_is_a_bundle(root: Authority, tmp_path: Path) -> None:
    """Every certificate of the file, each once; equal ones have an equal digest."""
    other = Authority(tmp_path, "Other CA")
    bundle = write(tmp_path / "bundle.pem", cert_pem(root.certificate, other.certificate) * 2)
    store = CertificateStore()
    plan = store.authority(bundle, WHERE)
    assert plan.name == str(bundle)
    context = ssl.create_default_context(cadata=plan.pem.decode())
    assert len(context.get_ca_certs()) == 2
    assert store.authority(bundle, "elsewhere") is plan
    assert plan.digest != store.authority(root.cert, WHERE).digest
    copy = write(tmp_path / "copy.pem", b"# text\n" + bundle.read_bytes())
    assert store.authority(copy, WHERE).digest == plan.digest


def test_the_systems_authorities(
    root: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that Python's ssl module would use, or the directory in its place."""
    monkeypatch.setenv("SSL_CERT_FILE", str(root.cert))
    plan = CertificateStore().authority(None, WHERE)
    assert (plan.name, plan.pem) == ("system", cert_pem(root.certificate))
    hashed = tmp_path / "hashed"
    hashed.mkdir()
    write(hashed / "0123abcd.0", root.cert.read_bytes())
    write(hashed / "README", b"no certificate")
    empty = write(tmp_path / "empty.pem", b"")
    monkeypatch.setenv("SSL_CERT_FILE", str(empty))
    monkeypatch.setenv("SSL_CERT_DIR", str(hashed))
    assert CertificateStore().authority(None, WHERE).digest == plan.digest


def test_no_repr_shows_a_key(root: Authority) -> None:
    """Neither a plan nor what holds it."""
    plan = load(root.leaf("a.example"))
    assert repr([plan]) == f"[CertificatePlan({plan.name!r})]"
