"""Reading config files: formats, places, and everything that can be wrong with a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from shared.errors import ConfigError, Problem
from supervisor.config_file import MAX_FILE_BYTES, Format, load, load_bytes
from supervisor.config_json import parse_json
from supervisor.config_positions import Positions, path_text, render
from supervisor.config_yaml import parse_yaml, resolve

YAML = """\
routes:
  - name: api
    match: {ports: [8080]}
    action: {type: forward, targets: ["127.0.0.1:9000"]}
"""
JSON = (
    '{"routes": [{"name": "api", "match": {"ports": [8080]},'
    ' "action": {"type": "forward", "targets": ["127.0.0.1:9000"]}}]}'
)
TOML = """\
[[routes]]
name = "api"
match = {ports = [8080]}
action = {type = "forward", targets = ["127.0.0.1:9000"]}
"""


def test_values_are_plain_types() -> None:
    """Durations, names and ports of a config can go into a message as they are."""
    config = load_bytes(YAML.encode() + b"timeouts: {idle: 5m}", "f", "yaml").config
    assert type(config.timeouts.idle) is float
    assert type(config.timeouts.drain) is float
    assert type(config.dns_refresh) is float
    assert type(config.proxy_protocol.header_timeout) is float
    route, admin = config.routes[0], config.admin
    assert admin is not None
    texts = [route.name, admin.listen, *config.listen, *route.match.ports]
    assert [type(text) for text in texts] == [str] * 5


def problems(text: str | bytes, format_: Format = "yaml") -> list[Problem]:
    """What is wrong with a text."""
    data = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(ConfigError) as caught:
        load_bytes(data, "f", format_)
    assert caught.value.problems
    return caught.value.problems


def only(text: str | bytes, format_: Format = "yaml") -> Problem:
    """The one thing that is wrong with a text."""
    found = problems(text, format_)
    assert len(found) == 1, found
    return found[0]


def test_three_formats_one_config(tmp_path: Path) -> None:
    """YAML, JSON and TOML give the same structs, by the file's suffix."""
    configs = []
    for suffix, text in ((".yaml", YAML), (".yml", YAML), (".json", JSON), (".toml", TOML)):
        path = tmp_path / f"proxyctl{suffix}"
        path.write_text(text)
        loaded = load(path)
        assert loaded.warnings == []
        route = loaded.config.routes[0]
        configs.append((route.name, route.match, route.action.targets[0].name))
    assert configs[0][0] == "api"
    assert all(config == configs[0] for config in configs)


def test_place_of_key_and_value_in_yaml() -> None:
    """An unknown key points at the key, a wrong value at the value, with its width."""
    text = "listn: []\n" + YAML.replace("8080", "80800")
    key, value = problems(text)
    assert (key.line, key.col, key.width, key.source) == (1, 1, 5, "listn: []")
    assert (value.line, value.col, value.width) == (4, 21, 5)
    assert value.path == "routes[0].match.ports[0]"


def test_place_of_key_and_value_in_json() -> None:
    """The same in JSON, over lines, after wide characters and escapes of surrogate pairs."""
    text = '{"x": "\\ud83d\\ude00",\n "é": {"ü😀": [1, {"workers": 0}]},\n\t"workers": 0}'
    found = {problem.path: problem for problem in problems(text, "json")}
    assert (found["x"].line, found["x"].col, found["x"].width) == (1, 2, 3)
    assert (found["é"].line, found["é"].col) == (2, 2)
    assert (found["workers"].line, found["workers"].col, found["workers"].width) == (3, 13, 1)


def test_positions_are_the_same_for_json_read_as_either() -> None:
    """Where a text is JSON and YAML alike, both readers give the same data and places."""
    text = '{"a": [1, "two", {"b": null}],\n "c": {"d": [[], {}], "e f": -1.5}, "g": true}'
    as_json, as_yaml = Positions("f"), Positions("f")
    assert parse_json(text, as_json)[0] == parse_yaml(text, as_yaml)[0]
    as_json.fill()
    as_yaml.fill()
    assert len(as_json.values) == 12  # the root, and one per key or item
    assert as_json.keys == as_yaml.keys
    assert as_json.values == as_yaml.values


def test_toml_names_the_path() -> None:
    """A wrong value of a TOML file is found by its path, a syntax error by line and column."""
    wrong = only(TOML.replace("8080", "0"), "toml")
    assert (wrong.path, wrong.line, wrong.col) == ("routes[0].match.ports[0]", 0, 0)
    syntax = only("a = 1\nb = ]\n", "toml")
    assert (syntax.line, syntax.col, syntax.source) == (2, 5, "b = ]")


