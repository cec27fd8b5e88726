"""Access rules, limits and the access log of a config as plans."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.address_set import Addresses, build, parse_range
from shared.messages import Prepare, PrepareSet, decode_supervisor_message, encode
from shared.plan import AccessPlan, AddressSet, Endpoints, Plan, RatePlan, SecurityPlan
from supervisor.compile import ListenerIds, compile_plan
from supervisor.config_file import load_bytes

ACTION = "action: {type: forward, targets: ['unix:/t']}"


def compiled(head: str = "", *rules: str, directory: Path = Path()) -> Plan:
    """The plan of a config with a route for each of the rules; names are a, b, ..."""
    text = head + "\nlisten: ['::1']\nroutes:\n"
    for number, each in enumerate(rules):
        name = "abcdefgh"[number]
        text += (
            f"- {{name: {name}, match: {{ports: [{80 + number}]}}, security: {each}, {ACTION}}}\n"
        )
    config = load_bytes((text if rules else text[:-1] + " []").encode(), "f", "yaml", directory)
    return compile_plan(
        config.config,
        generation=1,
        slots=1,
        listener_ids=ListenerIds(),
        endpoints=Endpoints(addresses={}),
    )


def set_of(*entries: str) -> AddressSet:
    """The set of these entries."""
    return build(map(parse_range, entries))


def fingerprint(rules: str, head: str = "", directory: Path = Path()) -> str:
    """Of a route with these rules."""
    return compiled(head, rules, directory=directory).routes[0].fingerprint


def test_defaults() -> None:
    """Without rules there is the one global limit, and nothing else."""
    plan = compiled("", "{}", "{max_connections: 0, allow: []}")
    assert plan.security == SecurityPlan(max_connections=10_000)
    assert plan.address_sets == ()
    assert plan.access is None
    assert [route.security for route in plan.routes] == [None, None]


def test_limits() -> None:
    """Limits go over as they are, a rate in seconds."""
    plan = compiled(
        "security: {max_connections: 0, max_connections_per_ip: 7}",
        "{max_connections: 3, connection_rate_per_ip: 300/1m}",
    )
    assert plan.security == SecurityPlan(max_connections_per_ip=7)
    rate = RatePlan(connections=300, period_s=60.0)
    assert plan.routes[0].security == SecurityPlan(max_connections=3, connection_rate_per_ip=rate)


def test_each_list_once() -> None:
    """Lists with the same addresses are one set, in whatever notation and order they stand."""
    plan = compiled(
        "security: {block: [10.0.0.0/8]}",
        "{allow: ['::1', 10.*]}",
        "{allow: [10.0.0.0-10.127.255.255, '::1', 10.128.0.0/9], block: [10.*]}",
        "{block: [10.0.0.0/9, 10.128.0.0/9]}",
        "{allow: [192.168.1.*]}",
    )
    assert plan.address_sets == (
        set_of("10.0.0.0/8"),
        set_of("10.0.0.0/8", "::1"),
        set_of("192.168.1.0/24"),
    )
    assert plan.security.block == 0
    assert [route.security for route in plan.routes] == [
        SecurityPlan(allow=1),
        SecurityPlan(allow=1, block=0),
        SecurityPlan(block=0),
        SecurityPlan(allow=2),
    ]


def test_an_empty_list_is_a_list(tmp_path: Path) -> None:
    """An allow whose list file is empty lets nobody in; it must not look like no list."""
    (tmp_path / "empty").write_text("")
    plan = compiled("", "{allow: ['file:empty']}", directory=tmp_path)
    assert plan.routes[0].security == SecurityPlan(allow=0)
    assert plan.address_sets == (AddressSet(),)


def test_list_files(tmp_path: Path) -> None:
    """Entries of files and of the config are one set."""
    (tmp_path / "a").write_text("10.0.0.1\n10.0.0.2\n")
    (tmp_path / "b").write_text("10.0.0.4\n")
    plan = compiled(
        "security: {block: ['file:a']}",
        "{block: ['file:a', 10.0.0.3, 'file:b']}",
        directory=tmp_path,
    )
    assert plan.address_sets == (set_of("10.0.0.1-10.0.0.2"), set_of("10.0.0.1-10.0.0.4"))


def test_fingerprint_follows_the_content() -> None:
    """Any change of a route's rules changes its fingerprint; another notation does not."""
    variants = [
        "{}",
        "{allow: [10.0.0.1]}",
        "{block: [10.0.0.1]}",
        "{allow: [10.0.0.1], block: [10.0.0.1]}",
        "{allow: [10.0.0.2]}",
        "{allow: [10.0.0.1], block: [10.0.0.2]}",
        "{max_connections: 1}",
        "{max_connections_per_ip: 1}",
        "{connection_rate_per_ip: 1/1s}",
        "{connection_rate_per_ip: 1/2s}",
        "{connection_rate_per_ip: 2/1s}",
    ]
    found = [fingerprint(rules) for rules in variants]
    assert len(set(found)) == len(variants)
    assert fingerprint("{allow: [10.0.0.1, 10.0.0.1/32], connection_rate_per_ip: null}") == found[1]
    assert fingerprint("{connection_rate_per_ip: 1/1000ms}") == found[8]


