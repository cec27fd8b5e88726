"""TLS of a config as plans: certificates once each, policies, fingerprints."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from shared.config import Config
from shared.plan import Endpoints, IdentityPlan, Plan, RoutePlan, SecurityPlan, UpstreamTlsPlan
from supervisor.compile import ListenerIds, compile_plan
from supervisor.config_file import load_bytes
from tests.helpers.certificates import Authority

ONE = "certificates: [{cert: one.pem, key: one.key}]"


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two certificates of servers, two authorities and one of a client."""
    folder = tmp_path_factory.mktemp("certs")
    root = Authority(folder, "ca")
    shutil.copy(root.cert, folder / "ca.pem")
    shutil.copy(Authority(folder, "other").cert, folder / "other.pem")
    root.leaf("a.example", stem="one")
    root.leaf("b.example", stem="two")
    root.client("proxy", stem="client")
    return folder


def config(certs: Path, text: str) -> Config:
    """The config of a YAML text whose files are in ``certs``."""
    return load_bytes(text.encode(), "f.yaml", "yaml", certs).config


def compiled(certs: Path, *actions: str, match: str = "", rest: str = "", head: str = "") -> Plan:
    """The plan of a route for each action, on ports from 8000 on; names are r0, r1, ..."""
    text = f"{head}\nlisten: ['::1']\nroutes:\n"
    for number, action in enumerate(actions):
        text += (
            f"- {{name: r{number}, match: {{ports: [{8000 + number}]{match}}}, {rest}"
            f"action: {{type: forward, targets: ['unix:/t']{action}}}}}\n"
        )
    return compile_plan(
        config(certs, text),
        generation=1,
        slots=1,
        listener_ids=ListenerIds(),
        endpoints=Endpoints(addresses={}),
    )


def route(certs: Path, action: str = "", match: str = "", rest: str = "") -> RoutePlan:
    """The only route of a plan."""
    return compiled(certs, action, match=match, rest=rest).routes[0]


@pytest.mark.parametrize(
    ("match", "action", "tls"),
    [
        ("", "", None),
        (", tls: true", "", True),
        (", tls: false", "", False),
        (", tls_versions: ['1.3', '1.3']", "", True),
        (", alpn: [h2]", "", True),
        (", domains: [a.example]", "", None),
        (", domains: [a.example], tls: true", "", True),
        ("", ", tls: {}", True),
        ("", f", tls: {{mode: terminate, {ONE}}}", True),
    ],
)
def test_routes_for_tls_clients(certs: Path, match: str, action: str, tls: bool | None) -> None:
    """What only a TLS client can meet makes the route one for TLS clients."""
    assert route(certs, action, match).tls is tls


def test_criteria(certs: Path) -> None:
    """Names and protocols as they are compared, each once, in the order of the file."""
    match = ", domains: [B.example., '*.bücher.example', b.example], tls_versions: ['1.3', '1.2'],"
    plan = route(certs, match=match + " alpn: [h2, x, h2]")
    assert plan.domains == ("b.example", "*.xn--bcher-kva.example")
    assert (plan.tls_versions, plan.alpn) == (("1.3", "1.2"), ("h2", "x"))
    assert (plan.terminate, plan.upstream_tls) == (None, None)
    assert {type(text) for text in plan.domains + plan.tls_versions + plan.alpn} == {str}


def test_terminate(certs: Path) -> None:
    """Every key of `tls`, with places in the lists of the plan."""
    action = (
        ", tls: {mode: terminate, certificates: [{cert: two.pem, key: two.key},"
        " {cert: one.both.pem}], min_version: '1.3', alpn: [h2, http/1.1],"
        " client_auth: {mode: optional, ca: ca.pem}}"
    )
    plan = compiled(certs, action)
    tls = plan.routes[0].terminate
    assert tls is not None
    assert (tls.certificates, tls.client_ca) == ((0, 1), 0)
    assert (tls.min_version, tls.ciphers, tls.alpn) == ("1.3", None, ("h2", "http/1.1"))
    assert tls.client_auth == "optional"
    assert [one.name for one in plan.certificates] == ["two.pem", "one.both.pem"]
    assert [one.names for one in plan.certificates] == [("b.example",), ("a.example",)]
    assert [one.name for one in plan.authorities] == ["ca.pem"]
    plain = route(certs, f", tls: {{mode: terminate, {ONE}, ciphers: ECDHE+AESGCM}}").terminate
    assert plain is not None
    assert (plain.min_version, plain.ciphers, plain.alpn) == ("1.2", "ECDHE+AESGCM", ())
    assert (plain.client_auth, plain.client_ca) == ("none", None)


