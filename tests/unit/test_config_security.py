"""Access rules, limits and the access log in the config: what is accepted and what is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from shared.address_set import build, parse_range
from shared.config import AccessLog, Config, decode_hook
from shared.errors import ConfigError, Problem
from supervisor.config_file import Loaded, load, load_bytes

ROUTE = "- {name: a, match: {ports: [80]}, action: {type: forward, targets: ['t:1']}}\n"


def loaded(head: str = "", rules: str = "{}", directory: Path = Path()) -> Loaded:
    """A config with lines at the top and rules of its route."""
    route = ROUTE.replace("action", f"security: {rules}, action")
    return load_bytes(f"{head}\nroutes:\n{route}".encode(), "f", "yaml", directory)


def error(head: str = "", rules: str = "{}", directory: Path = Path()) -> Problem:
    """The only error of such a config."""
    with pytest.raises(ConfigError) as caught:
        loaded(head, rules, directory)
    (problem,) = caught.value.problems
    assert problem.line > 0
    assert problem.col > 0
    return problem


def warnings(head: str = "", rules: str = "{}", directory: Path = Path()) -> list[tuple[str, str]]:
    """(path, code) of the warnings of such a config."""
    found = loaded(head, rules, directory).warnings
    assert all(problem.line > 0 for problem in found)
    return [(problem.path, problem.code) for problem in found]


def test_defaults() -> None:
    """Nobody is refused by default but beyond 10,000 connections; a route has no limit."""
    config = loaded().config
    assert (config.security.allow, config.security.block) == ([], [])
    assert config.security.max_connections == 10_000
    assert config.security.max_connections_per_ip == 0
    assert config.security.connection_rate_per_ip is None
    rules = config.routes[0].security
    assert (rules.allow, rules.block, rules.max_connections) == ([], [], 0)
    assert config.log.access is None


def test_every_notation() -> None:
    """Entries stand for their addresses, whatever way they are written."""
    rules = "{allow: [10.0.0.1, 10.1.0.0/16, 10.2.0.1-10.2.0.9, 10.3.*, '::1', '::ffff:10.0.0.2']}"
    entries = loaded(rules=rules).config.routes[0].security.allow
    wanted = ["10.0.0.1", "10.1.0.0/16", "10.2.0.1-10.2.0.9", "10.3.0.0/16", "::1", "10.0.0.2"]
    assert [entry.addresses for entry in entries] == [build([parse_range(each)]) for each in wanted]


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("app2", "is no IP address, CIDR"),
        ("10.0.0.9-10.0.0.1", "ends before it begins"),
        ("10.*.1", "is no glob"),
        ("fe80::1%eth0", "has no zone"),
        ("'file:'", "names no file"),
        ('"file:a\\nb"', "names no file"),
        ("10", "expected address, CIDR"),
        ("null", "expected address, CIDR"),
    ],
)
@pytest.mark.parametrize("key", ["allow", "block"])
def test_wrong_entries(key: str, entry: str, why: str) -> None:
    """A wrong entry is told at its own place, globally and in a route."""
    for found, path in (
        (error(f"security: {{{key}: [10.0.0.1, {entry}]}}"), f"security.{key}[1]"),
        (error(rules=f"{{{key}: [10.0.0.1, {entry}]}}"), f"routes[0].security.{key}[1]"),
    ):
        assert found.path == path
        assert why in found.message


@pytest.mark.parametrize(
    ("text", "connections", "period_s"),
    [
        ("300/1m", 300, 60.0),
        ("1/1ms", 1, 0.001),
        ("1000000/24h", 1_000_000, 86400.0),
        ("5/0.5s", 5, 0.5),
    ],
)
def test_rates(text: str, connections: int, period_s: float) -> None:
    """A rate is a count and a duration."""
    limit = loaded(f"security: {{connection_rate_per_ip: {text}}}").config.security
    assert limit.connection_rate_per_ip is not None
    assert limit.connection_rate_per_ip.connections == connections
    assert limit.connection_rate_per_ip.period_s == pytest.approx(period_s)
    assert (
        loaded("security: {connection_rate_per_ip: null}").config.security
        == loaded().config.security
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("300", "expected count/duration, as 300/1m, got a number"),
        ("'300'", "write 300/1m"),
        ("0/1m", "write 300/1m"),
        ("-1/1m", "write 300/1m"),
        ("1.5/1m", "write 300/1m"),
        ("1000001/1m", "up to 1000000"),
        ("/1m", "write 300/1m"),
        ("300/0s", "above 0 and at most 24h"),
        ("300/25h", "above 0 and at most 24h"),
        ("300/", "is no duration"),
        ("300/m", "is no duration"),
        ("300/60", "is no duration"),
        ("300/1m/2", "is no duration"),
    ],
)
def test_wrong_rates(text: str, why: str) -> None:
    """What is no rate is refused with the way to write one."""
    found = error(rules=f"{{connection_rate_per_ip: {text}}}")
    assert found.path == "routes[0].security.connection_rate_per_ip"
    assert why in found.message


@pytest.mark.parametrize("key", ["max_connections", "max_connections_per_ip"])
@pytest.mark.parametrize("value", ["-1", "1.5", "true", "ten", "null", "1000000001"])
def test_wrong_limits(key: str, value: str) -> None:
    """A limit is a whole number from 0."""
    assert error(f"security: {{{key}: {value}}}").path == f"security.{key}"
    assert error(rules=f"{{{key}: {value}}}").path == f"routes[0].security.{key}"


def test_allowing_nobody_warns(tmp_path: Path) -> None:
    """Lists of an allow that hold nobody are doubtful; with one entry more they are not."""
    (tmp_path / "empty").write_text("# nobody\n")
    rules = "{allow: ['file:empty', 'file:empty']}"
    path = "routes[0].security.allow"
    assert warnings(rules=rules, directory=tmp_path) == [(path, "allows_nobody")]
    head = "security: {allow: ['file:empty']}"
    assert warnings(head, directory=tmp_path) == [("security.allow", "allows_nobody")]
    assert warnings(rules="{allow: ['file:empty', 10.0.0.1]}", directory=tmp_path) == []
    assert warnings(rules="{block: ['file:empty']}", directory=tmp_path) == []


def test_blocking_everyone_warns(tmp_path: Path) -> None:
    """An entry of block that is a whole family is doubtful, also when it stands in a list."""
    (tmp_path / "all").write_text("0.0.0.0/1\n128.0.0.0/1\n::/0\n")
    rules = "{block: [10.0.0.1, '::/0', 'file:all'], allow: ['0.0.0.0/0']}"
    at = "routes[0].security.block"
    assert warnings(rules=rules, directory=tmp_path) == [
        (f"{at}[1]", "blocks_everyone"),
        (f"{at}[2]", "blocks_everyone"),
        (f"{at}[2]", "blocks_everyone"),
    ]
    head = "security: {block: ['::ffff:0:0/96']}"
    assert warnings(head) == [("security.block[0]", "blocks_everyone")]
    (found,) = loaded(head).warnings
    assert found.message == "'::ffff:0:0/96' blocks every IPv4 address"


def access(text: str, directory: Path = Path()) -> AccessLog:
    """The access log of a config."""
    found = loaded(f"log: {{access: {text}}}", directory=directory).config.log.access
    assert found is not None
    return found


def test_log_file(tmp_path: Path) -> None:
    """As all paths of a config: a relative one starts at the config file's directory."""
    relative = loaded("log: {file: x/a.log}", directory=tmp_path).config
    assert relative.log.file == f"{tmp_path}/x/a.log"
    assert loaded("log: {file: /x/a.log}", directory=tmp_path).config.log.file == "/x/a.log"
    assert loaded(directory=tmp_path).config.log.file is None


