"""The error walker against msgspec's own verdict, and how single faults are reported."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import msgspec
import pytest

from shared.config import Config, decode_hook
from supervisor.config_positions import Path, Positions
from supervisor.config_walk import MAX_PROBLEMS, check_structure

GOOD: dict[str, Any] = {
    "version": 1,
    "listen": ["127.0.0.1", "::1"],
    "workers": 2,
    "max_workers": "auto",
    "admin": {"listen": "127.0.0.1:9901"},
    "log": {
        "level": "info",
        "format": "auto",
        "file": None,
        "access": {"file": "a.log", "format": "{client} {end}", "connect": True, "interval": "5s"},
    },
    "proxy_protocol": {
        "trusted": ["10.0.0.0/8", "lb.example.net"],
        "versions": ["v1"],
        "required": False,
        "header_timeout": "5s",
        "untrusted": "ignore",
        "local": "close",
    },
    "listeners": [{"ports": [8443], "listen": ["127.0.0.1"], "proxy_protocol": {"trusted": []}}],
    "timeouts": {
        "connect": "3s",
        "tls_handshake": "5s",
        "idle": 0,
        "drain": 1.5,
        "watchdog": "10s",
    },
    "keep_alive": "extended",
    "half_open": True,
    "dns_refresh": "30s",
    "security": {
        "allow": ["10.0.0.0/8", "file:lists/a.txt"],
        "block": ["192.168.1.*", "::1-::9"],
        "max_connections": 5,
        "max_connections_per_ip": 0,
        "connection_rate_per_ip": "300/1m",
    },
    "routes": [
        {
            "name": "a",
            "enabled": True,
            "priority": 3,
            "tags": ["x"],
            "description": "d",
            "match": {
                "ports": [80, "8000-8010", "unix:/run/a"],
                "client_ips": ["10.0.0.0/8"],
                "domains": ["a.example", "*.b.example", "c.*"],
                "tls": None,
                "tls_versions": ["1.2", "1.3"],
                "alpn": ["h2"],
                "protocol": "tcp",
            },
            "security": {
                "allow": [],
                "block": ["::1"],
                "connection_rate_per_ip": None,
                "identities": [
                    {"match": {"cn": "a*", "fingerprint": "AB:*"}, "allow": ["10.0.0.0/8"]},
                    {"match": {"sni": "*.a.example", "subject": None}, "block": ["::1"]},
                ],
            },
            "action": {
                "type": "forward",
                "targets": ["a:1", {"host": "b", "port": "preserve", "weight": 2}],
                "balance": "round_robin",
                "send_proxy": "v2",
                "send_proxy_tlvs": ["alpn", {"type": 0xE1, "value": "hex:00"}],
                "tls": {
                    "mode": "terminate",
                    "certificates": [{"cert": "a.pem", "key": "a.key"}, {"cert": "b.pem"}],
                    "min_version": "1.2",
                    "ciphers": "ECDHE+AESGCM",
                    "alpn": ["h2", "http/1.1"],
                    "client_auth": {"mode": "required", "ca": "ca.pem"},
                },
                "upstream_tls": {
                    "verify": True,
                    "ca": None,
                    "server_name": "b.example",
                    "cert": "c.pem",
                    "key": "c.key",
                    "password_file": None,
                    "alpn": [],
                },
                "engine": "userspace",
                "timeouts": {"idle": "2h", "connect": None},
                "keep_alive": "immortal",
                "half_open": None,
            },
        },
        {
            "name": "b",
            "match": {"ports": [90]},
            "action": {"type": "forward", "targets": [{"host": "unix:/run/b"}]},
        },
    ],
}
VALUES: list[Any] = [
    *(None, 0, -1, 1, 2, 300, 70000, 1.5, float("nan"), 2**70, True, False, "", "x", "v1", "v2"),
    *("5s", "0s", "auto", "preserve", "a:1", "10.0.0.0/8", "unix:/x", "unix:" + "x" * 200, "alpn"),
    *("forward", "redirect", "handler", "::1", "\ud800", "\0", [], {}, [1], [[]], {"a": 1}),
    *({"host": "a", "port": 1}, {"type": 1, "value": "x"}, ["a:1"], {"type": "respond"}),
    *("1.3", "1.0", "*.a.example", "a.*.b", "terminate", "required", "a.pem", {"cn": "*"}),
    *("300/1m", "0/1m", "10.*", "file:x", "json", "combined", "{client}", "{x}", {"file": "x"}),
]
KEYS = [
    *("tragets", "x", "security", "http", "type", "host", "port", "timeouts", "tls", "", "name"),
    *("allow", "access", "identities", "certificates", "alpn", "user", "acme"),
]


def paths(data: Any, path: Path = ()) -> list[Path]:
    """The path of every value in plain data."""
    found = [path]
    if isinstance(data, dict | list):
        items = data.items() if isinstance(data, dict) else enumerate(data)
        for key, value in items:
            found += paths(value, (*path, key))
    return found


def damaged(dice: random.Random) -> dict[str, Any]:
    """The good config with one to three random changes."""
    data = copy.deepcopy(GOOD)
    for _ in range(dice.randint(1, 3)):
        candidates = paths(data)[1:]
        if not candidates:
            break
        path = dice.choice(candidates)
        holder: Any = data
        for key in path[:-1]:
            holder = holder[key]
        kind = dice.random()
        if kind < 0.5:
            holder[path[-1]] = copy.deepcopy(dice.choice(VALUES))
        elif kind < 0.75:
            del holder[path[-1]]
        elif isinstance(holder, dict):
            holder[dice.choice(KEYS)] = copy.deepcopy(dice.choice(VALUES))
        else:
            holder.append(copy.deepcopy(dice.choice(VALUES)))
    return data


def msgspec_accepts(data: Any) -> bool:
    """msgspec's verdict."""
    try:
        msgspec.convert(data, Config, dec_hook=decode_hook)
    except (msgspec.ValidationError, UnicodeEncodeError):
        return False
    return True


