"""List files of access rules: what may stand in them, and how faults are told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shared.address_set import build, parse_range
from shared.config import Config
from shared.errors import ConfigError, Problem
from shared.plan import AddressSet
from supervisor import config_lists
from supervisor.config_file import Loaded, load, load_bytes
from supervisor.config_lists import MAX_PROBLEMS, ListFiles, parse_list
from supervisor.config_positions import render
from supervisor.config_read import ReadError

ROUTES = (
    "routes:\n"
    "- {name: a, match: {ports: [80]}, security: {RULES},"
    " action: {type: forward, targets: ['t:1']}}\n"
)


def config_of(tmp_path: Path, rules: str = "", head: str = "") -> Loaded:
    """A config file in ``tmp_path`` with these rules of its route, loaded."""
    path = tmp_path / "p.yaml"
    path.write_text(head + ROUTES.replace("RULES", rules))
    return load(path)


def refused(tmp_path: Path, rules: str = "", head: str = "") -> list[Problem]:
    """What is wrong with it."""
    with pytest.raises(ConfigError) as caught:
        config_of(tmp_path, rules, head)
    return caught.value.problems


def set_of(*entries: str) -> AddressSet:
    """The set of these entries."""
    return build(map(parse_range, entries))


def test_every_notation_and_what_does_not_count() -> None:
    """Comments, blank lines, CRLF, a byte order mark and outer blanks do not count."""
    text = (
        "\ufeff# people\r\n\r\n10.0.0.1\r\n  10.1.0.0/16  # the office\n\t192.168.1.*\n#10.9.9.9\n"
        "2001:db8::1-2001:db8::9\n::ffff:10.0.0.2\n10.0.0.1"
    )
    found = parse_list(text.encode(), "l")
    assert found.problems == []
    assert found.addresses == set_of(
        "10.0.0.1-10.0.0.2", "10.1.0.0/16", "192.168.1.0/24", "2001:db8::1-2001:db8::9"
    )


@pytest.mark.parametrize("data", [b"", b"\n\n", b"# nobody\n", b"\xef\xbb\xbf"])
def test_empty_lists(data: bytes) -> None:
    """A list may be empty."""
    assert parse_list(data, "l") == config_lists.ListFile(AddressSet(), [])


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"app2", "is no IP address, CIDR"),
        (b"10.0.0.1 10.0.0.2", "is no IP address, CIDR"),
        (b"10.0.0.1,", "is no IP address, CIDR"),
        (b"10.0.0.1\r10.0.0.2", "is no IP address, CIDR"),
        (b"10.0.0.9-10.0.0.1", "ends before it begins"),
        (b"*", "is no glob"),
        (b"file:other.txt", "a list cannot name another"),
        (b"10.0.0.1 \xe9", "byte 0xe9 is no UTF-8"),
        (b"\x1b[31m", "is no IP address, CIDR"),
    ],
)
def test_wrong_lines(line: bytes, why: str) -> None:
    """A wrong line is told by its number; nothing of the file counts."""
    found = parse_list(b"10.0.0.1\n# x\n" + line + b"\n10.0.0.2\n", "lists/l.txt")
    (problem,) = found.problems
    assert (problem.file, problem.line, problem.path) == ("lists/l.txt", 3, "")
    assert why in problem.message
    assert problem.text().startswith("lists/l.txt:3: error: ")
    assert render(problem) == problem.text()
    assert problem.text().isprintable()
    assert found.addresses == AddressSet()


def test_a_flood_of_wrong_lines_is_cut() -> None:
    """Twenty lines are shown, and how many more there are."""
    found = parse_list(b"10.0.0.1\n" + b"x\n" * (MAX_PROBLEMS + 80), "l")
    assert [problem.line for problem in found.problems] == [*range(2, MAX_PROBLEMS + 3)]
    assert found.problems[-1].message == "and 80 more wrong lines below"
    exactly = parse_list(b"x\n" * MAX_PROBLEMS, "l").problems
    assert len(exactly) == MAX_PROBLEMS
    assert all("is no IP address" in problem.message for problem in exactly)


def test_too_many_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list beyond the limits is refused at the line of the config that names it."""
    monkeypatch.setattr(config_lists, "MAX_ENTRIES", 3)
    (tmp_path / "l").write_text("10.0.0.1\n" * 3)
    assert config_of(tmp_path, "block: ['file:l']").warnings == []
    (tmp_path / "l").write_text("10.0.0.1\n" * 4)
    (problem,) = refused(tmp_path, "block: ['file:l']")
    assert problem.message == "the list file l: has more than 3 entries"
    monkeypatch.setattr(config_lists, "MAX_LIST_BYTES", 8)
    (problem,) = refused(tmp_path, "block: ['file:l']")
    assert "is larger than" in problem.message