def test_upstream(certs: Path) -> None:
    """Every key of `upstream_tls`; authorities only where something is verified."""
    keys = "ca: ca.pem, server_name: T.example, cert: client.pem, key: client.key, alpn: [h2]"
    plan = compiled(certs, f", upstream_tls: {{{keys}}}")
    assert plan.routes[0].upstream_tls == UpstreamTlsPlan(
        ca=0, server_name="t.example", certificate=0, alpn=("h2",)
    )
    assert type(plan.routes[0].upstream_tls.server_name) is str
    assert [one.name for one in plan.certificates] == ["client.pem"]
    unverified = compiled(certs, ", upstream_tls: {verify: false, ca: ca.pem}")
    assert unverified.routes[0].upstream_tls == UpstreamTlsPlan(verify=False)
    assert unverified.authorities == ()


def test_reencrypting(certs: Path) -> None:
    """Both sides have TLS, the target's by the system's authorities where none are named."""
    action = f", tls: {{mode: terminate-and-reencrypt, {ONE}}}"
    plan = compiled(
        certs, action.replace("'unix:/t'", "'t:1'") + ", upstream_tls: {server_name: t}"
    )
    assert plan.routes[0].terminate is not None
    assert plan.routes[0].upstream_tls == UpstreamTlsPlan(ca=0, server_name="t")
    assert [one.name for one in plan.authorities] == ["system"]


def test_each_certificate_once(certs: Path) -> None:
    """However many routes name it, and in whatever order they do."""
    both = "certificates: [{cert: two.pem, key: two.key}, {cert: one.pem, key: one.key}]"
    actions = [f", tls: {{mode: terminate, {which}}}" for which in (ONE, both, ONE)]
    client = "{ca: ca.pem, server_name: t, cert: client.pem, key: client.key}"
    plan = compiled(certs, *actions, *[f", upstream_tls: {client}"] * 3)
    assert [one.name for one in plan.certificates] == ["one.pem", "two.pem", "client.pem"]
    assert len(plan.authorities) == 1
    ended = [one.terminate.certificates for one in plan.routes if one.terminate is not None]
    assert ended == [(0,), (1, 0), (0,)]


def test_policy(certs: Path) -> None:
    """It follows the client-certificate mode and the content of the CA, and nothing else."""

    def policy(auth: str, certificates: str = ONE, more: str = "") -> str:
        value = f"{{mode: terminate, {certificates}, client_auth: {auth}{more}}}"
        tls = route(certs, f", tls: {value}").terminate
        assert tls is not None
        return tls.policy

    shutil.copy(certs / "ca.pem", certs / "same.pem")
    modes = ["{}", "{mode: optional, ca: ca.pem}", "{mode: required, ca: ca.pem}"]
    modes += ["{mode: optional, ca: other.pem}", "{mode: required, ca: other.pem}"]
    policies = [policy(auth) for auth in modes]
    assert len(set(policies)) == len(policies)
    assert "" not in policies
    two = "certificates: [{cert: two.pem, key: two.key}]"
    assert policy(modes[2], two, ", min_version: '1.3', alpn: [h2]") == policies[2]
    assert policy("{mode: required, ca: same.pem}") == policies[2]


def test_fingerprint_follows_the_content(certs: Path, tmp_path: Path) -> None:
    """A renewed certificate, another CA or any other key changes a route; a neighbour does not."""
    auth = "client_auth: {mode: required, ca: ca.pem}"
    upstream = "upstream_tls: {server_name: t, ca: ca.pem}"
    actions = [
        "",
        ", tls: {}",
        f", tls: {{mode: terminate, {ONE}}}",
        ", tls: {mode: terminate, certificates: [{cert: two.pem, key: two.key}]}",
        f", tls: {{mode: terminate, {ONE}, alpn: [h2]}}",
        f", tls: {{mode: terminate, {ONE}, {auth}}}",
        f", tls: {{mode: terminate, {ONE}, {auth.replace('ca.pem', 'other.pem')}}}",
        f", tls: {{mode: terminate, {ONE}}}, {upstream}",
        f", {upstream}",
        f", {upstream.replace('ca.pem', 'other.pem')}",
        f", {upstream[:-1]}, cert: client.pem, key: client.key}}",
    ]
    found = [route(certs, action).fingerprint for action in actions]
    assert len(set(found)) == len(found)
    last = ", tls: {mode: terminate, certificates: [{cert: two.pem, key: two.key}]}"
    behind = compiled(certs, last, actions[7])
    tls, target = behind.routes[1].terminate, behind.routes[1].upstream_tls
    assert tls is not None
    assert target is not None
    assert (tls.certificates, target.ca) == ((1,), 0)
    alone = compiled(certs, "", actions[7])
    assert behind.routes[1].fingerprint == alone.routes[1].fingerprint

    copied = tmp_path / "certs"
    shutil.copytree(certs, copied)
    assert route(copied, actions[2]).fingerprint == found[2]
    Authority(copied, "new").leaf("a.example", stem="one")
    assert route(copied, actions[2]).fingerprint != found[2]


