"""Config to plan."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from shared.config import Config
from shared.errors import ConfigError
from shared.plan import Endpoints, ListenerPlan, Plan, RoutePlan, TargetPlan, Timeouts, TlvPlan
from shared.units import Address
from supervisor.compile import (
    ListenerIds,
    compile_plan,
    names_of,
    resolve_slots,
    resolve_workers,
)
from supervisor.config_file import load_bytes
from supervisor.cpu_count import cgroup_quota, usable_cpus

NOWHERE = Endpoints(addresses={"db": ("10.0.0.1",)})
FORWARD = "action: {type: forward, targets: ['t:1']}"


def config(text: str) -> Config:
    """The config of a YAML text."""
    return load_bytes(text.encode(), "f", "yaml").config


def compiled(
    text: str, slots: int = 2, ids: ListenerIds | None = None, descriptors: int = 4096
) -> Plan:
    """The plan of a YAML text."""
    return compile_plan(
        config(text),
        generation=7,
        slots=slots,
        listener_ids=ids or ListenerIds(),
        endpoints=NOWHERE,
        descriptors=descriptors,
    )


def listeners(plan: Plan) -> dict[str, ListenerPlan]:
    """Listeners by name."""
    return {listener.name: listener for listener in plan.listeners}


def served(plan: Plan, route: RoutePlan) -> set[str]:
    """Names of the listeners of a route."""
    names = {listener.id: listener.name for listener in plan.listeners}
    return {names[id_] for id_ in route.listeners}


def one(text: str) -> RoutePlan:
    """The only route of a plan."""
    (route,) = compiled(text).routes
    return route


def test_every_port_on_every_address() -> None:
    """Ports, ranges and Unix sockets become listeners; a port of its own is marked as such."""
    plan = compiled(
        "listen: ['127.0.0.1', '::1', '127.0.0.1']\nroutes:\n"
        f"- {{name: a, match: {{ports: [80, '90-91', 'unix:/run/a']}}, {FORWARD}}}\n"
        f"- {{name: b, match: {{ports: ['80-81']}}, {FORWARD}}}\n"
        f"- {{name: off, enabled: false, match: {{ports: [99]}}, {FORWARD}}}\n"
    )
    by_name = listeners(plan)
    assert set(by_name) == {
        *("127.0.0.1:80", "[::1]:80", "127.0.0.1:81", "[::1]:81", "127.0.0.1:90", "[::1]:90"),
        *("127.0.0.1:91", "[::1]:91", "unix:/run/a"),
    }
    socket = by_name["unix:/run/a"]
    assert (socket.host, socket.port, socket.path, socket.sockets) == ("", 0, "/run/a", 1)
    port = by_name["[::1]:80"]
    assert (port.host, port.port, port.path, port.sockets) == ("::1", 80, "", 2)
    a, b = plan.routes
    assert (a.name, a.order, b.name, b.order) == ("a", 0, "b", 1)
    assert served(plan, b) == {"127.0.0.1:80", "[::1]:80", "127.0.0.1:81", "[::1]:81"}
    assert a.single_port == {
        by_name[name].id for name in ("127.0.0.1:80", "[::1]:80", "unix:/run/a")
    }
    assert b.single_port == frozenset()
    assert (plan.generation, plan.endpoints) == (7, NOWHERE)


def test_overrides_of_single_ports() -> None:
    """An entry of listeners changes the addresses and the PROXY policy of its ports, key by key."""
    plan = compiled(
        "listen: ['0.0.0.0']\n"
        "proxy_protocol: {trusted: [10.0.0.0/8, lb.example], header_timeout: 1s, local: close}\n"
        "listeners:\n"
        "- {ports: [81], listen: ['127.0.0.1', '::1'], proxy_protocol: {trusted: []}}\n"
        "- {ports: ['82-83'], proxy_protocol: {required: false, versions: [v2]}}\n"
        f"routes: [{{name: a, match: {{ports: ['80-83']}}, {FORWARD}}}]\n"
    )
    by_name = listeners(plan)
    assert set(by_name) == {
        *("0.0.0.0:80", "127.0.0.1:81", "[::1]:81", "0.0.0.0:82", "0.0.0.0:83"),
    }
    policy = by_name["0.0.0.0:80"].proxy
    assert (policy.trusted, policy.trusted_names) == (("10.0.0.0/8",), ("lb.example",))
    assert (policy.header_timeout, policy.local, policy.required) == (1.0, "close", True)
    assert by_name["127.0.0.1:81"].proxy.trusted == ()
    assert by_name["127.0.0.1:81"].proxy.local == "close"
    other = by_name["0.0.0.0:83"].proxy
    assert (other.trusted, other.required, other.versions) == (("10.0.0.0/8",), False, ("v2",))


def test_targets_and_tlvs() -> None:
    """Each form of a target and of a TLV."""
    route = one(
        "routes: [{name: a, match: {ports: [80], client_ips: ['::ffff:10.0.0.0/104'], tls: false},"
        " action: {type: forward, targets: ['DB:1', '[2001:DB8::1]:2', 'unix:/run/t',"
        " {host: app, port: preserve, weight: 3}, {host: 'unix:/run/u', weight: 0},"
        " {host: '::1', port: preserve}],"
        " send_proxy: v2, send_proxy_tlvs: [alpn, {type: 0xE1, value: 'hex:00 ff'},"
        " {type: '0xe2', value: grün}]}}]"
    )
    assert route.targets == (
        TargetPlan(name="db:1", host="db", port=1),
        TargetPlan(name="[2001:db8::1]:2", host="2001:db8::1", port=2),
        TargetPlan(name="unix:/run/t", path="/run/t"),
        TargetPlan(name="app:preserve", host="app", port=0, weight=3),
        TargetPlan(name="unix:/run/u", path="/run/u", weight=0),
        TargetPlan(name="[::1]:preserve", host="::1", port=0),
    )
    assert route.send_proxy == "v2"
    assert route.send_proxy_tlvs == (
        TlvPlan(name="alpn"),
        TlvPlan(type=0xE1, value=b"\x00\xff"),
        TlvPlan(type=0xE2, value="grün".encode()),
    )
    assert (route.client_ips, route.tls) == (("10.0.0.0/8",), False)


@pytest.mark.parametrize(
    ("head", "action", "idle"),
    [
        ("", "", 14400.0),
        ("keep_alive: extended", "", 86400.0),
        ("keep_alive: immortal", "", 0.0),
        ("keep_alive: extended", ", keep_alive: standard", 14400.0),
        ("", ", keep_alive: extended, timeouts: {idle: 10s}", 60.0),
        ("timeouts: {idle: 1m}", "", 60.0),
        ("timeouts: {idle: 1m}", ", timeouts: {idle: 0}", 0.0),
        ("timeouts: {idle: 0}\nkeep_alive: extended", "", 0.0),
        ("timeouts: {idle: 1m}", ", timeouts: {idle: null}", 60.0),
    ],
)
def test_idle(head: str, action: str, idle: float) -> None:
    """Idle is the route's, else the global one, with the keep-alive mode worked in."""
    targets = f"{{type: forward, targets: ['t:1']{action}}}"
    text = f"{head}\nroutes: [{{name: a, match: {{ports: [80]}}, action: {targets}}}]"
    assert one(text).timeouts.idle == idle