def test_files_that_cannot_be_had(tmp_path: Path) -> None:
    """No file, a directory and a FIFO are errors at the entry, by name; all in one go."""
    os.mkfifo(tmp_path / "fifo")
    rules = "allow: ['file:none.txt', 10.0.0.1, 'file:.'], block: ['file:fifo', 'file:none.txt']"
    found = refused(tmp_path, rules)
    at = "routes[0].security."
    assert [(problem.path.removeprefix(at), problem.message) for problem in found] == [
        ("allow[0]", "the list file none.txt: cannot be read: No such file or directory"),
        ("allow[2]", "the list file .: is a directory"),
        ("block[0]", "the list file fifo: is no regular file"),
        ("block[1]", "the list file none.txt: cannot be read: No such file or directory"),
    ]
    config = str(tmp_path / "p.yaml")
    assert {(problem.file, problem.line, problem.code) for problem in found} == {
        (config, 2, "file")
    }
    assert all(problem.col > 0 for problem in found)


def test_all_faults_in_one_go(tmp_path: Path) -> None:
    """Faults of the config come first, then those of each list once, even beside wrong types."""
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "a.txt").write_text("10.0.0.1\nx\n")
    (tmp_path / "lists" / "b.txt").write_text("y\n")
    rules = "allow: ['file:lists/b.txt', 'file:lists/a.txt'], block: ['file:lists/a.txt']"
    head = "half_open: maybe\nsecurity: {block: ['file:lists/a.txt', nonsense]}\n"
    found = refused(tmp_path, rules, head)
    places = [(Path(problem.file).name, problem.line) for problem in found]
    assert places == [("p.yaml", 1), ("p.yaml", 2), ("a.txt", 2), ("b.txt", 1)]
    assert found[1].path == "security.block[1]"
    assert found[2].text() == (
        f"{tmp_path}/lists/a.txt:2: error: 'x' is no IP address, CIDR (10.0.0.0/8),"
        " range (10.0.0.1-10.0.0.9) or glob (192.168.1.*)"
    )


def test_lists_beside_wrong_entries_are_read_in_the_same_go(tmp_path: Path) -> None:
    """Whoever mends the config need not come back for the faults of its list files."""
    (tmp_path / "a.txt").write_text("10.0.0.1\nbogus\n")
    problems = refused(
        tmp_path,
        "allow: ['file:a.txt', wrong], max_connections: -1",
        "security: {block: ['file:none.txt', 'file:a.txt'], foo: 1}\n",
    )
    assert sorted((Path(each.file).name, each.path, each.line) for each in problems) == [
        ("a.txt", "", 2),
        ("p.yaml", "routes[0].security.allow[1]", 3),
        ("p.yaml", "routes[0].security.max_connections", 3),
        ("p.yaml", "security.block[0]", 1),
        ("p.yaml", "security.foo", 1),
    ]


def test_paths_start_at_the_config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is that of the config's directory, wherever proxyctl was started."""
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "a.txt").write_text("10.0.0.1\n")
    (tmp_path / "conf").mkdir()
    monkeypatch.chdir("/")
    rules = f"block: ['file:../lists/a.txt', 'file:{tmp_path}/lists/a.txt']"
    (route,) = config_of(tmp_path / "conf", rules).config.routes
    assert [entry.addresses for entry in route.security.block] == [set_of("10.0.0.1")] * 2


def test_without_a_file_paths_start_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A config from standard input has its lists in the current directory."""
    (tmp_path / "a.txt").write_text("10.0.0.1\n")
    monkeypatch.chdir(tmp_path)
    text = ROUTES.replace("RULES", "block: ['file:a.txt']")
    config: Config = load_bytes(text.encode(), "<stdin>", "yaml").config
    assert config.routes[0].security.block[0].addresses == set_of("10.0.0.1")


def test_lists_are_read_again(tmp_path: Path) -> None:
    """Each check reads the lists anew."""
    (tmp_path / "a.txt").write_text("10.0.0.1\n")
    before = config_of(tmp_path, "block: ['file:a.txt']").config
    (tmp_path / "a.txt").write_text("10.0.0.2\n")
    after = config_of(tmp_path, "block: ['file:a.txt']").config
    assert before.routes[0].security.block[0].addresses == set_of("10.0.0.1")
    assert after.routes[0].security.block[0].addresses == set_of("10.0.0.2")


def test_a_list_is_read_once_for_a_config(tmp_path: Path) -> None:
    """However many entries name a file, all of them get the same content."""
    (tmp_path / "a.txt").write_text("10.0.0.1\n")
    lists = ListFiles(tmp_path)
    first, is_new = lists.read("a.txt")
    (tmp_path / "a.txt").write_text("10.0.0.2\n")
    assert is_new
    assert lists.read("a.txt") == (first, False)
    for _ in range(2):
        with pytest.raises(ReadError, match="No such file"):
            lists.read("none.txt")