def test_fingerprint_does_not_follow_the_numbering() -> None:
    """Lists that others have or lose leave a route unchanged; so do the global rules."""
    rules = "{allow: [10.0.0.1], block: [10.0.0.2]}"
    alone = fingerprint(rules)
    beside = compiled("security: {allow: [10.9.9.9], block: [10.0.0.2]}", rules)
    assert beside.routes[0].security == SecurityPlan(allow=2, block=1)
    assert beside.routes[0].fingerprint == alone
    one, other = compiled("", "{block: [10.0.0.3]}", rules), compiled("", "{}", rules)
    assert one.routes[1].security != other.routes[1].security
    assert one.routes[1].fingerprint == other.routes[1].fingerprint


def test_fingerprint_follows_the_list_file(tmp_path: Path) -> None:
    """A list file with other entries changes the routes that name it, one rewritten does not."""
    found = []
    for text in ("10.0.0.0/8\n", "# the same\n10.*\n", "10.0.0.1\n"):
        (tmp_path / "a").write_text(text)
        found.append(fingerprint("{block: ['file:a']}", directory=tmp_path))
    assert found[0] == found[1] == fingerprint("{block: [10.0.0.0/8]}")
    assert found[2] != found[0]


@pytest.mark.parametrize(
    ("text", "plan"),
    [
        ("{file: /a.log}", AccessPlan(file="/a.log")),
        (
            "{file: /a.log, format: '{client}', connect: true, interval: 1500ms}",
            AccessPlan(file="/a.log", format="{client}", connect=True, interval_s=1.5),
        ),
    ],
)
def test_access_log(text: str, plan: AccessPlan) -> None:
    """The access log's keys, the interval in seconds."""
    assert compiled(f"log: {{access: {text}}}").access == plan


def test_access_log_has_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers get the path from the root on, also where the config's own path was relative."""
    monkeypatch.chdir(tmp_path)
    access = compiled("log: {access: {file: a.log}}", directory=Path("conf")).access
    assert access is not None
    assert access.file == f"{tmp_path}/conf/a.log"


def test_plans_survive_the_wire() -> None:
    """What a worker decodes is what was compiled."""
    plan = compiled(
        "security: {block: [10.*, '::1'], connection_rate_per_ip: 3/1s}\n"
        "log: {access: {file: /a.log, format: '{client} {end}'}}",
    )
    prepare = Prepare(
        generation=1,
        listeners=[],
        routes=0,
        endpoints=plan.endpoints,
        security=plan.security,
        address_sets=len(plan.address_sets),
        access=plan.access,
    )
    assert decode_supervisor_message(encode(prepare)) == prepare
    sent = PrepareSet(generation=1, addresses=plan.address_sets[0])
    received = decode_supervisor_message(encode(sent))
    assert isinstance(received, PrepareSet)
    addresses = Addresses(received.addresses)
    assert addresses.contains("10.1.2.3")
    assert addresses.range_of("10.1.2.3") == "10.0.0.0/8"
    assert not addresses.contains("::2")
