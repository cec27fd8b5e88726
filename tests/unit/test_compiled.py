"""The hot path as the workers run it: compiled by mypyc, or from source with PROXYCTL_PURE=1."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())
MODULES: Final[list[str]] = PROJECT["tool"]["proxyctl"]["compiled"]
IN_C: Final = ("worker.openssl", "worker.sockets", "worker.syscalls")
IS_PURE: Final = os.environ.get("PROXYCTL_PURE") == "1"
TELL: Final = """
import importlib, sys
for name in sys.argv[1:]:
    print(importlib.import_module(name).__file__)
"""


def source(module: str) -> Path:
    """The file of a module."""
    return ROOT / (module.replace(".", "/") + ".py")


@pytest.mark.parametrize("module", [*MODULES, *IN_C])
def test_the_tests_run_what_users_run(module: str) -> None:
    """Each module is the compiled one, unless the source was asked for."""
    file = importlib.import_module(module).__file__ or ""
    wanted = ".py" if IS_PURE else ".so"
    assert file.endswith(wanted), "install gcc and Python's headers, then `make build`"


def test_the_source_runs_where_it_is_asked_for() -> None:
    """PROXYCTL_PURE=1 leaves every compiled module of the workers aside."""
    environment = {**os.environ, "PROXYCTL_PURE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", TELL, *MODULES, *IN_C],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.split() == [str(source(module)) for module in (*MODULES, *IN_C)]


@pytest.mark.parametrize("module", MODULES)
def test_no_call_stands_in_a_slice(module: str) -> None:
    """mypyc works out the bounds of a slice twice: ``view[: f()]`` would call f twice."""
    tree = ast.parse(source(module).read_text())
    lines = [
        inner.lineno
        for outer in ast.walk(tree)
        if isinstance(outer, ast.Slice)
        for inner in ast.walk(outer)
        if isinstance(inner, ast.Call | ast.NamedExpr | ast.Await)
        and not (isinstance(inner, ast.Call) and is_len(inner))
    ]
    assert lines == []


def is_len(call: ast.Call) -> bool:
    """Whether to call it twice changes nothing."""
    return isinstance(call.func, ast.Name) and call.func.id == "len"
