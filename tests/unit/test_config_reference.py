"""The reference and the examples: what the documentation shows is what the code takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.config_file import load
from supervisor.config_reference import reference

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = sorted(path for path in (DOCS / "examples").iterdir() if path.is_file())


def test_reference_is_up_to_date() -> None:
    """docs/config.md is what ``python -m supervisor.config_reference`` prints."""
    assert (DOCS / "config.md").read_text() == reference()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_is_accepted_without_warning(path: Path) -> None:
    """Every example file is a config that may be served as it is."""
    loaded = load(path)
    assert loaded.warnings == []
    assert loaded.config.routes


def test_there_are_examples_of_each_format() -> None:
    """YAML, JSON and TOML are all shown."""
    assert {path.suffix for path in EXAMPLES} == {".yaml", ".json", ".toml"}
