"""Certificates that are refused: which file, why, and never a word of a key or a password."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519

from shared.errors import CertificateError
from supervisor.certificates import CertificateStore
from tests.helpers.certificates import Authority, Files, KeyFormat, cert_pem, key_pem, write

WHERE = "routes[0].action.tls.certificates[0]"
SECRET = "correct horse battery staple"


@pytest.fixture
def root(tmp_path: Path) -> Authority:
    """An authority whose files are in the test's directory."""
    return Authority(tmp_path)


def refused(cert: Path, key: Path | None, password: Path | None = None) -> CertificateError:
    """The error that it gives, which tells nothing of what must stay secret."""
    store = CertificateStore()
    with pytest.raises(CertificateError) as caught:
        store.certificate(cert, key, password, WHERE)
    error = caught.value
    said = "".join(traceback.format_exception(error)) + repr(error) + error.reason + error.hint
    for path in (key or cert, password):
        data = path.read_text(errors="replace") if path and path.is_file() else ""
        for line in data.splitlines():
            assert line not in said or line.startswith("-----") or len(line) < 8
    assert SECRET not in said
    assert str(error) == f"{error.path}: {error.reason}"
    with pytest.raises(CertificateError) as again:
        store.certificate(cert, key, password, WHERE)
    assert (again.value.reason, again.value.path) == (error.reason, error.path)
    return error


def test_a_file_that_is_not_there(root: Authority) -> None:
    """What the system says about it, for each of the three files."""
    files = root.leaf("a.example")
    missing = root.directory / "missing"
    for cert, key, password in (
        (missing, files.key, None),
        (files.cert, missing, None),
        (files.cert, files.key, missing),
    ):
        error = refused(cert, key, password)
        assert error.path == str(missing)
        assert error.reason == "cannot be read: No such file or directory"


def test_a_directory_is_no_file(root: Authority) -> None:
    """A path that names one is refused at once."""
    files = root.leaf("a.example")
    assert refused(root.directory, files.key).reason == "is a directory"


@pytest.mark.parametrize("data", [b"", b"hello\n", b"\x30\x82\x01\x0a\x02\x82"])
def test_a_file_without_a_certificate(root: Authority, data: bytes) -> None:
    """Empty, text or DER: the hint says what is needed."""
    files = root.leaf("a.example")
    error = refused(write(files.cert, data), files.key)
    assert (error.reason, error.path) == ("has no certificate", str(files.cert))
    assert "PEM" in error.hint


def test_a_file_that_was_cut_off(root: Authority) -> None:
    """How many certificates cannot be read."""
    files = root.intermediate().leaf("a.example")
    write(files.cert, files.cert.read_bytes()[:-40])
    assert refused(files.cert, files.key).reason == (
        "has 2 certificates, of which 1 cannot be read as PEM"
    )


def test_a_certificate_that_is_damaged(root: Authority) -> None:
    """Its number in the file is told."""
    files = root.intermediate().leaf("a.example")
    first, second = files.cert.read_bytes().split(b"-----END CERTIFICATE-----\n", 1)
    second = second.replace(b"\nMII", b"\nAAA", 1)
    write(files.cert, first + b"-----END CERTIFICATE-----\n" + second)
    assert refused(files.cert, files.key).reason == "certificate 2 of 2 is damaged"


def test_no_key(root: Authority) -> None:
    """In neither file."""
    files = root.leaf("a.example")
    error = refused(files.cert, None)
    assert (error.reason, error.path) == ("has no private key", str(files.cert))
    assert "`key`" in error.hint
    assert refused(files.cert, files.cert).reason == "has no private key"


def test_two_keys(root: Authority) -> None:
    """Which of them is meant is not guessed."""
    files = root.leaf("a.example")
    write(files.key, files.key.read_bytes() * 2)
    assert refused(files.cert, files.key).reason == "has 2 private keys, and one is needed"


def test_a_key_that_is_damaged(root: Authority) -> None:
    """Nothing of it is shown."""
    files = root.leaf("a.example")
    lines = files.key.read_text().splitlines()
    lines[1] = lines[1][::-1]
    write(files.key, "\n".join(lines).encode())
    error = refused(files.cert, files.key)
    assert (error.reason, error.path) == ("has a private key that is damaged", str(files.key))


