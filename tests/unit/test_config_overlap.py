"""Routes that end TLS for the same names must do so in the same way."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import msgspec
import pytest
import yaml

from shared.config import Config, decode_hook
from shared.errors import ConfigError, Problem
from supervisor.config_file import load_bytes
from supervisor.config_findings import Findings
from supervisor.config_overlap import check_overlap
from supervisor.config_positions import Positions
from tests.helpers.certificates import Authority

ONE = "{mode: terminate, certificates: [{cert: one.pem}]}"
TWO = "{mode: terminate, certificates: [{cert: two.pem}]}"


def route(name: str, domains: str, tls: str, ports: str = "8443") -> str:
    """An item of ``routes``."""
    match = f"match: {{ports: [{ports}], domains: [{domains}]}}"
    action = f"action: {{type: forward, targets: ['t:1'], tls: {tls}}}"
    return f"- {{name: {name}, {match}, {action}}}\n"


def conflicts(*routes: str) -> list[Problem]:
    """What the check says of a config whose files are not looked at."""
    data = yaml.safe_load("routes:\n" + "".join(routes))
    found = Findings(Positions("f"))
    check_overlap(msgspec.convert(data, Config, dec_hook=decode_hook), found)
    return found.errors


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        ("a.example", "a.example", "both are for a.example"),
        ("a.example", "A.Example.", "both are for a.example"),
        ("'*.example'", "'*.example'", "both are for *.example"),
        ("'a.*'", "'a.*'", "both are for a.*"),
        ("'*.example'", "a.example", "*.example covers a.example"),
        ("a.example", "'*.example'", "*.example covers a.example"),
        ("'*.example'", "c.b.a.example", "*.example covers c.b.a.example"),
        ("'*.example'", "'*.b.a.example'", "*.example covers *.b.a.example"),
        ("'*.b.a.example'", "'*.example'", "*.example covers *.b.a.example"),
        ("'a.*'", "a.example", "a.* covers a.example"),
        ("a.b.example", "'a.*'", "a.* covers a.b.example"),
        ("'a.*'", "'a.b.*'", "a.* covers a.b.*"),
        ("x.example, y.example", "z.example, x.example", "both are for x.example"),
        ("'*.example'", "'long.*'", "both are for long.example by *.example and long.*"),
        ("'a.long.*'", "'*.b.test'", "both are for a.long.b.test by *.b.test and a.long.*"),
        ("a.example", "b.example", ""),
        ("example", "'*.example'", ""),
        ("'*.a.example'", "a.example", ""),
        ("'*.a.example'", "'*.b.example'", ""),
        ("xa.example", "'a.*'", ""),
        ("'*.a.example'", "xa.example", ""),
    ],
)
def test_names_that_overlap(first: str, second: str, why: str) -> None:
    """Equal names, a wildcard that covers the other, two that cross; both routes are named."""
    found = conflicts(route("one", first, ONE), route("two", second, TWO))
    if not why:
        assert found == []
        return
    (problem,) = found
    assert problem.path == "routes[1].action.tls"
    assert problem.message == f"route 'two' and route 'one' end TLS differently, and {why}"
    assert "one route may list several certificates" in problem.hint
    assert conflicts(route("one", first, ONE), route("two", second, ONE)) == []


@pytest.mark.parametrize(
    ("tls", "is_equal"),
    [
        (ONE[:-1] + ", min_version: '1.2'}", True),
        (ONE[:-1] + ", client_auth: {mode: none}}", True),
        ("{mode: terminate-and-reencrypt, certificates: [{cert: one.pem}]}", True),
        (ONE[:-1] + ", min_version: '1.3'}", False),
        (ONE[:-1] + ", alpn: [h2]}", False),
        (ONE[:-1] + ", ciphers: ECDHE}", False),
        (ONE[:-1] + ", client_auth: {mode: required, ca: ca.pem}}", False),
        ("{mode: terminate, certificates: [{cert: one.pem, key: one.key}]}", False),
        ("{mode: terminate, certificates: [{cert: one.pem}, {cert: two.pem}]}", False),
        ("{mode: passthrough}", True),
    ],
)
def test_what_must_be_equal(tls: str, is_equal: bool) -> None:
    """All that a client sees; what goes on with the target, and TLS that is not ended, is apart."""
    found = conflicts(route("one", "a.example", ONE), route("two", "a.example", tls))
    assert len(found) == (0 if is_equal else 1)


@pytest.mark.parametrize(
    ("first", "second", "count"),
    [
        ("8443", "8444", 0),
        ("'8000-8500'", "8443", 1),
        ("'8000-8500'", "'8500-9000'", 1),
        ("'8000-8500'", "'8501-9000'", 0),
        ("'unix:/a'", "'unix:/a'", 1),
        ("'unix:/a'", "'unix:/b'", 0),
    ],
)
def test_only_on_the_same_port(first: str, second: str, count: int) -> None:
    """Ports and ranges that share none are apart."""
    names = (route("one", "a.example", ONE, first), route("two", "a.example", TWO, second))
    assert len(conflicts(*names)) == count


def test_routes_that_do_not_count() -> None:
    """Disabled routes, and those without domains, overlap with nobody."""
    one = route("one", "a.example", ONE)
    off = route("two", "a.example", TWO).replace("match", "enabled: false, match", 1)
    assert conflicts(one, off) == []
    assert conflicts(one, route("two", "", TWO), route("three", "", ONE)) == []


def test_each_route_is_told_once() -> None:
    """However many names two routes share, and whatever stands in between."""
    many = ", ".join(f"n{number}.example" for number in range(50))
    found = conflicts(
        route("one", many, ONE), route("two", many, TWO), route("three", "'*.example'", ONE)
    )
    assert [problem.path for problem in found] == ["routes[1].action.tls", "routes[2].action.tls"]


def test_each_of_those_that_cross_is_told() -> None:
    """Also where the first at the other end agrees with it, and another does not."""
    found = conflicts(
        route("one", "'a.*'", ONE),
        route("two", "'*.x'", ONE),
        route("three", "'b.*'", TWO),
        route("four", "'*.y'", ONE),
        route("five", "'*.z'", TWO),
    )
    told = sorted(str(problem.path) for problem in found)
    assert told == [f"routes[{index}].action.tls" for index in (2, 3, 4)]


def covers(pattern: str, name: str) -> bool:
    """Whether all that ``name`` stands for falls under ``pattern``, worked out plainly; or whether
    they are wildcards that cross.
    """
    if pattern == name or {pattern[:2], name[-2:]} == {"*.", ".*"}:
        return True
    if pattern.startswith("*."):
        return (
            not name.endswith(".*")
            and name.removeprefix("*").endswith(pattern[1:])
            and (name != pattern[1:])
        )
    if pattern.endswith(".*"):
        return (
            not name.startswith("*.")
            and name.removesuffix("*").startswith(pattern[:-1])
            and (name != pattern[:-1])
        )
    return False


def test_against_every_pair() -> None:
    """On random configs a route is refused exactly where some pair of it is at odds."""
    dice = random.Random(5)
    labels = ("a", "b", "c")
    for _ in range(300):
        names = []
        for _ in range(dice.randint(2, 6)):
            name = ".".join(dice.choice(labels) for _ in range(dice.randint(1, 3)))
            names.append(dice.choice([name, f"*.{name}", f"{name}.*"]))
        ways = [dice.choice([ONE, TWO]) for _ in names]
        routes = [
            route(f"r{at}", f"'{name}'", way)
            for at, (name, way) in enumerate(zip(names, ways, strict=True))
        ]
        is_odd = any(
            covers(one, other) and way != other_way
            for one, way in zip(names, ways, strict=True)
            for other, other_way in zip(names, ways, strict=True)
        )
        assert bool(conflicts(*routes)) == is_odd, (names, ways)


def test_in_a_file(tmp_path: Path) -> None:
    """The error stands at the tls of the later route, by line and column, with the files read."""
    root = Authority(tmp_path, "ca")
    for name in ("one", "two"):
        shutil.copy(root.leaf("a.example", stem=name).both, tmp_path / f"{name}.pem")
    text = "routes:\n" + route("one", "a.example", ONE) + route("two", "a.example", TWO)
    with pytest.raises(ConfigError) as caught:
        load_bytes(text.encode(), "f.yaml", "yaml", tmp_path)
    (problem,) = caught.value.problems
    column = text.split("\n")[2].index("tls: {") + 6
    assert (problem.line, problem.col, problem.code) == (3, column, "conflict")