def test_timeouts_are_laid_over_each_other() -> None:
    """Each timeout is the route's own where it is written, else the global one."""
    route = one(
        "timeouts: {connect: 1s, initial_data: 2s, half_closed: 3s, lifetime: 4s, drain: 5s}\n"
        "half_open: true\n"
        "routes: [{name: a, match: {ports: [80]}, action: {type: forward, targets: ['t:1'],"
        " timeouts: {connect: 9s, half_closed: 0, drain: 250ms}}}]"
    )
    assert route.half_open
    assert route.timeouts == Timeouts(
        connect=9.0, initial_data=2.0, idle=14400.0, half_closed=0.0, lifetime=4.0, drain=0.25
    )


def test_half_open_of_a_route() -> None:
    """A route may switch half_open off again."""
    action = "action: {type: forward, targets: ['t:1'], half_open: false}"
    text = f"half_open: true\nroutes: [{{name: a, match: {{ports: [80]}}, {action}}}]"
    assert not one(text).half_open


def test_ids_are_stable_and_never_given_twice() -> None:
    """An address keeps its id over generations, also when it was away, and no other gets it."""
    ids = ListenerIds()

    def id_by_name(ports: str) -> dict[str, int]:
        text = f"listen: ['::1']\nroutes: [{{name: a, match: {{ports: [{ports}]}}, {FORWARD}}}]"
        return {listener.name: listener.id for listener in compiled(text, ids=ids).listeners}

    first = id_by_name("80, 81")
    second = id_by_name("82, 81")
    third = id_by_name("83, 80")
    assert second["[::1]:81"] == first["[::1]:81"]
    assert third["[::1]:80"] == first["[::1]:80"]
    everything = {**first, **second, **third}
    assert len(set(everything.values())) == len(everything) == 4
    assert ids.id_of(Address("::1", 80)) == first["[::1]:80"]
    assert 0 not in everything.values()