def test_an_rsa_key_whose_numbers_do_not_belong_together(root: Authority) -> None:
    """Its public half is right, and yet it signs nothing that holds."""
    files = root.leaf("a.example", key="rsa")
    assert isinstance(files.private_key, rsa.RSAPrivateKey)
    good = files.private_key.private_numbers()
    d = good.d ^ (1 << 100)
    broken = rsa.RSAPrivateNumbers(
        p=good.p,
        q=good.q,
        d=d,
        dmp1=rsa.rsa_crt_dmp1(d, good.p),
        dmq1=rsa.rsa_crt_dmq1(d, good.q),
        iqmp=good.iqmp,
        public_numbers=good.public_numbers,
    ).private_key(unsafe_skip_rsa_key_validation=True)
    write(files.key, key_pem(broken))
    assert refused(files.cert, files.key).reason == "has a private key that is damaged"


def test_the_key_of_another_certificate(root: Authority) -> None:
    """Both files are named."""
    files, other = root.leaf("a.example"), root.leaf("b.example")
    error = refused(files.cert, other.key)
    assert error.path == str(other.key)
    assert error.reason == f"the key does not belong to the certificate {files.cert}"
    write(files.both, files.cert.read_bytes() + other.key.read_bytes())
    assert refused(files.both, None).reason == "its key does not belong to its certificate"


def test_a_key_of_another_kind(root: Authority) -> None:
    """An RSA certificate and an EC key do not match, and a key for no signatures is none."""
    files, other = root.leaf("a.example", key="rsa"), root.leaf("b.example")
    assert "does not belong" in refused(files.cert, other.key).reason
    pem = x25519.X25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    error = refused(files.cert, write(other.key, pem))
    assert error.reason == "is a key of a kind that TLS does not use"


@pytest.mark.parametrize("form", ["pkcs8", "traditional"])
def test_passwords(root: Authority, form: KeyFormat) -> None:
    """Missing, empty and wrong are three different things."""
    files = root.leaf("a.example", password=SECRET, form=form)
    assert refused(files.cert, files.key).reason == "is encrypted, and no password is given"
    password = write(root.directory / "password", b"\n" + SECRET.encode())
    error = refused(files.cert, files.key, password)
    assert error.reason == f"is encrypted, and the first line of {password} is empty"
    write(password, b"something quite different\n")
    error = refused(files.cert, files.key, password)
    assert error.path == str(files.key)
    assert error.reason == f"the password in {password} does not open the key"


def test_dates(root: Authority) -> None:
    """Expired, or not valid yet: the date in the message is the certificate's."""
    old = root.leaf("a.example", days=-1)
    error = refused(old.cert, old.key)
    end = old.certificate.not_valid_after_utc.strftime("%Y-%m-%d %H:%M:%S UTC")
    assert (error.reason, error.path) == (f"has expired on {end}", str(old.cert))
    young = root.leaf("b.example", from_days=1)
    error = refused(young.cert, young.key)
    begin = young.certificate.not_valid_before_utc.strftime("%Y-%m-%d %H:%M:%S UTC")
    assert error.reason == f"is not valid before {begin}"


def chain(root: Authority) -> tuple[Files, list[bytes]]:
    """A leaf two authorities below the root, and its chain with the root, certificate by one."""
    below = root.intermediate("One").intermediate("Two")
    files = below.leaf("a.example")
    return files, [cert_pem(one) for one in (files.certificate, *below.above, root.certificate)]


