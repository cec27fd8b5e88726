"""Damaged files of every format: a config or a ConfigError, never anything else."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from shared.config import Config
from shared.errors import ConfigError, Problem
from shared.plan import Endpoints, Plan
from supervisor.compile import ListenerIds, compile_plan, names_of
from supervisor.config_file import FORMATS, Format, load_bytes
from supervisor.config_positions import render
from tests.helpers.example_files import NAMES, copy_examples

ROUNDS = 250  # per example
PIECES = [
    *(
        b"",
        b" ",
        b"\n",
        b"\t",
        b"\x00",
        b"\xff",
        b"\xc3\xa9",
        b"\x1b",
        b"\xef\xbb\xbf",
        b"\xe2\x80\xa8",
    ),
    *(b"{", b"}", b"[", b"]", b",", b":", b'"', b"'", b"&a ", b"*a", b"!!int ", b"<<: ", b"---\n"),
    *(b"null", b"true", b"-1", b"1e999", b"0", b"999999", b"9" * 30, b"\\ud800", b"\\", b"#", b"|"),
    *(b"[" * 60, b"- ", b"? ", b"%YAML 9.9\n", b"security", b"handler", b"\r", b"=", b"[[a]]\n"),
]


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the examples, with the files that they name."""
    return copy_examples(tmp_path_factory.mktemp("docs"))


def read(data: bytes, path: Path) -> Config | list[Problem]:
    """The config of the bytes in place of the file's own, or what is wrong with them."""
    format_: Format = FORMATS[path.suffix]
    try:
        return load_bytes(data, "f", format_, path.parent).config
    except ConfigError as exc:
        return exc.problems


def damage(data: bytes, dice: random.Random) -> bytes:
    """One to four cuts, doublings or strange bytes."""
    for _ in range(dice.randint(1, 4)):
        start = dice.randrange(len(data) + 1)
        end = min(len(data), start + dice.choice([0, 1, 3, 10, 40]))
        middle = dice.choice([dice.choice(PIECES), data[start:end] * 2, dice.choice(PIECES)])
        data = data[:start] + middle + data[end:]
    return data


@pytest.mark.parametrize("name", NAMES)
def test_damaged_files(name: str, examples: Path) -> None:
    """Bytes that were damaged anywhere are refused with problems that can be shown, or served."""
    path = examples / name
    dice = random.Random(name)
    data = path.read_bytes()
    refused = 0
    for _ in range(ROUNDS):
        text = damage(data, dice)
        config = read(text, path)
        if isinstance(config, list):
            refused += 1
            assert config, text
            shown = "\n".join(render(problem) for problem in config)
            assert shown.replace("\n", "").replace("\t", "").isprintable(), text
            continue
        names_of(config)
        nowhere = Endpoints(addresses={})
        ids = ListenerIds()
        plan = compile_plan(config, generation=1, slots=1, listener_ids=ids, endpoints=nowhere)
        assert isinstance(plan, Plan)
    assert refused > ROUNDS // 4


@pytest.mark.parametrize("name", NAMES)
def test_files_that_end_early(name: str, examples: Path) -> None:
    """A file cut at any byte, as by a full disk, gives a config or a ConfigError."""
    path = examples / name
    data = path.read_bytes()
    step = max(1, len(data) // 200)
    cut = [read(data[:end], path) for end in range(0, len(data), step)]
    assert all(isinstance(found, Config) or found for found in cut)
    assert isinstance(cut[0], list)
