"""Pytest plugin: `@pytest.mark.program("haproxy")` on a test that needs a system program.

Without the program the test is skipped and says what to install; with CI=true that is a failure,
so that a machine which lacks something cannot pass for one that ran everything. A name with
".so" is an nginx module.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

import pytest

# Where Debian puts daemons; a user's PATH lacks them.
_SYSTEM_PATH: Final = "/usr/sbin:/sbin:/usr/local/sbin"
_NGINX_MODULES: Final = Path("/usr/lib/nginx/modules")
_PACKAGES: Final = {
    "ngx_stream_module.so": "libnginx-mod-stream",
    "ip": "iproute2",
    "ss": "iproute2",
    "ps": "procps",
}


def find_program(name: str) -> str | None:
    """The path of a system program or nginx module; None when it is not installed."""
    if name.endswith(".so"):
        module = _NGINX_MODULES / name
        return str(module) if module.exists() else None
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM_PATH}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose program is missing; with CI=true fail it."""
    for marker in item.iter_markers("program"):
        for name in marker.args:
            if find_program(name) is not None:
                continue
            reason = f"{name} is not installed (apt install {_PACKAGES.get(name, name)})"
            if os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
                pytest.fail(reason, pytrace=False)
            pytest.skip(reason)
