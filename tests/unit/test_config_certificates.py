"""Files of certificates that a config names, and rules by the identity of clients."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import pytest

from tests.helpers.certificates import Authority, KeyKind
from tests.helpers.tls_config import (
    TERMINATE,
    Route,
    check,
    config,
    error,
    pointed_at,
    tls,
    warning,
)

KINDS: Final[dict[str, KeyKind]] = {"a": "ec", "rsa": "rsa", "ed": "ed25519"}


@pytest.mark.parametrize(
    ("files", "key", "name", "why"),
    [
        ("cert: none.pem", "cert", "none.pem", "No such file or directory"),
        ("cert: a.pem, key: none.key", "key", "none.key", "No such file or directory"),
        ("cert: a.pem", "cert", "a.pem", "has no private key"),
        ("cert: a.pem, key: r.key", "", "", ""),
        ("cert: broken.pem", "cert", "broken.pem", "has no certificate"),
        ("cert: old.pem, key: old.key", "cert", "old.pem", "expired"),
        ("cert: ., key: a.key", "cert", "", "is a directory"),
        ("cert: locked.pem, key: locked.key", "key", "locked.key", "is encrypted"),
        ("cert: locked.pem, key: locked.key, password_file: wrong", "key", "", "does not open"),
        (
            "cert: locked.pem, key: locked.key, password_file: none",
            "password_file",
            "none",
            "No such file or directory",
        ),
    ],
)
def test_bad_files(certs: Path, files: str, key: str, name: str, why: str) -> None:
    """A bad file is told at the key that names it, with its path and reason, and no secret."""
    own = error(certs, Route(action=tls(f"{{mode: terminate, certificates: [{{{files}}}]}}")))
    upstream = f"targets: ['t:1'], upstream_tls: {{ca: ca.pem, {files}}}"
    other = error(certs, Route(action=upstream))
    for found, at in ((own, "tls.certificates[0]"), (other, "upstream_tls")):
        assert found.path.startswith(f"routes[0].action.{at}.{key}")
        assert found.code == "certificate"
        assert found.message.startswith(f"{certs}")
        assert why in found.message
        assert name in found.message
        assert "word" not in found.text().replace("password", "")


def test_bad_authorities(certs: Path) -> None:
    """The file of a CA is told at its key."""
    value = TERMINATE[:-1] + ", client_auth: {mode: required, ca: none.pem}}"
    found = error(certs, Route(action=tls(value)))
    assert (found.path, pointed_at(found)) == ("routes[0].action.tls.client_auth.ca", "none.pem")
    found = error(certs, Route(action=tls(more=", upstream_tls: {ca: broken.pem}")))
    assert (found.path, pointed_at(found)) == ("routes[0].action.upstream_tls.ca", "broken.pem")
    assert found.message == f"{certs}/broken.pem: has no certificate"


def test_all_problems_in_one_go(certs: Path) -> None:
    """Wrong types, contradictions and bad files of sound and damaged routes come together."""
    damaged = "{mode: terminate, zzz: 1, certificates: [{cert: none.pem}, {cert: broken.pem, x: 1}]"
    routes = [
        Route(action=tls(damaged + ", client_auth: {mode: required, ca: gone.pem}}")),
        Route(name="b", match="ports: [2]", action=tls("{mode: terminate}")),
        Route(name="c", match="ports: [3]", action="targets: ['t:1'], upstream_tls: {cert: no}"),
        Route(name="d", match="ports: [4], domains: ['*']"),
        Route(name="e", rest="enabled: false, ", match="port: [5]", action=tls(damaged + "}")),
    ]
    _, errors, _ = check(certs, *routes)
    paths = [problem.path.removeprefix("routes") for problem in errors]
    assert sorted(paths) == sorted(
        [
            "[0].action.tls.zzz",
            "[0].action.tls.certificates[0].cert",
            "[0].action.tls.certificates[1].x",
            "[0].action.tls.client_auth.ca",
            "[1].action.tls.certificates",
            "[2].action.upstream_tls.cert",
            "[3].match.domains[0]",
            "[4].match.port",
            "[4].action.tls.zzz",
            "[4].action.tls.certificates[1].x",
        ]
    )
    assert [problem.line for problem in errors] == sorted(problem.line for problem in errors)


def test_files_of_disabled_routes(certs: Path) -> None:
    """They may be missing: the route is as if it were not written."""
    missing = tls("{mode: terminate, certificates: [{cert: none.pem}]}")
    off = Route(name="off", rest="enabled: false, ", match="ports: [443]", action=missing)
    config(certs, Route(), off)


def test_warnings_of_files(certs: Path, tmp_path: Path) -> None:
    """What is doubtful about a file is told once, at the place that names it first."""
    for name in ("a.pem", "a.key"):
        shutil.copy(certs / name, tmp_path / name)
    (tmp_path / "a.key").chmod(0o644)
    routes = [Route(name=f"r{port}", match=f"ports: [{port}]", action=tls()) for port in (1, 2)]
    found = warning(tmp_path, *routes)
    assert found.path == "routes[0].action.tls.certificates[0].cert"
    assert "0644" in found.message
    assert "chmod 600" in found.hint


@pytest.mark.parametrize(
    ("cert", "ciphers", "serves"),
    [
        ("{cert: a.pem, key: a.key}", "ECDHE-RSA-AES128-GCM-SHA256", False),
        ("{cert: a.pem, key: a.key}", "ECDHE-ECDSA-AES128-GCM-SHA256", True),
        ("{cert: a.pem, key: a.key}", "ECDHE+AESGCM", True),
        ("{cert: rsa.pem, key: rsa.key}", "ECDHE-RSA-AES128-GCM-SHA256", True),
        ("{cert: rsa.pem, key: rsa.key}", "ECDHE-ECDSA-AES128-GCM-SHA256", False),
        ("{cert: ed.pem, key: ed.key}", "ECDHE-RSA-AES128-GCM-SHA256", False),
        ("{cert: ed.pem, key: ed.key}", "ECDHE-ECDSA-AES128-GCM-SHA256", True),
        (
            "{cert: a.pem, key: a.key}, {cert: rsa.pem, key: rsa.key}",
            "ECDHE-RSA-AES128-GCM-SHA256",
            True,
        ),
    ],
)
def test_ciphers_for_no_certificate_warn(
    tmp_path: Path, cert: str, ciphers: str, serves: bool
) -> None:
    """Of all handshakes with TLS 1.2 none would be done."""
    root = Authority(tmp_path)
    for stem, kind in KINDS.items():
        root.leaf("a.example", stem=stem, key=kind)
    value = f"{{mode: terminate, certificates: [{cert}], ciphers: {ciphers}}}"
    route = Route(action=tls(value))
    if serves:
        config(tmp_path, route)
        return
    found = warning(tmp_path, route)
    assert found.path == "routes[0].action.tls.ciphers"
    assert "no certificate of the route has a key" in found.message


@pytest.mark.parametrize(
    ("domain", "is_named"),
    [
        ("a.example", True),
        ("x.b.example", True),
        ("'*.b.example'", True),
        ("'*.example'", True),
        ("'a.*'", True),
        ("'b.*'", True),
        ("b.example", False),
        ("x.y.b.example", False),
        ("c.example", False),
        ("'*.c.example'", False),
        ("'c.*'", False),
    ],
)
def test_domains_without_a_certificate_warn(certs: Path, domain: str, is_named: bool) -> None:
    """Clients of a domain that no certificate is for would refuse what they are shown."""
    route = Route(match=f"ports: [8443], domains: [{domain}]", action=tls())
    if is_named:
        config(certs, route)
        return
    found = warning(certs, route)
    assert found.path == "routes[0].match.domains[0]"
    assert "no certificate of the route is for" in found.message
    more = Route(match=f"ports: [1], domains: [a.example, {domain}, z.example]", action=tls())
    found = warning(certs, more)
    assert found.path == "routes[0].match.domains[1]"
    assert found.message.endswith("and 1 more of its domains")


def test_certificates_and_key_in_one_file(certs: Path) -> None:
    """The key may be in the certificate's file, encrypted or not."""
    both = "{mode: terminate, certificates: [{cert: a.both.pem},"
    both += " {cert: locked.both.pem, password_file: password}, {cert: r.pem, key: r.key}]}"
    found = config(certs, Route(action=tls(both))).routes[0].action.tls
    assert found is not None
    plans = [one.cert.plan for one in found.certificates]
    assert [plan.name for plan in plans] == ["a.both.pem", "locked.both.pem", "r.pem"]
    assert [plan.names for plan in plans][1:] == [("locked.example",), ("r.example",)]
    assert all("PRIVATE" not in repr(part) for part in (plans, found))


