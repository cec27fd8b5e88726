"""The examples of docs/proxy-protocol.md and what the package exports."""

from __future__ import annotations

import ast
import doctest
from pathlib import Path

import shared.proxy_protocol as package

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "proxy-protocol.md"


def test_examples_run() -> None:
    """Every example of the page gives what the page says."""
    failed, attempted = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8")
    assert attempted > 20
    assert failed == 0


def test_every_export_exists_and_is_documented() -> None:
    """Each exported name exists, and each exported function or class has a docstring."""
    for name in package.__all__:
        exported = getattr(package, name)
        if callable(exported) and getattr(exported, "__module__", "").startswith("shared."):
            assert exported.__doc__, name


def test_page_names_every_tlv() -> None:
    """Each name that the command line takes stands in the page's table."""
    page = PAGE.read_text()
    for name in package.TLV_NAMES:
        assert f"`{name}" in page, name


def test_package_does_no_io() -> None:
    """The codec imports nothing that reaches a socket, a clock, a file or a log."""
    allowed = {
        "__future__",
        "binascii",
        "collections",
        "enum",
        "msgspec",
        "shared",
        "struct",
        "typing",
    }
    for path in sorted((ROOT / "shared" / "proxy_protocol").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= allowed, path.name
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] in allowed, path.name