@pytest.mark.parametrize(
    ("order", "place"),
    [
        ((0, 2, 1), "certificate 2 of 3 (CN=One) is out of place: it has not signed certificate 1"),
        ((0, 1, 3), "certificate 3 of 3 (CN=Test CA) is out of place"),
        ((0, 2), "certificate 2 of 2 (CN=One) is out of place"),
        ((0, 1, 2, 3, 0), "certificate 5 of 5 (CN=a.example) is out of place"),
        ((0, 0, 1), "certificate 2 of 3 (CN=a.example) is out of place"),
        ((3, 2, 1, 0), "certificate 4 of 4 (CN=a.example) is out of place: the key is its own"),
        ((1, 0), "certificate 2 of 2 (CN=a.example) is out of place: the key is its own"),
    ],
)
def test_the_order_of_a_chain(root: Authority, order: tuple[int, ...], place: str) -> None:
    """Leaf first, each signed by the next; the message says which one is wrong."""
    files, parts = chain(root)
    write(files.cert, b"".join(parts[index] for index in order))
    error = refused(files.cert, files.key)
    assert error.path == str(files.cert)
    assert place in error.reason
    assert "leaf comes first" in error.hint


def test_an_issuer_of_the_right_name_that_has_not_signed(root: Authority, tmp_path: Path) -> None:
    """The signature counts, not the name."""
    files = root.leaf("a.example")
    impostor = Authority(tmp_path, root.name)
    write(files.cert, cert_pem(files.certificate, impostor.certificate))
    assert "(CN=Test CA) is out of place" in refused(files.cert, files.key).reason


def test_a_subject_is_told_on_one_line(root: Authority) -> None:
    """Whoever writes certificates writes neither lines of ours nor to the operator's terminal."""
    files = root.leaf("a.example")
    evil = root.leaf("b.example", common_name="x\n\x1b[31mEVIL", stem="evil")
    write(files.cert, cert_pem(files.certificate, evil.certificate))
    reason = refused(files.cert, files.key).reason
    assert r"(CN=x\n\x1b[31mEVIL) is out of place" in reason
    assert reason.isprintable()


def test_a_key_for_rsassa_pss_alone(root: Authority) -> None:
    """RFC 4055, 1.2: such a key has an OID of its own, here in place of the ordinary one."""
    files = root.leaf("a.example", key="rsa")
    ordinary = bytes.fromhex("06092a864886f70d010101 0500")
    pss = bytes.fromhex("06092a864886f70d01010a 3000")
    der = files.certificate.public_bytes(serialization.Encoding.DER)
    assert der.count(ordinary) == 1
    write(files.cert, cert_pem(x509.load_der_x509_certificate(der.replace(ordinary, pss))))
    error = refused(files.cert, files.key)
    assert error.path == str(files.cert)
    assert error.reason == "has a key for RSASSA-PSS alone, which is not supported"
    assert "an ordinary RSA key" in error.hint


def test_keys_that_are_too_weak(root: Authority) -> None:
    """RSA below 2048 bits, and curves that clients do not know."""
    small = root.leaf("a.example", key="rsa1024")
    error = refused(small.cert, small.key)
    assert error.reason == "has an RSA key of 1024 bits; 2048 are the least"
    files = root.leaf("b.example", key=ec.generate_private_key(ec.SECP256K1()))
    error = refused(files.cert, files.key)
    assert error.reason == "has a key on the curve secp256k1, which TLS clients do not take"


def test_what_openssl_refuses_is_refused_here(root: Authority, tmp_path: Path) -> None:
    """An intermediate whose key is below the security level passes every check but its own."""
    weak = Authority(tmp_path, "Weak", key="rsa1024", issuer=root)
    files = weak.leaf("a.example")
    assert refused(files.cert, files.key).reason == "OpenSSL refuses it: ca key too small"


def test_authorities(root: Authority) -> None:
    """Without a certificate, or with expired ones only, there is nobody to trust."""
    store = CertificateStore()
    empty = write(root.directory / "empty.pem", b"")
    expired = root.leaf("a.example", days=-1)
    for path, reason in (
        (empty, "has no certificate"),
        (root.directory / "missing", "cannot be read"),
        (expired.cert, "has expired on"),
    ):
        for _ in range(2):
            with pytest.raises(CertificateError) as caught:
                store.authority(path, WHERE)
            assert caught.value.path == str(path)
            assert reason in caught.value.reason


def test_a_system_without_authorities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said as such, with what to do."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    with pytest.raises(CertificateError) as caught:
        CertificateStore().authority(None, WHERE)
    assert str(caught.value) == "the system: has no certificates of authorities"
    assert "ca-certificates" in caught.value.hint
