"""Compiles the modules of the hot path with mypyc; everything else stands in pyproject.toml.

The same files run as they are where there is no compiler, and with PROXYCTL_PURE=1.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

from setuptools import Extension, setup


def compiled() -> list[Extension]:
    """The extension modules; a machine without a C compiler goes on without them."""
    if os.environ.get("PROXYCTL_PURE") == "1":
        return []
    from mypyc.build import mypycify

    root = Path(__file__).parent
    modules = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["proxyctl"]["compiled"]
    paths = [module.replace(".", "/") + ".py" for module in modules]
    options = ["--config-file", "", "--strict", "--explicit-package-bases"]
    made: list[Extension] = mypycify(
        [*options, "--ignore-missing-imports", *paths],
        opt_level="3",
        debug_level="0",
        group_name="worker.hot_path",
    )
    for extension in made:
        extension.optional = True
    return made


setup(ext_modules=compiled())
