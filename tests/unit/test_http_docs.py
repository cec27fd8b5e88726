"""docs/http.md: every config in it is one that may be served as it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shared.plan import Endpoints
from supervisor.compile import ListenerIds, compile_plan
from supervisor.config_file import load_bytes
from tests.helpers.example_files import copy_examples
from tests.helpers.http_config import HASH

DOCUMENT = (Path(__file__).parents[2] / "docs" / "http.md").read_text()
HEADINGS = re.compile(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"```yaml\n(.*?)```", re.DOTALL)
EXAMPLES = [
    pytest.param(text, id=heading)
    for heading, section in HEADINGS.findall(DOCUMENT)
    for text in BLOCK.findall(section)
]
PAGES = ("robots.txt", "404.html", "sorry.html", "shop-sorry.html", "maintenance.html")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the certificates, pages and users that the examples name."""
    found = copy_examples(tmp_path_factory.mktemp("docs"))
    pages = found / "pages"
    pages.mkdir()
    for name in PAGES:
        (pages / name).write_text(name)
    (pages / "users").write_text(f"ops-alice:{HASH}\n")
    return found


def test_every_block_is_an_example() -> None:
    """No block is left out by the pattern that finds them."""
    assert len(EXAMPLES) == DOCUMENT.count("```") // 2 >= 10


@pytest.mark.parametrize("text", EXAMPLES)
def test_example(text: str, folder: Path) -> None:
    """It is accepted without a warning, and every route that shows HTTP speaks it."""
    loaded = load_bytes(text.encode(), "http.md", "yaml", folder)
    assert loaded.warnings == []
    plan = compile_plan(
        loaded.config,
        generation=1,
        slots=1,
        listener_ids=ListenerIds(),
        endpoints=Endpoints(addresses={}),
    )
    assert all(route.http is not None for route in plan.routes)