def test_handshake_timeout(certs: Path) -> None:
    """The route's own, else the global one, else 10 s."""
    head = "timeouts: {tls_handshake: 3s}"
    plan = compiled(certs, "", ", timeouts: {tls_handshake: 250ms}", head=head)
    assert [one.timeouts.tls_handshake for one in plan.routes] == [3.0, 0.25]
    assert route(certs).timeouts.tls_handshake == 10.0


IDENTITIES = "security: {identities: [RULES]}, "


def test_identities(certs: Path) -> None:
    """Rules in the order of the file, their lists among those of the plan."""
    rules = (
        "{match: {sni: '*.A.example', san: x}, allow: [10.*]}, {match: {cn: '*'}, block: [10.*]}"
    )
    action = f", tls: {{mode: terminate, {ONE}, client_auth: {{mode: required, ca: ca.pem}}}}"
    plan = compiled(certs, action, rest=IDENTITIES.replace("RULES", rules))
    assert plan.routes[0].security == SecurityPlan(
        identities=(
            IdentityPlan(match=(("sni", "*.a.example"), ("san", "x")), allow=0),
            IdentityPlan(match=(("cn", "*"),), block=0),
        )
    )
    assert len(plan.address_sets) == 1


def test_fingerprint_follows_identities(certs: Path) -> None:
    """Any change of a rule changes the route; other routes' lists do not."""
    rules = [
        "",
        "{match: {sni: a}}",
        "{match: {sni: b}}",
        "{match: {sni: a}, allow: [10.0.0.1]}",
        "{match: {sni: a}, block: [10.0.0.1]}",
        "{match: {sni: a}, allow: [10.0.0.2]}",
        "{match: {sni: a}}, {match: {sni: b}}",
        "{match: {sni: b}}, {match: {sni: a}}",
    ]
    found = [
        route(certs, ", tls: {}", rest=IDENTITIES.replace("RULES", rule)).fingerprint
        for rule in rules
    ]
    assert len(set(found)) == len(found)
    head = "security: {block: [10.9.9.9]}"
    rest = IDENTITIES.replace("RULES", rules[3])
    assert compiled(certs, ", tls: {}", rest=rest, head=head).routes[0].fingerprint == found[3]


def test_no_key_is_shown(certs: Path) -> None:
    """Neither a config nor a plan shows a private key when it is printed."""
    action = f", tls: {{mode: terminate, {ONE}}}"
    plan = compiled(certs, action)
    text = "routes: [{name: a, match: {ports: [1]}, action: {type: forward, targets: ['t:1']"
    loaded = config(certs, text + action + "}}]")
    assert b"PRIVATE KEY" in plan.certificates[0].key
    assert "PRIVATE" not in repr(plan) + repr(loaded)
    assert "MI" not in repr(loaded.routes[0].action.tls)


def test_plan_survives_the_wire(certs: Path) -> None:
    """A plan with all of it is the same after msgpack, as a worker gets it."""
    action = (
        f", tls: {{mode: terminate, {ONE}, client_auth: {{mode: required, ca: ca.pem}}}},"
        " upstream_tls: {server_name: t, cert: client.pem, key: client.key, ca: ca.pem}"
    )
    rest = IDENTITIES.replace("RULES", "{match: {cn: a}, allow: [10.*]}")
    plan = compiled(certs, action, match=", domains: [a.example]", rest=rest)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(plan), type=Plan) == plan


def test_ten_thousand_routes(certs: Path) -> None:
    """As many routes with domains of their own compile, with each certificate once."""
    text = ["listen: ['::1']\nroutes:\n"]
    text += (
        f"- {{name: r{number}, match: {{ports: [8443], domains: [n{number}.example]}}, action:"
        f" {{type: forward, targets: ['t:1'], tls: {{mode: terminate, {ONE}}}}}}}\n"
        for number in range(10_000)
    )
    plan = compile_plan(
        config(certs, "".join(text)),
        generation=1,
        slots=1,
        listener_ids=ListenerIds(),
        endpoints=Endpoints(addresses={}),
    )
    assert len(plan.routes) == 10_000
    assert len(plan.certificates) == 1
    assert plan.routes[-1].domains == ("n9999.example",)
