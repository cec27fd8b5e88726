"""Pages and files of many KiB from the config to a client, by real processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

import pytest

from tests.helpers.http_site import http_route
from tests.helpers.ports import free_ports
from tests.helpers.processes import Proxyctl, config_of

PAGE: Final = b"<p>Sorry.</p>\n" * 2000
FILE: Final = bytes(range(256)) * 500


class Pages:
    """Two routes with the same page: one answers with a file, one leads nowhere."""

    def __init__(self, directory: Path) -> None:
        self.page = directory / "sorry.html"
        self.page.write_bytes(PAGE)
        (directory / "file.bin").write_bytes(FILE)
        self.port, nowhere = free_ports(2)
        routes = [
            http_route("all", self.port, f"127.0.0.1:{nowhere}"),
            {
                "name": "file",
                "match": {"ports": [self.port], "paths": ["/file"]},
                "action": {"type": "respond", "file": "file.bin"},
            },
        ]
        http = {"error_pages": {"502": "sorry.html"}}
        self.proxy = Proxyctl(directory, {**config_of({}), "http": http, "routes": routes})

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body."""
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=20)) as client:
            client.request("GET", path)
            found = client.getresponse()
            return found.status, found.read()


@pytest.fixture
def pages(tmp_path: Path) -> Iterator[Pages]:
    """Running."""
    found = Pages(tmp_path)
    try:
        found.proxy.start()
        yield found
    finally:
        found.proxy.end()


def test_long_pages_and_files_are_served_and_read_again(pages: Pages) -> None:
    """By every worker as they are; a reload serves what is in the file by then."""
    for _ in range(8):
        assert pages.get("/file") == (200, FILE)
        assert pages.get("/nowhere") == (502, PAGE)
    pages.page.write_bytes(PAGE * 2)
    code, answer = pages.proxy.run("reload")
    assert code == 0, answer
    assert pages.get("/nowhere") == (502, PAGE * 2)
    assert pages.get("/file") == (200, FILE)