def test_access_log(tmp_path: Path) -> None:
    """A path from the config's directory on, json or a template, and when there are more lines."""
    assert access("{file: a.log}", tmp_path) == AccessLog(file=f"{tmp_path}/a.log")
    full = access("{file: /a.log, format: '{client} {end}', connect: true, interval: 5m}")
    assert (full.file, full.format, full.connect, full.interval) == (
        *("/a.log", "{client} {end}"),
        *(True, 300.0),
    )
    assert (type(full.format), type(full.interval)) == (str, float)
    (tmp_path / "p.yaml").write_text("log: {access: {file: x/../a.log}}\nroutes: []")
    (tmp_path / "x").mkdir()
    log = load(tmp_path / "p.yaml").config.log.access
    assert log is not None
    assert log.file == f"{tmp_path}/x/../a.log"


@pytest.mark.parametrize(
    ("text", "path", "why"),
    [
        ("{}", "log.access", "missing field 'file'"),
        ("{file: ''}", "log.access.file", "length >= 1"),
        ("{file: a/}", "log.access.file", "is a directory"),
        ("{file: .}", "log.access.file", "is a directory"),
        ('{file: "a\\tb"}', "log.access.file", "names no file"),
        ("{file: a, format: jsn}", "log.access.format", "unknown format 'jsn'"),
        ("{file: a, format: '{clinet}'}", "log.access.format", "clinet"),
        ("{file: a, format: '{client'}", "log.access.format", "without its partner"),
        ("{file: a, format: 3}", "log.access.format", "expected json, combined, ecs or a template"),
        ("{file: a, interval: -1}", "log.access.interval", "negative"),
        ("{file: a, connect: maybe}", "log.access.connect", "true or false"),
        ("a.log", "log.access", "expected a mapping"),
    ],
)
def test_wrong_access_log(text: str, path: str, why: str) -> None:
    """Each key of the access log has its own words."""
    found = error(f"log: {{access: {text}}}")
    assert found.path == path
    assert why in found.message


def test_access_log_in_no_directory() -> None:
    """A directory that is not there yet is doubtful: the config may be checked elsewhere."""
    assert warnings("log: {access: {file: /nowhere/a.log}}") == [("log.access.file", "file")]


def test_toml_and_json_hold_the_same(tmp_path: Path) -> None:
    """The keys are the same in all formats."""
    rules: dict[str, Any] = {"block": ["10.*"], "connection_rate_per_ip": "3/1s"}
    document = {
        "log": {"access": {"file": "/tmp/a.log"}},
        "security": rules,
        "routes": [
            {
                "name": "a",
                "match": {"ports": [80]},
                "security": {"allow": ["::1"]},
                "action": {"type": "forward", "targets": ["unix:/t"]},
            }
        ],
    }
    (tmp_path / "p.json").write_bytes(msgspec.json.encode(document))
    (tmp_path / "p.toml").write_text(
        '[log.access]\nfile = "/tmp/a.log"\n[security]\nblock = ["10.*"]\n'
        'connection_rate_per_ip = "3/1s"\n[[routes]]\nname = "a"\nmatch.ports = [80]\n'
        'security.allow = ["::1"]\naction = {type = "forward", targets = ["unix:/t"]}\n'
    )
    expected = msgspec.convert(document, Config, dec_hook=decode_hook)
    for name in ("p.json", "p.toml"):
        config = load(tmp_path / name).config
        assert (config.log, config.security) == (expected.log, expected.security)
        assert config.routes[0].security == expected.routes[0].security
