"""Modules as Python's source, where a compiled one stands beside it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Final

_ROOT: Final = Path(__file__).parents[2]


def from_source(name: str) -> ModuleType:
    """The module of this name, anew; the one that is imported stays as it is."""
    path = _ROOT / (name.replace(".", "/") + ".py")
    spec = importlib.util.spec_from_file_location(f"{path.stem}_source", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
