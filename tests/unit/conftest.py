"""What several unit tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.tls_config import make_certs


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the files that configs with TLS name."""
    return make_certs(tmp_path_factory.mktemp("certs"))
