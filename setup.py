"""Compiles the modules of the hot path with mypyc; everything else stands in pyproject.toml.

The same files run as they are where there is no compiler, and with PROXYCTL_PURE=1.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

from setuptools import Extension, setup

ROOT = Path(__file__).parent


def compiled() -> list[Extension]:
    """The extension modules; a machine without a C compiler goes on without them."""
    if os.environ.get("PROXYCTL_PURE") == "1":
        return []
    from mypyc.build import mypycify

    modules = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["proxyctl"]["compiled"]
    options = ["--config-file", "", "--strict", "--explicit-package-bases"]
    made: list[Extension] = mypycify(
        [
            *options,
            "--ignore-missing-imports",
            "--follow-imports=silent",  # a build has not all that the rest imports
            *(module.replace(".", "/") + ".py" for module in modules),
        ],
        opt_level="3",
        debug_level="0",
        group_name="worker.hot_path",
    )
    for extension in made:
        extension.optional = True
    return made


setup(ext_modules=compiled())
for built in ROOT.glob("worker/*.so"):
    built.touch()  # what had not changed is not written anew; the tests compare times
