"""The reference and the examples: what the documentation shows is what the code takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.config_file import load
from supervisor.config_reference import reference
from tests.helpers.example_files import NAMES, copy_examples

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the examples, with their certificates."""
    return copy_examples(tmp_path_factory.mktemp("docs"))


def test_reference_is_up_to_date() -> None:
    """docs/config.md is what ``python -m supervisor.config_reference`` prints."""
    assert (DOCS / "config.md").read_text() == reference()


@pytest.mark.parametrize("name", NAMES)
def test_example_is_accepted_without_warning(name: str, examples: Path) -> None:
    """Every example file is a config that may be served as it is."""
    loaded = load(examples / name)
    assert loaded.warnings == []
    assert loaded.config.routes


def test_there_are_examples_of_each_format() -> None:
    """YAML, JSON and TOML are all shown."""
    assert {Path(name).suffix for name in NAMES} == {".yaml", ".json", ".toml"}
