"""Domains as they are written and as they are compared."""

from __future__ import annotations

import pytest

from shared.config.domains import Domain, ServerName, parse_domain, parse_name, parse_name_glob
from shared.config.identities import FingerprintGlob, NameGlob, TextGlob
from shared.config.scalars import DialHost, Source
from shared.config.targets import Target


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("example.com", "example.com"),
        ("EXAMPLE.Com.", "example.com"),
        ("localhost", "localhost"),
        ("10.0.0.1", "10.0.0.1"),
        ("2001:DB8:0::1", "[2001:db8::1]"),
        ("[2001:db8::1]", "[2001:db8::1]"),
        ("*.example.com", "*.example.com"),
        ("*.A.b.Example.com.", "*.a.b.example.com"),
        ("example.*", "example.*"),
        ("www.Example.*", "www.example.*"),
        ("_service.a-b.example", "_service.a-b.example"),
        ("r3---sn-ab.example", "r3---sn-ab.example"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.Example", "xn--bcher-kva.example"),
        ("*.bu\u0308cher.example", "*.xn--bcher-kva.example"),
        ("bücher.*", "xn--bcher-kva.*"),
        ("straße.example", "xn--strae-oqa.example"),
        ("日本。example", "xn--wgv71a.example"),
        ("XN--Bcher-KVA.example", "xn--bcher-kva.example"),
        (f"{'a' * 63}.example", f"{'a' * 63}.example"),
        (".".join(["a" * 60] * 4) + ".bbbbbbbbb", ".".join(["a" * 60] * 4) + ".bbbbbbbbb"),
    ],
)
def test_names(text: str, name: str) -> None:
    """Lower case, no dot at the end, A-labels; and a name in that form stays as it is."""
    assert parse_domain(text) == name
    assert parse_domain(name) == name
    assert Domain.read(text) == name


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "a label is empty"),
        (".", "a label is empty"),
        ("a..b", "a label is empty"),
        (".example.com", "write *.example.com"),
        ("*", "leave domains out"),
        ("*.", "leave domains out"),
        ("a.*.b", "write *.example.com or example.*"),
        ("a*.b", "write *.example.com or example.*"),
        ("*a.b", "write *.example.com or example.*"),
        ("a.b*", "write *.example.com or example.*"),
        ("*.a.*", "write *.example.com or example.*"),
        ("*.*", "write *.example.com or example.*"),
        ("**.a", "write *.example.com or example.*"),
        ("example.com:443", "ports are in `ports`"),
        ("*.example.com:8443", "ports are in `ports`"),
        ("example.com:", "ports are in `ports`"),
        ("https://example.com", "write the host alone"),
        ("example.com/x", "write the host alone"),
        ("10.0.0.1.", "is an IP address"),
        ("10.0.0.1:80", "ports are in `ports`"),
        ("[::1]:80", "ports are in `ports`"),
        ("\uff110.0.0.1", "is an IP address"),
        ("-a.example", "begins or ends with a hyphen"),
        ("a-.example", "begins or ends with a hyphen"),
        ("a b.example", "holds what no host name has"),
        ("a\n.example", "holds what no host name has"),
        ("a?.example", "holds what no host name has"),
        (f"{'a' * 64}.example", "a label has 64 bytes, 63 at most"),
        (".".join(["a" * 60] * 4) + ".bbbbbbbbbb", "has 254 bytes; a domain has 253 at most"),
        ("*." + ".".join(["a" * 60] * 4) + ".bbbbbbbb", "has 254 bytes"),
        ("xn--a.example", "is no Punycode"),
        ("xn--a-.example", "begins or ends with a hyphen"),
        ("☃.example", "is no domain: Codepoint U+2603"),
        ("-ü.example", "is no domain"),
        (f"{'ü' * 60}.example", "is no domain: Label too long"),
        ("\ud800.example", "is no domain"),
    ],
)
def test_wrong_names(text: str, why: str) -> None:
    """What is no domain is refused with the reason, in one printable line."""
    with pytest.raises(ValueError, match=r"domain|name|address|port|label|write") as caught:
        parse_domain(text)
    assert why in str(caught.value)
    assert str(caught.value).isprintable()


def test_one_name() -> None:
    """A server has one name, or an address."""
    assert parse_name("Bücher.example.") == "xn--bcher-kva.example"
    with pytest.raises(ValueError, match="stands for many names"):
        parse_name("*.example")
    assert ServerName.read("2001:DB8::1") == "2001:db8::1"
    assert ServerName.read("A.example") == "a.example"
    with pytest.raises(ValueError, match="expected a host name, got a number"):
        ServerName.read(3)
    with pytest.raises(ValueError, match=r"expected a domain such as .*, got null"):
        Domain.read(None)


@pytest.mark.parametrize("text", ["straße.example", "Faß。Example.", "ς.example", "_a.ü"])
def test_a_name_is_the_same_everywhere(text: str) -> None:
    """A target, a source and a server's name are no other host than the domain of that name."""
    name = parse_domain(text)
    assert {str(kind.read(text)) for kind in (DialHost, Source, ServerName)} == {name}
    assert str(Target.read(f"{text}:443").address) == f"{name}:443"


@pytest.mark.parametrize(
    ("text", "glob"),
    [
        ("*", "*"),
        ("*.Example.com.", "*.example.com"),
        ("a?b*.Example.com", "a?b*.example.com"),
        ("*.bücher.example", "*.xn--bcher-kva.example"),
        ("api.*.example", "api.*.example"),
    ],
)
def test_globs_of_names(text: str, glob: str) -> None:
    """Stars stand anywhere in a glob; the rest is in the form that clients send."""
    assert parse_name_glob(text) == NameGlob.read(text) == glob


@pytest.mark.parametrize("text", ["", "a..*", "bü*.example", "a b.*", "\0*"])
def test_wrong_globs_of_names(text: str) -> None:
    """A glob that no name could match is refused."""
    with pytest.raises(ValueError, match=r"is no domain|matches nobody"):
        NameGlob.read(text)


def test_fingerprints() -> None:
    """Colons and case do not count; one without a star is whole."""
    whole = "0123456789ABCDEF" * 4
    pairs = ":".join(whole[at : at + 2] for at in range(0, 64, 2))
    assert FingerprintGlob.read(whole) == FingerprintGlob.read(pairs) == whole.lower()
    assert FingerprintGlob.read("AB:CD:*") == "abcd*"
    assert FingerprintGlob.read("a?*") == "a?*"
    for text, why in (
        (whole[:-1], "this has 63"),
        (whole[:40], "fingerprint -sha256"),
        ("xyz*", "is no SHA-256"),
        (whole + "0*", "is no SHA-256"),
        ("", "matches nobody"),
        (":", "is no SHA-256"),
    ):
        with pytest.raises(ValueError, match=why):
            FingerprintGlob.read(text)
    with pytest.raises(ValueError, match="expected a glob, got a number"):
        FingerprintGlob.read(12)


def test_globs_of_text() -> None:
    """Any printable text of a reasonable length."""
    assert TextGlob.read("CN=ä*,O=Example") == "CN=ä*,O=Example"
    for text in ("", "a\nb", "a\x1b", "x" * 1025):
        with pytest.raises(ValueError, match=r"matches nobody|has 1025 characters"):
            TextGlob.read(text)