def test_problems_come_in_the_order_of_the_file() -> None:
    """Wrong types, duplicate keys and contradictions come in one go, sorted by place."""
    text = (
        "workers: 3\nmax_workers: 2\nhalf_open: maybe\nworkers: 3\n"
        + YAML
        + YAML.removeprefix("routes:\n")
    )
    found = [(problem.line, problem.path) for problem in problems(text)]
    assert found == [(1, "workers"), (3, "half_open"), (4, "workers"), (9, "routes[1].name")]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("22:22", "22:22"),
        ("2001-01-01", "2001-01-01"),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("1e3", 1000.0),
        ("~", None),
        ("", None),
        ("null", None),
        ("nULL", "nULL"),
        ("True", True),
        ("tRUE", "tRUE"),
        ("-1", -1),
        (".5", 0.5),
        ("1.", 1.0),
        (".", "."),
        ("+", "+"),
        ("0b1", "0b1"),
        ("=", "="),
        ("-.inf", -float("inf")),
    ],
)
def test_yaml_core_scalars(text: str, value: object) -> None:
    """Plain scalars are what YAML 1.2's core schema says, in type too."""
    assert resolve(text) == value
    assert type(resolve(text)) is type(value)


def test_yaml_quoted_scalars_are_text() -> None:
    """Quotes make text of anything, in whatever style."""
    data, _ = parse_yaml("a: '1'\nb: \"true\"\nc: |\n  1\nd: >-\n  null\n", Positions("f"))
    assert data == {"a": "1", "b": "true", "c": "1\n", "d": "null"}


def test_yaml_duplicate_key_names_both_lines() -> None:
    """The second of two equal keys is the error; the message has both lines."""
    problem = only("workers: 1\nworkers: 2\n" + YAML)
    assert problem.message == "duplicate key 'workers', on line 2"
    assert (problem.line, problem.col, problem.hint) == (2, 1, "first on line 1")


def test_json_duplicate_keys_at_every_depth() -> None:
    """A duplicate key of JSON is an error too; equal keys of different mappings are none."""
    text = JSON.replace('{"ports": [8080]}', '{"ports": [8080],\n"ports": [1]}')
    problem = only(text, "json")
    assert problem.message == "duplicate key 'ports', on line 2"
    assert problem.hint == "first on line 1"
    assert problem.path == "routes[0].match.ports"
    twice = '[{"a": 1}, {"a": 1, "b": {"a": 1}}]'
    assert parse_json(twice, Positions("f"))[1] == []


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("a: 1\n<<: {b: 1}\n", "merge keys", 2),
        ("a: !!int '1'", "tag", 1),
        ("a: !!python/object:os.system x", "tag", 1),
        ("a: 1\n---\nb: 2", "second document", 2),
        ("? [a]\n: b", "plain text", 1),
        ("a: *b", "no anchor", 1),
        ("a: &b [*b]", "no anchor", 1),
        ("a: [1,\nb: 2", "expected", 2),
        ("a:\n\t- b", "cannot start any token", 2),
        ("a: b: c", "not allowed", 1),
        ("a: \x00", "U+0000", 1),
        ("a: \x1b[31m", "U+001B", 1),
        ("a: " + "[" * 40 + "]" * 40, "nested deeper", 1),
        ("a: " + "[" * 100_000, "nested deeper", 1),
        ("a: " + "{a: " * 100_000, "nested deeper", 1),
        ("- " * 100_000, "nested deeper", 1),
    ],
)
def test_yaml_that_is_refused(text: str, message: str, line: int) -> None:
    """What YAML allows and a config does not, and what is no YAML: a problem with its line."""
    found = [problem for problem in problems(text) if message in problem.message]
    assert [problem.line for problem in found] == [line]
    assert "\x1b" not in render(found[0])


@pytest.mark.parametrize("text", ["a: \x00", "a: [", "a: " + "[" * 5000, "a: *b", "a: b: c"])
def test_yaml_without_libyaml(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyYAML's own parser, where libyaml is missing, refuses and reads the same."""
    places = [problem.line for problem in problems(text)]
    monkeypatch.setattr("supervisor.config_yaml._LOADER", yaml.SafeLoader)
    assert [problem.line for problem in problems(text)] == places
    assert load_bytes(YAML.encode(), "f", "yaml").config.routes[0].name == "api"


def test_alias_bomb() -> None:
    """Nested aliases are stopped by the budget of values, plain use of one is fine."""
    bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n"
    for level in range(1, 9):
        bomb += f"a{level}: &a{level} [" + ",".join([f"*a{level - 1}"] * 9) + "]\n"
    assert "aliases expand to too many values" in only(bomb).message
    text = YAML.replace("[8080]", "&p [8080]") + YAML.removeprefix("routes:\n").replace(
        "[8080]", "*p"
    ).replace("api", "two")
    loaded = load_bytes(text.encode(), "f", "yaml")
    assert loaded.config.routes[1].match.ports == ["8080"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": [}', "malformed"),
        ('{"a": 1} x', "trailing"),
        ('{"a": NaN}', "malformed"),
        ('{"a": "\\ud800"}', "escape"),
        ('{"a": 1', "too early"),
        ('{"a": 1e999}', "out of range"),
        ("[" * 100_000 + "]" * 100_000, "nested deeper"),
        ("[" * 100 + "]" * 100, "nested deeper"),
        ("[" * 100_000, "nested deeper"),
        ("a: 1", "malformed"),
    ],
)
def test_json_that_is_refused(text: str, message: str) -> None:
    """What is no JSON, or too deep, is one problem."""
    assert message in only(text, "json").message