@pytest.mark.parametrize("seed", range(6))
def test_walker_agrees_with_msgspec(seed: int) -> None:
    """On 1,000 damaged configs the walker finds something exactly where msgspec refuses."""
    dice = random.Random(seed)
    refused = 0
    for _ in range(1000):
        data = damaged(dice)
        accepted = msgspec_accepts(data)
        problems = check_structure(data, Positions("f"))
        assert accepted == (not problems), (problems, data)
        assert all(problem.message for problem in problems)
        refused += not accepted
    assert 500 < refused < 1000  # both verdicts are met often enough to mean something


def test_single_faults_are_found_alone() -> None:
    """One wrong key makes one problem, at its own path."""
    for path in paths(GOOD):
        data = copy.deepcopy(GOOD)
        holder: Any = data
        for key in path:
            holder = holder[key]
        if not isinstance(holder, dict):
            continue
        holder["zzz"] = 1
        problems = check_structure(data, Positions("f"))
        assert [problem.message for problem in problems] == ["unknown field 'zzz'"], path
        assert problems[0].path.endswith("zzz")
        assert problems[0].code == "unknown_field"


def found(**changes: Any) -> list[tuple[str, str, str]]:
    """(path, message, hint) of the problems of a small config with changes at the top."""
    data = {"routes": [{"name": "a", "match": {"ports": [80]}, "action": action()}], **changes}
    problems = check_structure(data, Positions("f"))
    return [(problem.path, problem.message, problem.hint) for problem in problems]


def action(**changes: Any) -> dict[str, Any]:
    """A forward action with changes."""
    return {"type": "forward", "targets": ["a:1"], **changes}


def route(**changes: Any) -> list[dict[str, Any]]:
    """A list of one route with changes."""
    return [{"name": "a", "match": {"ports": [80]}, "action": action(), **changes}]


@pytest.mark.parametrize("key", ["include", "tests"])
def test_top_level_keys_not_available(key: str) -> None:
    """A key of the format that is not built is refused by name, also when it is empty."""
    assert found(**{key: []}) == [(key, f"`{key}` is not available yet", "")]


def test_action_type_not_available() -> None:
    """An action type that is not built is the one problem; its own keys are not reported."""
    problems = found(routes=route(action={"type": "handler", "to": "x", "call": "y"}))
    assert problems == [("routes[0].action.type", "`handler` is not available yet", "")]


