"""The examples of docs/examples with the certificates that they name, made when a test runs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from tests.helpers.certificates import Authority, write

FOLDER: Final = Path(__file__).parents[2] / "docs" / "examples"
NAMES: Final = sorted(path.name for path in FOLDER.iterdir() if path.is_file())
_PASSWORD: Final = "of the example"


def copy_examples(directory: Path) -> Path:
    """The examples in ``directory``, with their lists and certificates; returns their folder."""
    folder = directory / "examples"
    shutil.copytree(FOLDER, folder)
    certs = folder / "certs"
    certs.mkdir()
    root = Authority(certs, "ca")
    shutil.copy(root.cert, certs / "ca.pem")
    root.leaf("example.com", "*.example.com", stem="example.com")
    root.leaf("example.net", key="rsa", stem="example.net")
    root.leaf("office.example.com", stem="office.example.com")
    root.leaf("api.example.com", stem="api.example.com", password=_PASSWORD)
    root.client("proxy", stem="client-proxy")
    write(certs / "password", f"{_PASSWORD}\n".encode())
    return folder