def test_fingerprint() -> None:
    """It differs when the route changed, and only then: not by a neighbour, not by a new run."""

    def fingerprint(action: str = "", before: str = "", name: str = "a") -> str:
        targets = f"{{type: forward, targets: ['t:1']{action}}}"
        route = f"{{name: {name}, match: {{ports: [80, '90-95']}}, action: {targets}}}"
        ids = ListenerIds()
        compiled(f"routes: [{route}]", ids=ids)
        return compiled(f"routes: [{before}{route}]", ids=ids).routes[-1].fingerprint

    same = fingerprint()
    assert len(same) == 32
    assert fingerprint(before=f"{{name: z, match: {{ports: [70]}}, {FORWARD}}}, ") == same
    assert fingerprint(action=", timeouts: {idle: 4h}") == same
    changed = [
        fingerprint(action=", timeouts: {idle: 3h}"),
        fingerprint(action=", half_open: true"),
        fingerprint(action=", send_proxy: v1"),
        fingerprint(name="b"),
    ]
    assert len({same, *changed}) == 5


def test_plan_survives_the_wire() -> None:
    """A plan is the same after msgpack, as a worker gets it."""
    examples = Path(__file__).parents[2] / "docs" / "examples" / "behind-a-balancer.yaml"
    plan = compiled(examples.read_text())
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(plan), type=Plan) == plan


def test_descriptor_budget() -> None:
    """Beyond the budget, ports that only ranges name get one shared socket each."""
    text = (
        "listen: ['::1']\nroutes:\n"
        f"- {{name: a, match: {{ports: ['1000-1099', 1050, 80, 'unix:/a']}}, {FORWARD}}}\n"
    )
    roomy = compiled(text, slots=4)
    assert {listener.sockets for listener in roomy.listeners} == {4, 1}
    assert sum(listener.sockets for listener in roomy.listeners) == 101 * 4 + 1
    tight = listeners(compiled(text, slots=4, descriptors=200))
    assert tight["[::1]:80"].sockets == 4
    assert tight["[::1]:1050"].sockets == 4
    assert tight["[::1]:1000"].sockets == 1
    needed = sum(listener.sockets for listener in tight.values())
    assert needed == 99 + 2 * 4 + 1
    assert compiled(text, slots=4, descriptors=needed).listeners == tuple(
        sorted(tight.values(), key=lambda listener: listener.id)
    )
    with pytest.raises(ConfigError, match=f"need {needed} listening sockets, {needed - 1} are"):
        compiled(text, slots=4, descriptors=needed - 1)


