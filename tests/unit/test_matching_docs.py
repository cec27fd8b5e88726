"""docs/matching.md: each of its examples has the outcome that is written beside it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shared.match_criteria import domain_rank
from shared.matching import Matcher
from shared.plan import Endpoints, Plan
from supervisor.compile import ListenerIds, compile_plan
from supervisor.config_file import Loaded, load_bytes
from supervisor.shadowed import shadows
from tests.helpers.http_routes import http_route, request, takes
from tests.helpers.routes import Asked, Hello, route, tls, winner
from tests.helpers.routes import matcher as matcher_of

DOCUMENT = (Path(__file__).parents[2] / "docs" / "matching.md").read_text()
BLOCK = re.compile(r"```yaml\n(.*?)```\n\n((?:\|[^\n]*\n)+)", re.DOTALL)
PORTS = ("80", "443", "5000")
METHODS = ("GET", "POST")


def rows(table: str) -> list[list[str]]:
    """Cells of a table's lines, without its head."""
    lines = table.strip().split("\n")[2:]
    return [[cell.strip().replace("`", "") for cell in line.split("|")[1:-1]] for line in lines]


def loaded(text: str) -> Loaded:
    """An example as the product reads it."""
    return load_bytes(text.encode(), "matching.md", "yaml")


def plan(text: str) -> Plan:
    """An example as a worker gets it."""
    config = loaded(text).config
    endpoints = Endpoints(addresses={})
    return compile_plan(
        config, generation=1, slots=1, listener_ids=ListenerIds(), endpoints=endpoints
    )


def asked(client: str, sends: str) -> Asked:
    """``TLS name alpn=a,b versions=1.3``, ``something else`` or ``nothing``."""
    words = sends.split()
    if words[0] != "TLS":
        return Asked(client, {"something else": False, "nothing": None}[sends])
    options = dict(word.split("=") for word in words if "=" in word)
    names = [word for word in words[1:] if "=" not in word]
    hello = Hello(
        names[0] if names else "",
        tuple(options.get("versions", "1.3,1.2").split(",")),
        tuple(filter(None, options.get("alpn", "").split(","))),
    )
    return Asked(client, True, hello)


def takes_request(found: Matcher[str], client: str, sends: str) -> str | None:
    """``GET host/path?query name: value``, without TLS."""
    assert found.awaits_http(Asked(client).client)
    method, target, *rest = sends.split(" ", 2)
    host, slash, path = target.partition("/")
    fields = dict([rest[0].split(": ", 1)]) if rest else {}
    return takes(found, request(slash + path, host, method, **fields), client)


BLOCKS = BLOCK.findall(DOCUMENT)
EXAMPLES = [(text, *row) for text, table in BLOCKS if "| client |" in table for row in rows(table)]


@pytest.mark.parametrize(("text", "client", "sends", "expected"), EXAMPLES)
def test_example(text: str, client: str, sends: str, expected: str) -> None:
    """The documented route wins, on every listener of the documented port."""
    made = plan(text)
    listeners = [one for one in made.listeners if str(one.port) in PORTS]
    assert listeners
    for listener in listeners:
        found: Matcher[str] = Matcher()
        for one in made.routes:
            found.add(one, listener.id, one.name)
        if sends.startswith(METHODS):
            name = takes_request(found, client, sends)
        else:
            name = winner(found, asked(client, sends))
        assert (name or "none") == expected


def test_every_example_is_run() -> None:
    """Each YAML block of the page has its table, and there are examples of each kind."""
    assert len(BLOCKS) == DOCUMENT.count("```yaml") == 7
    assert len(EXAMPLES) > 55
    assert len([sends for _, _, sends, _ in EXAMPLES if sends.startswith(METHODS)]) > 20


@pytest.mark.parametrize(("text", "table"), [one for one in BLOCKS if "hidden by" in one[1]])
def test_hidden_routes(text: str, table: str) -> None:
    """The documented route is named as hidden, by the documented one, and no other is."""
    found = [[loser.name, other.name] for loser, other in shadows(plan(text).routes)]
    assert found == rows(table)
    assert [problem.code for problem in loaded(text).warnings] == ["shadowed"]


def test_examples_have_no_warnings() -> None:
    """What is shown as good is accepted as it is."""
    for text, table in BLOCKS:
        if "| client |" in table:
            assert loaded(text).warnings == []


def test_table_of_domains() -> None:
    """What each written domain matches, and what it does not."""
    part = DOCUMENT.split("## Domains")[1].split("\n\n")[1]
    assert len(rows(part)) == 3
    for written, matches, others in rows(part):
        found = matcher_of(route("r", 0, written))
        assert all(winner(found, tls(name)) for name in matches.split(", "))
        assert not any(winner(found, tls(name)) for name in others.split(", "))
    assert domain_rank("*.example.com") < domain_rank("*.example")


def test_table_of_paths() -> None:
    """What each written path matches, and what it does not."""
    table = DOCUMENT.split("## Requests")[1].split("| path |")[1].split("\n\n")[0]
    assert len(rows(table)) == 7
    for written, matches, others in rows(table):
        found = matcher_of(http_route("r", 0, paths=(written,)))
        assert all(takes(found, request(path)) for path in matches.split(", "))
        assert not any(takes(found, request(path)) for path in others.split(", "))
