"""Which form of a module runs, where it stands twice: as source, and compiled from it (setup.py).

Python takes the compiled ones; with PROXYCTL_PURE=1 in the environment it takes the source.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, SourceFileLoader


def heed(directories: Iterable[str]) -> None:
    """For the modules of a package, by its ``__path__``; to be called before they are imported."""
    if os.environ.get("PROXYCTL_PURE") == "1":
        for directory in directories:
            finder = FileFinder(directory, (SourceFileLoader, SOURCE_SUFFIXES))
            sys.path_importer_cache[directory] = finder