IDENTITY_TLS = TERMINATE[:-1] + ", client_auth: {mode: MODE, ca: ca.pem}}"


@pytest.mark.parametrize("mode", ["optional", "required"])
def test_identities(certs: Path, mode: str) -> None:
    """Every field is taken with a route that asks for certificates, and normalised."""
    rules = "security: {identities: [{match: {sni: '*.B.example.', cn: 'A*', san: x, subject: y,"
    rules += f" issuer: z, fingerprint: '{':'.join(['AB'] * 32)}'}}, allow: [10.*]}}]}}, "
    action = tls(IDENTITY_TLS.replace("MODE", mode))
    found = config(certs, Route(rest=rules, action=action)).routes[0].security.identities[0]
    assert found.match.given() == [
        ("sni", "*.b.example"),
        ("cn", "A*"),
        ("san", "x"),
        ("subject", "y"),
        ("issuer", "z"),
        ("fingerprint", "ab" * 32),
    ]
    assert [str(entry) for entry in found.allow] == ["10.*"]


@pytest.mark.parametrize("field", ["cn", "san", "subject", "issuer"])
@pytest.mark.parametrize("action", ["targets: ['t:1']", tls("{}"), tls()])
def test_identities_without_certificates(certs: Path, field: str, action: str) -> None:
    """A field of a certificate that nobody is asked for could never match."""
    rules = f"security: {{identities: [{{match: {{sni: a, {field}: 'x'}}}}]}}, "
    found = error(certs, Route(match="ports: [1], tls: true", rest=rules, action=action))
    assert found.path == f"routes[0].security.identities[0].match.{field}"
    assert "this route asks for none" in found.message
    assert "client_auth" in found.hint