def test_names() -> None:
    """Host names of targets and trusted sources that are in use, and nothing else."""
    text = (
        "proxy_protocol: {trusted: [10.0.0.1, lb.example]}\n"
        "listeners:\n"
        "- {ports: [81], proxy_protocol: {trusted: [lb2.example]}}\n"
        "routes:\n"
        "- {name: a, match: {ports: [PORTS]}, action: {type: forward, targets: ['DB:1', '::1:2',"
        " {host: 10.0.0.1, port: 1}, {host: app, port: preserve}]}}\n"
        "- {name: b, enabled: false, match: {ports: [82]}, action: {type: forward,"
        " targets: ['off:1', 'unix:/a']}}\n"
    ).replace("'::1:2'", "'[::1]:2'")
    both = {"db", "app", "lb.example", "lb2.example"}
    assert names_of(config(text.replace("PORTS", "80, 81"))) == both
    assert names_of(config(text.replace("PORTS", "80"))) == both - {"lb2.example"}
    assert names_of(config(text.replace("PORTS", "81"))) == both - {"lb.example"}


@pytest.mark.parametrize(
    ("head", "override", "workers", "slots"),
    [
        ("", None, 4, 8),
        ("", 1, 1, 4),
        ("workers: 3", None, 3, 6),
        ("workers: 3", 8, 8, 16),
        ("workers: 1", None, 1, 4),
        ("max_workers: 2", None, 2, 2),
        ("max_workers: 9", None, 4, 9),
        ("workers: 2\nmax_workers: 2", None, 2, 2),
    ],
)
def test_workers_and_slots(head: str, override: int | None, workers: int, slots: int) -> None:
    """Numbers as written, auto by the CPUs (4 here), the command line over the file."""
    settings = config(f"{head}\nroutes: [{{name: a, match: {{ports: [80]}}, {FORWARD}}}]")
    assert resolve_workers(settings, override, cpus=4) == workers
    assert resolve_slots(settings, workers, cpus=4) == slots


def test_workers_that_do_not_fit() -> None:
    """More workers on the command line than there are slots, or none, are refused."""
    settings = config(f"max_workers: 2\nroutes: [{{name: a, match: {{ports: [80]}}, {FORWARD}}}]")
    with pytest.raises(ConfigError, match="3 workers do not fit into max_workers, which is 2"):
        resolve_slots(settings, resolve_workers(settings, 3))
    with pytest.raises(ConfigError, match="too few"):
        resolve_workers(settings, 0)


def test_usable_cpus_follow_affinity() -> None:
    """One CPU in the affinity mask means one, whatever the machine has."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert usable_cpus() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert 1 <= usable_cpus() <= len(before)


def test_cgroup_quota(tmp_path: Path) -> None:
    """The least quota of the own group and those above; a missing or odd file does not count."""
    own = tmp_path / "cgroup"
    root = tmp_path / "fs"
    group = root / "a" / "b"
    group.mkdir(parents=True)
    assert cgroup_quota(own, root) is None
    own.write_text("12:cpu:/x\n")
    assert cgroup_quota(own, root) is None
    own.write_text("0::/a/b\n")
    assert cgroup_quota(own, root) is None
    (group / "cpu.max").write_text("max 100000\n")
    assert cgroup_quota(own, root) is None
    (root / "a" / "cpu.max").write_text("150000 100000\n")
    assert cgroup_quota(own, root) == 1.5
    (group / "cpu.max").write_text("50000 100000\n")
    assert cgroup_quota(own, root) == 0.5
    (group / "cpu.max").write_text("nonsense\n")
    assert cgroup_quota(own, root) == 1.5
    own.write_text("0::/elsewhere\n")
    (root / "cpu.max").write_text("200000 100000\n")
    assert cgroup_quota(own, root) == 2.0