@pytest.mark.parametrize(
    "text",
    ["a = [", "a", "a = 1\na = 2", "x = " + "[" * 5000, "x = " + "9" * 5000, "\x00", "a='\n"],
)
def test_toml_that_is_refused(text: str) -> None:
    """What is no TOML, or too deep, is one problem."""
    assert only(text, "toml").code == "syntax"


@pytest.mark.parametrize("format_", ["yaml", "json", "toml"])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b" \n\n", "empty"),
        (b"\xef\xbb\xbfroutes: []", "byte order mark (UTF-8)"),
        ("routes: []".encode("utf-16"), "byte order mark (UTF-16)"),
        (b"\x7fELF\x02\x01\x01\x00\xf0\x9f\xff", "no UTF-8"),
        (b"a: caf\xe9", "no UTF-8"),
        (b"#" * (MAX_FILE_BYTES + 1), "larger than 16 MiB"),
    ],
)
def test_bytes_that_are_refused(format_: Format, data: bytes, message: str) -> None:
    """Bytes that are no text of this format, in any of them."""
    assert message in only(data, format_).message


@pytest.mark.parametrize("text", ["# only a comment\n", "---\n", "null", "~"])
def test_file_without_content(text: str) -> None:
    """A file of nothing but comments says what is needed."""
    assert only(text).message == "the file has no content"


@pytest.mark.parametrize("text", ["[]", "3", "text", '"routes"'])
def test_top_level_must_be_a_mapping(text: str) -> None:
    """A list or a scalar as the whole file."""
    assert only(text).message.startswith("expected a mapping")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """No file, a directory, a FIFO (without waiting), no suffix: each has its words."""
    (tmp_path / "dir.yaml").mkdir()
    os.mkfifo(tmp_path / "fifo.yaml")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    said = {}
    for name in ("none.yaml", "dir.yaml", "fifo.yaml", "loop.yaml", "plain", "a.ini", "nul\0.yaml"):
        with pytest.raises(ConfigError) as caught:
            load(tmp_path / name)
        (problem,) = caught.value.problems
        assert problem.file == str(tmp_path / name)
        said[name] = problem.message
    assert "No such file" in said["none.yaml"]
    assert said["dir.yaml"] == "is a directory"
    assert said["fifo.yaml"] == "is no regular file"
    assert "symbolic links" in said["loop.yaml"]
    assert said["plain"] == "the name has no suffix"
    assert said["a.ini"] == "unknown suffix '.ini'"
    assert "cannot be read" in said["nul\0.yaml"]


def test_file_without_permission(tmp_path: Path) -> None:
    """A file that may not be read says so (root reads all, so it gives up root for the test)."""
    path = tmp_path / "secret.yaml"
    path.write_text(YAML)
    path.chmod(0)
    uid = os.geteuid()
    if uid == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(ConfigError, match="Permission denied"):
            load(path)
    finally:
        os.seteuid(uid)


def test_render() -> None:
    """Three lines: place and message, the source line, a caret under the value."""
    problem = only("workers: 1\nhalf_open:   maybe\n" + YAML)
    assert render(problem).splitlines() == [
        "f:2:14: error: half_open: expected true or false, got text",
        "     2 | half_open:   maybe",
        "       |              ^^^^^",
    ]
    assert render(problem, "warning").startswith("f:2:14: warning: ")


def test_render_keeps_tabs_and_cuts_long_lines() -> None:
    """The caret stands under the value after tabs, and in a line of any length."""
    tabbed = only(JSON[:-1] + ',\n\t\t"half_open": 3}', "json")
    first, source, caret = render(tabbed).splitlines()
    assert first.startswith("f:2:16")
    assert caret.split("|", 1)[1][1:3] == "\t\t"
    assert len(caret) == len(source) - 1
    long = problems(JSON[:-1] + ', "tags": "' + "y" * 5000 + '", "half_open": 3}', "json")
    (last,) = (problem for problem in long if problem.path == "half_open")
    _, source, caret = render(last).splitlines()
    assert len(source) < 200
    assert source[caret.index("^") :].startswith("3}")


def test_render_without_place() -> None:
    """A problem of no known place is one line."""
    assert render(Problem(message="m", file="f", path="a.b")) == "f: error: a.b: m"
    assert render(Problem(message="m")) == "error: m"


def test_path_text() -> None:
    """Paths read as in the documentation; a strange key is quoted."""
    assert path_text(("routes", 2, "action", "targets", 0)) == "routes[2].action.targets[0]"
    assert path_text(()) == ""
    assert path_text(("a b", "x" * 100)).startswith("'a b'.'xxx")