@pytest.mark.parametrize(("kind", "key"), [("forward", "targets"), ("redirect", "to")])
def test_key_that_a_type_needs(kind: str, key: str) -> None:
    """What a type cannot do without is missed as any other key is."""
    problems = found(routes=route(action={"type": kind}))
    assert problems == [("routes[0].action", f"missing field '{key}'", "")]


@pytest.mark.parametrize(
    ("changes", "path", "word"),
    [
        (
            {"routes": route(action=action(engine="nftables"))},
            "routes[0].action.engine",
            "nftables",
        ),
        (
            {"routes": route(action=action(balance="least_connections"))},
            "routes[0].action.balance",
            "least_connections",
        ),
        (
            {"routes": route(action=action(tls={"acme": {}}))},
            "routes[0].action.tls.acme",
            "acme",
        ),
        (
            {"routes": route(action=action(tls={"certificate": "auto"}))},
            "routes[0].action.tls.certificate",
            "certificate",
        ),
        (
            {"routes": route(security={"rate_limit": {}})},
            "routes[0].security.rate_limit",
            "rate_limit",
        ),
    ],
)
def test_other_things_not_available(changes: dict[str, Any], path: str, word: str) -> None:
    """Values and inner keys of later versions are refused by name too."""
    assert found(**changes) == [(path, f"`{word}` is not available yet", "")]


def test_misspelt_field() -> None:
    """A misspelt key is named with what was meant, and the right one is not called missing."""
    broken = {"type": "forward", "tragets": ["a:1"]}
    assert found(routes=route(action=broken)) == [
        ("routes[0].action.tragets", "unknown field 'tragets'", "did you mean 'targets'?")
    ]


def test_key_in_the_wrong_place() -> None:
    """Timeouts beside the action are told where they belong, global ones in a route likewise."""
    assert found(routes=route(timeouts={}))[0][2] == "write it in `action`"
    inner = action(timeouts={"watchdog": "1s"})
    assert found(routes=route(action=inner))[0][2] == "it is global only: top-level timeouts"
    inner = action(security={})
    problem = found(routes=route(action=inner))[0]
    assert problem[1:] == (
        "unknown field 'security'",
        "write it in the route, beside `match` and `action`",
    )
    assert found(routes=route(block=[]))[0][2] == "write it in `security`"
    assert found(routes=route(domains=[]))[0][2] == "write it in `match`"
    assert found(routes=route(identities=[]))[0][2] == "write it in `security`"
    inner = action(tls={"ca": "ca.pem"})
    assert "client_auth" in found(routes=route(action=inner))[0][2]
    assert found(security={"identities": []})[0][2] == "it belongs to the `security` of a route"
    assert found(max_connections=3)[0][2] == "write it in `security`"
    assert found(security={"auth": {}})[0][2] == "it belongs to the `security` of a route"


def test_misspelt_value() -> None:
    """A word that is not allowed comes with the one that was meant, or with all of them."""
    assert found(keep_alive="extnded") == [
        ("keep_alive", "unknown value 'extnded'", "did you mean 'extended'?")
    ]
    assert found(keep_alive="no")[0][2] == "one of: extended, immortal, standard"


def test_all_faults_at_once() -> None:
    """Faults in many places come in one go."""
    problems = found(
        workers=0,
        version=2,
        dns_refresh="0s",
        listen=[],
        routes=[{"name": ""}, {"match": {"ports": []}}, 3, *route(match={"ports": [0, "9-8"]})],
    )
    assert [problem[0] for problem in sorted(problems)] == [
        *("dns_refresh", "listen", "routes[0]", "routes[0]", "routes[0].name", "routes[1]"),
        *("routes[1]", "routes[1].match.ports", "routes[2]", "routes[3].match.ports[0]"),
        *("routes[3].match.ports[1]", "version", "workers"),
    ]


def test_a_flood_of_problems_is_cut() -> None:
    """A file of nonsense gives a list that ends."""
    data = {f"k{number}": number for number in range(MAX_PROBLEMS + 100)}
    assert len(check_structure(data, Positions("f"))) == MAX_PROBLEMS


def test_good_config_is_good_as_json_too() -> None:
    """The config that the damage starts from is accepted, and survives a trip through JSON."""
    assert check_structure(GOOD, Positions("f")) == []
    assert msgspec_accepts(json.loads(json.dumps(GOOD)))