@pytest.mark.parametrize(
    ("rule", "match", "path", "why"),
    [
        ("{match: {sni: a}}", "", ".match.sni", "this route is for others too"),
        ("{match: {sni: a}}", ", tls: false", ".match.sni", "this route is for others too"),
        ("{match: {}}", ", tls: true", ".match", "an empty match would be for everyone"),
        ("{match: {sni: null}}", ", tls: true", ".match", "an empty match would be for everyone"),
        ("{allow: []}", "", "", "missing field 'match'"),
        ("{match: {user: a}}", "", ".match.user", "this route asks for none"),
        ("{match: {sni: 'a b'}}", ", tls: true", ".match.sni", "is no domain"),
        ("{match: {fingerprint: ab}}", "", ".match.fingerprint", "this has 2"),
        ("{match: {sni: a}, allow: [x]}", ", tls: true", ".allow[0]", "is no IP address"),
        ("{match: {sni: a}, block: ['file:no']}", ", tls: true", ".block[0]", "list file no:"),
        ("{match: {sni: a}, cn: x}", ", tls: true", ".cn", "unknown field 'cn'"),
    ],
)
def test_wrong_identities(certs: Path, rule: str, match: str, path: str, why: str) -> None:
    """A rule that could not do what it says is told at its place."""
    rest = f"security: {{identities: [{rule}]}}, "
    found = error(certs, Route(match=f"ports: [1]{match}", rest=rest))
    assert found.path == f"routes[0].security.identities[0]{path}"
    assert why in found.message


def test_identities_of_damaged_routes_have_their_lists_read(certs: Path) -> None:
    """List files of identities are among the problems of a route that is wrong elsewhere."""
    rest = "zzz: 1, security: {identities: [{match: {sni: a}, allow: ['file:no']}]}, "
    _, errors, _ = check(certs, Route(rest=rest))
    assert [problem.path for problem in errors] == [
        "routes[0].zzz",
        "routes[0].security.identities[0].allow[0]",
    ]


def test_blocking_an_identity_everywhere_is_no_slip(certs: Path) -> None:
    """Unlike a route, one identity may be refused whatever address it has."""
    rest = "security: {identities: [{match: {sni: a}, block: ['0.0.0.0/0', '::/0']}]}, "
    config(certs, Route(match="ports: [1], tls: true", rest=rest))
