"""Compiles the modules of the hot path with mypyc; everything else stands in pyproject.toml.

The same files run as they are where there is no compiler, and with PROXYCTL_PURE=1.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

from setuptools import Extension, setup

ROOT = Path(__file__).parent
GROUP = "worker.hot_path"
IN_C = ("worker.openssl", "worker.sockets", "worker.syscalls")  # what mypyc cannot compile
SHARED_CODE = f"{GROUP}__mypyc"  # what all compiled modules have in common


def built_files() -> list[Path]:
    """The compiled modules that stand beside their sources."""
    return [
        one for place in ("shared", "shared/http", "worker") for one in ROOT.glob(f"{place}/*.so")
    ]


def compiled() -> list[Extension]:
    """The extension modules; a machine without a C compiler goes on without them."""
    if os.environ.get("PROXYCTL_PURE") == "1":
        return []
    from mypyc.build import mypycify

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    modules: list[str] = project["tool"]["proxyctl"]["compiled"]
    for built in built_files():
        stem = built.parent / built.name.partition(".")[0]
        if ".".join(stem.relative_to(ROOT).parts) not in (*modules, SHARED_CODE, *IN_C):
            built.unlink()  # of a module that is compiled no more: Python would take it
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
        group_name=GROUP,
    )
    made += [
        Extension(name, [name.replace(".", "/") + ".c"], depends=["worker/calls.h"])
        for name in IN_C
    ]
    for extension in made:
        extension.optional = True
    return made


setup(ext_modules=compiled())
for built in built_files():
    built.touch()  # what had not changed is not written anew; the tests compare times
