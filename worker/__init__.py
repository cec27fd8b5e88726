"""The data plane: one process that accepts, routes and relays.

The modules of the hot path may stand here twice, as source and compiled from it (setup.py). Python
takes the compiled ones; with PROXYCTL_PURE=1 in the environment it takes the source.
"""

import os
import sys
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, SourceFileLoader

if os.environ.get("PROXYCTL_PURE") == "1":
    for _directory in __path__:
        _finder = FileFinder(_directory, (SourceFileLoader, SOURCE_SUFFIXES))
        sys.path_importer_cache[_directory] = _finder
