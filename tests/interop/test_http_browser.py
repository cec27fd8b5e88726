"""A headless Chromium: a page over TLS, a form, and a WebSocket that lives through reloads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.helpers.http_browser import PROGRAM, Browser
from tests.helpers.http_site import HttpSite, Servers, http_route
from tests.helpers.targets import dual_ports
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.program(PROGRAM)

OPEN_WEBSOCKET = """
new Promise((done, failed) => {
  window.heard = []; window.ended = 0;
  window.talk = new WebSocket(`wss://${location.host}/ws`);
  talk.onmessage = (event) => heard.push(event.data);
  talk.onclose = () => { ended += 1 };
  talk.onopen = () => done(true);
  talk.onerror = () => failed(new Error("no WebSocket"));
})"""


class Place(HttpSite):
    """A site with uvicorn behind it, and the browser."""

    servers: Servers
    browser: Browser


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Of one test."""
    with ExitStack() as stack:
        servers = Servers(tmp_path, ("uvicorn",))
        stack.callback(servers.end)
        site = Place(tmp_path / "site", servers.routes())
        stack.callback(site.end)
        site.servers = servers
        site.start()
        site.browser = Browser(tmp_path, servers.files)
        stack.callback(site.browser.end)
        yield site


def test_browser(place: Place) -> None:
    """It loads, posts, fetches many at a time, and talks on while routes are replaced."""
    browser = place.browser
    port = place.servers.ports["uvicorn", "https"]
    base = f"https://site.example:{port}"
    browser.open(f"{base}/page")
    assert browser.run("document.title") == "loaded"
    assert browser.run(OPEN_WEBSOCKET) is True
    for number in range(3):
        (more,) = dual_ports(1)
        target = place.servers.addresses["uvicorn"]
        place.reload([*place.servers.routes(), http_route(f"new-{number}", more, target)])
        browser.run(f"talk.send('word {number}')")
        browser.wait(f"heard.length === {number + 1}")
        sizes = browser.run(
            "Promise.all([...Array(12)].map((_, n) => fetch(`/file?${n}`)"
            ".then(answer => answer.arrayBuffer()).then(data => data.byteLength)))"
        )
        assert sizes == [102_400] * 12
    assert browser.run("heard") == ["word 0", "word 1", "word 2"]
    assert browser.run("ended") == 0
    browser.run("document.forms[0].word.value = 'grüße & more'; document.forms[0].submit()")
    browser.wait("location.pathname === '/posted' && document.title !== ''")
    assert browser.run("document.title") == "word=gr%C3%BC%C3%9Fe+%26+more"
    assert browser.run("location.host") == f"site.example:{port}"
    (posted,) = place.wait_lines(1, path="/posted")
    assert (posted["method"], posted["status"], posted["host"]) == ("POST", 200, "site.example")
    wait_until(lambda: fetched(place) >= 36, "each worker has written its lines")
    assert fetched(place) == 36


def fetched(place: Place) -> int:
    """How many files the log has."""
    return sum(line["path"].startswith("/file?") for line in place.lines(status=200))
